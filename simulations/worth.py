"""Is privacy worth it, in this study? Asked of made-up patients before anybody's are read: `archipel plan --worth`.

Every figure is a mean over made-up worlds (simulations/synthetic.py: what is assumed) in which the study itself is
trained: its plan, noise, strategy, trainer and ledgers, in memory. Within a world everything is paired: the same
patients, the same seeds, privacy on and off. A loss is the AUROC of the same settings with nothing protected minus the
private one's. Its two parts are told apart by a third model, sampled and clipped but not noised: what clipping costs
is a matter of settings and may be got back by better ones, what noise costs is the price of epsilon. A fourth, all
patients in one place for five times the rounds, shows what distance and the study's own rounds leave behind. Intervals
are 95 %, Student's t over worlds: they speak of the mean over worlds like these. One study is one world, so
`nine_in_ten` gives the loss that nine studies in ten stay below.

Settings are searched by a few moves from the study's own (simulations/search.py): each single one on two worlds, the
best three and their pairs on four, and once more from what won. The winner is judged on worlds that had no part in its
choice, or choosing would flatter it. If it is surely better there, verdict and cheapest epsilon are its.

How far to trust it: settings that were chosen on real hospitals suit these better than made-up ones. The heart study's
preset loses .019 to its clip norm here, .002 on its own four hospitals (simulations/benchmarks/utility.py), and to the
noise .002, .009 and .026 at epsilon 3, 1 and .5 here, .000, .002 and .006 there. The means of the two outcomes' columns
point to nearly the best model in these hospitals, which a few clipped steps find; not so in the worlds.

The work ends when so many seconds of computing are spent, other programs' not counted; where that comes before the
repetitions are done, the answer says so. An answer that had its time is the same on every run with the study's seed.

It is a planning aid and no promise: real patients are not these.

>>> Question(auroc=0.8).wish
'AUROC 0.8'
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from configs.errors import ConfigError, PrivacyError, RunError
from configs.schema import Study
from simulations.display import Display
from simulations.search import GENERATIONS, Settings, best_settings, require_plans
from simulations.synthetic import Assumed, require_announced
from simulations.worlds import Bench, Interval, TimeIsOverError, at, in_one_place, largest, of, plain, rounded

EPSILONS = (0.5, 1.0, 3.0, 8.0)
LOWEST = 0.1  # of the search for the cheapest epsilon
PRECISION = 1.3  # two epsilons this near are one
MIN_REPETITIONS = 3  # fewer allow no verdict
SEARCH_WORLDS = 10_000  # their seeds begin here, so that none is also judged on
FEW, MANY = 2, 4  # worlds that judge the single moves, and the finalists
CONVERGED = 5  # times the study's rounds
MATERIAL = 0.005  # AUROC by which staying alone must be better to be advised
TABLES, CONVERGENCE, SEARCH, RECOMMENDED, CHEAPEST = 0.55, 0.6, 0.8, 0.9, 1.0  # of the time: when each part ends


@dataclass(frozen=True, slots=True)
class Question:
    """What the researcher wants to know.

    Raises:
        ConfigError: a wish that no study can meet.
    """

    within: float = 0.02
    auroc: float | None = None
    assumed: Assumed = field(default_factory=Assumed)
    repetitions: int = 8
    seconds: float = 60.0  # of one core's computing; what is finished by then is the answer
    search: bool = True  # also better settings and the cheapest epsilon

    def __post_init__(self) -> None:
        problems = []
        if not 0.001 <= self.within <= 0.4:
            problems.append(f"within: expected 0.001 to 0.4 of AUROC, got {self.within:g}")
        if self.repetitions < MIN_REPETITIONS:
            problems.append(
                f"repetitions: expected at least {MIN_REPETITIONS} made-up worlds, as fewer allow no verdict, "
                f"got {self.repetitions}"
            )
        if self.auroc is not None and not 0.5 < self.auroc < self.assumed.signal:
            problems.append(
                f"auroc: expected above 0.5 and below {self.assumed.signal:g}, which a perfect model is assumed to "
                f"reach, got {self.auroc:g}; ask for less, or assume a stronger signal"
            )
        if problems:
            raise ConfigError("worth", problems)

    @property
    def wish(self) -> str:
        """In words."""
        return f"a loss of at most {self.within:g}" if self.auroc is None else f"AUROC {self.auroc:g}"

    def surely(self, auroc: Interval, loss: Interval) -> bool:
        """Whether the whole interval meets the wish."""
        if self.auroc is not None:
            return auroc.low is not None and auroc.low >= self.auroc
        return loss.high is not None and loss.high <= self.within


@dataclass(frozen=True, slots=True)
class AtEpsilon:
    """One row of the first table: the loss, and what of it is the noise's."""

    epsilon: float
    auroc: Interval
    loss: Interval
    noise: Interval
    nine_in_ten: float


