"""The study file: every mistake at once, each with its place; the same study has one digest, whatever its spelling."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.federated import FEDERATED
from configs.load import load_study, study_from
from configs.schema import MODELS
from configs.schema.model import axes_of
from configs.strict_yaml import dump_yaml, read_yaml
from strategies.federated.registry import STRATEGIES
from strategies.learning import learning
from strategies.models.registry import ARCHITECTURES

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"
BY_HAND = """
name: heart-disease
purpose: Predict angiographic coronary disease from a routine work-up   # shown to the hospital that reviews it
task: {type: binary, target: disease}
patient_id: null            # column that names the patient; null = one row is one patient
cohort: {cleveland: 300, hungary: 260, switzerland: 120, long_beach_va: 200}   # announced in public, rounded
features:                   # public ranges, agreed beforehand, never measured on patients
  age:  {type: number, range: [20, 90], unit: years}
  sex:  {type: category, values: [female, male]}
model: {name: logistic}     # a name in the registry; a config file can never name code
training:
  strategy: {name: fedavg}
  rounds: 30
  local: {epochs: 1, batch_size: 32, optimizer: sgd, learning_rate: 0.5}
  quorum: 4                 # hospitals that must contribute to every round
  round_timeout_s: 600
  weights: uniform
privacy:
  mode: local
  epsilon: 3.0
  delta: 1.0e-5
  clip_norm: 1.0
evaluation: {test_fraction: 0.34, metrics: [auroc, accuracy, brier]}
seed: 0
"""
Change = Callable[[dict[str, Any]], object]


def document() -> dict[str, Any]:
    """The preset as plain values, without the simulation's paths."""
    values = copy.deepcopy(read_yaml(PRESET))
    del values["simulation"]
    return dict(values)


def changed(*changes: Change) -> dict[str, Any]:
    values = document()
    for change in changes:
        change(values)
    return values


def put(path: str, value: object) -> Change:
    """A change that writes one key; a path's parts are separated by dots."""

    def write(values: dict[str, Any]) -> None:
        *parents, key = path.split(".")
        for parent in parents:
            values = values[parent]
        values[key] = value

    return write


