"""The whole audit: five parts at the study's own plans, on its own data, through its own code."""

import math
import secrets
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import PrivacyError, RunError
from configs.schema import CohortMember, Feature, Study
from simulations.audit import ledger_replay
from simulations.audit.canaries import canary_part, canary_scores, canary_start, design, with_canaries
from simulations.audit.effort import FULL, Effort
from simulations.audit.evaluation import Evaluator, evaluation_checks, largest_move, noise_of_evaluations
from simulations.audit.further import further_of
from simulations.audit.moving import failed_round, moving_rounds, quiet_fit
from simulations.audit.periods import planted_to_judge
from simulations.audit.recording import Recording, Roll, joined, longest, marked, record_fit, recorded, shortened
from simulations.audit.rehearsal import AuditedSite, Rehearsal, rehearse
from simulations.audit.residuals import residual_part
from simulations.audit.sampler import sampler_part
from simulations.audit.sensitivity import planted_patients, sensitivity_part
from simulations.audit.subject import Subject
from simulations.audit.verdict import Audit, Check, Part, exact, noise_values_needed
from simulations.hospitals import load_all
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning, learning_of
from strategies.privacy.modes.registry import plans_of
from strategies.privacy.randomness import Randomness

PARTS = ("residual", "sensitivity", "sampler", "ledger", "canaries")
MIN_CANARIES = 20
_EMPTY = 0.3  # chance of an empty batch in the short sample of few patients
_SUM_ROUNDING = 1e-3  # of the clip norm, for a sum of one patient
_WIDE_STEPS = 20  # of the short study with all rows, at least, if the study has so many
_WIDE_PASSES = 4  # through its rows, at least
Progress = Callable[[str], None]


def _silent(_text: str) -> None:
    """Show no progress."""


def audit(
    study: Study,
    subject: Subject | None = None,
    *,
    seed: int | None = None,
    effort: Effort = FULL,
    run: Path | None = None,
    progress: Progress = _silent,
) -> Audit:
    """Audit a study; with `run`, the ledgers of that run's folder too.

    Raises:
        PrivacyError: the study asks for no privacy. DataError: it has no data. RunError: the folder is no run.
    """
    if not study.privacy.keys.noised_here:
        raise PrivacyError(
            f"privacy.mode: expected local, found {study.privacy.mode}; an audit checks differential privacy, which "
            "this study has not"
        )
    if study.input_shape is not None:
        raise PrivacyError(
            "features: expected columns of numbers or categories, found records that the model reads itself; canaries "
            "are rows of numbers: audit the same study with encoder: texture"
        )
    if run is not None and not (run / "journal.jsonl").is_file():
        raise RunError(f"{run}: expected a run's folder with journal.jsonl, found none; give a folder under runs/")
    train = {site: patients.train for site, patients in load_all(study).items() if study.trains_at(site)}
    return audit_patients(study, train, subject or Subject(), seed=seed, effort=effort, run=run, progress=progress)


def audit_patients(
    study: Study,
    train: dict[str, TablePatients],
    subject: Subject,
    *,
    seed: int | None = None,
    effort: Effort = FULL,
    run: Path | None = None,
    only: Collection[str] = PARTS,
    progress: Progress = _silent,
) -> Audit:
    """Return the same, given each hospital's training patients; `only` some parts of it."""
    clock = time.monotonic()
    auditor = _Auditor(study, train, subject, seed, effort)
    with tempfile.TemporaryDirectory(prefix="archipel-audit-") as folder:
        parts = tuple(auditor.parts(Path(folder), run, only, progress))
    return Audit(study.name, study.sha256, seed, parts, auditor.plans, time.monotonic() - clock)


