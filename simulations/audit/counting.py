"""The audit of a study of statistics: its noise, one patient's influence, its ledger.

It has no steps, no sampling and no model, so two of the five parts of a training's audit have no object here. Releases
are made by the hospital's own code, as often as it takes to see 1 % too little noise, each with a ledger of its own:
one ledger allows one. The counts without noise are counted here again, value by value.
"""

import math
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.connectors import read_table
from client.ledger import Ledger
from client.site import Site
from configs.errors import BudgetError, RunError
from configs.schema import Study
from configs.wire import COUNTS
from simulations.audit.auditor import Progress
from simulations.audit.effort import FULL, Effort
from simulations.audit.residuals import noise_checks, noise_drawing
from simulations.audit.subject import Floats, read_ledger
from simulations.audit.verdict import Audit, Check, Part, exact, noise_values_needed, smallest_loss
from simulations.hospitals import load_all
from strategies.data.cells import Cells, places
from strategies.data.columns import layout_of
from strategies.data.source import Table
from strategies.privacy.modes.registry import plans_of
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.base import Request
from strategies.releases.registry import STATISTICS
from strategies.releases.statistics import counts, standard_deviation

Counts = NDArray[np.float32]
_QUIET = 5.0  # standard deviations in patients below which whole numbers say little of a noise's shape
_MANY = 1_000  # rows of a planted patient
MakeSite = Callable[..., Site]


def audit_statistics(
    study: Study,
    *,
    make: MakeSite = Site,
    seed: int | None = None,
    effort: Effort = FULL,
    run: Path | None = None,
    progress: Progress = lambda _text: None,
) -> Audit:
    """Audit a study that trains nothing; with `run`, the ledgers of that run's folder too.

    Args:
        make: makes the hospital that is audited.

    Raises:
        DataError: the study has no data. RunError: the folder is no run.
    """
    if run is not None and not (run / "journal.jsonl").is_file():
        raise RunError(f"{run}: expected a run's folder with journal.jsonl, found none; give a folder under runs/")
    clock = time.monotonic()
    people = {site: patients.train for site, patients in load_all(study).items()}
    auditor = _Auditor(study, people, make, seed, effort)
    with tempfile.TemporaryDirectory(prefix="archipel-audit-") as folder:
        parts = tuple(auditor.parts(Path(folder), run, progress))
    return Audit(study.name, study.sha256, seed, parts, auditor.plans, time.monotonic() - clock)


def _released(hospital: Site) -> Counts:
    """Return a hospital's noisy counts, (cells,)."""
    return hospital.release(STATISTICS.name, Request())[COUNTS]


