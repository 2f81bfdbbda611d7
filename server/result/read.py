"""A run's metrics.json as frozen dataclasses. What is absent is None or empty; what is there must be of its kind.

The file may come from anybody: texts are cleaned and cut here (and escaped in markup.py), numbers must be finite.

>>> run = read(parse('{"study": "heart", "study_sha256": "ab", "outcome": "COMPLETE", "rounds_completed": 2}'))
>>> run.study, run.private, run.model("federated")
('heart', False, None)
>>> parse('{"study": 1}')["study"].text()
Traceback (most recent call last):
    ...
configs.errors.RunError: metrics.json: study: expected text, found a number; run the study again
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from configs.errors import RunError

MODELS = ("local_only", "federated_without_privacy", "federated", "pooled")
MAX_ROUNDS = 100_000  # configs/wire.py's bound
MAX_BYTES = 1 << 53
LONG_TEXT = 2_000
# Control characters, halves of surrogate pairs, and marks that reorder text so that it reads as something else.
UNREADABLE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff\\ufeff\\ufffe\\uffff]"
)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """Patients of similar predicted probability: what was predicted, and the share that had the outcome."""

    predicted: float
    observed: float
    count: int
    interval: tuple[float, float] | None = None  # 95 %, of the observed share; where noise is part of it


@dataclass(frozen=True)
class Noisy:
    """Figures that hospitals released with noise: what it cost, and how many hospitals released them."""

    epsilon: float | None
    hospitals: int


@dataclass(frozen=True)
class Model:
    """How good a model is. `per_site` is the main metric at each hospital; None where it is undefined or not there."""

    main: Estimate | None
    per_site: Mapping[str, Estimate | None]
    metrics: Mapping[str, Estimate | None]
    calibration: tuple[Bin, ...]
    noisy: Noisy | None = None
    guess: float | None = None  # mean absolute error of predicting the middle of the target's range for everybody


@dataclass(frozen=True)
class Site:
    """One hospital's part."""

    name: str
    patients_train: int | None = None
    patients_test: int | None = None
    epsilon: float | None = None
    delta: float | None = None
    noise_multiplier: float | None = None
    sampling_rate: float | None = None
    steps: int | None = None
    bytes_sent: int | None = None
    messages_sent: int | None = None
    weight: float | None = None
    patients_announced: int | None = None

    @property
    def patients(self) -> int:
        """All that are known of, or else those that were announced; 0 where nobody says."""
        return (self.patients_train or 0) + (self.patients_test or 0) or self.patients_announced or 0

    values_clipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """Who contributed to a round, and why the others did not."""

    number: int
    contributed: frozenset[str]
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Feature:
    """A column with its public range or values."""

    name: str
    type: str
    unit: str
    range: tuple[float, ...]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Left:
    """One kind of message that left the hospitals."""

    what: str
    fields: tuple[str, ...]
    messages: int | None
    bytes: int | None


@dataclass(frozen=True)
class Privacy:
    """The guarantee that the study asks for."""

    mode: str
    epsilon: float | None
    delta: float | None
    clip_norm: float | None
    unit: str
    adjacency: str
    noise: str
    evaluation_epsilon: float | None = None  # of it, the noisy histogram's by itself; None where none is asked for


@dataclass(frozen=True)
class Column:
    """A column of which statistics were released: its values or bins by name, the unknown last."""

    name: str
    unit: str
    labels: tuple[str, ...]
    edges: tuple[float, ...]  # of a number's bins


@dataclass(frozen=True)
class Counts:
    """What is known of one column: a count for each label, and its share of the patients."""

    counts: tuple[Estimate, ...]
    shares: tuple[Estimate | None, ...]


@dataclass(frozen=True)
class Figures:
    """What is known of one hospital's patients, or of all together; a share is None where the noise hides it."""

    patients: Estimate
    outcome: Estimate | None
    columns: Mapping[str, Counts]


