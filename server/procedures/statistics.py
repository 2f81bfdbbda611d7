"""The procedure `statistics`: ask each hospital once for noisy statistics, train nothing."""

import time
from typing import ClassVar

from configs import wire
from server.outcome import Outcome, RoundRecord
from server.procedures.base import Procedure
from server.session import Session, released, sent_bytes
from strategies.releases.registry import STATISTICS


class CountingProcedure(Procedure):
    """One round of releases of counts. A hospital that is asked again sends the same ones."""

    name: ClassVar[str] = "statistics"
    makes_model: ClassVar[bool] = False

    def run(self, session: Session) -> Outcome:
        """Ask, and keep what is accepted if the quorum answered."""
        opened = session.open(resumed=False)
        outcome = session.outcome({})
        if not opened:
            return session.end(outcome)
        started, nodes = time.monotonic(), session.roster.asked
        answers = session.ask_once(STATISTICS)
        sent = sent_bytes(answers.accepted)
        if session.stopped and len(sent) < len(nodes):
            why = "stopped by the consortium before every hospital had answered"
            session.rounds = session.rounds.abandon(why, wire.STOPPED)
        else:
            session.close(sent, answers)
        record = RoundRecord(1, sent, answers.missing, time.monotonic() - started, answers.made_anew)
        session.note_round(record)
        session.observer(record, {})
        outcome.records.append(record)
        if session.rounds.outcome == "COMPLETE":
            outcome.released = {STATISTICS.name: released(answers)}
        return session.end(outcome)
