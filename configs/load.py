"""YAML -> dataclasses, every mistake of a file at once.

Each problem names its path in the file, what was expected, what was found and what to do. An unknown key is an error
that names the nearest valid one. YAML is read as YAML 1.2 has it: `no` and `yes` are words, `1e-5` is a number;
a key given twice, an alias or an anchor is an error.

>>> study_from({"name": "x", "sead": 1}, source="study.yaml")
Traceback (most recent call last):
    ...
configs.errors.ConfigError: study.yaml: 10 problems
  purpose: expected text, found nothing; add it
  task: expected a mapping with type and target, found nothing; add it
  features: expected a mapping of columns, found nothing; add it
  model: expected a mapping with a name, found nothing; add it
  patient_id: expected the column that says whose a row is, or null, found nothing; write null if a row is a patient
  training: expected a mapping with strategy, rounds, local, found nothing; add it
  privacy: expected a mapping with a mode, found nothing; add it
  evaluation: expected a mapping with test_fraction or split_column, found nothing; add it
  training.quorum: expected a number of hospitals, found nothing; add it, or announce the cohort
  sead: unknown key; did you mean 'seed'?
"""

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from configs.errors import ConfigError
from configs.federated import FEDERATED
from configs.schema import (
    ID_STEPS,
    METRICS,
    MODELS,
    PER_PATIENT,
    CohortMember,
    DataSource,
    Evaluation,
    EvaluationRelease,
    Feature,
    Local,
    Model,
    Privacy,
    Strategy,
    Study,
    Task,
    TaskType,
    Training,
)
from configs.sections import COLUMN_NAME, Section, kind_of
from configs.shown import flaw_of, short
from configs.source import data_source
from configs.strict_yaml import read_yaml

MAX_ROUNDS = 100_000
MAX_EPSILON = 100.0
MAX_SPARE = 1_000
MIN_BINS, MAX_BINS, DEFAULT_BINS = 2, 100, 10  # of a noisy histogram: each more is fewer patients to as much noise
SITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def load_study(path: Path | str) -> Study:
    """Read one study file; relative data paths are taken from the file's folder.

    Raises:
        ConfigError: the file cannot be read or holds mistakes; all of them are listed.
    """
    path = Path(path)
    return study_from(read_yaml(path), source=str(path), folder=path.resolve().parent)


def study_from(document: Any, source: str = "study", folder: Path = Path(".")) -> Study:
    """Judge a study given as plain values: a YAML document, or the parsed canonical form that came over the wire.

    Raises:
        ConfigError: with every problem of the document.
    """
    top = Section(document if isinstance(document, Mapping) else {}, "", [])
    if not isinstance(document, Mapping):
        raise ConfigError(source, [f"expected a mapping of keys, found {kind_of(document)}; see configs/presets"])
    version = top.optional_text("version")
    study = _study(top, folder)
    if version not in (None, "archipel-study/1"):
        top.problem("version", "'archipel-study/1'", version, "use a matching release of Archipel")
    top.finish()
    if top.problems:
        raise ConfigError(source, top.problems)
    return study


def _study(top: Section, folder: Path) -> Study:
    name = top.text("name", "a name of a-z, 0-9, - and _", SITE_NAME)
    purpose = top.text("purpose")
    task = _task(top.section("task", "a mapping with type and target"))
    features = _features(top.section("features", "a mapping of columns"))
    if task.type == "statistics":
        return _statistics(top, folder, name, purpose, task, features)
    model = _model(top.section("model", "a mapping with a name"), task)
    patient_id, normalise = _patient_id(top)
    cohort = _cohort(top.section("cohort", "a mapping of hospital: announced patients", required=False))
    training_section = top.section("training", "a mapping with strategy, rounds, local")
    privacy_section = top.section("privacy", "a mapping with a mode")
    if privacy_section.take("mode") == "local" and top.take("cohort") in (None, {}):
        why = "noise, rate and steps follow from these public numbers, never from a count"
        advice = f"{why}: add cohort: {{HOSPITAL: PATIENTS}}, round numbers will do"
        top.problem("cohort", "each hospital's announced patients", None, advice)
    evaluation = _evaluation(top.section("evaluation", "a mapping with test_fraction or split_column"), task)
    training = _training(training_section, cohort, top)
    study = Study(
        name=name,
        purpose=purpose,
        task=task,
        patient_id=patient_id,
        normalise=normalise,
        features=features,
        cohort=cohort,
        scaling=top.choice("scaling", ("public", "site"), "public"),
        model=model,
        training=training,
        privacy=_privacy(privacy_section, cohort),
        evaluation=evaluation,
        seed=top.integer("seed", 0, 2**32 - 1, 0),
        simulation=_simulation(top.section("simulation", "a mapping with sites", required=False), folder),
    )
    _check_together(study, top)
    return study