class _Auditor:
    """One audit's moving parts."""

    def __init__(
        self, study: Study, train: dict[str, TablePatients], subject: Subject, seed: int | None, effort: Effort
    ) -> None:
        self.study, self.train, self.subject, self.seed, self.effort = study, train, subject, seed, effort
        self.task: Learning = learning_of(study)
        self.plans = plans_of(study, {site: patients.count for site, patients in train.items()})
        self.sites = sorted(train, key=lambda site: (-train[site].count, site))[: effort.sites]
        self.largest = self.sites[0]
        self.cohorts = {
            site: marked(shortened(_some(train[site], effort.patients), effort.rows)) for site in self.sites
        }
        self.coins = np.random.default_rng(secrets.randbits(64) if seed is None else seed)
        self.fits = 0

    def parts(self, folder: Path, run: Path | None, only: Collection[str], progress: Progress) -> Iterator[Part]:
        """Yield the parts that are asked for."""
        noisy = {"residual", "sampler"} & set(only)
        if noisy:
            progress("noise and sampling, step by step")
        samples, few = (self._samples(), self._few()) if noisy else ([], [])
        progress("a whole study at each hospital, with a ledger on the disk")
        with_coins, canaries = self._canaries(
            folder / "0", self.effort.canaries if "canaries" in only else MIN_CANARIES
        )
        rehearsals = [
            self._rehearse(site, folder / str(number), self.cohorts[site], self._rounds(site))
            for number, site in enumerate(self.sites[1:], 1)
        ]
        recordings = [*samples, *(done.recording for done in rehearsals)]
        wide, many = self._all_rows(folder / "all rows", noisy=bool(noisy))
        if noisy:
            progress("rounds at the study's own learning rate")
            moved, outgoing = self._moving(folder / "moving")
        if "residual" in only:
            samples_by_name = {
                "": recordings,
                " (with canaries)": [with_coins.recording],
                " (few patients)": few,
                " (every patient at once)": self._crowded(),
                " (at the study's own rate)": [moved],
            }
            others = [outgoing, self._failed(folder / "failed"), *self._evaluations(folder / "evaluations")]
            others += self._further_noise(folder / "further")
            yield residual_part(samples_by_name, many, others)
        if "sensitivity" in only:
            progress("the largest move of one patient")
            yield self._sensitivity(folder / "moves")
        if "sampler" in only:
            yield sampler_part([*recordings, with_coins.recording, moved], [*few, *many])
        if "ledger" in only:
            yield self._ledger([with_coins, *rehearsals], wide, run)
        if "canaries" in only:
            yield canaries

    def _moving(self, folder: Path) -> tuple[Recording, Check]:
        """Train rounds at the study's own rate, at the largest hospital."""
        site, size = self.largest, self._size
        plan = self.plans[site]
        steps = max(plan.steps_per_round, min(self.effort.moving_steps, self.effort.moving_values // size))
        return moving_rounds(self._audited(site, self.cohorts[site], self._starts()[0]), folder, steps=steps)

    def _failed(self, folder: Path) -> Check:
        site = self.largest
        return failed_round(self._audited(site, self.cohorts[site], self._starts()[0]), folder)

    def _evaluations(self, folder: Path) -> list[Check]:
        """Judge the noise of many evaluations, where the study asks for one."""
        if self.study.evaluation.release is None:
            return []
        people, model = self.cohorts[self.largest], self._starts()[0]
        first = 1_000_000 * (self.seed or 0)
        seeds = range(first, first + self.effort.evaluations)
        with closing(self._evaluator(folder, model)) as evaluator:
            return evaluation_checks(noise_of_evaluations(evaluator, self.study, people, model, seeds))

    def _further_noise(self, folder: Path) -> list[Check]:
        """Judge the noise of what the study asks once beside an evaluation."""
        people, model = self.cohorts[self.largest], self._starts()[0]
        first = 1_000_000 * (self.seed or 0)
        seeds, checks = range(first, first + self.effort.evaluations), list[Check]()
        for release in further_of(self.study):
            with closing(release.evaluator(self._evaluator(folder / release.name, model))) as evaluator:
                checks += release.noise(evaluator, self.study, people, model, seeds)
        return checks

    def _further_moves(self, folder: Path, cohort: TablePatients) -> list[Check]:
        checks = []
        for release in further_of(self.study):
            with closing(release.evaluator(self._evaluator(folder / release.name, self._starts()[1]))) as evaluator:
                move = largest_move(evaluator, cohort, planted_patients(cohort), self.effort.neighbours)
                checks.append(release.move(evaluator, self.study, cohort, move))
        return checks

    def _evaluator(self, folder: Path, model: Arrays) -> Evaluator:
        site = self.largest
        return Evaluator(self.subject, self._alone(site), site, model, folder, seeded=self.seed is not None)

    def _samples(self) -> list[Recording]:
        """Return long fits at each hospital's plan: of the patients as they are, and of several rows each."""
        values = math.ceil(noise_values_needed(self.effort.smallest_loss) / self._size)
        total = min(self.effort.most_steps, max(self.effort.least_steps, values))
        each = -(-total // len(self.sites))
        samples = []
        for site, people in self.cohorts.items():
            begin, random = self._starts()
            some = each // 5 + 1  # steps of several rows a patient take longer
            samples.append(self._sample(site, people, begin, each - some))
            samples.append(self._sample(site, joined(people), random, some))
        return samples

    def _sample(
        self, site: str, patients: TablePatients, start: Arrays, steps: int, subject: Subject | None = None
    ) -> Recording:
        subject = subject or self.subject
        plan = replace(self.plans[site], steps_per_round=steps, rounds=1)
        self.fits += 1
        # A name of its own: with the hospital's, a seeded sample would repeat the noise of a seeded round.
        randomness = subject.randomness(self.seed, f"{site}/sample", self.fits)
        roll = Roll(patients)
        watch = record_fit(subject, self.task, plan, patients, start, randomness, roll.call)
        return recorded(watch, roll, site, self.task, plan, patients, start, steps)

    @property
    def _size(self) -> int:
        return sum(math.prod(shape) for shape, _ in self.task.parameters.values())

    def _crowded(self) -> list[Recording]:
        """Return a short fit in which everybody is in every step, many more than are expected.

        The noise must be the same.
        """

        def everybody(*key: Any) -> Any:
            return _Everybody(self.subject.randomness(*key))

        subject = replace(self.subject, randomness=everybody)
        people = self.cohorts[self.largest]
        return [self._sample(self.largest, people, self._starts()[1], self.effort.few_steps // 4 + 2, subject)]

    def _few(self) -> list[Recording]:
        """Return a short fit of few patients: with sampling, many of its batches are empty."""
        people, rate = self.cohorts[self.largest], self.plans[self.largest].sampling_rate
        count = 3 if rate >= 1 else max(1, round(math.log(_EMPTY) / math.log1p(-rate)))
        few = people.subset(np.arange(min(count, people.count)))
        return [self._sample(self.largest, few, self._starts()[0], self.effort.few_steps)]

    def _starts(self) -> tuple[Arrays, Arrays]:
        """Return the study's own beginning, and random weights at which gradients are of many lengths."""
        rng = np.random.default_rng(self.study.seed)
        begin = self.task.initial(self.study.seed)
        return begin, {name: rng.normal(size=array.shape).astype(np.float32) for name, array in begin.items()}

    def _sensitivity(self, folder: Path) -> Part:
        begin, random = self._starts()
        far = {name: 20 * array for name, array in random.items()}
        starts = dict([("at random", random), ("at its beginning", begin), ("far out", far)][: self.effort.starts])
        everybody = self.train[self.largest]
        some = _some(everybody, self.effort.neighbours)
        cohort = shortened(some, self.effort.rows)
        many = [shortened(some, self.effort.planted_rows)]
        if len(everybody.x) > self.effort.rows:
            most = everybody.subset(np.array([np.diff(everybody.starts).argmax()]))
            many.append(shortened(most, self.effort.planted_rows))
        plan = self.plans[self.largest]
        others = [*self._sums(), *self._move_of_evaluation(folder / "of an evaluation", cohort)]
        others += self._further_moves(folder, cohort)
        return sensitivity_part(self.subject, self.task, plan, cohort, starts, many, self.effort.places, others)

    def _sums(self) -> list[Check]:
        """Check each step's sum along fits at the study's own rate: patients as they are, and of several rows each."""
        study, plan, people = self._alone(self.largest), self.plans[self.largest], self.cohorts[self.largest]
        steps = max(2, min(self.effort.quiet_steps, self.effort.moving_values // self._size))
        checks = []
        for name, patients in (("one row each", people), ("several rows each", joined(people))):
            distance, step = quiet_fit(self.subject, study, plan, patients, self._starts()[1], steps)
            slack = _SUM_ROUNDING * math.sqrt(patients.count)
            words = f"the sum of step {step} is {distance:.2g} clip norms off, at weights that moved"
            checks.append(exact(f"sums at the study's own rate, {name}", words, holds=distance <= slack))
        return checks

    def _move_of_evaluation(self, folder: Path, cohort: TablePatients) -> list[Check]:
        if self.study.evaluation.release is None:
            return []
        with closing(self._evaluator(folder, self._starts()[1])) as evaluator:
            planted = planted_to_judge(self.study, cohort)
            size, who = largest_move(evaluator, cohort, planted, self.effort.neighbours)
        text = f"{who} moves the evaluation's histogram by {size:.3g} (L2 norm), 1 is booked"
        return [exact("evaluation", text, holds=size <= 1.0 + 1e-6)]

    def _rehearse(self, site: str, folder: Path, people: TablePatients, rounds: int) -> Rehearsal:
        audited = self._audited(site, people, self._starts()[1])
        return rehearse(audited, folder, rounds=rounds, values=self.effort.values)

    def _audited(self, site: str, people: TablePatients, start: Arrays) -> AuditedSite:
        return AuditedSite(self.subject, self._alone(site), site, people, start, seeded=self.seed is not None)

    def _all_rows(self, folder: Path, *, noisy: bool) -> tuple[list[Rehearsal], list[Recording]]:
        """Return a short study and fit of the patients with most rows, if the long fits leave rows out."""
        if not any(len(_some(self.train[site], self.effort.patients).x) > self.effort.rows for site in self.sites):
            return [], []
        site = max(self.sites, key=lambda site: (int(np.diff(self.train[site].starts).max()), site))
        plan, most = self.plans[site], self.effort.all_rows
        steps = max(plan.steps_per_round, min(plan.steps, _WIDE_STEPS))
        people = marked(longest(self.train[site], int(most / max(_WIDE_PASSES, steps * plan.sampling_rate))))
        rows = len(people.x) * plan.sampling_rate  # rows of a step
        rounds = max(1, min(self._rounds(site), int(most / (rows * plan.steps_per_round))))
        done = self._rehearse(site, folder, people, rounds)
        steps = max(_WIDE_STEPS, min(self.effort.few_steps, int(most / rows)))
        samples = [self._sample(site, people, self._starts()[0], steps)] if noisy else []
        return [done], [done.recording, *samples]

    def _canaries(self, folder: Path, canaries: int) -> tuple[Rehearsal, Part]:
        """Return the largest hospital's study is the one with canaries."""
        site, plan, rounds = self.largest, self.plans[self.largest], self._rounds(self.largest)
        claimed = plan.epsilon(rounds=rounds)
        fixed = design(plan, claimed, rounds * plan.steps_per_round, canaries)
        chosen = self.coins.random(fixed.canaries) < 0.5
        study = self._alone(site, fixed.canaries)
        task, start = learning_of(study), canary_start(learning_of(study))
        scale, outcome = 1000.0 * max(1.0, plan.clip_norm), task.objective.lowest
        people = marked(with_canaries(self.cohorts[site], chosen, scale, outcome))
        audited = replace(self._audited(site, people, start), study=study)
        done = rehearse(audited, folder, rounds=rounds, values=self.effort.values)
        nobody = self.cohorts[site].subset(np.empty(0, np.int64))
        everyone = with_canaries(nobody, np.ones(fixed.canaries, bool), scale, outcome)
        scores = canary_scores(task, start, everyone, plan, done.recording.total)
        return done, canary_part(scores, chosen, fixed, max(done.claimed, 0.0), plan.delta)

    def _ledger(self, rehearsals: Sequence[Rehearsal], wide: Sequence[Rehearsal], run: Path | None) -> Part:
        replays, all_of_them = [done.replay for done in rehearsals], [*rehearsals, *wide]
        odd = [d.recording.site for d in all_of_them if d.recording.plan != self.plans[d.recording.site]]
        checks = [check for done in all_of_them for check in done.replay.checks]
        checks.append(exact("plan", f"{', '.join(odd)}: the plan that trained is not the study's", holds=not odd))
        words = f"a whole study at {len(replays)} hospitals, through the real path"
        if release := self.study.evaluation.release:
            words += f", with its evaluation (epsilon {release.epsilon:g} by itself)"
        if run is not None:
            old, journal = ledger_replay.replay_run(self.subject, run, self.study, self.plans)
            checks += [journal, *(check for replay in old for check in replay.checks)]
            replays, words = old or replays, f"{words}; and {len(old)} ledgers of {run.name}, drawn here"
        worst = max(replays, key=lambda replay: (replay.released - replay.stated, replay.released))
        return Part.of(
            "ledger",
            "Is everything that was released booked?",
            f"epsilon {worst.released:.3f} released at {worst.site}, {worst.stated:.3f} stated",
            words,
            checks,
            {"sites": ledger_replay.facts(replays), "budget": self.study.privacy.epsilon},
        )

    def _alone(self, site: str, canaries: int = 0) -> Study:
        """Return the study at one hospital, all trained on.

        With its size announced so that its plan is the study's own.
        """
        announced = self.study.announced_train_patients(site) or self.train[site].count
        more = tuple(Feature(f"canary_{i}", "number", minimum=-1.0, maximum=1.0) for i in range(canaries))
        return replace(
            self.study,
            features=self.study.features + more,
            model=self.task.architecture.all_shared,  # what a hospital keeps to itself is watched as if it left too
            cohort=(CohortMember(site, announced),),
            evaluation=replace(self.study.evaluation, test_fraction=0.0),
            training=replace(self.study.training, quorum=1),
            simulation=(),
            seed=self.study.seed if self.seed is None else self.seed,
        )

    def _rounds(self, site: str) -> int:
        plan = self.plans[site]
        return max(1, min(plan.rounds, self.effort.run_steps // plan.steps_per_round))


class _Everybody:
    """Randomness by which everybody is in every step; the noise is as ever."""

    def __init__(self, own: Randomness) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def poisson(self, patients: int, _rate: float) -> NDArray[np.int64]:
        """Return every patient's position."""
        return np.arange(patients)


def _some(patients: TablePatients, most: int) -> TablePatients:
    return patients if patients.count <= most else patients.subset(np.arange(most))
