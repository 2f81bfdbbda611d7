"""The comparison of the node's records.

Ledger, journal, outbox, and what the coordinator kept of this hospital are held against each other. What fits and what
does not, client/reconcile.py says; here the files are read. At a start they are compared whole, before each booking
only what is new. What was booked is written to the signed journal before anything of it leaves, so that the journal
lists every release that can have left.
"""

import hashlib
import logging
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from typing import Any

from client import reconcile
from client.admission import Admissions
from client.audit import Audit
from client.ledger import Ledger
from client.ledger_file import place
from client.reconcile import Facts, Spent, Standing
from client.traces import TRACED, Traces
from configs.errors import ConfigError, JournalError, SealError, UnsettledError
from configs.journal import read
from configs.records.site_journal import Booked, Compared, Ignored, Unsettled
from configs.seal import COORDINATOR, Signed, Statement
from configs.site import SiteConfig
from strategies.exchange.keys import SigningKey, verify

log = logging.getLogger("archipel.node")
SETTLE = "archipel-site settle"
_RECORD = "the coordinator's record of this hospital:"


def traces_of(config: SiteConfig) -> Traces:
    """Return what a hospital's journal says of its releases.

    Raises:
        JournalError: it does not hold.
    """
    traces = Traces()
    for record in read(config.journal) if config.journal.exists() else ():
        traces.take(record.of(*TRACED))
    return traces


def reasons_in(config: SiteConfig) -> list[str]:
    """Say what does not fit together in a hospital's folder, for people; a node may run there.

    Raises:
        RunError: the ledger or the list of studies cannot be opened.
    """
    if not config.journal.exists():
        return []
    try:
        traces = traces_of(config)  # first: a node that runs books, then notes
    except JournalError as error:
        return [str(error)]
    with (
        closing(Ledger.open(config.ledger) if config.ledger.exists() else Ledger.in_memory()) as ledger,
        closing(Admissions.open(config.admissions)) as admissions,
    ):
        return contradictions(config, traces, ledger, admissions)


def contradictions(config: SiteConfig, traces: Traces, ledger: Ledger, admissions: Admissions) -> list[str]:
    """Say what does not fit together, each in words; nothing where all does.

    Args:
        traces: read before the ledger was opened: a node that runs books first.

    Raises:
        sqlite3.Error, OSError: the files cannot be read.
    """
    rows, _ = ledger.head
    facts = Facts(
        flaw=ledger.flaw,
        rows=rows,
        noted=traces.noted,
        digest=ledger.digest_at(traces.noted[0]),
        left=frozenset(
            (study, *place(name, number)) for study, name, number in traces.left if private(study, config, admissions)
        ),
        booked=ledger.places(),
        orphans=len(orphans(config, traces)) if traces.compared else 0,
    )
    reasons = reconcile.contradictions(facts)
    for unsettled in traces.open:
        reasons.append(f"{_RECORD} {unsettled.why}")
    return reasons


def orphans(config: SiteConfig, traces: Traces) -> list[str]:
    """Return messages in the outbox that the journal does not name: a crash leaves one, which did not leave."""
    frames = sorted(path.stem for path in config.outbox.glob("*.frame")) if config.outbox.exists() else []
    return [message for message in frames if message not in traces.messages]


def private(sha256: str, config: SiteConfig, admissions: Admissions) -> bool:
    """Return whether a study's replies are booked; an unknown one counts as such where the policy wants privacy."""
    admission = admissions.find(sha256)
    if admission is None:
        return not config.policy.allow_privacy_none
    try:
        return admission.study.privacy.keys.budgeted
    except ConfigError:
        return not config.policy.allow_privacy_none


def keyed(key: SigningKey) -> Callable[[str], str]:
    """Return what names an identity outside the hospital: 16 digits that only this hospital's key makes."""

    def name(identity: str) -> str:
        signature = key.sign(b"archipel identity/" + identity.encode())  # Ed25519: the same each time
        return hashlib.sha256(signature.encode()).hexdigest()[:16]

    return name


def own_statement(signed: Signed, config: SiteConfig, key: SigningKey) -> Statement:
    """Return the statement in the coordinator's record, if this very hospital signed it.

    Raises:
        SealError: it did not, or it says nothing of its records.
    """
    if not verify(key.public, signed.statement.encode("ascii", "replace"), signed.signature):
        raise SealError("the coordinator's record of this hospital is not signed by this hospital")
    statement = Statement.parse(signed.statement)
    statement.require(sender=config.site, to=COORDINATOR)
    if not statement.sequence:
        raise SealError("the coordinator's record of this hospital says nothing of its journal")
    reconcile.parsed(statement.spent)
    return statement


