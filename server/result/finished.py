"""A finished run as its report sees it: the cleaned metrics.json and derived numbers.

>>> from configs.records.result import read_result
>>> run = Run.of(read_result({"study": "heart", "study_sha256": "ab", "outcome": "COMPLETE", "rounds_completed": 2}))
>>> run.study, run.private, run.model("federated")
('heart', False, None)
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from configs.records.described import DescribedPatients
from configs.records.effects import Effects
from configs.records.estimate import Estimate
from configs.records.fields import read
from configs.records.models import ComparedModel
from configs.records.result import (
    Bin,
    CountedSite,
    FeatureInWords,
    Guarantee,
    Left,
    LeftOut,
    ModelResult,
    ModelSize,
    Noisy,
    ReleasedStatistics,
    StatisticsResult,
    TaskInWords,
    TrainedSite,
    TrainingResult,
    TunedOn,
)
from configs.records.run_journal import Round
from configs.schema.privacy import is_budgeted

Points = tuple[tuple[int, float], ...]  # (round, value)


@dataclass(frozen=True)
class Model(ModelResult):
    """A model's quality, with its figure of the study's main metric; None where that is undefined or not there."""

    calibration: tuple[Bin, ...] = ()
    main: Estimate | None = None


@dataclass(frozen=True)
class Site:
    """One hospital's part, whatever the study did."""

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
    patients_announced: int | None = None
    values_clipped: Mapping[str, int] = field(default_factory=dict)
    tests_only: bool = False

    @classmethod
    def of(cls, part: TrainedSite | CountedSite) -> "Site":
        """Return the part that a record says."""
        entries = {entry.name: getattr(part, entry.name) for entry in fields(cls) if hasattr(part, entry.name)}
        return cls(part.site, **entries)

    @property
    def patients(self) -> int:
        """Return its patients as far as they are recorded, else those announced; 0 where neither is known."""
        return (self.patients_train or 0) + (self.patients_test or 0) or self.patients_announced or 0