@dataclass(frozen=True, slots=True)
class Reference:
    """A model that the private ones are held against; `loss` as theirs, below none where it is better."""

    auroc: Interval
    loss: Interval


@dataclass(frozen=True, slots=True)
class AtHospitals:
    """One column of the second table: the largest so many hospitals, their patients, the loss at each epsilon."""

    hospitals: int
    patients: int
    without_privacy: Interval
    losses: dict[float, Interval]


@dataclass(frozen=True, slots=True)
class Recommended:
    """The settings that were found, on worlds that had no part in the search; `gain` is over the study's own."""

    settings: Settings
    tried: int
    auroc: Interval
    loss: Interval
    gain: Interval
    above_largest_alone: Interval | None
    better: bool


@dataclass(frozen=True, slots=True)
class Cheapest:
    """The least epsilon that was seen to reach the wish with the whole interval; None where none up to `tried` did.

    With the recommended settings, where these are better.
    """

    wanted: str
    tried: float
    epsilon: float | None = None
    auroc: Interval | None = None
    loss: Interval | None = None
    or_less: bool = False
    recommended: bool = False


@dataclass(frozen=True, slots=True)
class Worth:
    """What `archipel plan --worth` prints."""

    study: str
    classes: int
    epsilon: float
    delta: float
    within: float
    auroc: float | None
    assumed: Assumed
    repetitions: int
    asked: int
    by_epsilon: tuple[AtEpsilon, ...]
    without_privacy: Interval | None
    clipping: Reference | None
    converged: Reference | None
    by_hospitals: tuple[AtHospitals, ...]
    above_largest_alone: Interval | None
    own: Settings
    recommended: Recommended | None
    cheapest: Cheapest | None
    verdict: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def weigh(study: Study, question: Question, display: Display) -> Worth:
    """Answer the question for a study; reads no patient.

    Raises:
        ConfigError: nothing is protected, no hospital is announced, or the task has no AUROC.
        PrivacyError: no plan reaches the study's own epsilon. RunError: the study diverges without privacy.
    """
    require_weighable(study)
    return _Weighing(replace(study, simulation=()), question, display).answer()


def require_weighable(study: Study) -> None:
    """Refuse what cannot be weighed, before any of it is simulated.

    Raises:
        ConfigError, PrivacyError: as `weigh`.
    """
    require_announced(study)
    if not study.privacy.keys.noised_here:
        problem = f"privacy.mode: expected local, found {study.privacy.mode}; without privacy there is no loss to weigh"
        raise ConfigError(study.name, [problem])
    require_plans(study)


