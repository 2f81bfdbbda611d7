"""Is privacy worth it, in this study? Asked of made-up patients before anybody's are read: `archipel plan --worth`.

Every figure is a mean over made-up worlds (simulations/synthetic.py: what is assumed) in which the study itself is
trained: its plan, noise, strategy, trainer and ledgers, in memory. Within a world everything is paired: the same
patients, the same seeds, privacy on and off. A loss is the AUROC of the same settings with nothing protected minus the
private one's. Intervals are 95 %, Student's t over worlds: they speak of the mean over worlds like these. One study is
one world, so `nine_in_ten` gives the loss that nine studies in ten stay below.

Settings are searched by a few moves from the study's own (simulations/search.py): each single one on two worlds, the
best three and their pairs on four more. The winner is judged on worlds that had no part in its choice, or choosing
would flatter it.

The work ends when so many seconds of computing are spent, other programs' not counted; where that comes before the
repetitions are done, the answer says so. An answer that had its time is the same on every run with the study's seed.

It is a planning aid and no promise: real patients are not these.

>>> of([0.01, 0.02, 0.03])
Interval(mean=0.02, low=-0.0048, high=0.0448)
>>> of([0.01])
Interval(mean=0.01, low=None, high=None)
"""

import itertools
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from configs.errors import ConfigError, PrivacyError, RunError
from configs.schema import Privacy, Study
from simulations.memory import train
from simulations.search import Settings, best_settings, require_plans
from simulations.synthetic import Assumed, World, draw, require_announced

EPSILONS = (0.5, 1.0, 3.0, 8.0)
LOWEST = 0.1  # of the search for the cheapest epsilon
PRECISION = 1.2  # two epsilons this near are one
MIN_REPETITIONS = 3  # fewer allow no verdict
SEARCH_WORLDS = 10_000  # their seeds begin here, so that none is also judged on
FEW, MANY = 2, 6  # worlds that judge the single moves, and the finalists
SHARES = (0.55, 0.8, 0.9, 1.0)  # of the time: what each part must end by
MATERIAL = 0.005  # AUROC by which staying alone must be better to be advised
NOISE_OF_NOTHING = 0.5  # the AUROC of a model that diverged


@dataclass(frozen=True, slots=True)
class Question:
    """What the researcher wants to know.

    Raises:
        ConfigError: a wish that no study can meet.
    """

    within: float = 0.02
    auroc: float | None = None
    assumed: Assumed = field(default_factory=Assumed)
    repetitions: int = 10
    seconds: float = 50.0  # of one core's computing; what is finished by then is the answer
    search: bool = True  # also better settings and the cheapest epsilon

    def __post_init__(self) -> None:
        problems = []
        if not 0.001 <= self.within <= 0.4:
            problems.append(f"within: expected 0.001 to 0.4 of AUROC, got {self.within:g}")
        if self.auroc is not None and not 0.5 < self.auroc < self.assumed.signal:
            problems.append(
                f"auroc: expected above 0.5 and below {self.assumed.signal:g}, which a perfect model is assumed to "
                f"reach, got {self.auroc:g}; ask for less, or assume a stronger signal"
            )
        if problems:
            raise ConfigError("worth", problems)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over worlds with its 95 % interval; None where one world alone was seen.

    >>> str(Interval(0.0123, 0.008, 0.0161))
    '0.012 (0.008 to 0.016)'
    """

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def of(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """Student's t interval of a mean, to four decimals."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(_round(mean), None, None)
    from scipy import stats

    reach = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(_round(mean), _round(mean - reach), _round(mean + reach))


@dataclass(frozen=True, slots=True)
class AtEpsilon:
    """One row of the first table; epsilon None is the study without privacy."""

    epsilon: float | None
    auroc: Interval
    loss: Interval | None = None
    nine_in_ten: float | None = None


@dataclass(frozen=True, slots=True)
class AtHospitals:
    """One row of the second table: the largest so many hospitals, at the study's epsilon."""

    hospitals: int
    patients: int
    auroc: Interval
    without_privacy: Interval
    loss: Interval


@dataclass(frozen=True, slots=True)
class Recommended:
    """The settings that were found, on worlds that had no part in the search; `gain` is over the study's own."""

    settings: Settings
    tried: int
    auroc: Interval
    loss: Interval
    gain: Interval
    better: bool