@dataclass(frozen=True)
class CountedElsewhere:
    """What a study of statistics released of the same hospitals' patients."""

    study: str
    study_sha256: str
    epsilon: float | None
    released: ReleasedStatistics
    target: str


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
    privacy: Guarantee
    features: Mapping[str, FeatureInWords]
    model_name: str
    parameters: int | None
    personal: int  # of them each hospital has its own
    strategy: str
    sites: tuple[Site, ...]
    models: Mapping[str, Model | None]
    convergence: Mapping[str, Points]
    epsilon_by_round: Mapping[str, Points]
    rounds: tuple[Round, ...]
    left: tuple[Left, ...]
    statistics: ReleasedStatistics | None
    absent: Mapping[str, str]  # hospital of the study that contributed nothing -> why
    tuned: TunedOn | None = None
    effects: Effects | None = None
    patients: DescribedPatients | None = None
    counted: CountedElsewhere | None = None  # of a study of statistics on the same hospitals
    outcome_share_source: str = ""
    rehearsed: Model | None = None  # the shared model as a deployment would show it
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)
    releases: Mapping[str, Any] = field(default_factory=dict)  # further release -> the record of its result
    releases_missing: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # -> hospital -> why

    @classmethod
    def of(cls, result: TrainingResult | StatisticsResult, clean: Callable[[str], str] = str) -> "Run":
        """Return the run that metrics.json says.

        Raises:
            RecordError: the study's own sections are not of their form.
        """
        task = read(TaskInWords, result.task, "task", clean=clean)
        trained = result if isinstance(result, TrainingResult) else None
        size = (trained and trained.model) or ModelSize("", None)
        metric = (trained and trained.primary_metric) or "auroc"
        models: dict[str, Model | None] = {key: _model(result.models.get(key), metric) for key in ComparedModel}
        return cls(
            study=result.study,
            study_sha256=result.study_sha256,
            engine=result.engine,
            seed=result.seed,
            outcome=result.outcome,
            why=result.why,
            rounds_completed=result.rounds_completed,
            rounds_planned=max(result.rounds_completed, result.rounds_planned, *(r.round for r in result.rounds), 0),
            seconds=result.seconds,
            started=result.started,
            model_sha256=trained.model_sha256 if trained else "",
            purpose=result.purpose,
            task_type=task.type,
            target=task.target or task.time,
            target_unit=task.unit,
            metric=metric,
            versions=result.versions,
            privacy=read(Guarantee, result.privacy, "privacy", clean=clean),
            features={name: _feature(name, section, clean) for name, section in result.features.items()},
            model_name=size.name,
            parameters=size.parameters,
            personal=size.personal,
            strategy=trained.strategy if trained else "",
            sites=tuple(map(Site.of, result.sites)) or _sites_of(models),
            models=models,
            convergence=_curves(trained.convergence if trained else {}, "value"),
            epsilon_by_round=_curves(trained.epsilon_by_round if trained else {}, "epsilon"),
            rounds=result.rounds,
            left=result.left,
            statistics=result.statistics if isinstance(result, StatisticsResult) else None,
            absent=result.absent,
            tuned=trained.tuned if trained else None,
            effects=trained.effects if trained else None,
            patients=trained.patients if trained else None,
            outcome_share_source=clean(str(result.task.get("outcome_share_source") or "")),
            rehearsed=_model(trained.rehearsed, metric) if trained else None,
            left_out=trained.left_out if trained else {},
            releases=trained.releases if trained else {},
            releases_missing=trained.releases_missing if trained else {},
        )

    @property
    def contributors(self) -> tuple[Site, ...]:
        """Return the hospitals with updates or counts in the result; all where the run recorded no rounds."""
        if self.statistics is not None:
            names = set(self.statistics.sites)
        elif self.rounds:
            names = {name for r in self.rounds if r.round <= self.rounds_completed for name in r.contributed}
        else:
            return self.sites
        return tuple(site for site in self.sites if site.name in names)

    @property
    def took_part(self) -> tuple[Site, ...]:
        """Return the contributors, and the hospitals that spent privacy although nothing of theirs counts."""
        contributors = {site.name for site in self.contributors}
        return tuple(site for site in self.sites if site.name in contributors or site.epsilon)

    @property
    def away(self) -> dict[str, str]:
        """Return the hospitals of the study that are no contributors, and the recorded reasons."""
        contributors = {site.name for site in self.contributors}
        return {s.name: self.reason(s.name) for s in self.sites if s.name not in contributors and not s.tests_only}

    def reason(self, site: str) -> str:
        """Return why a hospital contributed nothing; the newest of what was written down, empty where nothing was."""
        if any(site in r.contributed for r in self.rounds):
            return "it contributed only to a round that did not count"
        reasons = [r.missing[site] for r in self.rounds if r.missing.get(site)]
        return self.absent.get(site) or (reasons[-1] if reasons else "")

    @property
    def trains(self) -> bool:
        """Return whether the study is about a model; if not, about statistics."""
        return self.task_type != "statistics"

    @property
    def private(self) -> bool:
        """Return whether the study has a guarantee of differential privacy."""
        return is_budgeted(self.privacy.mode)

    @property
    def complete(self) -> bool:
        """Return whether every planned round had its quorum."""
        return self.outcome == "COMPLETE"

    @property
    def simulated(self) -> bool:
        """Return whether one machine played every hospital."""
        return self.engine in ("inprocess", "ray")

    @property
    def unmeasured(self) -> bool:
        """Return whether the trained model was never measured: between machines no figure of patients leaves."""
        return self.engine == "deployed" and self.model(self.shared) is None

    @property
    def untested(self) -> bool:
        """Return whether the study keeps no patients aside to judge the model by, so that no figure exists."""
        return self.total("patients_test") == 0

    @property
    def noisy(self) -> Noisy | None:
        """Return whether the shared model's figures came with noise, from hospitals that let such figures leave."""
        shared = self.model(self.shared)
        return shared.noisy if shared else None

    @property
    def seeded(self) -> bool:
        """Return whether the noise came from a seed: it can be drawn again with the seed, and protects no patient."""
        return self.private and (self.simulated or "seeded" in self.privacy.noise)

    @property
    def shared(self) -> str:
        """Return the key of the model that the study is about."""
        return (
            ComparedModel.FEDERATED
            if self.private or not self.model(ComparedModel.WITHOUT_PRIVACY)
            else ComparedModel.WITHOUT_PRIVACY
        )

    def model(self, key: str) -> Model | None:
        """Return one of MODELS, None where the run has none."""
        return self.models.get(key)

    def total(self, name: str) -> int | None:
        """Sum of a count over hospitals; None where no hospital has it."""
        counts = [getattr(site, name) for site in self.sites]
        numbers = [count for count in counts if count is not None]
        return sum(numbers) if numbers else None


def _model(result: ModelResult | None, metric: str) -> Model | None:
    if result is None:
        return None
    main = result.metrics.get(metric) or (result.auroc if metric == "auroc" else None)
    return Model(**vars(result) | {"calibration": result.calibration or ()}, main=main)


def _sites_of(models: Mapping[Any, Model | None]) -> tuple[Site, ...]:
    """Return hospitals that only the figures name."""
    names = {site for model in models.values() if model for site in model.per_site}
    return tuple(Site(name) for name in sorted(names))


def _feature(name: str, section: object, clean: Callable[[str], str]) -> FeatureInWords:
    feature = read(FeatureInWords, section, f"features.{name}", clean=clean)
    words = (value if isinstance(value, str) else json.dumps(value) for value in feature.values)
    return replace(feature, values=tuple(map(clean, words)))


def _curves(curves: Mapping[str, Any], name: str) -> dict[str, Points]:
    """Return each curve without its gaps, in the order of its rounds."""
    values = {key: [(point.round, getattr(point, name)) for point in curve] for key, curve in curves.items()}
    return {key: tuple(sorted(point for point in curve if point[1] is not None)) for key, curve in values.items()}