def problems(values: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        study_from(values)
    return caught.value.problems


def test_a_study_written_by_hand_loads(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(BY_HAND)
    study = load_study(path)
    assert (study.training.rounds, study.privacy.delta, study.inputs) == (30, 1e-5, ("age", "sex = male"))
    assert study.training.weights == "uniform"


BAD: list[tuple[str, object, str]] = [
    ("model.name", "logistik", "model.name: expected one of .* 'logistik'; did you mean 'logistic'"),
    ("training.strategy.name", "fedagv", "training.strategy.name: .* did you mean 'fedavg'"),
    ("evaluation.metrics", ["auroc", "acuracy"], "evaluation.metrics: .* did you mean 'accuracy'"),
    ("privacy.epsilon", 0, "privacy.epsilon: expected 0.01 to 100, per patient"),
    ("privacy.epsilon", -1, "privacy.epsilon"),
    ("privacy.epsilon", 1e9, "privacy.epsilon"),
    ("privacy.delta", 0.01, r"privacy.delta: expected 1e-12 <= delta < 1/patients \(= 3.3e-03\), found 0.01"),
    ("privacy.delta", 1e-15, r"privacy.delta: expected 1e-12 <= delta < 1/patients \(= 3.3e-03\), found 1e-15"),
    ("privacy.epsilon", 500, r"privacy.epsilon: expected 0.01 to 100, per patient, .*, found 500"),
    ("privacy.clip_norm", 0, r"privacy.clip_norm: expected a number from 1e-6 to 1e6, found 0"),
    ("privacy.clip_norm", 9.9e-7, r"privacy.clip_norm: expected a number from 1e-6 to 1e6, found 9.9e-07"),
    ("privacy.clip_norm", 1e-28, r"privacy.clip_norm: expected a number from 1e-6 to 1e6, found 1e-28"),
    ("privacy.clip_norm", 1000001, r"privacy.clip_norm: expected a number from 1e-6 to 1e6, found 1000001"),
    ("privacy.delta", 0, "privacy.delta"),
    ("training.local.batch_size", 100, "batch_size: expected at most the 30 training patients that switzerland"),
    ("training.local.batch_size", 0, "training.local.batch_size"),
    ("training.local.batch_size", "all", "training.local.batch_size: expected an integer from 1, or full"),
    ("training.local.engine", "opakus", "training.local.engine: expected one of auto, opacus, .* 'opacus'"),
    ("training.local.learning_rate", 0, "training.local.learning_rate"),
    ("training.local.steps", 3, "training.local.steps: expected either steps or epochs, found both"),
    ("training.quorum", 5, "training.quorum: expected an integer from 1 to 4"),
    ("training.rounds", 0, "training.rounds"),
    ("training.rounds", "20", "training.rounds: expected an integer"),
    ("training.average_last", 2, "training.average_last"),
    ("training.round_timeout_s", 0, "training.round_timeout_s"),
    ("task.target", "age", "task.target: expected a column that is not a feature"),
    ("task.type", "binari", "task.type: .* did you mean 'binary'"),
    ("task.classes", ["a", "b", "c"], "task.classes: expected two values"),
    ("features.age.range", [90, 20], r"features.age.range: expected \[low, high\]"),
    ("features.sex.values", ["male"], "features.sex.values: expected at least two values"),
    ("features.age", None, "features.age: expected a mapping"),
    ("features", {}, "features: expected at least one column"),
    ("evaluation.test_fraction", 1, "evaluation.test_fraction"),
    ("evaluation.split_column", "fold", "split_column: expected either test_fraction or split_column"),
    ("scaling", "site", "scaling: expected public with privacy"),
    ("seed", -1, "seed: expected an integer from 0"),
    ("seed", True, "seed: expected an integer"),
    ("name", "../../etc", "name: expected a name of a-z"),
    ("patient_id", 3, "patient_id: expected the column that says whose a row is, or null, found 3"),
    ("patient_id", {"column": "ipp"}, "patient_id.normalise: expected some of nfkc, case, zeros, found nothing"),
    (
        "patient_id",
        {"column": "ipp", "normalise": ["zero"]},
        "patient_id.normalise: expected some of nfkc, case, zeros",
    ),
    ("patient_id", {"normalise": ["case"]}, "patient_id.column: expected a column's name, found nothing"),
    ("patient_id", {"column": "age", "normalise": ["case"]}, "patient_id: expected a column that is not a feature"),
    ("cohort.Lille", 3, "cohort.Lille: expected a hospital's name"),
    ("cohort.cleveland", 0, "cohort.cleveland: expected an integer from 1"),
    ("cohort", None, r"cohort: expected each hospital's announced patients, found nothing; .*: add cohort: \{HOSPITAL"),
    ("cohort", {}, "cohort: expected each hospital's announced patients, found nothing; noise, rate and steps follow"),
    (
        "features.age.range",
        [100, 20],
        r"features.age.range: expected \[low, high\] with low < high, found \[100, 20\];",
    ),
    ("features.age.range", [[1], 2], r"features.age.range: expected \[low, high\] with low < high, found a list;"),
    ("features.age.range", [0] * 9, r"features.age.range: expected \[low, high\] with low < high, found a list;"),
    ("features.age.range", [0, 10**400], r"features.age.range: expected \[low, high\]"),
    ("privacy.epsilon", 10**400, r"privacy.epsilon: expected 0.01 to 100"),
    ("privacy.spare", -1, r"privacy.spare: expected an integer from 0 to 1000, found -1; correct it"),
    ("privacy.spare", 1001, r"privacy.spare: expected an integer from 0 to 1000, found 1001; correct it"),
    ("privacy.spare", 1.5, r"privacy.spare: expected an integer from 0 to 1000, found 1.5; correct it"),
    ("privacy.spare", "two", r"privacy.spare: expected an integer from 0 to 1000, found 'two'; correct it"),
    ("privacy.spare", True, r"privacy.spare: expected an integer from 0 to 1000, found True; correct it"),
    ("privacy.spares", 2, r"privacy.spares: unknown key; did you mean 'spare'\?"),
    ("privacy.mode", 0, "privacy.mode: expected one of local, none, found 0; choose one"),
    ("task.range", [0, 1], r"task.range: expected none for a classification, found \[0, 1\]; leave it out"),
    ("features.sex.range", "x", "features.sex.range: expected none for a category, found 'x'; leave it out"),
    ("privacy", {"mode": "none", "spare": 2}, r"privacy.spare: expected nothing with mode: none; remove it"),
]


@pytest.mark.parametrize(("path", "value", "expected"), BAD, ids=[f"{p}={v}"[:50] for p, v, _ in BAD])
def test_a_mistake_is_told_with_its_place_and_what_was_expected(path: str, value: object, expected: str) -> None:
    assert [text for text in problems(changed(put(path, value))) if re.search(expected, text)]


@pytest.mark.parametrize("cohort", [{}, None])
def test_without_privacy_or_without_training_no_size_needs_to_be_announced(cohort: object) -> None:
    training = {**document()["training"], "weights": "uniform"}
    plain = changed(put("privacy", {"mode": "none"}), put("cohort", cohort), put("training", training))
    assert study_from(plain).cohort == ()
    counting = read_yaml(PRESET.with_name("heart_statistics.yaml")) | {"cohort": cohort, "simulation": None}
    assert study_from(counting).cohort == ()


def test_of_a_number_of_patients_that_is_none_nothing_else_is_told() -> None:
    batch = put("training.local.batch_size", 20)
    assert problems(changed(batch, put("cohort", {"nord": 200.5}), put("training.quorum", 1))) == (
        "cohort.nord: expected an integer from 1 to 1000000000, found 200.5; correct it",
    )


def test_privacy_settings_without_privacy_are_a_mistake() -> None:
    assert problems(changed(put("privacy.mode", "none")))[0].startswith("privacy.epsilon: expected nothing with mode")


def test_of_a_section_without_its_kind_only_that_is_told() -> None:
    values = changed(lambda d: d["privacy"].pop("mode"), lambda d: d["privacy"].update(epsilom=1))
    assert (
        problems(values)
        == (
            "privacy.epsilom: unknown key; did you mean 'epsilon'?",
            "privacy.mode: expected one of local, none, found nothing; add it",
        )[::-1]
    )


def test_an_engine_without_privacy_is_a_mistake() -> None:
    values = changed(put("privacy", {"mode": "none"}), put("training.local.engine", "opacus"))
    assert problems(values) == ("training.local.engine: expected nothing without privacy, found 'opacus'; remove it",)


@pytest.mark.parametrize("mode", ["local", "none"])
def test_a_study_with_an_engine_or_without_reads_back_from_its_canonical_form(mode: str) -> None:
    privacy = document()["privacy"] if mode == "local" else {"mode": "none"}
    for engine in ("auto", "opacus") if mode == "local" else ("auto",):
        study = study_from(changed(put("privacy", privacy), put("training.local.engine", engine)))
        assert study_from(json.loads(study.canonical)) == study
        assert study.training.local.engine == engine


def test_a_regression_cannot_use_a_logistic_model() -> None:
    task = {"type": "regression", "target": "bmi", "range": [10, 60]}
    told = problems(changed(put("task", task), put("evaluation.metrics", ["mae"])))
    assert told == (
        "model.name: expected linear or mlp for a regression, found 'logistic'; change the model or the task",
    )


def test_every_mistake_of_a_file_is_told_at_once() -> None:
    told = problems(
        changed(
            put("seed", "x"), put("model.name", "cnn"), put("privacy.delta", 2), put("trainig", {}), put("purpose", "")
        )
    )
    paths = {text.partition(":")[0] for text in told}
    assert paths == {"seed", "model.name", "privacy.delta", "trainig", "purpose"}


def all_keys(values: object, path: str = "") -> list[str]:
    if not isinstance(values, dict):
        return []
    inner = [f"{path}{key}" for key in values]
    return inner + [k for key, value in values.items() for k in all_keys(value, f"{path}{key}.")]


KEYS = [key for key in all_keys(document()) if not re.match(r"features\.\w+$|cohort\.\w+$", key)]


@pytest.mark.parametrize("path", KEYS)
def test_a_mistyped_key_is_told_with_the_nearest_valid_one(path: str) -> None:
    *_, key = path.split(".")
    typo = key[:-1] + key[-1] * 2
    values = document()
    parent = values
    for part in path.split(".")[:-1]:
        parent = parent[part]
    parent[typo] = parent.pop(key)
    full = f"{path.rpartition('.')[0]}.{typo}".lstrip(".")
    assert f"{full}: unknown key; did you mean {key!r}?" in problems(values)


def test_order_comments_and_written_out_defaults_do_not_change_the_digest(tmp_path: Path) -> None:
    values = document()
    reordered = dict(reversed(values.items()))
    reordered["features"] = dict(reversed(values["features"].items()))
    reordered["model"] = {"name": "logistic", "init": "zeros"}
    assert study_from(reordered).sha256 == study_from(values).sha256 == load_study(PRESET).sha256


MEANINGFUL = [
    *("name", "purpose", "seed", "training.rounds", "training.quorum", "training.local.learning_rate"),
    *("privacy.epsilon", "privacy.delta", "privacy.clip_norm", "evaluation.test_fraction", "cohort.hungary"),
]


@pytest.mark.parametrize("path", MEANINGFUL)
def test_any_change_that_a_hospital_would_care_about_changes_the_digest(path: str) -> None:
    values = document()
    *parents, key = path.split(".")
    parent = values
    for part in parents:
        parent = parent[part]
    old = parent[key]
    parent[key] = f"{old}x" if isinstance(old, str) else old / 2 if isinstance(old, float) else max(1, old - 1)
    assert study_from(values).sha256 != study_from(document()).sha256


@pytest.mark.parametrize("preset", ["heart_disease.yaml", "heart_statistics.yaml"])
def test_what_is_a_patient_must_be_said(preset: str) -> None:
    values = {k: v for k, v in read_yaml(PRESET.with_name(preset)).items() if k != "simulation"}
    assert study_from(values).patient_id is None
    del values["patient_id"]
    expected = "patient_id: expected the column that says whose a row is, or null, found nothing; write null if a row"
    assert any(expected in problem for problem in problems(values))


def test_how_ids_are_written_alike_is_part_of_the_digest_only_where_it_is_said() -> None:
    by_column = study_from(changed(put("patient_id", "ipp")))
    steps = {"column": "ipp", "normalise": ["zeros", "nfkc"]}
    alike = study_from(changed(put("patient_id", steps)))
    assert by_column.to_dict()["patient_id"] == "ipp"
    assert alike.to_dict()["patient_id"] == {"column": "ipp", "normalise": ["nfkc", "zeros"]}
    assert alike.sha256 != by_column.sha256
    assert study_from(json.loads(alike.canonical)) == alike


def test_the_canonical_form_reads_back_as_the_same_study() -> None:
    study = study_from(document())
    again = study_from(json.loads(study.canonical))
    assert again == study
    assert again.canonical == study.canonical


YAML_TRAPS = {
    "a duplicate key": "name: a\nname: b\n",
    "an alias": "a: &x [1]\nb: *x\n",
    "billion laughs": "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
    "a tag that makes objects": "!!python/object/apply:os.system ['true']\n",
    "binary": "name: !!binary aGk=\n",
    "a tab": "name:\t- x\n\t- y\n",
    "a list": "- 1\n",
    "nothing": "",
    "a word": "hello\n",
    "deep nesting": "[" * 3000 + "]" * 3000,
    "an unhashable key": "{[1, 2]: 3}\n",
    "an infinite number": "seed: .inf\n",
    "a truth value that is none": "name: !!bool often\n",
    "a date that is none": "name: !!timestamp often\n",
    "a mapping that is a list": "name: !!map [[a, b]]\n",
    "an integer of five thousand digits": "seed: " + "9" * 5000 + "\n",
}


@pytest.mark.parametrize("text", YAML_TRAPS.values(), ids=YAML_TRAPS.keys())
def test_unusual_yaml_is_refused_and_never_crashes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_study(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00x", b"a" * 1_000_001], ids=["not UTF-8", "too large"])
def test_a_file_that_is_no_study_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_study(path)


def test_a_missing_file_and_a_folder_are_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_study(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_study(tmp_path)


def test_words_that_yaml_1_1_takes_for_truth_values_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("[no, yes, on, off, y, 1e-5, 0x10, 012]")
    assert read_yaml(path) == ["no", "yes", "on", "off", "y", 1e-5, "0x10", 12.0]


def test_words_that_begin_like_a_truth_value_are_words(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "{purpose: False alarms in the ward, truest: [no, trueish, falsehood], site: true-hospital, a: TRUE}"
    )
    words = {"purpose": "False alarms in the ward", "truest": ["no", "trueish", "falsehood"], "site": "true-hospital"}
    assert read_yaml(path) == words | {"a": True}


def test_what_a_tag_calls_a_truth_value_and_is_none_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nseed: !!bool often\n")
    with pytest.raises(ConfigError, match="line 2, column 7: not valid YAML: 'often' cannot be read as bool; correct"):
        read_yaml(path)


def test_lists_of_words_are_taken_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    text = PRESET.read_text()
    text = text[: text.index("simulation:")].replace("target: disease", "target: disease, classes: [False, True]")
    path.write_text(text.replace("\n  age:", "\n  dose: {type: category, values: [1.50, 2.0, +3, 1e1]}\n  age:"))
    study = load_study(path)
    dose = next(feature for feature in study.features if feature.name == "dose")
    assert (dose.values, study.task.classes) == (("1.50", "2.0", "+3", "1e1"), ("False", "True"))
    assert study_from(json.loads(study.canonical)) == study
    path.write_text(dump_yaml(study.to_dict()))
    assert load_study(path).sha256 == study.sha256


def test_control_characters_never_reach_the_terminal() -> None:
    told = "\n".join(problems(changed(put("model.name", "\x1b[31mred\x07"), put("\x1b[2J", 1))))
    assert all(c.isprintable() or c == "\n" for c in told)


def test_a_long_value_is_shortened() -> None:
    assert all(len(text) < 300 for text in problems(changed(put("model.name", "x" * 5000), put("y" * 5000, 1))))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(PLAIN)
def test_any_document_is_a_study_or_a_list_of_problems(values: object) -> None:
    with pytest.raises(ConfigError) as caught:
        study_from(values)
    assert caught.value.problems


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(all_keys(document())), PLAIN)
def test_any_value_at_any_key_is_accepted_or_told_with_a_place(path: str, value: object) -> None:
    told: tuple[str, ...] = ()
    try:
        study = study_from(changed(put(path, value)))
    except ConfigError as error:
        told = error.problems
    assert told or study_from(json.loads(study.canonical)).sha256 == study.sha256
    assert all(re.match(r".+?: ", text) for text in told)  # a key may hold a colon


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_as_a_file_never_crashes_the_loader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("text") / "study.yaml"
    path.write_text(text, "utf-8", errors="ignore")
    with pytest.raises(ConfigError):
        load_study(path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12), max_size=5))
def test_dumped_words_read_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    path = tmp_path_factory.mktemp("dump") / "x.yaml"
    path.write_text(dump_yaml({"words": words}), "utf-8")
    assert read_yaml(path) == {"words": words}


def test_the_contract_names_exactly_what_the_registries_hold() -> None:
    assert FEDERATED.names == STRATEGIES.names
    study = study_from(document())
    assert MODELS.names == ARCHITECTURES.names
    for name in [name for name in MODELS.names if 0 in axes_of(name)]:
        hidden = {"hidden": [4]} if name == "mlp" else {}
        task = (
            {"type": "regression", "target": "y", "range": [0, 1]}
            if name == "linear"
            else {"type": "binary", "target": "y"}
        )
        made = study_from(
            changed(put("model", {"name": name, **hidden}), put("task", task), put("evaluation.metrics", None))
        )
        assert learning(made.task, made.model, len(study.inputs)).parameters


# Asking how good the model is

ASKS = {"test_fraction": 0.3, "release": {"epsilon": 1.0}}
REGRESSION = {"type": "regression", "target": "disease", "range": [0, 4]}


def asks(**release: Any) -> dict[str, Any]:
    return changed(lambda d: d["evaluation"].update(release=release))


def test_a_study_that_asks_comes_back_from_its_canonical_form() -> None:
    study = study_from(asks(epsilon=0.5))
    assert study.evaluation.release is not None
    assert (study.evaluation.release.epsilon, study.evaluation.release.bins) == (0.5, 10)
    assert study_from(json.loads(study.canonical)).sha256 == study.sha256


def test_asking_makes_another_study_and_not_asking_the_one_of_before() -> None:
    by_hand = study_from(yaml.safe_load(BY_HAND))
    assert (
        by_hand.sha256 == "4f557d8ec0f53d306205ddf7a8c9d39c86d2b301c9941854a397731aba7c16c8"
    )  # of the releases that could not ask
    assert "release" not in by_hand.canonical
    digests = {
        study_from(d).sha256 for d in (document(), asks(epsilon=0.5), asks(epsilon=0.6), asks(epsilon=0.5, bins=9))
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda d: d["evaluation"].update(release={"epsilon": 0}), "evaluation.release.epsilon"),
        (lambda d: d["evaluation"].update(release={"epsilon": 500.0}), "evaluation.release.epsilon"),
        (lambda d: d["evaluation"].update(release={}), "evaluation.release.epsilon"),
        (lambda d: d["evaluation"].update(release={"epsilon": 1.0, "bins": 1}), "evaluation.release.bins"),
        (lambda d: d["evaluation"].update(release={"epsilon": 1.0, "bins": 10**6}), "evaluation.release.bins"),
        (lambda d: d["evaluation"].update(release={"epsilon": 1.0, "exact": True}), "evaluation.release.exact"),
        (lambda d: d["evaluation"].update(release=True), "evaluation.release"),
        (lambda d: d["evaluation"].update(release={"epsilon": 1.0}, test_fraction=0.0), "evaluation.release"),
        (lambda d: d.update(evaluation=ASKS, privacy={"mode": "none"}), "evaluation.release"),
        (lambda d: d.update(evaluation=ASKS, task=REGRESSION, model={"name": "linear"}), "evaluation.release"),
    ],
)
def test_a_release_that_cannot_be_is_refused_with_its_place(change: Change, path: str) -> None:
    with pytest.raises(ConfigError) as told:
        study_from(changed(change))
    assert any(problem.startswith(f"{path}: ") for problem in told.value.problems)