def _patient_id(top: Section) -> tuple[str | None, tuple[str, ...]]:
    """The column that says whose a row is, None where a row is a patient, and how its ids are written alike."""
    expected = "the column that says whose a row is, or null"
    if "patient_id" not in top.values:
        advice = "write null if a row is a patient"
        top.problem("patient_id", expected, None, advice)
    if not isinstance(top.take("patient_id"), Mapping):
        return top.optional_text("patient_id", expected), ()
    section = top.section("patient_id", expected)
    column = section.text("column", "a column's name", COLUMN_NAME)
    words = section.words("normalise", f"some of {', '.join(ID_STEPS)}")
    if not words:
        section.problem("normalise", f"some of {', '.join(ID_STEPS)}", None, "list them, or write patient_id: COLUMN")
    for word in words:
        if word not in ID_STEPS:
            section.problem("normalise", f"some of {', '.join(ID_STEPS)}", word, "remove it")
    section.finish()
    return column, tuple(step for step in ID_STEPS if step in words)


# What a study of statistics has no use for, and why a reader of its file might have thought otherwise.
_OF_TRAINING = {
    "model": "no model is trained",
    "evaluation": "there is no model to judge, and everybody is counted",
    "scaling": "values are counted in the bins of their public range",
}


def _statistics(
    top: Section, folder: Path, name: str, purpose: str, task: Task, features: tuple[Feature, ...]
) -> Study:
    """A study that trains nothing. Its release is one round, which needs its quorum as any other."""
    for key, why in _OF_TRAINING.items():
        if top.take(key) is not None:
            top.note(key, f"expected nothing with task.type: statistics, as {why}; remove it")
    patient_id, normalise = _patient_id(top)
    cohort = _cohort(top.section("cohort", "a mapping of hospital: announced patients", required=False))
    rounds = top.section("training", "a mapping with quorum", required=False)
    for key in ("strategy", "rounds", "local", "weights", "average_last"):
        if rounds.take(key) is not None:
            rounds.note(key, "expected nothing with task.type: statistics, as no model is trained; remove it")
    training = Training(
        Strategy("none"), 1, Local(None, 0.0), _quorum(rounds, cohort, top), _round_timeout(rounds), "uniform"
    )
    rounds.finish()
    study = Study(
        name=name,
        purpose=purpose,
        task=task,
        patient_id=patient_id,
        normalise=normalise,
        features=features,
        cohort=cohort,
        model=Model("none"),
        training=training,
        privacy=_privacy(top.section("privacy", "a mapping with a mode"), cohort, trains=False),
        evaluation=Evaluation(),
        seed=top.integer("seed", 0, 2**32 - 1, 0),
        simulation=_simulation(top.section("simulation", "a mapping with sites", required=False), folder),
    )
    _check_together(study, top)
    return study


def _task(section: Section) -> Task:
    kinds: tuple[TaskType, ...] = ("binary", "multiclass", "regression", "statistics")
    kind = section.choice("type", kinds)
    if kind == "statistics":
        return _counted(section)
    target = section.text("target", "a column's name", COLUMN_NAME)
    classes = section.words("classes", "a list of the target's values")
    minimum, maximum = section.range("range", required=kind == "regression")
    if kind == "binary" and classes and len(classes) != 2:
        section.problem("classes", "two values, the outcome second", list(classes), "or leave it out for 0 and 1")
    if kind == "multiclass" and len(classes) < 3:
        section.problem("classes", "three values or more", list(classes) or None, "list every value of the target")
    if kind == "regression" and classes:
        section.problem("classes", "none for a regression", list(classes), "leave it out")
    if kind != "regression" and minimum is not None:
        section.problem("range", "none for a classification", "[low, high]", "leave it out")
    task = Task(
        kind,
        target,
        classes or (("0", "1") if kind == "binary" else ()),
        minimum,
        maximum,
        section.optional_text("unit"),
    )
    section.finish()
    return task


