"""What a study is: frozen dataclasses, units in the names, no behaviour beyond derived values.

`configs/load.py` makes these from YAML and is the only place that judges a file. A study's identity is the SHA-256
of its canonical form: JSON with sorted keys and every default written out. `simulation` is left out of it, because
where a researcher's copies of the data lie changes nothing that a hospital approves.

>>> Feature("age", "number", minimum=20.0, maximum=90.0, unit="years").inputs
('age',)
>>> Feature("chol", "number", minimum=100.0, maximum=400.0, missing=("0",)).inputs
('chol', 'chol unknown')
>>> Feature("cp", "category", values=("typical", "atypical", "none")).inputs
('cp = atypical', 'cp = none')
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

CANONICAL_VERSION = "archipel-study/1"
ID_STEPS = ("nfkc", "case", "zeros")  # in which ids may be written alike (client/connectors/ids.py)

TaskType = Literal["binary", "multiclass", "regression", "statistics"]

# The names that a study may use. The registries in strategies/ hold exactly these (a test compares them).
MODELS: dict[str, tuple[str, ...]] = {"logistic": ("init",), "linear": ("init",), "mlp": ("init", "hidden")}
METRICS: dict[str, tuple[str, ...]] = {  # task type -> what can be asked for, the first is the headline
    "binary": ("auroc", "accuracy", "balanced_accuracy", "brier", "log_loss"),
    "multiclass": ("auroc", "accuracy", "balanced_accuracy", "brier", "log_loss"),
    "regression": ("mae", "r2"),
    "statistics": (),
}


@dataclass(frozen=True, slots=True)
class Task:
    """What is predicted. `classes` are the target column's words in order; of two, the second is the outcome.

    `statistics` predicts nothing: each hospital counts its patients by every column, in `bins` equal parts of the range
    of a number, and releases the counts once, with noise.
    """

    type: TaskType
    target: str
    classes: tuple[str, ...] = ()
    minimum: float | None = None  # regression, or statistics of a number: the target's public range
    maximum: float | None = None
    unit: str | None = None
    bins: int = 0


@dataclass(frozen=True, slots=True)
class Feature:
    """One column, with its public range or values: agreed beforehand, never measured on patients.

    A number is scaled so that its range becomes [-1, 1]. A category of k values becomes k - 1 inputs of 0 or 1,
    the first value being the reference. Where `missing` lists codes, such a value (or an empty cell) is placed at
    the range's middle (or at no category) and an extra input says that it is unknown.
    """

    name: str
    type: Literal["number", "category"]
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] = ()
    unit: str | None = None
    missing: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model inputs that this column becomes, in order."""
        own = (self.name,) if self.type == "number" else tuple(f"{self.name} = {v}" for v in self.values[1:])
        return own + ((f"{self.name} unknown",) if self.missing else ())


@dataclass(frozen=True, slots=True)
class CohortMember:
    """A hospital that takes part, with the number of patients it announced in public: a round number will do."""

    site: str
    patients: int


@dataclass(frozen=True, slots=True)
class Model:
    """A name in the registry, never a path to code."""

    name: str
    hidden: tuple[int, ...] = ()
    init: Literal["zeros", "random"] = "zeros"


@dataclass(frozen=True, slots=True)
class Strategy:
    """How the coordinator combines models: a name (configs/federated.py) and that strategy's options."""

    name: str
    options: tuple[tuple[str, float], ...] = ()

    def option(self, name: str) -> float:
        """The option's value; KeyError where the strategy has none of that name."""
        return dict(self.options)[name]