@dataclass
class _Auditor:
    study: Study
    people: dict[str, Cells]
    make: MakeSite
    seed: int | None
    effort: Effort

    def __post_init__(self) -> None:
        sizes = {site: patients.count for site, patients in self.people.items()}
        self.plans: dict[str, PrivacyPlan] = plans_of(self.study, sizes)
        self.plan = next(iter(self.plans.values()))
        self.layout = layout_of(self.study)
        self.coins = np.random.default_rng(secrets.randbits(64) if self.seed is None else self.seed)

    def parts(self, folder: Path, run: Path | None, progress: Progress) -> Iterator[Part]:
        progress("many releases of each hospital")
        yield self._residual()
        progress("the largest move of one patient")
        yield self._sensitivity()
        progress("a release at each hospital, with a ledger on the disk")
        yield self._ledger(folder, run)

    # Noise

    def _residual(self) -> Part:
        noise, clean = self._releases()
        values, title = noise.ravel(), "Is the noise what was booked?"
        if not np.isfinite(values).all():
            return Part.of(
                "residual", title, "no finite noise", "", [exact("finite", "a release is not finite", holds=False)]
            )
        size, error = math.sqrt(float(np.mean(values**2))), 1.96 / math.sqrt(2 * len(values))
        quiet = standard_deviation(self.plan) < _QUIET
        why = "noise of a few patients, rounded to whole ones, does not show its shape" if quiet else ""
        return Part.of(
            "residual",
            title,
            f"{size:.4f} of the booked standard deviation (95 % of healthy runs: 1 ± {error:.4f})",
            f"{len(values):,} noise values; {100 * smallest_loss(len(values)):.1f} % too little noise would be noticed "
            "in 999 of 1,000 audits",
            [] if quiet else noise_checks(noise, clean),
            noise_drawing(values, size, error),
            cannot_say=why,
        )

    def _releases(self) -> tuple[Floats, Floats]:
        """Return (releases, cells) noise and counts in booked standard deviations; the rounding is undone by chance.

        Noise rounded to whole numbers and spread again over a unit has two twelfths more variance (Sheppard 1898).
        """
        cells = sum(histogram.cells for histogram in self.layout)
        releases = math.ceil(noise_values_needed(self.effort.smallest_loss) / cells)
        total = min(self.effort.most_steps, max(self.effort.least_steps, releases))
        scale = math.sqrt(standard_deviation(self.plan) ** 2 + 2 / 12)
        true = {site: self._recount(people) for site, people in self.people.items()}
        sites = sorted(self.people)
        noise, clean = np.empty((total, cells)), np.empty((total, cells))
        for number in range(total):
            site = sites[number % len(sites)]
            released = _released(self._hospital(site, Ledger.in_memory(), f"{site}/{number}"))
            spread = self.coins.uniform(-0.5, 0.5, cells)
            noise[number] = (released - true[site] + spread) / scale
            clean[number] = true[site] / scale
        return noise, clean

    def _hospital(self, site: str, ledger: Ledger, name: str | None = None, people: Cells | None = None) -> Site:
        """Return a hospital as it would be; a name of its own where seeded noise must not repeat."""
        seeded = self.seed is not None
        study = replace(self.study, seed=self.seed) if self.seed is not None else self.study
        return self.make(name if name and seeded else site, study, people or self.people[site], ledger, seeded=seeded)

    def _recount(self, people: Cells) -> Floats:
        recounted = [(people.cells[:, n] == cell).sum() for n, h in enumerate(self.layout) for cell in range(h.cells)]
        return np.array(recounted, np.float64)

    # What one patient moves

    def _sensitivity(self) -> Part:
        site, source = max(self.study.simulation, key=lambda entry: self.people[entry[0]].count)
        table = _first(read_table(source, self.study), self.effort.neighbours)
        moves = {f"patient {n + 1} of {site}": self._moved(table, _without(table, n)) for n in range(len(table.keys))}
        for who, planted in _planted(table, self.study):
            moves[who] = self._moved(planted, _without(planted, len(planted.keys) - 1))
        who, worst = max(moves.items(), key=lambda move: move[1] if math.isfinite(move[1]) else math.inf)
        largest = worst / self.plan.clip_norm
        patient = "a patient of the hospital" if who.startswith("patient ") else who
        return Part.of(
            "counts",
            "Can one patient move the counts by more than the noise is scaled by?",
            f"{largest:.4f} of the norm at most",
            f"{len(moves)} neighbours; the largest move was by {patient}",
            [exact("norm", f"{patient} moves the counts by {largest:.3g} of the norm", holds=largest <= 1 + 1e-9)],
        )

    def _moved(self, table: Table, without: Table) -> float:
        whole, other = (counts(places(t, self.study).cells, self.layout) for t in (table, without))
        return float(np.linalg.norm(whole - other))

    # The ledger

    def _ledger(self, folder: Path, run: Path | None) -> Part:
        checks = [check for site in sorted(self.people) for check in self._booked(site, folder / site)]
        words = f"one release at each of {len(self.people)} hospitals, a second one refused, and one that crashed"
        if run is not None:
            checks += [self._of_run(run, site) for site in sorted(self.people)]
            words = f"{words}; {len(self.people)} ledgers of run {run.resolve().name}"
        spent = f"epsilon {self.plan.epsilon():.4f} of {self.study.privacy.epsilon:g} at each hospital"
        return Part.of("ledger", "Is everything booked that was released?", spent, words, checks)

    def _booked(self, site: str, folder: Path) -> Iterator[Check]:
        folder.mkdir(parents=True)
        path = folder / "ledger.sqlite"
        with closing(Ledger.open(path, durable=False)) as ledger:
            hospital = self._hospital(site, ledger)
            first = _released(hospital)
            yield exact(
                "booked", f"{site}: the ledger holds another release, or none", holds=self._is_planned(path, site)
            )
            try:
                again = _released(hospital).tolist() == first.tolist()  # seeded: the same release
            except BudgetError:
                again = True
            yield exact("once", f"{site}: a second draw was to be had", holds=again and self._is_planned(path, site))
        crashed = folder / "crashed.sqlite"
        with closing(Ledger.open(crashed, durable=False)) as ledger:
            dead: Any = _Dead()
            with suppress(_Crash):
                _released(self._hospital(site, ledger, people=replace(self.people[site], cells=dead)))
            yield exact(
                "booked first",
                f"{site}: patients were counted before it was booked",
                holds=self._is_planned(crashed, site),
            )

    def _is_planned(self, path: Path, dataset: str) -> bool:
        rows = read_ledger(path)
        return [(row.dataset, row.event) for row in rows] == [(dataset, self.plan.round_event)]

    def _of_run(self, run: Path, site: str) -> Check:
        path = run / "sites" / site / "ledger.sqlite"
        kept_as_planned = path.is_file() and self._is_planned(path, site)
        return exact(
            "ledger of the run", f"{site}: expected one release as planned, found something else", holds=kept_as_planned
        )


