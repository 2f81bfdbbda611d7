"""The releases that a hospital's journal lists, gathered record by record.

>>> traces = Traces()
>>> traces.take(Sent.from_facts({"message": "m1", "study": "ab", "round": 3, "form": "train reply"}))
>>> traces.left
{('ab', 'model update', 3)}
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from client.reconcile import Release
from configs.journal import GENESIS
from configs.records import site_journal
from configs.records.kinds import Kind
from configs.records.site_journal import Booked, Compared, Sent, Settled
from configs.seal import Signed
from strategies.releases.registry import is_reply, release_of

TRACED = (Sent, Booked, Compared, site_journal.Unsettled, Settled)  # records that Traces takes in
_COLUMNS = 11  # of a row in the journal; earlier ones lack the release's name


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A coordinator's record that shows other records than those here, and why.

    `confirmed` counts the ledger's rows that an earlier record of the coordinator's had confirmed.
    """

    signed: Signed
    why: str
    confirmed: int


@dataclass
class Traces:
    """The journal's releases.

    `left` has (study, release, round) of replies that left, `listed` the releases as the ledger booked them.
    `noted` is the ledger's row that was written to the journal last, with its digest; `settled` counts how often a
    person has settled these records, `open` holds what has waited for it since, `counted` what did until then;
    `compared` says whether a start has compared them before.
    """

    settled: int = 0
    noted: tuple[int, str] = (0, GENESIS)
    listed: list[Release] = field(default_factory=list)
    left: set[tuple[str, str, int]] = field(default_factory=set)
    messages: set[str] = field(default_factory=set)
    compared: bool = False
    open: list[Unsettled] = field(default_factory=list)
    counted: list[Unsettled] = field(default_factory=list)

    def take(self, record: Kind | None) -> None:
        """Take in one record of the journal; records that say nothing of releases change nothing."""
        match record:
            case Sent():
                self.messages.add(record.message)
                if is_reply(record.form) and (kind := release_of(record.form)):
                    self.left.add((record.study, kind.name, record.round if kind.repeated else 0))
            case Booked():
                self.noted = record.rows, record.ledger
                self.listed += _releases(record.releases)
            case Compared():
                self.compared = True
                self.messages |= set(record.orphans)
            case site_journal.Unsettled():
                signed = Signed(record.statement, record.signature)
                self.open.append(Unsettled(signed, record.why, record.confirmed))
            case Settled():
                self.settled, self.noted = record.settled, (record.rows, record.ledger)
                self.listed, self.left = _releases(record.releases), set()
                self.counted, self.open = [*self.counted, *self.open], []
                self.messages |= set(record.orphans)


def _releases(rows: Iterable[Iterable[Any]]) -> list[Release]:
    return [(*row, *[None] * (_COLUMNS - len(row))) for row in map(tuple, rows)]