class _Weighing:
    """One question about one study: each part trains what it needs, as long as its share of the time lasts."""

    def __init__(self, study: Study, question: Question, display: Display) -> None:
        self.study, self.question, self._display = study, question, display
        self._bench = Bench(study, question.assumed, question.seconds)
        self._notes: list[str] = []
        self._epsilons = self._reachable_epsilons()
        count = len(study.sites)
        self._sizes = {k: largest(study, k) for k in sorted({1, math.ceil(count / 2)} - {count})} | {count: study}
        self._in_time = True
        self._done: list[int] = []  # the worlds in which every variant of the tables is trained

    def answer(self) -> Worth:
        """Every part, in turn."""
        self._repeat()
        enough, question = len(self._done) >= MIN_REPETITIONS, self.question
        converged = self._converged() if self._done else None
        recommended = self._recommended() if enough and question.search else None
        cheapest = self._cheapest(recommended) if enough and question.search else None
        if not self._in_time:
            self._notes.append("the time ended first, so another machine may answer otherwise; give more --seconds")
        by_epsilon = self._by_epsilon() if self._done else ()
        above = self._above_largest_alone(self.study) if self._done else None
        own = next((row for row in by_epsilon if row.epsilon == self.study.privacy.epsilon), None)
        return Worth(
            self.study.name,
            max(2, len(self.study.task.classes)),
            self.study.privacy.epsilon,
            self.study.privacy.delta,
            question.within,
            question.auroc,
            question.assumed,
            len(self._done),
            question.repetitions,
            by_epsilon,
            of(self._plain()) if self._done else None,
            self._reference(self._clipped()) if self._done else None,
            converged,
            self._by_hospitals() if self._done else (),
            above,
            Settings.of(self.study),
            recommended,
            cheapest,
            verdict_of(question, self.study.privacy.epsilon, len(self._done), own, above, recommended),
            tuple(self._notes),
        )

    def _reachable_epsilons(self) -> list[float]:
        kept = []
        for epsilon in sorted({*EPSILONS, self.study.privacy.epsilon}):
            try:
                require_plans(at(self.study, epsilon))
            except PrivacyError:
                self._notes.append(f"epsilon {epsilon:g} is left out: no noise reaches it in so many steps")
            else:
                kept.append(epsilon)
        return kept

    def _repeat(self) -> None:
        """Every variant of the tables in world after world."""
        self._bench.until(TABLES)
        total = self.question.repetitions
        with self._display.phase("made-up worlds, by epsilon and hospitals", total) as phase:
            for number in range(total):
                try:
                    for part in self._sizes.values():
                        for variant in (plain(part), *(at(part, epsilon) for epsilon in self._epsilons)):
                            self._bench.auroc(variant, number)
                    self._bench.auroc(self.study, number, noise=False)
                except TimeIsOverError:
                    self._in_time = False
                    break
                self._done.append(number)
                phase.advance(f"AUROC {self._bench.auroc(plain(self.study), number):.3f} without privacy")

    def _values(self, study: Study) -> list[float]:
        return self._bench.values(study, self._done)

    def _plain(self) -> list[float]:
        return self._values(plain(self.study))

    def _clipped(self) -> list[float]:
        return self._bench.values(self.study, self._done, noise=False)

    def _reference(self, values: list[float]) -> Reference:
        return Reference(of(values), of(np.subtract(self._plain(), values)))

    def _by_epsilon(self) -> tuple[AtEpsilon, ...]:
        rows = []
        for epsilon in self._epsilons:
            private = self._values(at(self.study, epsilon))
            losses, noise = np.subtract(self._plain(), private), np.subtract(self._clipped(), private)
            nine_in_ten = rounded(float(np.percentile(losses, 90)))
            rows.append(AtEpsilon(epsilon, of(private), of(losses), of(noise), nine_in_ten))
        return tuple(rows)

    def _by_hospitals(self) -> tuple[AtHospitals, ...]:
        columns = []
        for count, part in self._sizes.items():
            without = self._values(plain(part))
            losses = {e: of(np.subtract(without, self._values(at(part, e)))) for e in self._epsilons}
            columns.append(AtHospitals(count, sum(m.patients for m in part.cohort), of(without), losses))
        return tuple(columns)

    def _above_largest_alone(self, study: Study) -> Interval | None:
        """What a private model has over the largest hospital's own, which is not protected as it never leaves."""
        if len(self.study.sites) == 1:
            return None
        return of(np.subtract(self._values(study), self._values(plain(self._sizes[1]))))

    def _converged(self) -> Reference | None:
        """All patients in one place, for more rounds; None where the time did not last or it diverged."""
        self._bench.until(CONVERGENCE)
        try:
            return self._reference(self._values(in_one_place(self.study, CONVERGED * self.study.training.rounds)))
        except TimeIsOverError:
            self._in_time = False
        except RunError:
            pass
        return None

    def _recommended(self) -> Recommended | None:
        """The search's winner on the repetitions' worlds; None where the time did not last."""
        self._bench.until(SEARCH)
        with self._display.phase("made-up worlds, by settings", 2 * GENERATIONS) as phase:

            def judge(studies: Sequence[Study], many: bool) -> list[float] | None:
                worlds = range(SEARCH_WORLDS, SEARCH_WORLDS + (MANY if many else FEW))
                try:
                    means = [float(np.mean(self._bench.values(study, worlds))) for study in studies]
                except TimeIsOverError:
                    self._in_time = False
                    return None
                phase.advance(f"best AUROC {max(means):.3f} of {len(means)} settings")
                return means

            sought = best_settings(self.study, judge)
        if sought is None:
            return None
        self._bench.until(RECOMMENDED)
        moved = sought.settings.put_into(self.study)
        try:
            private = self._values(moved)
        except TimeIsOverError:
            self._in_time = False
            return None
        gain = of(np.subtract(private, self._values(self.study)))
        return Recommended(
            sought.settings,
            sought.tried,
            of(private),
            of(np.subtract(self._plain(), private)),
            gain,
            self._above_largest_alone(moved),
            better=gain.low is not None and gain.low > 0,
        )

    def _cheapest(self, recommended: Recommended | None) -> Cheapest | None:
        """Down or up the epsilons from the study's own, then halve the gap; None where the time did not last."""
        self._bench.until(CHEAPEST)
        better = recommended is not None and recommended.better
        start = recommended.settings.put_into(self.study) if recommended is not None and better else self.study
        found = _Bisection(sorted({LOWEST, *self._epsilons}), self.study.privacy.epsilon)
        with self._display.phase("made-up worlds, for the cheapest epsilon", 1) as phase:
            try:
                while (epsilon := found.next()) is not None:
                    found.seen(epsilon, self._reaches(at(start, epsilon)))
            except TimeIsOverError:  # what was seen so far is true, if not the least
                self._in_time = False
            phase.advance("none" if found.reached is None else f"epsilon {found.reached:g}")
        wanted, tried = self.question.wish, found.highest
        if found.reached is None:
            over = found.next() is not None
            return None if over else Cheapest(wanted, tried, recommended=better)
        values = self._values(at(start, found.reached))
        auroc, loss = of(values), of(np.subtract(self._plain(), values))
        return Cheapest(wanted, tried, found.reached, auroc, loss, found.reached == LOWEST, better)

    def _reaches(self, study: Study) -> bool:
        try:
            require_plans(study)
        except PrivacyError:
            return False
        values = self._values(study)
        return self.question.surely(of(values), of(np.subtract(self._plain(), values)))


