"""Reading of study files: YAML -> dataclasses, with all mistakes reported at once.

Each problem names its path in the file, what was expected, what was found and what to do. An unknown key is an error
that names the nearest valid one. YAML is read as YAML 1.2 has it: `no` and `yes` are words, `1e-5` is a number;
a key given twice, an alias or an anchor is an error.

>>> study_from({"name": "x", "sead": 1}, source="study.yaml")
Traceback (most recent call last):
    ...
configs.errors.ConfigError: study.yaml: 9 problems
  purpose: expected text, found nothing; add it
  task: expected a mapping with type and target, found nothing; add it
  patient_id: expected the column that says whose a row is, or null, found nothing; write null if a row is a patient
  features: expected a mapping of columns, found nothing; add it
  model: expected a mapping with a name, found nothing; add it
  privacy: expected a mapping with a mode, found nothing; add it
  evaluation: expected a mapping with test_fraction or split_column, found nothing; add it
  sead: unknown key; did you mean 'seed'?
  training: expected settings that a hospital can approve, found nothing; write them: archipel complete study.yaml
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.keys.declare import Key, declaration_of
from configs.keys.values import COLUMN, Around, Text
from configs.marks import Marks
from configs.records import further  # noqa: F401 - Archipel's own further releases declare their keys there
from configs.schema.kit import MAX_ARRAYS, OWN_MASK, OWN_TASK
from configs.schema.study import CANONICAL_VERSION, Study, read_study, study_declaration
from configs.schema.task import TASKS
from configs.sections import Section, kind_of
from configs.shown import short
from configs.slips import slips
from configs.strict_yaml import read_marked

_SUFFIXES = (".yaml", ".yml")  # of a source that is a file


def load_study(path: Path | str) -> Study:
    """Read one study file; relative data paths are taken from the file's folder.

    Raises:
        ConfigError: the file cannot be read, leaves settings open or holds mistakes; all of them are listed.
    """
    marks = read_marked(Path(path))
    return study_of_file(marks.document, Path(path), marks=marks)


def study_of_file(document: Any, path: Path, *, unfinished: bool = False, marks: Marks | None = None) -> Study:
    """Return the study of a file's document, which may have been completed since it was read.

    Args:
        unfinished: whether settings may be left open (`training: auto`): to complete them, and for nothing else.
        marks: the places of the document's keys, where it is just as the file has it.

    Raises:
        ConfigError: with every problem of the document.
    """
    around = {"folder": path.resolve().parent, "looks": True}
    return _study(document, str(path), around, unfinished=unfinished, marks=marks)


def _slips(document: Any, marks: Marks | None) -> list[str]:
    """Return the mistakes of a file's structure, and put them right in its document."""
    if marks is None:
        return []
    task = document.get("task") if isinstance(document, Mapping) else None
    chosen = task.get("type") if isinstance(task, Mapping) else None
    declaration = study_declaration(chosen if isinstance(chosen, str) and chosen in TASKS else TASKS.names[0])
    return slips(document, (*declaration.children, ("", Key("version", Text()))), marks)


def study_from(document: Any, source: str = "study", folder: Path = Path(".")) -> Study:
    """Return the study of plain values: the parsed canonical form that came over the wire. No file is looked for.

    Raises:
        ConfigError: with every problem of the document.
    """
    return _study(document, source, {"folder": folder})


def _study(
    document: Any, source: str, around: Around, *, unfinished: bool = False, marks: Marks | None = None
) -> Study:
    if not isinstance(document, Mapping):
        raise ConfigError(source, [f"expected a mapping of keys, found {kind_of(document)}; see configs/presets"])
    top = Section(document, "", _slips(document, marks), marks)
    version = top.take("version")
    study = read_study(top, around)
    if version not in (None, CANONICAL_VERSION):
        top.problem("version", f"'{CANONICAL_VERSION}'", version, "use a matching release of Archipel")
    _check_columns(study, top)
    _check_hospitals(study, top)
    _check_protection(study, top)
    _check_kit(study, top)
    if study.is_unfinished and not unfinished:
        advice = f"write them: archipel complete {shlex.quote(source) if source.endswith(_SUFFIXES) else 'STUDY'}"
        if study.training.auto:
            top.problem("training", "settings that a hospital can approve", document.get("training"), advice)
        else:
            top.problem("model.start", "the file that a kit's model begins from", None, advice.replace("them", "it"))
    if top.problems:
        raise ConfigError(source, _without_consequences(top.problems))
    return study