class _Crash(BaseException):
    """Raised by the audit as soon as a patient is counted."""


class _Dead:
    """Patients that cannot be counted."""

    def __len__(self) -> int:
        return 0

    def tobytes(self) -> bytes:
        return b""

    def __getitem__(self, place: object) -> Any:
        raise _Crash


# Neighbouring hospitals


def _first(table: Table, patients: int) -> Table:
    """Return the first patients of a hospital."""
    return _kept(table, np.arange(min(patients, len(table.keys))))


def _without(table: Table, number: int) -> Table:
    """Return the hospital without one patient."""
    return _kept(table, np.delete(np.arange(len(table.keys)), number))


def _kept(table: Table, patients: Any) -> Table:
    rows = np.isin(table.patients, patients)
    position = np.full(len(table.keys), -1)
    position[patients] = np.arange(len(patients))
    return Table(
        {name: values[rows] for name, values in table.numbers.items()},
        {name: codes[rows] for name, codes in table.categories.items()},
        {name: values[rows] for name, values in table.targets.items()},
        position[table.patients[rows]],
        tuple(table.keys[n] for n in patients),
    )


def _planted(table: Table, study: Study) -> Iterator[tuple[str, Table]]:
    """Yield hospitals with an unexpected patient as their last one."""
    last = max(1, len(study.task.classes)) - 1.0
    for who, rows, number, code in (
        ("one far beyond every range", 1, 1e300, 0),
        ("one far below every range", 1, -1e300, 0),
        ("one of whom nothing is known", 1, math.nan, -1),
        (f"one of {_MANY} rows", _MANY, 0.5, 0),
    ):
        outcome = float(code) if study.task.classes else number
        yield who, _with(table, np.full(rows, number), np.full(rows, code), outcome)
    torn, codes = np.linspace(-1e6, 1e6, _MANY), np.arange(_MANY) % 2
    yield f"one of {_MANY} rows that contradict each other", _with(table, torn, codes, last)


def _with(table: Table, number: Floats, code: NDArray[np.int64], outcome: float) -> Table:
    """Return the hospital with one patient more, of these rows."""
    rows = len(number)
    return Table(
        {name: np.append(values, number) for name, values in table.numbers.items()},
        {name: np.append(values, code) for name, values in table.categories.items()},
        {name: np.append(values, np.full(rows, outcome)) for name, values in table.targets.items()},
        np.append(table.patients, np.full(rows, len(table.keys))),
        (*table.keys, "planted"),
    )
