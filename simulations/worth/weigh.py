"""The computation of a study's worth on synthetic patients, for `archipel plan --worth`.

No hospital's patients are read. Every figure is a mean over made-up worlds (synthetic.py: what is assumed) in which the
study itself is trained: its plan, noise, strategy, trainer and ledgers, in memory. Within a world everything is paired:
the same patients, the same seeds, privacy on and off. A loss is the AUROC of the same settings with nothing protected
minus the private one's. Its two parts are told apart by a third model, sampled and clipped but not noised: what
clipping costs is a matter of settings and may be got back by better ones, what noise costs is the price of epsilon. A
fourth, all patients in one place for five times the rounds, shows what distance and the study's own rounds leave
behind. Intervals are 95 %, Student's t over worlds: they speak of the mean over worlds like these. One study is one
world, so `nine_in_ten` gives the loss that nine studies in ten stay below.

Settings are searched by a few moves from the study's own (search.py): each single one on two worlds, the
best three and their pairs on four, and once more from what won. The winner is judged on worlds that had no part in its
choice, or choosing would flatter it. If it is surely better there, verdict and cheapest epsilon are its.

How far to trust it: settings that were chosen on real hospitals suit these better than made-up ones. The heart study's
preset loses .019 to its clip norm here, .002 on its own four hospitals (simulations/benchmarks/utility.py), and to the
noise .002, .009 and .026 at epsilon 3, 1 and .5 here, .000, .002 and .006 there. The means of the two outcomes' columns
point to nearly the best model in these hospitals, which a few clipped steps find; not so in the worlds.

The work ends when so many seconds of computing are spent, other programs' not counted. Where nobody sets them, they
follow from what the first trainings take (effort.py) and are told before the rest begins. An answer that was cut off
says so, what is known so far and what would finish it, and is never "not worth it". An answer that had its time is the
same on every run with the study's seed.

Probabilities are judged too: calibration-in-the-large, and whether everybody is called ill (verdict.py).

It is a planning aid and no promise: real patients are not these.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from configs.errors import ConfigError, PrivacyError, RunError
from configs.schema import Study
from simulations.display import Display
from simulations.worth.answer import AtEpsilon, AtHospitals, Cheapest, Probabilities, Recommended, Reference, Worth
from simulations.worth.effort import CONVERGED, limit_s, trainings
from simulations.worth.epsilon_search import Bisection
from simulations.worth.question import MIN_REPETITIONS, Question
from simulations.worth.search import GENERATIONS, Settings, best_settings, require_plans
from simulations.worth.synthetic import require_announced
from simulations.worth.verdict import flaw_of, verdict_of
from simulations.worth.worlds import (
    Bench,
    Interval,
    TimeIsOverError,
    at,
    in_one_place,
    largest,
    plain,
    rounded,
    t_interval,
)

EPSILONS = (0.5, 1.0, 3.0, 8.0)
LOWEST = 0.1  # of the search for the cheapest epsilon
SEARCH_WORLDS = 10_000  # their seeds begin here, so that none is also judged on
TABLES, CONVERGENCE, SEARCH, RECOMMENDED, CHEAPEST = 0.55, 0.6, 0.8, 0.9, 1.0  # of the time: when each part ends


def weigh(study: Study, question: Question, display: Display) -> Worth:
    """Answer the question for a study; reads no patient.

    Raises:
        ConfigError: nothing is protected, no hospital is announced, or the task has no AUROC.
        PrivacyError: no plan reaches the study's own epsilon. RunError: the study diverges without privacy.
    """
    require_weighable(study)
    trainers = tuple(member for member in study.cohort if study.trains_at(member.site))
    evaluation = replace(study.evaluation, test_only=())
    weighed = replace(study, simulation=(), cohort=trainers, evaluation=evaluation)
    return _Weighing(weighed, question, display).answer()


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
        self._bench = Bench(study, question.assumed)
        self._notes: list[str] = []
        self._epsilons = self._reachable_epsilons()
        count = len(study.sites)
        self._sizes = {k: largest(study, k) for k in sorted({1, math.ceil(count / 2)} - {count})} | {count: study}
        self._in_time = True
        self._done: list[int] = []  # the worlds in which every variant of the tables is trained
        self._tried: set[Settings] = set()

    def answer(self) -> Worth:
        """Return every part, in turn."""
        self._set_time()
        self._repeat()
        enough, question = len(self._done) >= MIN_REPETITIONS, self.question
        converged = self._converged() if self._done else None
        recommended = self._recommended() if enough and question.search else None
        cheapest = self._cheapest(recommended) if enough and question.search else None
        if not self._in_time:
            self._notes.append(f"the time ended first, so another machine may answer otherwise; {self._would_finish()}")
        by_epsilon = self._by_epsilon() if self._done else ()
        above = self._above_largest_alone(self.study) if self._done else None
        cut_off = "" if self._in_time else self._cut_off(recommended)
        current = next((row for row in by_epsilon if row.epsilon == self.study.privacy.epsilon), None)
        return Worth(
            self.study.name,
            max(2, len(self.study.task.classes)),
            self.study.privacy.epsilon,
            self.study.privacy.delta,
            question.within,
            question.auroc,
            question.assumed,
            question.outcomes_of,
            len(self._done),
            question.repetitions,
            self._bench.seconds,
            cut_off,
            by_epsilon,
            t_interval(self._plain()) if self._done else None,
            self._reference(self._clipped()) if self._done else None,
            converged,
            self._by_hospitals() if self._done else (),
            above,
            Settings.of(self.study),
            recommended,
            cheapest,
            verdict_of(question, self.study.privacy.epsilon, len(self._done), current, above, recommended, cut_off),
            tuple(self._notes),
        )

    def _reachable_epsilons(self) -> list[float]:
        reachable = []
        for epsilon in sorted({*EPSILONS, self.study.privacy.epsilon}):
            try:
                require_plans(at(self.study, epsilon))
            except PrivacyError:
                self._notes.append(f"epsilon {epsilon:g} is left out: no noise reaches it in so many steps")
            else:
                reachable.append(epsilon)
        return reachable

    def _set_time(self) -> None:
        """Set the seconds: those of the question, or twice what the first trainings lead to expect."""
        if self.question.seconds is not None:
            self._bench.seconds = self.question.seconds
            return
        first = ((plain(self.study), 0), (self.study, 0), (self.study, 1))
        with self._display.phase("made-up worlds, to see how long it takes", len(first)) as phase:
            for study, number in first:
                self._bench.judged(study, number)
                phase.advance(self._expectation())

    def _expectation(self) -> str:
        expected = self._expected_s() or 0.0
        self._bench.seconds = limit_s(expected)
        return (
            f"about {expected:,.0f} s of computing, {self._bench.seconds:,.0f} s at most; --seconds sets another limit"
        )

    def _expected_s(self) -> float | None:
        """Return the seconds that the whole answer takes; None before anything is trained."""
        question, typical = self.question, self._bench.typical_s
        if typical is None:
            return None
        count = trainings(
            repetitions=question.repetitions,
            sizes=len(self._sizes),
            epsilons=len(self._epsilons),
            search=question.search,
        )
        return typical * count

    def _would_finish(self) -> str:
        expected = self._expected_s()
        return "give more --seconds" if expected is None else f"--seconds {limit_s(expected)} would finish it"

    def _cut_off(self, recommended: Recommended | None) -> str:
        """Return how far the answer came, and what would finish it."""
        if not self.question.search or not self._tried:
            seen = f"{len(self._done)} of {self.question.repetitions} made-up worlds, before other settings were tried"
        else:
            seen = f"{len(self._tried)} settings, {'the best' if recommended else 'none'} of them judged to the end"
        return f"it was cut off after {seen}; {self._would_finish()}"

    def _repeat(self) -> None:
        """Train every variant of the tables in world after world."""
        self._bench.until(TABLES)
        total = self.question.repetitions
        with self._display.phase("made-up worlds, by epsilon and hospitals", total) as phase:
            for number in range(total):
                try:
                    for part in self._sizes.values():
                        for variant in (plain(part), *(at(part, epsilon) for epsilon in self._epsilons)):
                            self._bench.judged(variant, number)
                    self._bench.judged(self.study, number, noise=False)
                except TimeIsOverError:
                    self._in_time = False
                    break
                self._done.append(number)
                phase.advance(f"AUROC {self._bench.judged(plain(self.study), number).auroc:.3f} without privacy")

    def _values(self, study: Study) -> list[float]:
        return self._bench.values(study, self._done)

    def _plain(self) -> list[float]:
        return self._values(plain(self.study))

    def _clipped(self) -> list[float]:
        return self._bench.values(self.study, self._done, noise=False)

    def _reference(self, values: list[float]) -> Reference:
        return Reference(t_interval(values), t_interval(np.subtract(self._plain(), values)))

    def _by_epsilon(self) -> tuple[AtEpsilon, ...]:
        rows = []
        for epsilon in self._epsilons:
            private = self._values(at(self.study, epsilon))
            losses, noise = np.subtract(self._plain(), private), np.subtract(self._clipped(), private)
            nine_in_ten = rounded(float(np.percentile(losses, 90)))
            figures = t_interval(private), t_interval(losses), t_interval(noise)
            rows.append(AtEpsilon(epsilon, *figures, nine_in_ten, self._probabilities(at(self.study, epsilon))))
        return tuple(rows)

    def _probabilities(self, study: Study) -> Probabilities | None:
        judged = [self._bench.judged(study, number) for number in self._done]
        off = [entry.calibration for entry in judged if entry.calibration is not None]
        called = [entry.called for entry in judged if entry.called is not None]
        if not off:
            return None
        return Probabilities(t_interval(off), t_interval(np.abs(off)), rounded(float(np.mean(called))))

    def _by_hospitals(self) -> tuple[AtHospitals, ...]:
        columns = []
        for count, part in self._sizes.items():
            without = self._values(plain(part))
            losses = {e: t_interval(np.subtract(without, self._values(at(part, e)))) for e in self._epsilons}
            columns.append(AtHospitals(count, sum(m.patients for m in part.cohort), t_interval(without), losses))
        return tuple(columns)

    def _above_largest_alone(self, study: Study) -> Interval | None:
        """Return what a private model has over the largest hospital's own, unprotected as it never leaves."""
        if len(self.study.sites) == 1:
            return None
        return t_interval(np.subtract(self._values(study), self._values(plain(self._sizes[1]))))

    def _converged(self) -> Reference | None:
        """Return the figure of all patients in one place, for more rounds; None if time ran out or it diverged."""
        self._bench.until(CONVERGENCE)
        try:
            return self._reference(self._values(in_one_place(self.study, CONVERGED * self.study.training.rounds)))
        except TimeIsOverError:
            self._in_time = False
        except RunError:
            pass
        return None

    def _recommended(self) -> Recommended | None:
        """Return the search's winner on the repetitions' worlds; None where the time did not last."""
        self._bench.until(SEARCH)
        with self._display.phase("made-up worlds, by settings", 2 * GENERATIONS) as phase:

            def judge(studies: Sequence[Study], count: int) -> list[float] | None:
                worlds = range(SEARCH_WORLDS, SEARCH_WORLDS + count)
                try:
                    means = [float(np.mean([self._bench.judged(s, n).score for n in worlds])) for s in studies]
                except TimeIsOverError:
                    self._in_time = False
                    return None
                self._tried.update(Settings.of(study) for study in studies)
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
        gain = t_interval(np.subtract(private, self._values(self.study)))
        judge_ = self._bench.judged
        surely = t_interval([judge_(moved, n).score - judge_(self.study, n).score for n in self._done])
        return Recommended(
            sought.settings,
            sought.tried,
            t_interval(private),
            t_interval(np.subtract(self._plain(), private)),
            gain,
            self._above_largest_alone(moved),
            surely.low is not None and surely.low > 0,
            self._probabilities(moved),
        )

    def _cheapest(self, recommended: Recommended | None) -> Cheapest | None:
        """Search down or up the epsilons from the study's own, then halve the gap; None where the time did not last."""
        self._bench.until(CHEAPEST)
        better = recommended is not None and recommended.better
        start = recommended.settings.put_into(self.study) if recommended is not None and better else self.study
        search = Bisection(sorted({LOWEST, *self._epsilons}), self.study.privacy.epsilon)
        with self._display.phase("made-up worlds, for the cheapest epsilon", 1) as phase:
            try:
                while (epsilon := search.next()) is not None:
                    search.seen(epsilon, reaches=self._reaches(at(start, epsilon)))
            except TimeIsOverError:  # what was seen so far is true, if not the least
                self._in_time = False
            phase.advance("none" if search.reached is None else f"epsilon {search.reached:g}")
        wish, tried = self.question.wish, search.highest
        if search.reached is None:
            over = search.next() is not None
            return None if over else Cheapest(wish, tried, recommended=better)
        values = self._values(at(start, search.reached))
        auroc, loss = t_interval(values), t_interval(np.subtract(self._plain(), values))
        return Cheapest(wish, tried, search.reached, auroc, loss, search.reached == LOWEST, better)

    def _reaches(self, study: Study) -> bool:
        try:
            require_plans(study)
        except PrivacyError:
            return False
        values = self._values(study)
        reached = self.question.surely(t_interval(values), t_interval(np.subtract(self._plain(), values)))
        return reached and flaw_of(self._probabilities(study)) is None