# What people and their programs write


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("values: [false, true]", "false without quotes: YAML libraries write it for `yes` and `no`"),
        ("values: [no, true]", "true without quotes"),
        ("missing: [false]", "false without quotes"),
        (
            "epsilon: {epsilon: 3,0, delta: 1}",
            "is it the end of a number with a decimal comma? Write 3.0, with a point",
        ),
    ],
)
def test_what_a_yaml_library_or_a_decimal_comma_did_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "study.yaml"
    if line.startswith("epsilon"):
        line = "privacy: {mode: local, epsilon: 3,0, delta: 1.0e-5, clip_norm: 0.5}"
    path.write_text(f"name: x\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert says in str(caught.value)


@pytest.mark.parametrize("words", ['["false", "true"]', "['no', 'yes']", "[no, yes]", "[True, False]", "[0, 1]"])
def test_words_that_are_meant_are_words(tmp_path: Path, words: str) -> None:
    path = tmp_path / "words.yaml"
    path.write_text(f"values: {words}\n")
    assert all(isinstance(word, str) for word in read_yaml(path)["values"])


def test_a_study_that_any_yaml_library_wrote_again_is_told_to_quote(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load("values: [no, yes]")))
    with pytest.raises(ConfigError, match="write what the cells say, in quotes"):
        read_yaml(path)


def test_a_range_with_decimal_commas_is_told_to_use_points(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: x\nfeatures:\n  hb: {type: number, range: [4,5, 20,5]}\n")
    with pytest.raises(ConfigError, match="write decimals with a point"):
        load_study(path)


def test_another_encoding_is_told_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes("name: x\npurpose: décès\n".encode("cp1252"))
    with pytest.raises(ConfigError, match="found other bytes on line 2"):
        load_study(path)
