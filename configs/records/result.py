"""metrics.json: the result of a finished run.

It is written by simulations and by the coordinator, and read by reports and tables.

>>> read_result({"study": "heart", "study_sha256": "ab", "outcome": "COMPLETE", "rounds_completed": 2}).why
''
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

from configs.records.described import CountedColumn, DescribedPatients
from configs.records.effects import Effects
from configs.records.estimate import Estimate as Estimate
from configs.records.fields import LATER, OMIT, Within, read
from configs.records.further import read_further
from configs.records.outcome import Difference, OutcomeFigures
from configs.records.run_journal import MAX_ROUNDS, Again, Round

SHARE = Within(0.0, 1.0)
ROUNDS = Within(0, MAX_ROUNDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Test patients of similar predicted probability, and the share of them that had the outcome."""

    low: Annotated[float | None, "Lower end of the predicted probabilities."]
    high: Annotated[float | None, "Upper end of the predicted probabilities."]
    predicted: Annotated[float, "Mean predicted probability; the bin's middle where it is of noisy counts.", SHARE]
    observed: Annotated[float, "Share of the patients that had the outcome.", SHARE]
    observed_low: Annotated[float | None, "Lower end of its 95 % interval, where noise is part of it.", OMIT] = None
    observed_high: Annotated[float | None, "Upper end of its 95 % interval, where noise is part of it.", OMIT] = None
    count: Annotated[int, "Number of patients.", LATER]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the 95 % interval of the observed share within [0, 1], None where no noise is part of it."""
        if self.observed_low is None or self.observed_high is None:
            return None
        return max(0.0, self.observed_low), min(1.0, self.observed_high)


@dataclass(frozen=True)
class Noisy:
    """The release of noisy histograms that a model's figures were computed from."""

    epsilon: Annotated[float | None, "Epsilon that the study asks for it, by itself."]
    bins: Annotated[int | None, "Bins of predicted probability."]
    noise_multiplier: Annotated[float | None, "Standard deviation of the noise in each cell, in patients."]
    sites: Annotated[tuple[str, ...], "Hospitals that released a histogram.", LATER]
    missing: Annotated[Mapping[str, str], "Hospital: why it released none.", LATER]


@dataclass(frozen=True)
class SurvivalPoint:
    """The risk of one cause by one time, of all test patients together."""

    cause: Annotated[str, "The event's word.", LATER]
    time: Annotated[float, "The end of an interval.", LATER]
    predicted: Annotated[float | None, "Mean predicted risk by then."]
    observed: Annotated[float | None, "Observed risk by then, by Kaplan and Meier or Aalen and Johansen."]
    low: Annotated[float | None, "Lower end of its 95 % interval."]
    high: Annotated[float | None, "Upper end of its 95 % interval."]


@dataclass(frozen=True)
class ModelResult:
    """How good one of the compared models is on test patients; null where a figure is undefined."""

    auroc: Annotated[Estimate | None, "Area under the ROC curve, all test patients together."]
    per_site: Annotated[Mapping[str, Estimate | None], "Hospital: the primary metric on its test patients.", LATER]
    metrics: Annotated[Mapping[str, Estimate | None], "Metric: its value on all test patients together.", LATER]
    guess: Annotated[
        float | None, "Mean absolute error of predicting the middle of the target's range for everybody.", OMIT
    ] = None
    calibration: Annotated[
        tuple[Bin, ...] | None, "Predicted and observed shares; of binary outcomes, and of times at the horizon.", OMIT
    ] = None
    noisy: Annotated[Noisy | None, "The release behind these figures, where hospitals released them.", OMIT] = None
    outcome: Annotated[OutcomeFigures | None, "Thresholds, decision curve, calibration by hospital.", OMIT] = None
    difference: Annotated[Difference | None, "The shared model's primary metric less this model's.", OMIT] = None
    c_index: Annotated[Estimate | None, "Concordance index, all test patients together; of times.", OMIT] = None
    survival: Annotated[
        tuple[SurvivalPoint, ...] | None, "Predicted and observed risk by the end of each interval; of times.", OMIT
    ] = None


@dataclass(frozen=True)
class LeftOut:
    """How good a model of all other hospitals is at one that was left out: `archipel simulate --leave-one-out`."""

    patients: Annotated[int, "Patients of the hospital, none of whom the model has seen."]
    metrics: Annotated[Mapping[str, Estimate | None], "Metric: its value on them; null where undefined.", LATER]
    in_the_large: Annotated[
        Estimate | None, "Mean predicted probability less the share with the outcome; of binary outcomes.", OMIT
    ] = None


