"""Each key is declared once: what was written reads back, a section of one's own needs no other file."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import reference
from configs.coordinator import CoordinatorConfig, load_coordinator
from configs.errors import ArchipelError, ConfigError, KindError
from configs.federated import FEDERATED
from configs.keys.declare import declaration_of, key, write_keys
from configs.keys.one_of import Kind, Sections
from configs.keys.values import COLUMN, Around, Words
from configs.load import load_study, study_from
from configs.schema.task import TASKS, Task, TaskKeys
from configs.sections import Section
from configs.site import SiteConfig, load_site
from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli
from simulations.complete import completed
from tests import builders

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PRESETS = sorted((CONFIGS / "presets").glob("*.yaml"))
words = st.text("abcdefgh", min_size=1, max_size=6)
numbers = st.floats(0.01, 10.0)


def maybe(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these keys, each with its value."""
    return st.fixed_dictionaries({}, optional=keys)


TASK_SECTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "binary": maybe(classes=st.just(["no", "yes"]), unit=words),
    "multiclass": st.fixed_dictionaries({"classes": st.lists(words, min_size=3, max_size=5, unique=True)}),
    "regression": st.fixed_dictionaries({"range": st.just([0, 4])}, optional={"unit": words}),
    "statistics": maybe(bins=st.integers(2, 100), range=st.just([1.5, 3]), unit=words),
}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a valid study of any built-in kind, with any keys that it may have."""
    kind = draw(st.sampled_from(sorted(TASK_SECTIONS)))
    document = builders.study().to_dict() if kind != "statistics" else builders.counting().to_dict()
    document["task"] = {"type": kind, "target": "y"} | draw(TASK_SECTIONS[kind])
    document |= draw(maybe(seed=st.integers(0, 2**32 - 1), patient_id=words.map(lambda word: f"id_{word}")))
    document["privacy"] |= draw(maybe(spare=st.integers(0, 1000), epsilon=numbers))
    if kind == "statistics":
        return document
    plain = "linear" if kind == "regression" else "logistic"
    sizes = maybe(hidden=st.lists(st.integers(1, 99), min_size=1, max_size=3))
    document["model"] = draw(st.just({"name": plain}) | sizes.map(lambda layers: {"name": "mlp"} | layers))
    name = draw(st.sampled_from(FEDERATED.names))
    declared: tuple[Any, ...] = FEDERATED[name].options
    options = {option.name: st.just(option.default or option.value.high) for option in declared}
    document["training"] |= {"strategy": {"name": name} | draw(maybe(**options))}
    rounds = {"average_last": st.floats(0.0, 1.0), "round_timeout_s": numbers, "quorum": st.integers(1, 3)}
    document["training"] |= draw(maybe(**rounds))
    momentum = st.just(0.0) if name == "scaffold" else st.floats(0.0, 0.9)
    local = maybe(momentum=momentum, engine=st.sampled_from(["auto", "opacus"]), weight_decay=numbers)
    length = draw(st.sampled_from([{"epochs": 2}, {"steps": 3}]))
    document["training"]["local"] = {"batch_size": "full", "learning_rate": 0.5} | length | draw(local)
    document["evaluation"] = draw(st.sampled_from([{"test_fraction": 0.2}, {"split_column": "fold"}]))
    if kind == "binary" and draw(st.booleans()):
        document["evaluation"] |= {"release": {"epsilon": draw(numbers)}}
    return document


@settings(max_examples=150, deadline=None)
@given(documents())
def test_reading_what_was_written_gives_the_same_study_and_digest(document: dict[str, Any]) -> None:
    study = study_from(document)
    for again in (study_from(study.to_dict()), study_from(json.loads(study.canonical))):
        assert again == study
        assert (again.sha256, again.to_dict()) == (study.sha256, study.to_dict())
    assert violations(SCHEMA, document) == []


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_study_is_written_with_its_sources_where_it_is_kept(preset: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(dump_yaml(completed(preset).study.to_file()))
    assert load_study(tmp_path / "study.yaml") == completed(preset).study


@pytest.mark.parametrize(("file", "load"), [("site", load_site), ("coordinator", load_coordinator)])
def test_what_is_written_of_an_example_reads_back_the_same(
    file: str, load: Callable[[Path], SiteConfig | CoordinatorConfig], tmp_path: Path
) -> None:
    path = tmp_path / f"{file}.yaml"
    path.write_text((CONFIGS / f"{file}.example.yaml").read_text("utf-8").replace("# worker_network", "worker_network"))
    config = load(tmp_path)
    path.write_text(dump_yaml(write_keys(declaration_of(type(config)), config)))
    again = load(tmp_path)
    assert write_keys(declaration_of(type(again)), again) == write_keys(declaration_of(type(config)), config)
    assert str(again).split(", sha256=")[0] == str(config).split(", sha256=")[0]


# A kind that is registered from outside


@dataclass(frozen=True)
class Ordinal(Task):
    """A toy: an outcome whose classes have an order."""

    classes: tuple[str, ...] = key(Words("the levels, least first"), name="levels", about="the levels, least first")
    cut: str | None = key(COLUMN, default=None, about="a toy's own key")

    def check(self, section: Section, _around: Around) -> None:
        """Note a level that is the cut."""
        if self.cut in self.classes:
            section.problem("cut", "no level", self.cut, "rename it")


ORDINAL = TaskKeys("ordinal", declaration_of(Ordinal).without("range", "bins"), ("accuracy",))
LEVELS = ["mild", "moderate", "severe"]


@pytest.fixture
def ordinal(monkeypatch: pytest.MonkeyPatch) -> TaskKeys:
    monkeypatch.setattr(TASKS, "_kinds", dict(TASKS._kinds))
    return TASKS.register(ORDINAL)


def toy(**keys: Any) -> dict[str, Any]:
    return builders.study().to_dict() | {
        "task": {"type": "ordinal", "target": "grade", "levels": LEVELS} | keys,
        "evaluation": {"test_fraction": 0.2},
    }


@pytest.mark.usefixtures("ordinal")
def test_a_section_of_ones_own_is_read_and_written() -> None:
    study = study_from(toy(cut="half"))
    assert study.task == Ordinal("ordinal", "grade", tuple(LEVELS), cut="half")
    assert study.evaluation.metrics == ("accuracy",)
    assert study.to_dict()["task"] == {"type": "ordinal", "target": "grade", "levels": LEVELS, "cut": "half"}
    assert study_from(json.loads(study.canonical)) == study
    assert "cut" not in study_from(toy()).canonical


@pytest.mark.usefixtures("ordinal")
@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"levels": None}, "task.levels: expected the levels, least first, found nothing; list them once each: [a, b]"),
        ({"cut": "mild"}, "task.cut: expected no level, found 'mild'; rename it"),
        ({"lewels": LEVELS}, "task.lewels: unknown key; did you mean 'levels'?"),
        ({"bins": 3}, "task.bins: unknown key; valid: cut, levels, target, type, unit"),
    ],
)
def test_its_mistakes_are_told_as_those_of_any_other(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        study_from(toy(**keys))
    assert problem in caught.value.problems


@pytest.mark.usefixtures("ordinal")
def test_it_is_explained_and_in_the_schema() -> None:
    assert reference.explain("task.cut") == (
        "study: task.cut: a toy's own key\n  only with type: ordinal\n  expected  a column's name\n  default   none"
    )
    schema = reference.json_schema("study")
    assert violations(schema, toy(cut="half")) == []
    assert violations(schema, toy(bins=3)) != []


def test_an_unknown_kind_is_told_with_those_that_are_registered(ordinal: TaskKeys) -> None:
    with pytest.raises(ConfigError) as caught:
        study_from(toy(type="ranks"))
    known = ", ".join(TASKS.names)
    assert caught.value.problems == (f"task.type: expected one of {known}, found 'ranks'; choose one",)
    assert ordinal.name in known


def test_a_kind_without_keys_that_can_be_read_is_refused_when_it_is_registered() -> None:
    with pytest.raises(KindError, match="task type 'odd': expected a dataclass as its section, found <class 'int'>"):
        Sections("task type", [Kind("odd", int)])
    with pytest.raises(KindError, match=r"expected section and metrics, found no metrics; add it"):
        Sections("task type", [Kind("odd", Ordinal)], parts=("metrics",))


def test_a_task_with_a_procedure_that_nobody_registered_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TASKS, "_kinds", dict(TASKS._kinds))
    TASKS.register(TaskKeys("ordinal", ORDINAL.section, ("accuracy",), procedure="voting"))
    with pytest.raises(KindError, match="procedure: expected one of training, statistics, found 'voting'"):
        study_from(toy())


def test_a_change_of_a_key_that_is_not_there_is_told_where_it_is_made() -> None:
    with pytest.raises(KeyError, match="no key of the section is named lewels"):
        declaration_of(Ordinal).but(lewels={"default": ()})
    with pytest.raises(KeyError, match="no key of the section is named lewels"):
        declaration_of(Ordinal).without("lewels")


# The JSON Schema, held against documents by a small reader of the words that it uses


def violations(schema: Mapping[str, Any] | bool, value: Any, path: str = "") -> list[str]:
    """Where a plain value is not as the schema says; an unknown word of a schema is an error."""
    assert schema is not False
    words = {} if schema is True else schema
    return [text for word, rule in words.items() for text in _held(word, rule, value, path, words)]


_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}
_BOUNDS: dict[str, Callable[[Any, Any], object]] = {
    "minimum": lambda value, bound: value >= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "maximum": lambda value, bound: value <= bound,
    "minLength": lambda value, bound: len(value) >= bound,
    "maxLength": lambda value, bound: len(value) <= bound,
    "minItems": lambda value, bound: len(value) >= bound,
    "maxItems": lambda value, bound: len(value) <= bound,
    "minProperties": lambda value, bound: len(value) >= bound,
    "uniqueItems": lambda value, _: len(set(map(str, value))) == len(value),
    "pattern": lambda value, pattern: re.search(pattern, value),
    "required": lambda value, keys: value.keys() >= set(keys),
    "enum": lambda value, words: value in words,
    "const": lambda value, word: value == word and type(value) is type(word),
}
_APPLIES: dict[str, Any] = {
    "minLength": str,
    "maxLength": str,
    "pattern": str,
    "required": dict,
    "minProperties": dict,
} | dict.fromkeys(("minItems", "maxItems", "uniqueItems"), list)


def _is(value: Any, kind: str) -> bool:
    if kind == "null":
        return value is None
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _held(word: str, rule: Any, value: Any, path: str, schema: Mapping[str, Any]) -> list[str]:
    if word in ("$schema", "title", "description", "then"):
        return []
    if word == "if":
        return [] if violations(rule, value, path) else violations(schema["then"], value, path)
    if word == "allOf":
        return [text for one in rule for text in violations(one, value, path)]
    if word == "type":
        kinds = rule if isinstance(rule, list) else [rule]
        return [] if any(_is(value, kind) for kind in kinds) else [f"{path}: no {rule}"]
    if word == "anyOf":
        return [] if any(not violations(one, value, path) for one in rule) else [f"{path}: fits none"]
    if word == "properties":
        inner = value if isinstance(value, dict) else {}
        return [
            text for key, one in rule.items() if key in inner for text in violations(one, inner[key], f"{path}.{key}")
        ]
    if word == "additionalProperties":
        inner = value if isinstance(value, dict) else {}
        others = {key: one for key, one in inner.items() if key not in schema.get("properties", {})}
        return (
            [f"{path}.{key}: unknown" for key in others]
            if rule is False
            else [text for key, one in others.items() for text in violations(rule, one, f"{path}.{key}")]
        )
    if word == "items":
        return [text for one in value if isinstance(value, list) for text in violations(rule, one, f"{path}[]")]
    numeric = word in ("minimum", "maximum", "exclusiveMinimum")
    applies = _is(value, "number") if numeric else isinstance(value, _APPLIES.get(word, object))
    return [] if not applies or _BOUNDS[word](value, rule) else [f"{path}: not {word} {rule}"]


SCHEMA = reference.json_schema("study")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_the_schema_takes_every_preset_and_its_canonical_form(preset: Path) -> None:
    assert violations(SCHEMA, read_yaml(preset)) == []
    assert violations(SCHEMA, json.loads(completed(preset).study.canonical)) == []


BAD: list[tuple[str, Any]] = [
    *[("name", "../x"), ("seed", -1), ("seed", True), ("seed", 1.5), ("purpose", None), ("unknown", 1)],
    *[("task.type", "binari"), ("task.range", [0, 1]), ("task.classes", ["a"]), ("task.bins", 5)],
    *[("model.name", "logistik"), ("model.hidden", [3]), ("model.init", "ones")],
    *[("features", {}), ("features.age.range", [1]), ("features.sex.values", ["one"]), ("features.age.values", ["a"])],
    *[("training.rounds", 0), ("training.rounds", "20"), ("training.round_timeout_s", 0), ("training.weights", "all")],
    *[("training.strategy.name", "fedagv"), ("training.strategy.proximal_mu", 0.1), ("training.local", None)],
    *[("training.local.batch_size", "all"), ("training.local.batch_size", 0), ("training.local.learning_rate", 0)],
    *[("privacy.epsilon", 500), ("privacy.delta", 0), ("privacy.spare", 1.5), ("privacy.mode", "none")],
    *[("evaluation.test_fraction", 1), ("evaluation.release", {}), ("cohort.cleveland", 0), ("patient_id", 3)],
]


def test_an_editor_hears_of_the_kind_that_was_meant_alone() -> None:
    document = read_yaml(CONFIGS / "presets" / "heart_disease.yaml")
    wrong = document | {"training": document["training"] | {"strategy": {"name": "fedprox", "tau": 1}}}
    assert violations(SCHEMA, wrong) == [".training.strategy.tau: unknown"]
    assert violations(SCHEMA, document | {"task": {"type": "binari", "target": "y"}}) == [
        f".task.type: not enum {list(TASKS.names)}"
    ]


@pytest.mark.parametrize(("path", "value"), BAD, ids=[f"{path}={value}" for path, value in BAD])
def test_the_schema_refuses_what_the_reader_refuses(path: str, value: Any) -> None:
    document: dict[str, Any] = dict(read_yaml(CONFIGS / "presets" / "heart_disease.yaml"))
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(ConfigError):
        study_from(document)
    assert violations(SCHEMA, document)


def test_the_schemas_of_site_and_coordinator_take_their_examples() -> None:
    for file in ("site", "coordinator"):
        document = read_yaml(CONFIGS / f"{file}.example.yaml")
        assert violations(reference.json_schema(file), document) == []
        assert violations(reference.json_schema(file), document | {"unknown": 1}) != []
    site = read_yaml(CONFIGS / "site.example.yaml")
    assert violations(reference.json_schema("site"), site | {"policy": {"delta": 0}}) != []


# For people


def test_the_reference_page_is_what_the_command_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "--markdown"]) == 0
    assert capsys.readouterr().out == (CONFIGS / "KEYS.md").read_text("utf-8")


def test_every_key_says_what_it_is() -> None:
    rows = [line for line in reference.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 90
    assert [row for row in rows if not all(cell.strip() for cell in row.split("|")[1:5])] == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("training.local.batch_size", "study: training.local.batch_size: the number of patients expected in a step"),
        ("features.age.range", "study: features.COLUMN.range: the public range"),
        ("policy.max_epsilon", "site: policy.max_epsilon: the budget of a patient"),
        ("name", "coordinator: name: the consortium's name"),
        ("training.strategy", "  keys      name, proximal_mu, server_learning_rate"),
    ],
)
def test_a_key_is_explained(asked: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", asked]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("training.local.batchsize", "training.local.batch_size"), ("epsilon", "privacy.epsilon"), ("polcy", "policy")],
)
def test_an_unknown_key_is_told_with_the_nearest(asked: str, nearest: str) -> None:
    with pytest.raises(ArchipelError, match=rf"{asked}: unknown key; did you mean {nearest}\?"):
        reference.explain(asked)


def test_the_schema_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema", "site"]) == 0
    assert json.loads(capsys.readouterr().out) == reference.json_schema("site")
