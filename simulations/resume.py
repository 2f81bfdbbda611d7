"""The state of an interrupted run: its journal, checked against its ledgers.

Nothing is trained or written here. The journal keeps the learning curve too: in a simulation it is made of the
researcher's own copies, so it is exact.

>>> Earlier().seconds, Earlier().curve
(0.0, {})
"""

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.ledger import Ledger
from configs.errors import RunError
from configs.journal import Record, read
from configs.records.result import StatisticsResult
from configs.records.run_journal import Begin, Evaluated, Judged, Measured, Round
from configs.schema import PER_PATIENT, Study
from server.result.read import load_result
from server.run import sha256
from strategies.privacy.accounting import epsilon
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.registry import MODEL_UPDATE, RELEASES, SCORE_HISTOGRAM

MOST_LINES = 10  # of hospitals with contradicting ledgers
_ROUNDING = 1e-6  # of epsilon


@dataclass(frozen=True)
class Earlier:
    """The records of a run's journal, from its first leg on."""

    records: tuple[Record, ...] = ()

    @classmethod
    def of(cls, run: Path) -> "Earlier":
        """Read it from a run's folder; of a run that has no journal yet, nothing.

        Raises:
            JournalError: the journal was changed.
        """
        path = run / "journal.jsonl"
        return cls(tuple(read(path)) if path.exists() else ())

    def times(self, started: datetime, seconds: float) -> dict[str, Any]:
        """Return the entries of metrics.json, when the newest leg began then and took so many seconds."""
        began = datetime.fromisoformat(self.records[0].time).astimezone(UTC) if self.records else started
        return {"seconds": round(self.seconds + seconds, 3), "started": began.isoformat(timespec="seconds")}

    @property
    def seconds(self) -> float:
        """Return the seconds of all attempts, each from its `begin` to its last record (a kill leaves none)."""
        legs: list[tuple[datetime, datetime]] = []
        for record in self.records:
            time = datetime.fromisoformat(record.time)
            begins = record.kind == Begin.kind or not legs
            legs = [*legs, (time, time)] if begins else [*legs[:-1], (legs[-1][0], time)]
        return math.fsum(max(0.0, (end - start).total_seconds()) for start, end in legs)

    @property
    def curve(self) -> dict[int, float]:
        """Round -> the main metric after it, where it was judged."""
        return {judged.round: judged.value for record in self.records if (judged := record.of(Judged))}

    def released(self, site: str, done: int) -> list[str]:
        """Return the names of the releases that left a hospital, one for each.

        Args:
            done: rounds that a checkpoint shows; of those that the journal does not know, everybody was part.
        """
        rounds = {entry.round: entry.contributed for record in self.records if (entry := record.of(Round))}
        numbers = {number for number, sites in rounds.items() if site in sites} | ({*range(1, done + 1)} - {*rounds})
        entries = (record.of(Evaluated) for record in self.records)
        once = {entry.release or SCORE_HISTOGRAM.name for entry in entries if entry and site in entry.contributed}
        return [*sorted(once), *[MODEL_UPDATE.name] * len(numbers)]

    def is_complete(self, run: Path, study: Study) -> bool:
        """Return whether the study is COMPLETE and its figures and its model are those that the journal closes with."""
        digests = [measured.metrics_sha256 for record in self.records if (measured := record.of(Measured))]
        path, model = run / "metrics.json", run / "model.safetensors"
        if not digests or not path.is_file() or sha256(path) != digests[-1]:
            return False
        result = load_result(run)
        if (result.outcome, result.study_sha256) != ("COMPLETE", study.sha256):
            return False
        return isinstance(result, StatisticsResult) or (model.is_file() and sha256(model) == result.model_sha256)


def require_booked(study: Study, run: Path, plans: Mapping[str, PrivacyPlan], earlier: Earlier, done: int) -> None:
    """Require that every hospital's ledger holds what has left it; an empty one would say that nothing was spent.

    Raises:
        RunError: a ledger is gone, or holds less.
    """
    problems = []
    for site, plan in plans.items():
        released = earlier.released(site, done)
        needed = epsilon([RELEASES[name].event(plan) or plan.round_event for name in released], plan.delta)
        spent = _spent(study, run, site, plan.delta)
        if released and (spent is None or spent < needed - _ROUNDING):
            booked = "no ledger" if spent is None else f"epsilon {spent:.2f}"
            problems.append(f"sites/{site}/ledger.sqlite: expected epsilon {needed:.2f} booked, found {booked}")
    if problems:
        more = f"\n  and {len(problems) - MOST_LINES} more" if len(problems) > MOST_LINES else ""
        lines = "\n  ".join(problems[:MOST_LINES])
        raise RunError(
            f"{run}: the ledgers do not hold what left the hospitals ({PER_PATIENT}):\n  {lines}{more}\n"
            "restore the run's folder sites/ from a backup, or start a new run"
        )


def _spent(study: Study, run: Path, site: str, delta: float) -> float | None:
    """Return the epsilon in a ledger, None where there is no ledger: opening one would make it."""
    path = run / "sites" / site / "ledger.sqlite"
    if not path.is_file():
        return None
    with closing(Ledger.open(path, durable=False)) as ledger:
        return ledger.spent(site, delta=delta, study=study.sha256)