class _Bisection:
    """Which epsilon to try next: a ladder's neighbouring rungs first, then the middle of the gap between two.

    >>> search = _Bisection([0.5, 1.0, 3.0, 8.0], start=3.0)
    >>> while (epsilon := search.next()) is not None:
    ...     search.seen(epsilon, epsilon >= 1.5)
    >>> search.reached
    1.5
    """

    def __init__(self, ladder: Sequence[float], start: float) -> None:
        self._ladder, self._start = ladder, start
        self.reached: float | None = None
        self._failed: float | None = None
        self.highest = start

    def seen(self, epsilon: float, reaches: bool) -> None:
        """Note what came out."""
        self.highest = max(self.highest, epsilon)
        if reaches:
            self.reached = epsilon
        else:
            self._failed = epsilon

    def next(self) -> float | None:
        """None where there is nothing left to learn."""
        if self.reached is None:
            return next((e for e in self._ladder if e > (self._failed or 0.0) and e >= self._start), None)
        if self._failed is None:
            return max((e for e in self._ladder if e < self.reached), default=None)
        middle = float(f"{math.sqrt(self.reached * self._failed):.2g}")
        return middle if self.reached / self._failed > PRECISION and self._failed < middle < self.reached else None


def verdict_of(
    question: Question,
    epsilon: float,
    repetitions: int,
    row: AtEpsilon | None,
    above: Interval | None,
    recommended: Recommended | None = None,
) -> str:
    """One plain sentence: worth it, not worth it and why, or cannot say and why.

    Args:
        row: the study at its own epsilon. above: what its model has over the largest hospital's own, which needs no
            privacy as it never leaves; None for one hospital. recommended: whose verdict it is, where it is better.
    """
    if repetitions < MIN_REPETITIONS or row is None:
        return (
            f"cannot say: {repetitions} made-up worlds were finished, {MIN_REPETITIONS} are needed; give more --seconds"
        )
    if recommended is not None and recommended.better:
        found = recommended
        told = _judged(question, epsilon, found.auroc, found.loss, found.above_largest_alone)
        head, _, why = told.partition(": ")
        return f"{head} with the recommended settings: {why}; with the study's own it costs {row.loss}"
    told = _judged(question, epsilon, row.auroc, row.loss, above)
    return f"{told}; of it the noise costs {row.noise}, the rest is clipping"


def _judged(question: Question, epsilon: float, auroc: Interval, loss: Interval, above: Interval | None) -> str:
    assert loss.low is not None
    assert auroc.low is not None
    assert auroc.high is not None
    cost = f"privacy at epsilon {epsilon:g} costs {loss} of AUROC"
    if question.auroc is not None and auroc.high < question.auroc:
        return (
            f"not worth it: AUROC {auroc} is expected at epsilon {epsilon:g}, below {question.auroc:g}; privacy costs "
            f"{loss}"
        )
    if question.auroc is None and loss.low > question.within:
        return f"not worth it: {cost}, more than {question.within:g}"
    if above is not None and above.high is not None and above.high < -MATERIAL:
        return (
            "not worth it: the largest hospital alone, which sends nothing and needs no noise, is better; "
            f"from there the federation gains {above}; {cost}"
        )
    if not question.surely(auroc, loss):
        if question.auroc is None:
            return f"cannot say: {cost}, about {question.within:g} (give more --repetitions)"
        return f"cannot say: AUROC {auroc} lies about {question.auroc:g} (give more --repetitions); {cost}"
    wish = f"no more than {question.within:g}" if question.auroc is None else f"and AUROC {auroc} is reached"
    return f"worth it: {cost}, {wish}"