@dataclass(frozen=True, slots=True)
class Cheapest:
    """The least epsilon that was seen to reach the wish with the whole interval; None where none did."""

    wanted: str
    epsilon: float | None
    auroc: Interval | None
    loss: Interval | None
    or_less: bool = False


@dataclass(frozen=True, slots=True)
class Worth:
    """What `archipel plan --worth` prints."""

    study: str
    epsilon: float
    within: float
    auroc: float | None
    assumed: Assumed
    repetitions: int
    asked: int
    by_epsilon: tuple[AtEpsilon, ...]
    by_hospitals: tuple[AtHospitals, ...]
    above_largest_alone: Interval | None
    own: Settings
    recommended: Recommended | None
    cheapest: Cheapest | None
    verdict: str
    notes: tuple[str, ...]

    @property
    def highest_epsilon(self) -> float:
        """The largest epsilon that was tried."""
        return max((row.epsilon for row in self.by_epsilon if row.epsilon is not None), default=self.epsilon)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class Phase(Protocol):
    """One bar of a display."""

    def advance(self, note: str = "") -> None:
        """One more step is done."""


class Display(Protocol):
    """Where progress is shown."""

    def phase(self, title: str, total: int) -> AbstractContextManager[Phase]:
        """Open a bar of so many steps."""


def weigh(study: Study, question: Question, display: Display) -> Worth:
    """Answer the question for a study; reads no patient.

    Raises:
        ConfigError: nothing is protected, no hospital is announced, or the task has no AUROC.
        PrivacyError: no plan reaches the study's own epsilon. RunError: the study diverges without privacy.
    """
    require_weighable(study)
    bench = _Bench(replace(study, simulation=()), question)
    notes: list[str] = []
    arms = _arms(bench.study, notes)
    done = _repeat(bench, arms, display)
    recommended = cheapest = None
    if question.search and len(done) >= MIN_REPETITIONS:
        recommended = _recommended(bench, arms, done, display)
        cheapest = _cheapest(bench, arms, done, display)
    return _answer(bench, arms, done, recommended, cheapest, notes)


def require_weighable(study: Study) -> None:
    """Refuse what cannot be weighed, before any of it is simulated.

    Raises:
        ConfigError, PrivacyError: as `weigh`.
    """
    require_announced(study)
    if not study.private:
        problem = "privacy.mode: expected local, found none; without privacy there is no loss to weigh"
        raise ConfigError(study.name, [problem])
    require_plans(study)


class _TimeIsOverError(Exception):
    """The part's share of the time is over."""


class _Bench:
    """Trains variants of a study in numbered worlds, each once, until the time is over."""

    def __init__(self, study: Study, question: Question) -> None:
        self.study, self.question = study, question
        self._started, self._ends = time.process_time(), math.inf
        self._worlds: dict[int, World] = {}
        self._aurocs: dict[tuple[str, int], float] = {}

    def part(self, number: int) -> None:
        """Begin a part, which ends with its share of the time."""
        self._ends = self._started + SHARES[number] * self.question.seconds

    def auroc(self, study: Study, number: int) -> float:
        """A variant's AUROC in one world.

        Raises:
            _TimeIsOverError: before it is trained.
        """
        key = (study.sha256, number)
        if key not in self._aurocs:
            if time.process_time() > self._ends:
                raise _TimeIsOverError
            self._aurocs[key] = self._train(study, number)
        return self._aurocs[key]

    def _train(self, study: Study, number: int) -> float:
        if number not in self._worlds:
            self._worlds[number] = draw(self.study, self.question.assumed, self.study.seed + number)
        world = self._worlds[number]
        try:
            return world.auroc(train(replace(study, seed=(self.study.seed + number) % 2**32), world.train).model)
        except RunError as error:
            if not study.private:  # a loss against a model that learnt nothing would call anything worth it
                raise RunError(
                    f"{study.name}: without privacy, on made-up patients: expected training to end, found: {error}; "
                    "lower the study's learning_rate"
                ) from None
            return NOISE_OF_NOTHING  # it diverged: nothing is predicted


@dataclass(frozen=True)
class _Arms:
    """The variants that every repetition trains."""

    plain: Study
    private: dict[float, Study]
    fewer: dict[int, tuple[Study, Study]]  # so many hospitals: private, without

    @property
    def all(self) -> list[Study]:
        """Each once."""
        return [self.plain, *self.private.values(), *itertools.chain.from_iterable(self.fewer.values())]