@dataclass(frozen=True)
class Statistics:
    """What hospitals released before any training. `noise`: standard deviation of each count, in patients."""

    noise: float
    columns: tuple[Column, ...]
    outcome: str  # the value of the target whose share is told; empty for a target of more values, or of numbers
    sites: Mapping[str, Figures]
    together: Figures
    differing: tuple[str, ...]  # columns of which hospitals surely differ
    missing: Mapping[str, str]


Points = tuple[tuple[int, float], ...]  # (round, value)


@dataclass(frozen=True)
class Run:
    """Everything a report may say."""

    study: str
    study_sha256: str
    engine: str
    seed: int | None
    outcome: str
    why: str
    rounds_completed: int
    rounds_planned: int
    seconds: float | None
    started: str
    model_sha256: str
    purpose: str
    task_type: str
    target: str
    target_unit: str
    metric: str
    versions: Mapping[str, str]
    privacy: Privacy
    features: tuple[Feature, ...]
    model_name: str
    parameters: int | None
    strategy: str
    sites: tuple[Site, ...]
    models: Mapping[str, Model | None]
    convergence: Mapping[str, Points]
    epsilon_by_round: Mapping[str, Points]
    rounds: tuple[Round, ...]
    left: tuple[Left, ...]
    statistics: Statistics | None = None
    absent: Mapping[str, str] = field(default_factory=dict)  # hospital of the study that contributed nothing -> why

    @property
    def contributors(self) -> tuple[Site, ...]:
        """Hospitals whose updates or counts are part of the result; all of them where the run recorded no rounds."""
        if self.statistics is not None:
            names = set(self.statistics.sites)
        elif self.rounds:
            names = {name for r in self.rounds if r.number <= self.rounds_completed for name in r.contributed}
        else:
            return self.sites
        return tuple(site for site in self.sites if site.name in names)

    @property
    def took_part(self) -> tuple[Site, ...]:
        """Contributors, and hospitals that spent privacy although nothing of theirs counts."""
        contributors = {site.name for site in self.contributors}
        return tuple(site for site in self.sites if site.name in contributors or site.epsilon)

    @property
    def away(self) -> dict[str, str]:
        """Hospitals of the study that are no contributors, and why as far as the coordinator wrote it down."""
        contributors = {site.name for site in self.contributors}
        return {site.name: self.reason(site.name) for site in self.sites if site.name not in contributors}

    def reason(self, site: str) -> str:
        """Why a hospital contributed nothing; the newest of what was written down, empty where nothing was."""
        if any(site in r.contributed for r in self.rounds):
            return "it contributed only to a round that did not count"
        reasons = [r.missing[site] for r in self.rounds if r.missing.get(site)]
        return self.absent.get(site) or (reasons[-1] if reasons else "")

    @property
    def trains(self) -> bool:
        """Whether the study is about a model; if not, about statistics."""
        return self.task_type != "statistics"

    @property
    def private(self) -> bool:
        """Whether hospitals trained under differential privacy."""
        return self.privacy.mode != "none"

    @property
    def complete(self) -> bool:
        """Whether every planned round had its quorum."""
        return self.outcome == "COMPLETE"

    @property
    def simulated(self) -> bool:
        """Whether one machine played every hospital."""
        return self.engine in ("inprocess", "ray")

    @property
    def unmeasured(self) -> bool:
        """Whether hospitals trained a model that nobody measured: between machines no figure of patients leaves."""
        return self.engine == "deployed" and self.model(self.shared) is None

    @property
    def untested(self) -> bool:
        """Whether the study keeps no patients aside to judge the model by, so that no figure exists."""
        return self.total("patients_test") == 0

    @property
    def noisy(self) -> Noisy | None:
        """Whether the shared model's figures came with noise, from hospitals that let such figures leave."""
        shared = self.model(self.shared)
        return shared.noisy if shared else None

    @property
    def seeded(self) -> bool:
        """Whether the noise can be drawn again by who knows the seed: then nobody is protected by it."""
        return self.private and (self.simulated or "seeded" in self.privacy.noise)

    @property
    def shared(self) -> str:
        """Key of the model that the study is about."""
        return (
            "federated" if self.private or not self.model("federated_without_privacy") else "federated_without_privacy"
        )

    def model(self, key: str) -> Model | None:
        """One of MODELS, None where the run has none."""
        return self.models.get(key)

    def total(self, name: str) -> int | None:
        """Sum of a count over hospitals; None where no hospital has it."""
        counts = [getattr(site, name) for site in self.sites]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None