@dataclass(frozen=True)
class Released:
    """The noisy histograms of test patients that hospitals released."""

    histograms: Annotated[
        Mapping[str, tuple[tuple[float, ...], ...]], "Hospital: counts by outcome (without, with, unknown) and bin."
    ]
    missing: Annotated[Mapping[str, str], "Hospital: why it released none.", LATER]
    noise_multiplier: Annotated[float | None, "Standard deviation of the noise in each cell, in patients."]


@dataclass(frozen=True, kw_only=True)
class TrainedSite:
    """One hospital's part in a training."""

    site: Annotated[str, "The hospital's name."]
    delta: Annotated[float | None, "Delta of its plan; null without privacy."]
    noise_multiplier: Annotated[float | None, "Noise multiplier of its plan; null without privacy."]
    sampling_rate: Annotated[float | None, "Sampling rate of its plan; null without privacy."]
    steps: Annotated[int | None, "Steps of the whole study; null where nobody but the hospital knows."]
    weight: Annotated[float | None, "Its weight in the average of models."]
    patients_train: Annotated[int | None, "Training patients; null between machines."]
    patients_test: Annotated[int | None, "Test patients; null between machines."]
    epsilon: Annotated[float | None, "Epsilon that its ledger states for the study; null without privacy."]
    values_clipped: Annotated[Mapping[str, int], "Column: values that were moved into its public range.", LATER]
    bytes_sent: Annotated[int | None, "Bytes that left the hospital."]
    messages_sent: Annotated[int | None, "Messages that left the hospital."]
    tests_only: Annotated[bool, "Whether it trains nothing: all its patients are test patients.", OMIT] = False


@dataclass(frozen=True, kw_only=True)
class CountedSite:
    """One hospital's part in a study of statistics."""

    site: Annotated[str, "The hospital's name."]
    patients_announced: Annotated[int | None, "Patients that the cohort announces."]
    epsilon: Annotated[float | None, "Epsilon that its ledger states for the study."]
    delta: Annotated[float | None, "Delta of the release."]
    noise_multiplier: Annotated[float | None, "Noise multiplier of the release."]
    sampling_rate: Annotated[float | None, "Always 1: every patient is counted."]
    steps: Annotated[int | None, "Always 1: counts are released once."]
    bytes_sent: Annotated[int | None, "Bytes that left the hospital."]
    messages_sent: Annotated[int | None, "Messages that left the hospital."]


@dataclass(frozen=True)
class ModelSize:
    """The model that was trained."""

    name: Annotated[str, "The architecture's name in the study.", LATER]
    parameters: Annotated[int | None, "Number of parameters."]
    personal: Annotated[int, "How many of them each hospital has values of its own for, which never leave.", OMIT] = 0


@dataclass(frozen=True)
class Left:
    """One kind of message that left the hospitals."""

    what: Annotated[str, "What it is, in words."]
    fields: Annotated[tuple[str, ...], "Each field, with the shape and type of an array.", LATER]
    messages: Annotated[int | None, "Number of messages, all hospitals together."]
    bytes: Annotated[int | None, "Bytes of their content, all hospitals together."]


@dataclass(frozen=True)
class Point:
    """The learning curve after one round."""

    round: Annotated[int, "Number of the round, from 1.", ROUNDS]
    value: Annotated[float | None, "The primary metric on all test patients."]


@dataclass(frozen=True)
class SpentPoint:
    """What a hospital had spent after one round."""

    round: Annotated[int, "Number of the round, from 1.", ROUNDS]
    epsilon: Annotated[float | None, "Epsilon from the study's beginning to this round."]


@dataclass(frozen=True)
class Guarantee:
    """The `privacy` of metrics.json, as far as every study says it; the study's own keys stand beside these."""

    mode: Annotated[str, "The study's privacy mode."] = "none"
    epsilon: Annotated[float | None, "Epsilon of the whole study, its evaluation included.", OMIT] = None
    delta: Annotated[float | None, "Delta of the whole study.", OMIT] = None
    clip_norm: Annotated[float | None, "L2 norm to which each patient's gradient is clipped.", OMIT] = None
    unit: Annotated[str, "Whom the guarantee is about."] = "patient"
    adjacency: Annotated[str, "Which data sets it does not tell apart."] = "add or remove one"
    where: Annotated[str, "Which releases the guarantee is about.", OMIT] = "at each hospital"
    limits: Annotated[str, "Against whom the guarantee does not hold.", OMIT] = ""
    noise: Annotated[str, "Where the noise comes from.", OMIT] = ""
    training_epsilon: Annotated[float | None, "Epsilon of the training by itself.", OMIT] = None
    evaluation_epsilon: Annotated[float | None, "Epsilon of the noisy histogram by itself.", OMIT] = None


@dataclass(frozen=True)
class TaskInWords:
    """The `task` of metrics.json, as far as every study says it; the study's own keys stand beside these."""

    type: Annotated[str, "The task type.", LATER]
    target: Annotated[str, "The target column.", LATER]
    unit: Annotated[str, "The target's unit.", LATER]
    time: Annotated[str, "The column with the time, where the target is a time to an event.", LATER]