def _counted(section: Section) -> Task:
    """The target of statistics: words, by default 0 and 1, or a number with its range."""
    target = section.text("target", "a column's name", COLUMN_NAME)
    classes = section.words("classes", "a list of the target's values")
    minimum, maximum = section.range("range", required=False)
    if len(classes) == 1:
        section.problem("classes", "two values or more", list(classes), "or leave it out for 0 and 1")
    if classes and minimum is not None:
        section.problem("range", "either classes or range", "[low, high]", "keep one")
    classes = classes or (() if section.take("range") is not None else ("0", "1"))
    unit, bins = section.optional_text("unit"), section.integer("bins", MIN_BINS, MAX_BINS, DEFAULT_BINS)
    section.finish()
    return Task("statistics", target, classes, minimum, maximum, unit, bins)


def _features(section: Section) -> tuple[Feature, ...]:
    features = []
    for name in section.values:
        if not COLUMN_NAME.fullmatch(name):
            section.note(short(name), "expected a column's name of 1 to 128 printable characters; rename it")
        elif flaw := flaw_of(name):
            section.note(short(name), f"{flaw}; rename it")
        features.append(_feature(name, section.section(name, "a mapping with type and range or values")))
    if not features and "features" not in {p.split(":")[0] for p in section.problems}:
        section.note("", "expected at least one column, found none; list the columns that the model reads")
    return tuple(sorted(features, key=lambda feature: feature.name))


def _feature(name: str, column: Section) -> Feature:
    kind = cast(Literal["number", "category"], column.choice("type", ("number", "category")))
    minimum, maximum = column.range("range", required=kind == "number")
    values = column.words("values", "a list of distinct words")
    missing = column.words("missing", "a list of codes that stand for unknown")
    if kind == "category" and len(values) < 2:
        column.problem("values", "at least two values", list(values) or None, "list the public values")
    if kind == "category" and minimum is not None:
        column.problem("range", "none for a category", "[low, high]", "leave it out")
    if kind == "number" and values:
        column.problem("values", "none for a number", list(values), "leave it out, or say type: category")
    if set(missing) & set(values):
        column.problem("missing", "codes that are not values", list(missing), "keep a word in one of the two")
    feature = Feature(name, kind, minimum, maximum, values, column.optional_text("unit"), missing)
    column.finish()
    return feature


def _cohort(section: Section) -> tuple[CohortMember, ...]:
    members = []
    for site in section.values:
        _check_site_name(site, section)
        members.append(CohortMember(site, section.integer(site, 1, 1_000_000_000)))
    return tuple(sorted(members, key=lambda member: member.site))


def _model(section: Section, task: Task) -> Model:
    name = section.choice("name", tuple(MODELS))
    hidden: tuple[int, ...] = ()
    if name == "mlp":
        hidden = _hidden(section)
    init = cast(
        Literal["zeros", "random"], section.choice("init", ("zeros", "random"), "random" if name == "mlp" else "zeros")
    )
    if name == "logistic" and task.type == "regression":
        section.problem("name", "linear or mlp for a regression", name, "change the model or the task")
    if name == "linear" and task.type != "regression":
        section.problem("name", "logistic or mlp for a classification", name, "change the model or the task")
    if name == "mlp" and init == "zeros":
        section.problem("init", "random for an mlp", init, "an mlp of zeros has no gradient to start from")
    section.finish()
    return Model(name, hidden, init)


def _hidden(section: Section) -> tuple[int, ...]:
    found = section.take("hidden")
    if found is None:
        return (64, 32)
    sizes = found if isinstance(found, list) else []
    if 1 <= len(sizes) <= 16 and all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= 65536 for n in sizes):
        return tuple(sizes)
    section.problem("hidden", "a list of layer sizes from 1 to 65536", found, "for example [64, 32]")
    return (64, 32)


def _strategy(section: Section) -> Strategy:
    name = section.choice("name", FEDERATED.names)
    options = tuple(
        (o.name, section.number(o.name, o.expected, o.low, o.high, above=o.above, default=o.default))
        for o in FEDERATED[name].options
    )
    section.finish()
    return Strategy(name, options)