@dataclass(frozen=True)
class Node:
    """A value of the file and where it stands. A missing one holds None and gives defaults."""

    value: Any
    path: str = ""

    def __getitem__(self, key: str) -> "Node":
        if self.value is not None and not isinstance(self.value, dict):
            self.refuse("an object")
        return Node((self.value or {}).get(key), f"{self.path}.{key}".lstrip("."))

    def items(self) -> list[tuple[str, "Node"]]:
        """Members of an object, names cleaned."""
        if self.value is not None and not isinstance(self.value, dict):
            self.refuse("an object")
        return [
            (clean(key), Node(value, f"{self.path}.{clean(key)[:60]}")) for key, value in (self.value or {}).items()
        ]

    def list(self) -> "list[Node]":
        """Members of a list."""
        if self.value is not None and not isinstance(self.value, list):
            self.refuse("a list")
        return [Node(value, f"{self.path}[{number}]") for number, value in enumerate(self.value or [])]

    def text(self, default: str = "") -> str:
        """A cleaned text."""
        if self.value is None:
            return default
        if not isinstance(self.value, str):
            self.refuse("text")
        return clean(self.value)

    def number(self) -> float | None:
        """A finite number."""
        if self.value is None:
            return None
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not abs(self.value) < 1e100:
            self.refuse("a finite number")
        return float(self.value)

    def count(self, limit: int = MAX_BYTES) -> int | None:
        """A whole number from 0 to the limit."""
        number = self.number()
        if number is not None and not (number.is_integer() and 0 <= number <= limit):
            self.refuse(f"a whole number from 0 to {limit}")
        return None if number is None else int(number)

    def required(self) -> "Node":
        """This node, if it is there."""
        return self.refuse("a value") if self.value is None else self

    def refuse(self, expected: str) -> NoReturn:
        """Raise the error that names the place."""
        kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number"}
        found = "nothing" if self.value is None else kinds.get(type(self.value), "another number")
        raise RunError(f"metrics.json: {self.path or 'top'}: expected {expected}, found {found}; run the study again")


def load(run: Path) -> Run:
    """Read a run's metrics.json.

    Raises:
        RunError: missing, unreadable or malformed; the text names the place.
    """
    path = run / "metrics.json"
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; give the folder of a finished run") from None
    except UnicodeDecodeError:
        raise RunError(f"{path}: expected UTF-8 text, found other bytes; run the study again") from None
    try:
        return read(parse(text))
    except RunError as error:
        raise RunError(f"{run}/{error}") from None


def parse(text: str) -> Node:
    """The file's top object."""
    try:
        top = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RunError(f"metrics.json: expected JSON, found something else ({error}); run the study again") from None
    return Node(top if isinstance(top, dict) else Node(top).refuse("an object"))