@dataclass(frozen=True, slots=True)
class Local:
    """What a hospital does in one round: `steps` optimizer steps, or `epochs` passes' worth of them.

    `batch_size` is the number of patients expected in a step; None means all of them. `engine` says how private
    gradients are computed, never what they are: `opacus` forces the reference.
    """

    batch_size: int | None
    learning_rate: float
    epochs: int | None = 1
    steps: int | None = None
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    engine: Literal["auto", "opacus"] = "auto"

    def steps_per_round(self, patients: int) -> int:
        """Optimizer steps in one round at a hospital with `patients` training patients.

        >>> Local(batch_size=32, learning_rate=0.1, epochs=2).steps_per_round(199)
        14
        """
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * (1 if self.batch_size is None else max(1, -(-patients // self.batch_size)))

    def sampling_rate(self, patients: int) -> float:
        """Probability that a patient is in a step; 1 where the batch is everybody."""
        return 1.0 if self.batch_size is None else min(1.0, self.batch_size / patients)


@dataclass(frozen=True, slots=True)
class Training:
    """Rounds, and what makes a round valid. `average_last` is the share of last rounds averaged into the result."""

    strategy: Strategy
    rounds: int
    local: Local
    quorum: int
    round_timeout_s: float = 600.0
    weights: Literal["public", "uniform"] = "uniform"
    average_last: float = 0.0


PER_PATIENT = "per patient, add or remove one"  # what every epsilon is about, wherever one is printed


@dataclass(frozen=True, slots=True)
class Privacy:
    """The guarantee asked for: (epsilon, delta) per patient, add or remove one, at each hospital, whole study.

    `spare` is how many lost releases each hospital may make anew over the whole study. The noise is calibrated as if
    all of them were needed, so that none of them is beyond epsilon.
    """

    mode: Literal["local", "none"]
    epsilon: float = 0.0
    delta: float = 0.0
    clip_norm: float = 0.0
    spare: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The section as a study file has it, without what says nothing.

        >>> Privacy("none").to_dict(), Privacy("local", 1.0, 1e-5, 1.0, spare=2).to_dict()["spare"]
        ({'mode': 'none'}, 2)
        """
        if self.mode == "none":
            return {"mode": "none"}
        section = asdict(self)
        if not self.spare:  # studies keep the digest that they had before there was a spare
            del section["spare"]
        return section


@dataclass(frozen=True, slots=True)
class EvaluationRelease:
    """What is asked of each hospital about its test patients, once: a noisy histogram of scores by outcome.

    `epsilon` is what this costs per patient at the study's delta, beside the training's; `bins` divide [0, 1] equally.
    """

    epsilon: float
    bins: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Who is kept aside and what is measured. `split_column` names a column of train/test instead of a fraction.

    Without a `release` no figure about test patients leaves a hospital.
    """

    test_fraction: float = 0.0
    metrics: tuple[str, ...] = ()
    split_column: str | None = None
    release: EvaluationRelease | None = None


QUERY_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where a connector finds one site's rows: a file, or a query and the NAME of a variable that holds its address.

    `path` is absolute after loading. configs/source.py says which keys a connector has.
    """

    connector: str
    path: Path | None = None
    url_env: str = ""
    query: str = ""
    query_timeout_s: int = QUERY_TIMEOUT_S
    multiline: bool = False  # of a file: whatever stands between two quotation marks is one cell

    @property
    def store(self) -> str:
        """What kind of thing it reads, in a word or two."""
        return "data base" if self.path is None else "file"

    def shares_store(self, other: "DataSource") -> bool:
        """Whether both read one file, by whatever name, or one data base."""
        if self.path is None or other.path is None:
            return self.path is other.path and self.url_env == other.url_env
        return os.path.realpath(self.path) == os.path.realpath(other.path)

    def to_dict(self) -> dict[str, Any]:
        """The source as YAML has it; it holds no secret.

        >>> DataSource("sql", url_env="EDS_URL", query="select 1").to_dict()
        {'connector': 'sql', 'url_env': 'EDS_URL', 'query': 'select 1', 'query_timeout_s': 300}
        """
        if self.path is not None:
            lines = {"multiline": True} if self.multiline else {}
            return {"connector": self.connector, "path": str(self.path)} | lines
        return {key: value for key, value in asdict(self).items() if key not in ("path", "multiline")}

    def __str__(self) -> str:
        if self.path is not None:
            return f"{self.connector} {self.path}"
        return f"{self.connector}, the data base whose address the variable {self.url_env} holds: {self.query}"


@dataclass(frozen=True)  # no slots: the canonical form is computed once
class Study:
    """One study, everywhere: simulated, planned, reviewed, deployed and reported from this object."""

    name: str
    purpose: str
    task: Task
    features: tuple[Feature, ...]
    model: Model
    training: Training
    privacy: Privacy
    evaluation: Evaluation
    patient_id: str | None = None  # None: a row is a patient
    normalise: tuple[str, ...] = ()  # steps of ID_STEPS, in their order, in which the ids are written alike
    cohort: tuple[CohortMember, ...] = ()
    scaling: Literal["public", "site"] = "public"
    seed: int = 0
    simulation: tuple[tuple[str, DataSource], ...] = ()

    @property
    def private(self) -> bool:
        """Whether what hospitals send is under differential privacy."""
        return self.privacy.mode != "none"

    @property
    def trains(self) -> bool:
        """Whether a model is trained; if not, hospitals release statistics, once."""
        return self.task.type != "statistics"

    @property
    def counted(self) -> tuple[Feature, ...]:
        """The columns that statistics are about: the features, and the target last."""
        task = self.task
        kind: Literal["number", "category"] = "category" if task.classes else "number"
        return (*self.features, Feature(task.target, kind, task.minimum, task.maximum, task.classes, task.unit))

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Names of the hospitals, sorted: those of the cohort, or else those of the simulation."""
        return tuple(sorted([m.site for m in self.cohort] or [site for site, _ in self.simulation]))

    def announced_patients(self, site: str) -> int | None:
        """The hospital's public number of patients, None where the study announces none."""
        return self._announced.get(site)

    @cached_property
    def _announced(self) -> dict[str, int | None]:
        return {member.site: member.patients for member in reversed(self.cohort)}

    def announced_train_patients(self, site: str) -> int | None:
        """The public number of training patients: what is left of the announced ones after the test fraction."""
        patients = self.announced_patients(site)
        return None if patients is None else max(1, round(patients * (1.0 - self.evaluation.test_fraction)))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs, in the order of the features."""
        return tuple(name for feature in self.features for name in feature.inputs)

    @property
    def averaged_rounds(self) -> int:
        """How many of the last rounds are averaged into the final model; at least 1."""
        return max(1, round(self.training.rounds * self.training.average_last))

    @cached_property
    def canonical(self) -> str:
        """The form that is hashed, sent and approved."""
        return canonical_json({"version": CANONICAL_VERSION, **self.to_dict()})

    @cached_property
    def sha256(self) -> str:
        """The study's identity: SHA-256 of its canonical form, in hexadecimal."""
        return hashlib.sha256(self.canonical.encode("ascii")).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The study as its YAML has it, defaults written out, without `simulation`; `load.study_from` reads it back."""
        if not self.trains:
            return self._statistics_dict()
        local, strategy = asdict(self.training.local), self.training.strategy
        local = {key: value for key, value in local.items() if value is not None}
        local["batch_size"] = self.training.local.batch_size or "full"
        if self.training.local.engine == "auto":  # says nothing: studies keep the digest that they had before it was
            del local["engine"]
        return self._subject_dict() | {
            "scaling": self.scaling,
            "model": _without_none(
                name=self.model.name,
                init=self.model.init,
                hidden=list(self.model.hidden) if self.model.hidden else None,
            ),
            "training": {
                "strategy": {"name": strategy.name, **dict(strategy.options)},
                "rounds": self.training.rounds,
                "local": local,
                "quorum": self.training.quorum,
                "round_timeout_s": self.training.round_timeout_s,
                "weights": self.training.weights,
                "average_last": self.training.average_last,
            },
            "privacy": self.privacy.to_dict(),
            "evaluation": _without_none(
                test_fraction=None if self.evaluation.split_column else self.evaluation.test_fraction,
                metrics=list(self.evaluation.metrics),
                split_column=self.evaluation.split_column,
                release=asdict(self.evaluation.release) if self.evaluation.release else None,
            ),
            "seed": self.seed,
        }

    def _subject_dict(self) -> dict[str, Any]:
        """What it is about and of whom, whether it trains or counts."""
        return {
            "name": self.name,
            "purpose": self.purpose,
            "task": _task_dict(self.task),
            "patient_id": {"column": self.patient_id, "normalise": list(self.normalise)}
            if self.normalise
            else self.patient_id,
            "features": {feature.name: _feature_dict(feature) for feature in self.features},
            "cohort": {member.site: member.patients for member in self.cohort},
        }

    def _statistics_dict(self) -> dict[str, Any]:
        """Of a study that trains nothing: without what only a training needs."""
        privacy = self.privacy.to_dict()
        del privacy["clip_norm"]
        return self._subject_dict() | {
            "training": {"quorum": self.training.quorum, "round_timeout_s": self.training.round_timeout_s},
            "privacy": privacy,
            "seed": self.seed,
        }


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no white space, ASCII only, no NaN: the same value always gives the same text."""
    return _CANONICAL.encode(value)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _task_dict(task: Task) -> dict[str, Any]:
    return _without_none(
        type=task.type,
        target=task.target,
        classes=list(task.classes) or None,
        range=_range(task.minimum, task.maximum),
        unit=task.unit,
        bins=task.bins or None,
    )


def _feature_dict(feature: Feature) -> dict[str, Any]:
    return _without_none(
        type=feature.type,
        range=_range(feature.minimum, feature.maximum),
        values=list(feature.values) or None,
        unit=feature.unit,
        missing=list(feature.missing) or None,
    )


def _range(minimum: float | None, maximum: float | None) -> list[float] | None:
    return None if minimum is None or maximum is None else [minimum, maximum]


def _without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