def _local(section: Section) -> Local:
    batch = section.take("batch_size")
    size: int | None = None
    if batch != "full":
        size = section.integer("batch_size", 1, 1_000_000_000) if isinstance(batch, int) else None
        if size is None:
            section.problem("batch_size", "an integer from 1, or full", batch, "full means every patient")
    has_steps = section.take("steps") is not None
    if has_steps and section.take("epochs") is not None:
        section.note("steps", "expected either steps or epochs, found both; keep one")
    local = Local(
        batch_size=size,
        learning_rate=section.number("learning_rate", "a number above 0, at most 1000", 0.0, 1e3, above=True),
        epochs=None if has_steps else section.integer("epochs", 1, 10_000, 1),
        steps=section.integer("steps", 1, 1_000_000) if has_steps else None,
        optimizer=cast(Literal["sgd", "adam"], section.choice("optimizer", ("sgd", "adam"), "sgd")),
        momentum=section.number("momentum", "a number from 0 to 0.999", 0.0, 0.999, default=0.0),
        weight_decay=section.number("weight_decay", "a number from 0 to 10", 0.0, 10.0, default=0.0),
        engine=cast(Literal["auto", "opacus"], section.choice("engine", ("auto", "opacus"), "auto")),
    )
    section.finish()
    return local


def _training(section: Section, cohort: tuple[CohortMember, ...], top: Section) -> Training:
    quorum = _quorum(section, cohort, top)
    weights = cast(
        Literal["public", "uniform"],
        section.choice("weights", ("public", "uniform"), "public" if cohort else "uniform"),
    )
    if weights == "public" and not cohort:
        section.problem("weights", "uniform, as no cohort is announced", weights, "announce the cohort's sizes")
    training = Training(
        strategy=_strategy(section.section("strategy", "a mapping with a name")),
        rounds=section.integer("rounds", 1, MAX_ROUNDS),
        local=_local(section.section("local", "a mapping with batch_size and learning_rate")),
        quorum=quorum,
        round_timeout_s=_round_timeout(section),
        weights=weights,
        average_last=section.number("average_last", "a share of the rounds from 0 to 1", 0.0, 1.0, default=0.0),
    )
    section.finish()
    return training


def _quorum(section: Section, cohort: tuple[CohortMember, ...], top: Section) -> int:
    if section.take("quorum") is None and not cohort:
        top.note("training.quorum", "expected a number of hospitals, found nothing; add it, or announce the cohort")
        section.values = {**section.values, "quorum": 1}
    return section.integer("quorum", 1, len(cohort) or 100_000, len(cohort) or None)


def _round_timeout(section: Section) -> float:
    expected = "seconds above 0, at most a week"
    return section.number("round_timeout_s", expected, 0.0, 604_800.0, above=True, default=600.0)


def _privacy(section: Section, cohort: tuple[CohortMember, ...], trains: bool = True) -> Privacy:
    mode = cast(Literal["local", "none"], section.choice("mode", ("local", "none")))
    if not trains and mode == "none":
        section.problem("mode", "local, as no exact count of patients leaves a hospital", mode, "say mode: local")
    if not trains and mode == "local" and section.take("clip_norm") is not None:
        section.note("clip_norm", "expected nothing with task.type: statistics: a patient counts as one; remove it")
    if mode == "none":
        for key in ("epsilon", "delta", "clip_norm", "spare"):
            if section.take(key) is not None:
                section.note(key, "expected nothing with mode: none; remove it, or say mode: local")
        section.finish()
        return Privacy("none")
    largest = max((member.patients for member in cohort), default=0)
    bound = 1.0 / largest if largest else 0.01
    expected = f"1e-12 <= delta < {f'1/patients (= {bound:.1e})' if largest else '0.01'}"
    privacy = Privacy(
        mode,
        epsilon=section.number(
            "epsilon", f"0.01 to {MAX_EPSILON:g}, {PER_PATIENT}, for the whole study", 0.01, MAX_EPSILON
        ),
        delta=section.number("delta", expected, 1e-12, math.nextafter(bound, 0.0)),
        clip_norm=section.number("clip_norm", "a number from 1e-6 to 1e6", 1e-6, 1e6) if trains else 0.0,
        spare=section.integer("spare", 0, MAX_SPARE, 0),
    )
    section.finish()
    return privacy