def _standing(statement: Statement) -> Standing:
    return Standing(statement.settled, statement.sequence, statement.journal)


class Records:
    """The node's checks before each training, and its records after it."""

    def __init__(
        self, config: SiteConfig, audit: Audit, ledger: Ledger, admissions: Admissions, key: SigningKey
    ) -> None:
        self._config, self._audit, self._ledger, self._admissions, self._key = config, audit, ledger, admissions, key
        self._traces = audit.traces
        self._reasons: list[str] = []
        self._heard: Signed | None = None
        self._confirmed = max(0, ledger.head[0] - 1)  # it is not known yet whether the last one was confirmed
        self._spent: tuple[int, dict[str, Spent]] = (0, {})
        self._name = lru_cache(maxsize=1000)(keyed(key))

    def start(self) -> None:
        """Compare everything, and write down what an earlier process left unwritten, if it fits together."""
        self._reasons = contradictions(self._config, self._traces, self._ledger, self._admissions)
        for reason in self._reasons:
            log.error("nothing trains here: %s; a person must run: %s", reason, SETTLE)
        if not self._reasons:
            rows, digest = self._ledger.head
            left_over = tuple(orphans(self._config, self._traces))
            self._audit.note(Compared(rows=rows, ledger=digest, orphans=left_over))
            self.note_bookings()

    def require(self) -> None:
        """Let a training begin if the records fit together as far as they are new.

        Raises:
            UnsettledError: they do not.
        """
        if reasons := self._contradictions():
            raise UnsettledError(f"{'; '.join(reasons)}; a person must run: {SETTLE}")

    def _contradictions(self) -> list[str]:
        """Return what does not fit together: as it was at the start, and what is new since then."""
        reasons = list(self._reasons)
        if not reasons and self._ledger.replaced:
            reasons.append("ledger.sqlite was replaced while the node runs; restart the node")
        elif not reasons and self._ledger.digest_at(self._traces.noted[0]) != self._traces.noted[1]:
            reasons.append("ledger.sqlite is not the one that the journal lists; it was changed or replaced")
        reasons += [f"{_RECORD} {contradiction.why}" for contradiction in self._traces.open]
        return list(dict.fromkeys(reasons))

    def note_bookings(self) -> None:
        """Write the ledger's new rows to the journal.

        Raises:
            OSError: the disk is full; nothing of them may leave.
        """
        rows, digest = self._ledger.head
        noted = self._traces.noted[0]
        if rows > noted:
            releases = tuple(self._ledger.releases(after=noted))
            self._audit.note(Booked(rows=rows, ledger=digest, releases=releases))

    def hear(self, signed: Signed | None) -> None:
        """Compare the coordinator's record of this hospital with the journal here. What is not its own is ignored."""
        if signed is None or signed == self._heard:
            return
        self._heard = signed
        try:
            statement = own_statement(signed, self._config, self._key)
        except (SealError, ValueError) as error:
            log.warning("what the coordinator gives back as this hospital's record is ignored: %s", error)
            self._audit.note(Ignored(what="record", why=str(error)[:200]))
            return
        journal = self._audit.journal
        standing = Standing(self._traces.settled, journal.sequence, journal.head)
        counted = [_standing(Statement.parse(trace.signed.statement)) for trace in self._traces.counted]
        why = reconcile.judged(_standing(statement), standing, journal.hash_at, counted)
        if not why:
            self._confirmed = self._ledger.head[0]
        elif all(trace.signed != signed for trace in self._traces.open):
            log.error("nothing trains here: %s %s; a person must run: %s", _RECORD, why, SETTLE)
            confirmed = self._confirmed
            self._audit.note(
                Unsettled(statement=signed.statement, signature=signed.signature, why=why, confirmed=confirmed)
            )

    def stated(self, protocol: int) -> dict[str, Any]:
        """Return what a statement says of these records, to a coordinator that reads it.

        Records that contradict each other say nothing: the coordinator keeps what the folder that went on had said.
        """
        if protocol < 2 or self._contradictions():
            return {}
        rows, spent = self._spent
        if (now := self._ledger.head[0]) > rows:
            later = reconcile.spent_by(self._ledger.releases(after=rows), self._name)
            self._spent = now, reconcile.together(spent, later)
        sequence, text = self._audit.journal.sequence, reconcile.written(self._spent[1])
        return {"settled": self._traces.settled, "sequence": sequence, "spent": text}