def _arms(study: Study, notes: list[str]) -> _Arms:
    own, count = study.privacy.epsilon, len(study.sites)
    private = {}
    for epsilon in sorted({*EPSILONS, own}):
        variant = _at(study, epsilon)
        try:
            require_plans(variant)
        except PrivacyError:
            notes.append(f"epsilon {epsilon:g} is left out: no noise reaches it in so many steps")
            continue
        private[epsilon] = variant
    fewer = {}
    for k in sorted({1, math.ceil(count / 2)} - {count}):
        part = _largest(study, k)
        fewer[k] = (part, _plain(part))
    return _Arms(_plain(study), private, fewer)


def _at(study: Study, epsilon: float) -> Study:
    return replace(study, privacy=replace(study.privacy, epsilon=epsilon))


def _plain(study: Study) -> Study:
    return replace(study, privacy=Privacy("none"))


def _largest(study: Study, count: int) -> Study:
    """The study with its largest hospitals alone."""
    members = sorted(study.cohort, key=lambda member: (-member.patients, member.site))[:count]
    training = replace(study.training, quorum=min(study.training.quorum, count))
    return replace(study, cohort=tuple(sorted(members, key=lambda m: m.site)), training=training)


def _repeat(bench: _Bench, arms: _Arms, display: Display) -> list[int]:
    """Every variant in world after world; the worlds that were finished."""
    bench.part(0)
    done: list[int] = []
    total = bench.question.repetitions
    with display.phase("made-up worlds, by epsilon and hospitals", total) as phase:
        for number in range(total):
            try:
                plain, *_ = [bench.auroc(arm, number) for arm in arms.all]
            except _TimeIsOverError:
                break
            done.append(number)
            phase.advance(f"AUROC {plain:.3f} without privacy")
    return done


def _recommended(bench: _Bench, arms: _Arms, done: list[int], display: Display) -> Recommended | None:
    """The search's winner on the repetitions' worlds; None where the time did not last."""
    bench.part(1)
    with display.phase("made-up worlds, by settings", 2) as phase:

        def judge(studies: Sequence[Study], many: bool) -> list[float] | None:
            worlds = range(SEARCH_WORLDS, SEARCH_WORLDS + (MANY if many else FEW))
            try:
                means = [float(np.mean([bench.auroc(study, number) for number in worlds])) for study in studies]
            except _TimeIsOverError:
                return None
            phase.advance(f"best AUROC {max(means):.3f} of {len(means)} settings")
            return means

        sought = best_settings(bench.study, judge)
    if sought is None:
        return None
    bench.part(2)
    try:
        private = [bench.auroc(sought.settings.put_into(bench.study), number) for number in done]
    except _TimeIsOverError:
        return None
    own, plain = _values(bench, bench.study, done), _values(bench, arms.plain, done)
    gain = of(np.subtract(private, own))
    better = gain.low is not None and gain.low > 0
    return Recommended(sought.settings, sought.tried, of(private), of(np.subtract(plain, private)), gain, better)


def _cheapest(bench: _Bench, arms: _Arms, done: list[int], display: Display) -> Cheapest:
    """Halve the gap between an epsilon that fails and one that reaches the wish, until the time is over."""
    bench.part(3)
    question = bench.question
    wanted = f"a loss of at most {question.within:g}" if question.auroc is None else f"AUROC {question.auroc:g}"
    plain = _values(bench, arms.plain, done)

    def seen(epsilon: float) -> tuple[Interval, Interval]:
        private = _values(bench, _at(bench.study, epsilon), done)
        return of(private), of(np.subtract(plain, private))

    def reaches(epsilon: float) -> bool:
        auroc, loss = seen(epsilon)
        if question.auroc is not None:
            return auroc.low is not None and auroc.low >= question.auroc
        return loss.high is not None and loss.high <= question.within

    tried = sorted(arms.private)
    failed = max((epsilon for epsilon in tried if not reaches(epsilon)), default=None)
    if failed is not None and failed == tried[-1]:
        return Cheapest(wanted, None, None, None)
    high = min(epsilon for epsilon in tried if failed is None or epsilon > failed)
    with display.phase("made-up worlds, for the cheapest epsilon", 1) as phase:
        try:
            if failed is None and high > LOWEST:
                if reaches(LOWEST):
                    return Cheapest(wanted, LOWEST, *seen(LOWEST), or_less=True)
                failed = LOWEST
            while failed is not None and high / failed > PRECISION:
                middle = float(f"{math.sqrt(high * failed):.2g}")
                if not failed < middle < high:
                    break
                failed, high = (failed, middle) if reaches(middle) else (middle, high)
        except (_TimeIsOverError, PrivacyError):  # what was seen so far is true, if not the least
            pass
        phase.advance(f"epsilon {high:g}")
    return Cheapest(wanted, high, *seen(high), or_less=failed is None)