def _evaluation(section: Section, task: Task) -> Evaluation:
    known = METRICS[task.type]
    metrics = section.words("metrics", f"a list from {', '.join(known)}") or known
    for metric in metrics:
        if metric not in known:
            near = difflib.get_close_matches(metric, known, 1)
            advice = f"did you mean {near[0]!r}?" if near else "remove it"
            section.problem("metrics", f"one of {', '.join(known)} for a {task.type} task", metric, advice)
    split = section.optional_text("split_column", "a column's name")
    if split is not None and section.take("test_fraction") is not None:
        section.note("split_column", "expected either test_fraction or split_column, found both; keep one")
    fraction = 0.0
    if split is None:
        fraction = section.number("test_fraction", "a share of the patients from 0 to 0.9", 0.0, 0.9)
    release = _release(section, task) if section.take("release") is not None else None
    if release and split is None and fraction == 0.0:
        section.note("release", "expected test patients, found test_fraction 0; raise it, or remove release")
    section.finish()
    return Evaluation(fraction, metrics, split, release)


def _release(parent: Section, task: Task) -> EvaluationRelease:
    section = parent.section("release", "a mapping with epsilon and bins")
    if task.type != "binary":
        parent.problem("release", "none for a task that is not binary", task.type, "leave it out")
    release = EvaluationRelease(
        section.number("epsilon", f"0.01 to {MAX_EPSILON:g}, {PER_PATIENT}, beside the training's", 0.01, MAX_EPSILON),
        section.integer("bins", MIN_BINS, MAX_BINS, DEFAULT_BINS),
    )
    section.finish()
    return release


def _simulation(section: Section, folder: Path) -> tuple[tuple[str, DataSource], ...]:
    sites = section.section("sites", "a mapping of hospital: {connector, path}", required=bool(section.values))
    sources = []
    for site in sites.values:
        _check_site_name(site, sites)
        entry = sites.section(site, "a mapping with connector and path")
        sources.append((site, data_source(entry, folder)))
        entry.finish()
    section.finish()
    return tuple(sorted(sources))


def _check_site_name(site: str, section: Section) -> None:
    if not SITE_NAME.fullmatch(site):
        section.note(short(site), "expected a hospital's name of a-z, 0-9, - and _; rename it")


def _check_together(study: Study, top: Section) -> None:
    """What no section can see alone."""
    columns = [feature.name for feature in study.features]
    special = {"task.target": study.task.target, "patient_id": study.patient_id}
    special["evaluation.split_column"] = study.evaluation.split_column
    if study.evaluation.release and not study.private:
        advice = "remove it; without privacy there is no delta to give it at"
        top.note("evaluation.release", f"expected none where privacy.mode is none, found one; {advice}")
    for path, column in special.items():
        if column and column in columns:
            top.note(path, f"expected a column that is not a feature, found {column!r}; remove it from features")
    taken = [column for column in special.values() if column]
    if len(set(taken)) < len(taken):
        top.note("task.target", "target, patient_id and split_column must be three different columns")
    announced, simulated = {m.site for m in study.cohort}, {site for site, _ in study.simulation}
    if announced and simulated and announced != simulated:
        odd = ", ".join(sorted(announced ^ simulated))
        top.note("simulation.sites", f"expected the hospitals of the cohort; differing: {odd}; list the same names")
    if simulated and study.training.quorum > len(simulated):
        top.problem("training.quorum", f"at most {len(simulated)} hospitals", study.training.quorum, "lower it")
    if study.private and study.scaling == "site":
        top.note("scaling", "expected public with privacy, found 'site'; statistics measured on patients would leak")
    if not study.private and study.training.local.engine != "auto":
        top.note("training.local.engine", "expected nothing without privacy, found 'opacus'; remove it")
    batch = study.training.local.batch_size
    told = {problem.partition(":")[0] for problem in top.problems}
    for member in study.cohort if math.isfinite(study.evaluation.test_fraction) else ():
        if f"cohort.{member.site}" in told:  # its number is no number: nothing follows from it
            continue
        available = study.announced_train_patients(member.site) or 0
        if batch is not None and batch > available:
            top.problem(
                "training.local.batch_size",
                f"at most the {available} training patients that {member.site} announced",
                batch,
                "lower it, or write full",
            )