def read(top: Node) -> Run:
    """Every field, by kind."""
    completed = top["rounds_completed"].required().count(MAX_ROUNDS) or 0
    models = {key: _model(top["models"][key], top["primary_metric"].text("auroc")) for key in MODELS}
    rounds = tuple(_round(node) for node in top["rounds"].list())
    task, model = top["task"], top["model"]
    return Run(
        study=top["study"].required().text(),
        study_sha256=top["study_sha256"].required().text(),
        engine=top["engine"].text(),
        seed=top["seed"].count(),
        outcome=top["outcome"].required().text(),
        why=top["why"].text(),
        rounds_completed=completed,
        rounds_planned=max(completed, top["rounds_planned"].count(MAX_ROUNDS) or 0, *(r.number for r in rounds), 0),
        seconds=top["seconds"].number(),
        started=top["started"].text(),
        model_sha256=top["model_sha256"].text(),
        purpose=top["purpose"].text(),
        task_type=task["type"].text(),
        target=task["target"].text(),
        target_unit=task["unit"].text(),
        metric=top["primary_metric"].text("auroc"),
        versions={name: node.text() for name, node in top["versions"].items()},
        privacy=_privacy(top["privacy"]),
        features=_features(top["features"]),
        model_name=model["name"].text(),
        parameters=model["parameters"].count(),
        strategy=top["strategy"].text(),
        sites=tuple(_site(node) for node in top["sites"].list()) or _sites_of(models),
        models=models,
        convergence={key: _points(node, "value") for key, node in top["convergence"].items()},
        epsilon_by_round={site: _points(node, "epsilon") for site, node in top["epsilon_by_round"].items()},
        rounds=rounds,
        left=tuple(_left(node) for node in top["left"].list()),
        statistics=_statistics(top["statistics"]),
        absent=dict(_reasons(top["absent"])),
    )


def clean(text: str) -> str:
    """One line of readable characters, cut where nobody would read on.

    >>> clean("a\\n\\tb\\u202ec")
    'a b c'
    """
    text = " ".join(UNREADABLE.sub(" ", text[: 2 * LONG_TEXT]).split())
    return text if len(text) <= LONG_TEXT else f"{text[:LONG_TEXT]}…"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _model(node: Node, metric: str) -> Model | None:
    if node.value is None:
        return None
    metrics = {name: _estimate(entry) for name, entry in node["metrics"].items()}
    main = metrics.get(metric) or (_estimate(node["auroc"]) if metric == "auroc" else None)
    per_site = {site: _estimate(entry) for site, entry in node["per_site"].items()}
    bins = tuple(_bin(entry) for entry in node["calibration"].list())
    return Model(main, per_site, metrics, bins, _noisy(node["noisy"]), node["guess"].number())


def _noisy(node: Node) -> Noisy | None:
    return None if node.value is None else Noisy(node["epsilon"].number(), len(node["sites"].list()))


def _estimate(node: Node) -> Estimate | None:
    if node.value is None:
        return None
    value = _needed(node["value"])
    low, high = node["low"].number(), node["high"].number()
    return Estimate(value, value if low is None else low, value if high is None else high)


def _bin(node: Node) -> Bin:
    predicted, observed = _needed(node["predicted"]), _needed(node["observed"])
    if not (0 <= predicted <= 1 and 0 <= observed <= 1):
        node.refuse("predicted and observed from 0 to 1")
    low, high = node["observed_low"].number(), node["observed_high"].number()
    interval = None if low is None or high is None else (max(0.0, low), min(1.0, high))
    return Bin(predicted, observed, node["count"].count() or 0, interval)


def _needed(node: Node) -> float:
    number = node.required().number()
    assert number is not None
    return number


def _site(node: Node) -> Site:
    return Site(
        name=node["site"].required().text(),
        patients_train=node["patients_train"].count(),
        patients_test=node["patients_test"].count(),
        epsilon=node["epsilon"].number(),
        delta=node["delta"].number(),
        noise_multiplier=node["noise_multiplier"].number(),
        sampling_rate=node["sampling_rate"].number(),
        steps=node["steps"].count(),
        bytes_sent=node["bytes_sent"].count(),
        messages_sent=node["messages_sent"].count(),
        weight=node["weight"].number(),
        patients_announced=node["patients_announced"].count(),
        values_clipped={name: entry.count() or 0 for name, entry in node["values_clipped"].items()},
    )


def _statistics(node: Node) -> Statistics | None:
    if node.value is None:
        return None
    columns = tuple(_column(entry) for entry in node["columns"].list())
    return Statistics(
        noise=_needed(node["noise"]),
        columns=columns,
        outcome=node["outcome"].text(),
        sites={site: _figures(entry, columns) for site, entry in node["sites"].items()},
        together=_figures(node["together"], columns),
        differing=tuple(_names(node["differing"])),
        missing=dict(_reasons(node["missing"])),
    )