def _answer(
    bench: _Bench,
    arms: _Arms,
    done: list[int],
    recommended: Recommended | None,
    cheapest: Cheapest | None,
    notes: list[str],
) -> Worth:
    study, question = bench.study, bench.question
    by_epsilon, by_hospitals = _tables(bench, arms, done) if done else ((), ())
    above = None
    if done and arms.fewer:
        largest_alone = _values(bench, arms.fewer[1][1], done)
        above = of(np.subtract(_values(bench, study, done), largest_alone))
    if len(done) < question.repetitions:
        notes = [*notes, "the time ended first, so another machine may answer otherwise; give more --seconds"]
    own = next((row for row in by_epsilon if row.epsilon == study.privacy.epsilon), None)
    verdict = verdict_of(question, study.privacy.epsilon, len(done), own, above)
    return Worth(
        study.name,
        study.privacy.epsilon,
        question.within,
        question.auroc,
        question.assumed,
        len(done),
        question.repetitions,
        by_epsilon,
        by_hospitals,
        above,
        Settings.of(study),
        recommended,
        cheapest,
        verdict,
        tuple(notes),
    )


def _tables(bench: _Bench, arms: _Arms, done: list[int]) -> tuple[tuple[AtEpsilon, ...], tuple[AtHospitals, ...]]:
    plain = _values(bench, arms.plain, done)
    rows = []
    for epsilon, arm in arms.private.items():
        private = _values(bench, arm, done)
        losses = np.subtract(plain, private)
        rows.append(AtEpsilon(epsilon, of(private), of(losses), _round(float(np.percentile(losses, 90)))))
    fewer = {**arms.fewer, len(bench.study.sites): (bench.study, arms.plain)}
    return (*rows, AtEpsilon(None, of(plain))), tuple(
        AtHospitals(
            k,
            sum(member.patients for member in private.cohort),
            of(_values(bench, private, done)),
            of(_values(bench, without, done)),
            of(np.subtract(_values(bench, without, done), _values(bench, private, done))),
        )
        for k, (private, without) in fewer.items()
    )


def verdict_of(
    question: Question, epsilon: float, repetitions: int, row: AtEpsilon | None, above: Interval | None
) -> str:
    """One plain sentence: worth it, not worth it and why, or cannot say and why.

    Args:
        row: the study at its own epsilon. above: what its model has over the largest hospital's own, which needs no
            privacy as it never leaves; None for one hospital.
    """
    if repetitions < MIN_REPETITIONS or row is None or row.loss is None:
        return (
            f"cannot say: {repetitions} made-up worlds were finished, {MIN_REPETITIONS} are needed; give more --seconds"
        )
    loss, auroc = row.loss, row.auroc
    assert loss.low is not None
    assert loss.high is not None
    assert auroc.low is not None
    assert auroc.high is not None
    cost = f"privacy at epsilon {epsilon:g} costs {loss} of AUROC"
    if question.auroc is not None and auroc.high < question.auroc:
        return f"not worth it: AUROC {auroc} is expected at epsilon {epsilon:g}, below {question.auroc:g}"
    if question.auroc is None and loss.low > question.within:
        return f"not worth it: {cost}, more than {question.within:g}"
    if above is not None and above.high is not None and above.high < -MATERIAL:
        return (
            "not worth it: the largest hospital alone, which sends nothing and needs no noise, is better; "
            f"from there the federation gains {above}"
        )
    if question.auroc is not None and auroc.low < question.auroc:
        return f"cannot say: AUROC {auroc} lies about {question.auroc:g}; give more --repetitions"
    if question.auroc is None and loss.high > question.within:
        return f"cannot say: {cost}, about {question.within:g}; give more --repetitions"
    wish = f"no more than {question.within:g}" if question.auroc is None else f"and AUROC {auroc} is reached"
    return f"worth it: {cost}, {wish}"


def _values(bench: _Bench, study: Study, done: list[int]) -> list[float]:
    return [bench.auroc(study, number) for number in done]


def _round(value: float) -> float:
    return round(value, 4) + 0.0  # never -0.0