@dataclass(frozen=True)
class FeatureInWords:
    """A column in the `features` of metrics.json; the study's own keys stand beside these."""

    type: Annotated[str, "The column's type.", LATER]
    unit: Annotated[str, "The unit of its numbers.", LATER]
    range: Annotated[tuple[float, ...], "The public range of its numbers.", LATER]
    values: Annotated[tuple[Any, ...], "The public values of a category.", LATER]
    curve: Annotated[int | None, "How many knots its effect may bend at; null where it is a straight line."]
    reader: Annotated[str, "How a column's images or series are read.", LATER] = ""
    size: Annotated[tuple[int, ...], "The sides of its images.", LATER] = ()
    length: Annotated[int | None, "The length of its series."] = None
    encoder: Annotated[str, "What makes numbers of its images.", LATER] = ""

    @property
    def bounds(self) -> str:
        """Return its range, or how its records are read, in words; nothing of a category."""
        if not self.reader:
            return " to ".join(f"{bound:g}" for bound in self.range)
        size = " x ".join(map(str, self.size)) or f"length {self.length}"
        return f"{size}, read by {self.reader}{f', encoder {self.encoder}' if self.encoder else ''}"


@dataclass(frozen=True)
class ColumnCounts:
    """What is known of one column: a count for each label, and its share of the patients."""

    counts: Annotated[tuple[Estimate, ...], "Patients of each label."]
    shares: Annotated[tuple[Estimate | None, ...], "Their share of all patients; null where the noise hides it."]


@dataclass(frozen=True)
class PatientCounts:
    """What is known of one hospital's patients, or of all together."""

    patients: Annotated[Estimate, "Number of patients."]
    outcome: Annotated[Estimate | None, "Share of patients with the outcome; null where the noise hides it."]
    columns: Annotated[Mapping[str, ColumnCounts], "Column: its counts."]


@dataclass(frozen=True)
class ReleasedStatistics:
    """What hospitals released in a study of statistics, and what follows from it."""

    noise: Annotated[float, "Standard deviation of the noise in each count, in patients."]
    noise_multiplier: Annotated[float | None, "Noise multiplier of each hospital's release."]
    columns: Annotated[tuple[CountedColumn, ...], "Columns, in the order of the counts."]
    outcome: Annotated[str | None, "Value of the target whose share is told; null unless it has two."]
    sites: Annotated[Mapping[str, PatientCounts], "Hospital: what is known of its patients."]
    together: Annotated[PatientCounts, "What is known of all patients together."]
    differing: Annotated[tuple[str, ...], "Columns in which hospitals surely differ.", LATER]
    missing: Annotated[Mapping[str, str], "Hospital: why it released nothing.", LATER]
    released: Annotated[Mapping[str, tuple[float, ...]], "Hospital: its noisy counts, as they left.", LATER]

    def flaws(self) -> Iterator[tuple[str, str]]:
        """Yield each place with counts that do not fit the columns, and what was expected there."""
        entries = {"together": self.together} | {f"sites.{site}": entry for site, entry in self.sites.items()}
        for column in self.columns:
            for place, entry in entries.items():
                figures = entry.columns.get(column.name)
                if figures is None or not len(figures.counts) == len(figures.shares) == len(column.labels):
                    yield f"{place}.columns.{column.name}", "a count and a share for each label"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What every run says."""

    study: Annotated[str, "The study's name."]
    study_sha256: Annotated[str, "Digest of the study's canonical form."]
    engine: Annotated[str, "`inprocess` or `ray` for a simulation, `deployed` between machines.", LATER]
    seed: Annotated[int | None, "The study's seed."]
    outcome: Annotated[str, "COMPLETE, or INCOMPLETE where a round had no quorum."]
    why: Annotated[str, "Why the run ended early; empty where it is complete.", LATER]
    rounds_completed: Annotated[int, "Rounds that had their quorum.", ROUNDS]
    seconds: Annotated[float | None, "Duration in seconds, over all attempts."]
    purpose: Annotated[str, "The study's purpose.", LATER]
    task: Annotated[Mapping[str, Any], "The study's task section.", LATER]
    training: Annotated[Mapping[str, Any], "The study's training section.", LATER]
    rounds_planned: Annotated[int, "Rounds that the study asks for.", ROUNDS, LATER]
    versions: Annotated[Mapping[str, str], "Package: the release that computed the result.", LATER]
    arithmetic: Annotated[int | None, "Version of the arithmetic that decides a model's bits."]
    privacy: Annotated[Mapping[str, Any], "The study's privacy section and the guarantee (`Guarantee`).", LATER]
    features: Annotated[Mapping[str, Any], "Column: its section in the study (`FeatureInWords`).", LATER]
    rounds: Annotated[tuple[Round, ...], "Records of the run's journal: every round.", LATER]
    made_anew: Annotated[tuple[Again, ...], "Records of the run's journal: releases that were made anew.", LATER]
    absent: Annotated[Mapping[str, str], "Hospital that contributed to no round that counts: why.", LATER]
    left: Annotated[tuple[Left, ...], "Each kind of message that left the hospitals.", LATER]

    @classmethod
    def present_form(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the file with columns by name, and curves as points, where an earlier form had lists."""
        features = document.get("features")
        if _are_objects(features):
            document = {**document, "features": {str(entry.get("name", "")): entry for entry in features or ()}}
        for key, name in (("convergence", "value"), ("epsilon_by_round", "epsilon")):
            curves = document.get(key)
            if isinstance(curves, Mapping):
                document = {**document, key: {curve: _points(curves[curve], name) for curve in curves}}
        return document


