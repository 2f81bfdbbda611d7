"""A study: its sections, its hospitals, and the canonical form that is its identity.

`configs/load.py` makes these from YAML. A study's identity is the SHA-256 of its canonical form: JSON with sorted keys
and every default written out. `simulation` is left out of it, because where a researcher's copies of the data lie
changes nothing that a hospital approves.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from configs.keys.declare import Declaration, Entries, Key, Part, declaration_of, key, read_keys, write_keys
from configs.keys.one_of import HasSection, Kind, Sections
from configs.keys.values import COLUMN, SITE_NAME, Around, Choice, Integer, Place, Text, Value, Words
from configs.schema.evaluation import Evaluation
from configs.schema.kit import ARRAYS, KIT, KitKeys
from configs.schema.model import AXES, MODEL, Model, axes_of, maps_of
from configs.schema.privacy import COUNTING_PRIVACY, PRIVACY, Privacy
from configs.schema.releases import AskedRelease, Releases
from configs.schema.sites import SIMULATION, Tuned, hospital_flaw
from configs.schema.source import DataSource
from configs.schema.task import FEATURES, TASK, TASKS, Feature, Task
from configs.schema.training import AUTO, TRAINING, Training
from configs.sections import Section
from configs.shown import short

CANONICAL_VERSION = "archipel-study/1"
ID_STEPS = ("nfkc", "case", "zeros")  # in which ids may be written alike (client/connectors/ids.py)


@dataclass(frozen=True, slots=True)
class CohortMember:
    """A hospital that takes part, with the number of patients it announced in public: a round number will do."""

    site: str
    patients: int


_COHORT = Entries(
    Integer(1, 1_000_000_000),
    hospital_flaw,
    "a mapping of hospital: announced patients",
    build=CohortMember,
    member="HOSPITAL",
    split=lambda member: (member.site, member.patients),
)


class _Steps(Words):
    """Steps of ID_STEPS."""

    def read(self, at: Place) -> tuple[str, ...]:
        """Return the steps in their order; other words are noted."""
        words = Words.read(self, at)
        for word in words:
            if word not in ID_STEPS:
                at.problem(self.expected, "remove it", found=word)
        return tuple(step for step in ID_STEPS if step in words)


_STEPS = f"some of {', '.join(ID_STEPS)}"


@dataclass(frozen=True)
class _Ids:
    column: str = key(COLUMN, "the column that says whose a row is")
    normalise: tuple[str, ...] = key(
        _Steps(_STEPS, count=_STEPS, todo="list them, or write patient_id: COLUMN"),
        "steps in which the ids of a hospital's files are written alike before they are compared",
    )


class _PatientId(Value):
    """The column with the patient's id, null where a row is a patient, and the normalisation of its ids."""

    expected = "the column that says whose a row is, or null"

    def read(self, at: Place) -> tuple[str | None, tuple[str, ...]]:
        """Return the column, and the steps in which its ids are written alike."""
        if at.key not in at.section.values:
            at.problem(self.expected, "write null if a row is a patient")
        if isinstance(at.found, Mapping):
            ids = Part(_Ids).read(at)
            return ids.column, ids.normalise
        column = Text(self.expected, COLUMN.pattern)
        return None if at.found is None else column.read(at), ()

    def write(self, value: Any) -> Any:
        """Return the column, or a mapping where its ids are written alike."""
        column, steps = value
        return {"column": column, "normalise": list(steps)} if steps else column

    @property
    def schema(self) -> dict[str, Any]:
        """Return a column, null, or a mapping."""
        return {"anyOf": [COLUMN.schema, {"type": "null"}, Part(_Ids).schema]}

    @property
    def children(self) -> tuple[tuple[str, Key], ...]:
        """Return the keys of the mapping."""
        return Part(_Ids).children


