"""The round state machine: when a round counts, when to go on, when to stop.

Pure functions: no clock, no disk, no network.

>>> rounds = Rounds(planned=2, quorum=2)
>>> rounds = rounds.close({"lille", "lyon"}); rounds.outcome, rounds.done
('RUNNING', 1)
>>> rounds = rounds.close({"lille"}); rounds.outcome, rounds.why
('INCOMPLETE', 'round 2: 1 hospital contributed, the study asks for 2')
"""

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Literal

from configs import wire

State = Literal["RUNNING", "COMPLETE", "INCOMPLETE"]


@dataclass(frozen=True, slots=True)
class Rounds:
    """The state of a study. COMPLETE only if every planned round had its quorum."""

    planned: int
    quorum: int
    done: int = 0
    outcome: State = "RUNNING"
    why: str = ""
    code: int = 0  # of the same for hospitals (configs/wire.py: ENDS)

    @property
    def current(self) -> int:
        """Number of the round that is open, from 1."""
        return self.done + 1

    def close(self, contributed: Set[str]) -> "Rounds":
        """Judge the open round by its contributors."""
        if len(contributed) < self.quorum:
            hospitals = f"{len(contributed)} hospital{'' if len(contributed) == 1 else 's'} contributed"
            why = f"round {self.current}: {hospitals}, the study asks for {self.quorum}"
            return self.abandon(why, wire.FEW_CONTRIBUTED)
        return self.resume(self.done + 1)

    def resume(self, done: int) -> "Rounds":
        """Go on after a round that is behind us."""
        return replace(self, done=done, outcome="COMPLETE" if done >= self.planned else "RUNNING")

    def abandon(self, why: str, code: int) -> "Rounds":
        """Stop for a reason that lies outside the rounds.

        Args:
            code: of the reason, as hospitals are told it (configs/wire.py: ENDS).
        """
        return replace(self, outcome="INCOMPLETE", why=why, code=code)