@dataclass(frozen=True)
class TunedOn:
    """How settings were chosen on real patients before the run: `archipel tune`."""

    warning: ClassVar[str] = "settings were chosen on real patients; no epsilon covers this"

    settings: Annotated[int, "Settings that were tried."]
    seeds: Annotated[int, "Splits into training and validation patients."]
    validation: Annotated[float, "Share of the training patients who judged them."]
    seed: Annotated[int, "The seed whose test patients were not read for the choice."]


@dataclass(frozen=True, kw_only=True)
class TrainingResult(Result):
    """metrics.json of a run that trained a model."""

    model_sha256: Annotated[str, "Digest of model.safetensors.", LATER]
    model: Annotated[ModelSize | None, "The model."]
    strategy: Annotated[str, "The strategy's name.", LATER]
    primary_metric: Annotated[str | None, "The metric that is compared; null where the study names none."]
    sites: Annotated[tuple[TrainedSite, ...], "Hospitals of the study.", LATER]
    models: Annotated[
        Mapping[str, ModelResult | None], "Compared model: its figures; null where there are none.", LATER
    ]
    released: Annotated[Released | None, "Noisy histograms that hospitals released; null where the study asks none."]
    rehearsed: Annotated[
        ModelResult | None, "A simulation's shared model as a deployment would show it: from the noisy releases.", OMIT
    ] = None
    left_out: Annotated[Mapping[str, LeftOut], "Hospital: a model of all the others, judged on its patients.", OMIT] = (
        field(default_factory=dict)
    )
    convergence: Annotated[Mapping[str, tuple[Point, ...]], "Compared model: its learning curve.", LATER]
    epsilon_by_round: Annotated[
        Mapping[str, tuple[SpentPoint, ...]], "Hospital: epsilon after some of the rounds.", LATER
    ]
    started: Annotated[str, "When the run began (ISO 8601, UTC).", LATER]
    tuned: Annotated[TunedOn | None, "How settings were chosen on real patients before the run.", OMIT] = None
    patients: Annotated[DescribedPatients | None, "A simulation's patients, counted exactly.", OMIT] = None
    effects: Annotated[Effects | None, "What the coefficients say, of a model that is linear.", OMIT] = None
    releases: Annotated[
        Mapping[str, Any], "Further release: what follows from it, of the form that its kind declares.", OMIT
    ] = field(default_factory=dict)
    releases_missing: Annotated[
        Mapping[str, Mapping[str, str]], "Further release: hospital: why it released none.", OMIT
    ] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StatisticsResult(Result):
    """metrics.json of a run that released statistics."""

    sites: Annotated[tuple[CountedSite, ...], "Hospitals of the study.", LATER]
    models: Annotated[Mapping[str, ModelResult | None], "Always empty: nothing was trained.", LATER]
    statistics: Annotated[
        ReleasedStatistics | None, "What was released; null where too few hospitals released anything."
    ]
    started: Annotated[str, "When the run began (ISO 8601, UTC).", LATER]


def read_result(document: Any, *, clean: Callable[[str], str] = str) -> TrainingResult | StatisticsResult:
    """Return metrics.json as the record that it is.

    Args:
        clean: what is done to every text.

    Raises:
        RecordError: with every mistake of the file.
    """
    if isinstance(document, Mapping) and "statistics" in document:
        return read(StatisticsResult, document, clean=clean)
    result = read(TrainingResult, document, clean=clean)
    releases = {clean(name): read_further(name, entry, clean=clean) for name, entry in result.releases.items()}
    return replace(result, releases=releases)


def _points(curve: Any, name: str) -> Any:
    """Return values of rounds 1, 2, 3 ... as points; None is a gap."""
    if not isinstance(curve, list | tuple) or any(isinstance(point, Mapping) for point in curve):
        return curve
    return [{"round": number, name: value} for number, value in enumerate(curve, 1)]


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value)