@dataclass(frozen=True, kw_only=True)  # no slots: the canonical form is computed once
class Study:
    """One study, everywhere: simulated, planned, reviewed, deployed and reported from this object."""

    name: str = key(Text("a name of a-z, 0-9, - and _", SITE_NAME), "the study's name, in every hospital's files")
    purpose: str = key(Text("text", lines=True), "what the study is for; every hospital that reviews it reads it")
    task: Task = key(TASK, "what is predicted or counted")
    patient_id: str | None = key(
        _PatientId(),
        "the column that says whose a row is; null: a row is a patient",
        init=None,
        fills=("normalise",),
        written=lambda _: True,
    )
    normalise: tuple[str, ...] = ()  # steps of ID_STEPS, in their order, in which the ids are written alike
    features: tuple[Feature, ...] = key(FEATURES, "the columns that are read, with their public ranges")
    cohort: tuple[CohortMember, ...] = key(
        _COHORT,
        "the hospitals that take part, each with the round number of patients that it announced",
        default=(),
        written=lambda _: True,
    )
    scaling: Literal["public", "site", "centred"] = key(
        Choice(("public", "site", "centred")),
        "whether numbers are scaled by their public range, or by each hospital's own mean and deviation; centred: "
        "public, and categories about the mean of equally frequent values",
        default="public",
    )
    kit: KitKeys | None = key(
        KIT, "the study kit that brings the model or a reader of records, to the byte", default=None
    )
    arrays: tuple[tuple[str, tuple[int, ...]], ...] = key(
        ARRAYS,
        "the arrays of a kit's model, with their sides: all that hospitals may send; archipel complete writes it",
        default=(),
    )
    model: Model = key(MODEL, "the model that is trained", init=Model("none"))
    training: Training = key(
        TRAINING,
        "rounds, and what makes a round valid; auto: archipel complete writes it, from public facts",
        default=AUTO,
        unsaid="auto",
    )
    privacy: Privacy = key(PRIVACY, "the guarantee asked for")
    evaluation: Evaluation = key(
        Part(Evaluation, "a mapping with test_fraction or split_column"),
        "who is kept aside, and what is measured",
        init=Evaluation(),
    )
    releases: tuple[AskedRelease, ...] = key(
        Releases(),
        "what is asked of each hospital once after the training, of kinds that are installed beside Archipel's own",
        default=(),
    )
    seed: int = key(Integer(0, 2**32 - 1), "of initial values and batches where chance is repeatable", default=0)
    simulation: tuple[tuple[str, DataSource], ...] = key(
        SIMULATION,
        "where the researcher's copies of the data lie; it is no part of the study's identity",
        default=((), None),
        init=(),
        fills=("tuned",),
        unsaid="none",
        written=lambda _: False,
    )
    tuned: Tuned | None = None

    @property
    def procedure(self) -> str:
        """Return the name of what the coordinator does with the study (server/procedures/)."""
        return TASKS[self.task.type].procedure

    @property
    def data(self) -> str:
        """Return the name of the kind of data that the study reads (strategies/data/)."""
        return getattr(TASKS[self.task.type], "data", "table") if self.input_shape is None else "records"

    @property
    def is_unfinished(self) -> bool:
        """Return whether settings are left to be completed; no hospital is asked to approve such a study."""
        return self.training.auto or getattr(self.model, "is_open", False)

    @property
    def counted(self) -> tuple[Feature, ...]:
        """Return the columns that statistics are about: the features, and the target last."""
        return (*self.features, *self.task.columns)

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Return the names of the hospitals, sorted: those of the cohort, or else those of the simulation."""
        return tuple(sorted([m.site for m in self.cohort] or [site for site, _ in self.simulation]))

    def trains_at(self, site: str) -> bool:
        """Return whether a hospital trains; if not, it only tests, and none of its patients is for training."""
        return site not in self.evaluation.test_only

    @property
    def training_sites(self) -> tuple[str, ...]:
        """Return the names of the hospitals that train, sorted."""
        return tuple(filter(self.trains_at, self.sites))

    def has_quorum(self, sites: Iterable[str]) -> bool:
        """Return whether so many of these hospitals train as a round needs."""
        return sum(map(self.trains_at, sites)) >= self.training.quorum

    def announced_patients(self, site: str) -> int | None:
        """Return the hospital's public number of patients, None where the study announces none."""
        return self._announced.get(site)

    @cached_property
    def _announced(self) -> dict[str, int | None]:
        return {member.site: member.patients for member in reversed(self.cohort)}

    def announced_train_patients(self, site: str) -> int | None:
        """Return the public number of training patients: what is left of the announced ones after the test fraction."""
        patients = self.announced_patients(site)
        return None if patients is None else max(1, round(patients * (1.0 - self.evaluation.test_fraction)))

    @cached_property
    def predictors(self) -> tuple[Feature, ...]:
        """Return the numbers and categories that a model reads: the features, an image's by its encoder."""
        return tuple(column for feature in self.features for column in feature.predictors)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Return the names of the model's inputs, in the order of the features."""
        return tuple(name for feature in self.features for name in feature.inputs)

    @cached_property
    def input_shape(self) -> tuple[int, ...] | None:
        """Return (channels, sides...) of the one record that a model reads itself; None of rows of numbers."""
        return next((feature.shape for feature in self.features if feature.shape is not None), None)

    @property
    def records(self) -> tuple[Feature, ...]:
        """Return the columns of paths, of features and then of the outcome."""
        return tuple(column for column in self.counted if column.is_record)

    def check(self, section: Section, around: Around) -> None:
        """Note records that the task or the model cannot read."""
        del around
        alone = [feature.name for feature in self.features if feature.shape is not None]
        if self.procedure != "training":
            if self.records:
                section.note("features", "expected numbers and categories, as patients are counted, found a record")
            return
        if alone and len(self.features) > 1:
            section.note(
                "features",
                f"expected one record alone without an encoder, found {short(', '.join(alone))} beside others; "
                "give images an encoder, or leave the other columns out",
            )
        if alone and getattr(TASKS[self.task.type], "data", "table") not in ("table", "records"):
            text = f"expected another task with a record that has no encoder, found {self.task.type!r}"
            section.note("task.type", f"{text}; give the image encoder: texture")
        masks = [column for column in self.task.columns if column.is_record]
        if alone and any((mask.shape or ())[1:] != (self.input_shape or ())[1:] for mask in masks):
            section.note("task.size", f"expected the size of {short(alone[0])}, found another; write the same")
        if alone and self.scaling != "public":
            section.problem("scaling", "public where a model reads records", self.scaling, "leave it out")
        axes = len(self.input_shape or (0,)) - 1
        if axes not in axes_of(self.model.name):
            read = " or ".join(map(AXES.__getitem__, axes_of(self.model.name)))
            encodes = bool(alone) and axes > 1
            advice = "choose another model" + (", or give the image encoder: texture" if encodes else "")
            section.note(
                "model.name", f"{self.model.name} reads {read}, found features that are {AXES[axes]}; {advice}"
            )
        if self.task.maps != maps_of(self.model.name, otherwise=self.task.maps):
            put_out = "a map of the record" if self.task.maps else "a row of numbers"
            text = f"expected a model that puts out {put_out} for the task {self.task.type}, found {self.model.name}"
            section.note("model.name", f"{text}; choose another model")

    @property
    def averaged_rounds(self) -> int:
        """Return how many of the last rounds are averaged into the final model; at least 1."""
        return max(1, round(self.training.rounds * self.training.average_last))

    @cached_property
    def canonical(self) -> str:
        """Return the form that is hashed, sent and approved."""
        return canonical_json({"version": CANONICAL_VERSION, **self.to_dict()})

    @cached_property
    def sha256(self) -> str:
        """Return the study's identity: SHA-256 of its canonical form, in hexadecimal."""
        return hashlib.sha256(self.canonical.encode("ascii")).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the study as its YAML has it, defaults written out, without `simulation`."""
        return write_keys(study_declaration(self.task.type), self)

    def to_file(self) -> dict[str, Any]:
        """Return the same with `simulation`: what the file that was read says."""
        return self.to_dict() | {"simulation": SIMULATION.write((self.simulation, self.tuned))}

    def to_submit(self) -> dict[str, Any]:
        """Return what a coordinator keeps: no sources, yet how the study was tuned."""
        return replace(self, simulation=()).to_file() if self.tuned else self.to_dict()


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, no white space, ASCII only, no NaN: the same value always gives the same text."""
    return _CANONICAL.encode(value)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