def _check_kit(study: Study, top: Section) -> None:
    """Note arrays without the model that they are of, and a start without them."""
    start = getattr(study.model, "start", None)
    if study.task.type in (OWN_TASK, OWN_MASK) and not hasattr(study.model, "start"):
        top.problem(
            "model.name", f"a kit's model with task.type: {study.task.type}", study.model.name, "name one: KIT/MODEL"
        )
    if len(study.arrays) > MAX_ARRAYS:
        top.note("arrays", f"expected at most {MAX_ARRAYS}, found {len(study.arrays)}; use a smaller model")
    if study.arrays and start is None:
        top.note("arrays", "expected none without a kit's model and its start, found some; remove them")
    if start is not None and not study.arrays:
        top.note("arrays", "expected the arrays of the kit's model, found none; write them: archipel complete STUDY")


def _without_consequences(problems: Sequence[str]) -> list[str]:
    """Return the problems without the one that a missing cohort has in the training section."""
    cohort = any(" cohort: " in f" {problem}" for problem in problems)
    return [problem for problem in problems if not (cohort and problem.endswith("; announce the cohort's sizes"))]


def _check_columns(study: Study, top: Section) -> None:
    columns = [feature.name for feature in study.features]
    named = [key for key in declaration_of(TASKS[study.task.type].section).keys if key.value is COLUMN]
    special = [(f"task.{key.name}", getattr(study.task, key.fields[0]) or "") for key in named]
    special += [
        ("patient_id", study.patient_id or ""),
        ("evaluation.split_column", study.evaluation.split_column or ""),
    ]
    for path, column in special:
        if column and column in columns:
            top.note(path, f"expected a column that is not a feature, found {column!r}; remove it from features")
    names = [column for _, column in special if column]
    if len(set(names)) < len(names):
        keys = [path.rpartition(".")[2] for path, _ in special]
        count = {3: "three", 4: "four"}.get(len(keys), str(len(keys)))
        top.note(special[0][0], f"{', '.join(keys[:-1])} and {keys[-1]} must be {count} different columns")


def _check_protection(study: Study, top: Section) -> None:
    """Note what makes no sense with, or without, privacy."""
    mode = study.privacy.keys
    if mode.budgeted and study.scaling == "site":
        text = "expected public with privacy, found 'site'; statistics measured on patients would leak"
        top.note("scaling", text)
    if mode.noised_here:
        return
    if study.evaluation.release:
        advice = "remove it; without privacy there is no delta to give it at"
        top.note("evaluation.release", f"expected none where privacy.mode is {mode.name}, found one; {advice}")
    if study.releases:
        text = f"expected none where privacy.mode is {mode.name}, found some; remove it"
        top.note("releases", text)
    if study.training.local.engine != "auto":
        text = f"expected nothing without privacy, found {study.training.local.engine!r}; remove it"
        top.note("training.local.engine", text)


def _check_hospitals(study: Study, top: Section) -> None:
    """Note where the cohort, the simulation, the quorum and the batches do not fit together."""
    announced, simulated = {m.site for m in study.cohort}, {site for site, _ in study.simulation}
    if announced and simulated and announced != simulated:
        odd = ", ".join(sorted(announced ^ simulated))
        top.note("simulation.sites", f"expected the hospitals of the cohort; differing: {odd}; list the same names")
    _check_who_trains(study, announced or simulated, top)
    batch = study.training.local.batch_size
    wrong = {problem.partition(":")[0] for problem in top.problems}
    for member in study.cohort if math.isfinite(study.evaluation.test_fraction) else ():
        if f"cohort.{member.site}" in wrong:  # its number is no number: nothing follows from it
            continue
        if not study.trains_at(member.site):
            continue
        available = study.announced_train_patients(member.site) or 0
        if batch is not None and batch > available:
            expected = f"at most the {available} training patients that {member.site} announced"
            top.problem("training.local.batch_size", expected, batch, "lower it, or write full")


def _check_who_trains(study: Study, known: set[str], top: Section) -> None:
    """Note hospitals that only test but are none of the study, and a quorum that those who train cannot be."""
    only = set(study.evaluation.test_only)
    if not known or not study.sites:
        return
    if strangers := sorted(only - known):
        top.note(
            "evaluation.test_only", f"expected hospitals of the study, found {short(', '.join(strangers))}; correct it"
        )
    trainers = len(known - only)
    if not trainers:
        top.note("evaluation.test_only", "expected a hospital that trains, found none; take one out")
    elif study.training.quorum > trainers:
        whose = "hospitals that train" if only else "hospitals"
        top.problem("training.quorum", f"at most {trainers} {whose}", study.training.quorum, "lower it")
    if only and study.scaling == "site":
        text = "expected public where a hospital only tests, found 'site'; it has no training patients to scale by"
        top.note("scaling", text)