def _column(node: Node) -> Column:
    labels = tuple(_names(node["labels"]))
    edges = tuple(_needed(edge) for edge in node["edges"].list())
    if len(labels) < 2 or (edges and len(edges) != len(labels)):
        node.refuse("labels, and as many edges where there are any")
    return Column(node["name"].required().text(), node["unit"].text(), labels, edges)


def _figures(node: Node, columns: tuple[Column, ...]) -> Figures:
    found = {column.name: _counts(node["columns"][column.name], column) for column in columns}
    patients = _estimate(node["patients"].required())
    assert patients is not None
    return Figures(patients, _estimate(node["outcome"]), found)


def _counts(node: Node, column: Column) -> Counts:
    counts = [found for entry in node["counts"].list() if (found := _estimate(entry))]
    shares = tuple(_estimate(entry) for entry in node["shares"].list())
    if not len(counts) == len(shares) == len(column.labels):
        node.refuse("a count and a share for each label")
    return Counts(tuple(counts), shares)


def _sites_of(models: Mapping[str, Model | None]) -> tuple[Site, ...]:
    """Hospitals that only the figures name."""
    names = {site for model in models.values() if model for site in model.per_site}
    return tuple(Site(name) for name in sorted(names))


def _privacy(node: Node) -> Privacy:
    return Privacy(
        mode=node["mode"].text("none"),
        epsilon=node["epsilon"].number(),
        delta=node["delta"].number(),
        clip_norm=node["clip_norm"].number(),
        unit=node["unit"].text("patient"),
        adjacency=node["adjacency"].text("add or remove one"),
        noise=node["noise"].text(),
        evaluation_epsilon=node["evaluation_epsilon"].number(),
    )


def _features(node: Node) -> tuple[Feature, ...]:
    """Columns as a list of objects with names, or as an object by name."""
    named = node.items() if isinstance(node.value, dict) else [(f["name"].text(), f) for f in node.list()]
    return tuple(
        Feature(
            name=name,
            type=feature["type"].text(),
            unit=feature["unit"].text(),
            range=tuple(_needed(bound) for bound in feature["range"].list()),
            values=tuple(_word(value) for value in feature["values"].list()),
        )
        for name, feature in named
    )


def _word(node: Node) -> str:
    return node.text() if isinstance(node.value, str) else clean(json.dumps(node.value))


def _points(node: Node, key: str) -> Points:
    """A curve: objects with a round and a value, or values of rounds 1, 2, 3 ...; None is a gap."""
    points = []
    for number, entry in enumerate(node.list(), 1):
        is_object = isinstance(entry.value, dict)
        value = (entry[key] if is_object else entry).number()
        if value is not None:
            points.append(((entry["round"].required().count(MAX_ROUNDS) or 0) if is_object else number, value))
    return tuple(sorted(points))


def _round(node: Node) -> Round:
    """`contributed` and `missing` are lists of hospitals, or objects with bytes and with reasons."""
    number = node["round"].required().count(MAX_ROUNDS)
    contributed = node["contributed"]
    sent = [name for name, _ in contributed.items()] if isinstance(contributed.value, dict) else _names(contributed)
    missing = node["missing"]
    reasons = dict.fromkeys(_names(missing), "") if isinstance(missing.value, list) else dict(_reasons(missing))
    return Round(number or 0, frozenset(sent), reasons)


def _names(node: Node) -> list[str]:
    return [entry.text() for entry in node.list()]


def _reasons(node: Node) -> list[tuple[str, str]]:
    return [(site, reason.text()) for site, reason in node.items()]


def _left(node: Node) -> Left:
    return Left(
        what=node["what"].required().text(),
        fields=tuple(entry.text() for entry in node["fields"].list()),
        messages=node["messages"].count(),
        bytes=node["bytes"].count(),
    )