_NO_MODEL = "expected nothing with task.type: statistics, as no model is trained; remove it"
_COUNTING_ROUNDS = declaration_of(Training).but(
    refused=dict.fromkeys(("strategy", "rounds", "local", "weights", "average_last", "personalise"), _NO_MODEL)
)
_COUNTING = Part(_COUNTING_ROUNDS, "a mapping with quorum", required=False)


def _counting_rounds(section: Section, around: Around) -> Training:
    return _COUNTING.read(Place(section, "training", None, around))  # type: ignore[no-any-return]


# What a study of statistics has no use for, and why a reader of its file might have thought otherwise.
_OF_TRAINING = {
    "releases": "they are asked for after a training",
    "model": "no model is trained",
    "evaluation": "there is no model to judge, and everybody is counted",
    "scaling": "values are counted in the bins of their public range",
}
_COUNTING_STUDY = declaration_of(Study).but(
    refused={
        name: f"expected nothing with task.type: statistics, as {why}; remove it" for name, why in _OF_TRAINING.items()
    },
    training={"value": _COUNTING, "default": _counting_rounds},
    privacy={"value": COUNTING_PRIVACY},
)
# What a file may hold, by what the coordinator does with such a study (server/procedures/).
STUDIES: Sections[HasSection] = Sections("procedure", [Kind("training", Study), Kind("statistics", _COUNTING_STUDY)])


def study_declaration(task_type: str) -> Declaration:
    """Return the keys of a study with a task of this type.

    Raises:
        KindError: no such type of task, or no such procedure, is registered.
    """
    return declaration_of(STUDIES[TASKS[task_type].procedure].section)


def study_schema() -> dict[str, Any]:
    """Return the JSON Schema of a study, which depends on what a coordinator does with its type of task."""
    task_types = _of_type(list(TASKS.names))
    return {"type": "object", **task_types, "allOf": [_schema_of(kind) for kind in STUDIES]}


def _schema_of(study: HasSection) -> dict[str, Any]:
    types = [task.name for task in TASKS if task.procedure == study.name]
    schema = declaration_of(study.section).schema
    properties = {"version": {"enum": [CANONICAL_VERSION, None]}, **schema["properties"]}
    return {"if": _of_type(types), "then": schema | {"properties": properties}}


def _of_type(types: list[str]) -> dict[str, Any]:
    task = {"type": "object", "properties": {"type": {"enum": types}}, "required": ["type"]}
    return {"properties": {"task": task}, "required": ["task"]}


def read_study(top: Section, around: Around) -> Study:
    """Return the study of a file's top mapping; whatever is wrong with it is noted there."""
    task = top.values.get("task")
    chosen = task.get("type") if isinstance(task, Mapping) else None
    name = chosen if isinstance(chosen, str) and chosen in TASKS else TASKS.names[0]
    return read_keys(study_declaration(name), top, around)  # type: ignore[no-any-return]
