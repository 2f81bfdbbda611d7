"""`archipel-site settle`: a person resolves contradictions between a hospital's records.

It adds to what is spent and takes nothing away. For each identity the ledger comes to hold what the
ledger, the journal, the outbox and the coordinator's record of this hospital list, whichever is the most; or, with
`everything`, the whole cap. The signed journal says what was done: by whom, what was added, and the ledger as it is
from then on.
"""

import shutil
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from client import ledger_file, reconcile, records
from client.admission import Admissions
from client.audit import Audit
from client.broken import put_aside, salvaged
from client.ledger import Ledger
from client.ledger_events import event_of, row_of
from client.ledger_file import place
from client.reconcile import Kind, Release, Spent
from client.traces import Traces, Unsettled
from configs import database
from configs.errors import ArchipelError, RunError, SealError
from configs.records.site_journal import Settled
from configs.schema import PER_PATIENT
from configs.site import SiteConfig
from strategies.exchange.keys import SigningKey
from strategies.privacy.accounting import Event, GaussianRelease, epsilon
from strategies.privacy.modes.registry import mode_of
from strategies.privacy.plan import Budget
from strategies.releases.registry import RELEASES

SETTLED = "settled"  # in the place of a study, where it is known what was released and not by which
_QUIETEST, _LOUDEST = 1e6, 0.05  # noise multipliers between which a cap is filled


@dataclass
class Settlement:
    """The result of a settlement: the booked rows, and those that the ledger would hold beside them."""

    reasons: list[str]
    booked: list[Release]
    broken: bool = False  # the journal: it is put aside, and a new one begins
    settled: int = 0
    added: list[Release] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def all(self, identity: str) -> list[Release]:
        """Return what is booked about an identity and what would be added."""
        return [row for row in (*self.booked, *self.added) if row[0] == identity]


def settlement(config: SiteConfig, key: SigningKey, *, everything: bool) -> Settlement:
    """Find what does not fit together, and what must be added; nothing is written.

    Args:
        everything: fill the cap of every identity, whatever was found.

    Raises:
        RunError: the list of studies cannot be opened.
    """
    traces, flaw = salvaged(config, key)
    with closing(Admissions.open(config.admissions)) as admissions:
        reasons, booked = _found(config, traces, admissions)
        result = Settlement([*filter(None, [flaw]), *reasons], booked, bool(flaw), _times(traces, config, key) + 1)
        listed = reconcile.missing(traces.listed, booked)
        result.added += listed
        unknown = _add_replies(result, config, traces, admissions)
    for unsettled in traces.open:
        unknown |= _add_record(result, config, key, unsettled)
    if traces.compared and not traces.open and len(records.orphans(config, traces)) > 1:
        unknown |= _identities(config, result)  # the outbox alone does not name the identity of these releases
    for identity in sorted(_identities(config, result)) if everything else sorted(unknown):
        _fill(result, config, identity)
    _tell(result, config, key, traces, listed)
    return result


def apply(config: SiteConfig, key: SigningKey, found: Settlement, by: str) -> None:
    """Write the ledger, with a copy of the former one beside it, and then the journal. The node must not run.

    Raises:
        RunError, OSError: it cannot be written; what was not written can be settled again.
    """
    _keep(config.ledger)
    if any("damaged" in reason or "cannot be opened" in reason for reason in found.reasons):
        config.ledger.unlink(missing_ok=True)
        Path(f"{config.ledger}-journal").unlink(missing_ok=True)
        rows = [*found.booked, *found.added]
    else:
        rows = found.added
    try:
        with closing(database.connect(config.ledger)) as connection:
            ledger_file.prepare(connection)
            connection.execute("BEGIN IMMEDIATE")
            ledger_file.rechain(connection)
            for row in rows:
                ledger_file.insert(connection, (*row[:-1], False, None, row[-1]), "committed")
            connection.execute("COMMIT")
            head, releases = ledger_file.head_of(connection), ledger_file.releases(connection)
    except sqlite3.Error as error:
        raise RunError(f"{config.ledger}: the privacy ledger cannot be written: {error}; nothing is settled") from None
    former = put_aside(config, _kept_name(config.journal)) if found.broken else {}
    audit = Audit(config, key)
    audit.note(
        Settled(
            settled=found.settled,
            by=by,
            **former,
            reasons=tuple(found.reasons),
            added=tuple(found.added),
            rows=head[0],
            ledger=head[1],
            releases=tuple(releases),
            orphans=tuple(records.orphans(config, audit.traces)),
        )
    )


def _found(config: SiteConfig, traces: Traces, admissions: Admissions) -> tuple[list[str], list[Release]]:
    """Return what does not fit together, and the rows that the ledger holds, as far as it can be read."""
    if not config.ledger.exists():
        with closing(Ledger.in_memory()) as nothing:
            return records.contradictions(config, traces, nothing, admissions), []
    try:
        with closing(Ledger.open(config.ledger)) as ledger:
            reasons = records.contradictions(config, traces, ledger, admissions)
            return reasons, ledger.releases()
    except RunError as error:
        return [str(error)], []
    except sqlite3.Error:
        return ["ledger.sqlite: the file is damaged"], []


def _add_replies(result: Settlement, config: SiteConfig, traces: Traces, admissions: Admissions) -> set[str]:
    """Add replies that left before the journal listed bookings; return the identities of those without a known plan."""
    booked = {_place(row) for row in (*result.booked, *result.added)}
    unknown: set[str] = set()
    for study, name, number in sorted(traces.left):
        if (study, *place(name, number)) in booked or not records.private(study, config, admissions):
            continue
        release = _planned(study, name, number, result, config, admissions)
        if release is None:
            unknown |= _identities(config, result)
        else:
            result.added.append(release)
    return unknown


def _planned(
    sha256: str, name: str, number: int, result: Settlement, config: SiteConfig, admissions: Admissions
) -> Release | None:
    """Return a study's release, by its plan; None where the study or its data set is not known."""
    admission = admissions.find(sha256)
    identities = {row[0] for row in (*result.booked, *result.added) if row[1] == sha256}
    try:
        study = admission.study if admission else None
        dataset = config.dataset(study.name) if study else None
        identity = min(identities) if identities else dataset.identity if dataset else None
        if study is None or identity is None:
            return None
        plan = mode_of(study).plan(study, config.site, figures=True)
        if plan is None:
            return None
        event = RELEASES[name].event(plan)
    except ArchipelError:
        return None
    return None if event is None else (identity, sha256, number, 0, *row_of(event), None, None, name)


def _add_record(result: Settlement, config: SiteConfig, key: SigningKey, unsettled: Unsettled) -> set[str]:
    """Add what the coordinator's record lists beyond the rows that it had confirmed; the identities it only counts.

    Rows that were booked since then are not in the record, whatever their kind: they count on top of it.
    """
    try:
        spent = reconcile.parsed(records.own_statement(unsettled.signed, config, key).spent)
    except (SealError, ValueError):
        return _identities(config, result)
    name = records.keyed(key)
    confirmed = result.booked[: unsettled.confirmed] + result.added
    spent_here, unknown = reconcile.spent_by(confirmed, name), set()
    identities = {name(identity): identity for identity in _identities(config, result)}
    for keyed, spending in spent.items():
        if (identity := identities.get(keyed)) is None:
            continue
        more = reconcile.beyond(spending, spent_here.get(keyed, Spent(0, {})))
        if more is None:
            unknown.add(identity)
            continue
        for number, (kind, steps) in enumerate(sorted(more.items()), 1):
            result.added.append((identity, SETTLED, number, 0, *kind, steps, None, None, SETTLED))
    return unknown


def _fill(result: Settlement, config: SiteConfig, identity: str) -> None:
    """Add a release that brings an identity to its cap, so that nothing more of it passes."""
    cap = Budget(config.policy.max_epsilon, config.policy.delta)
    spent = [_event(row) for row in result.all(identity)]

    def full(noise_multiplier: float) -> bool:
        return epsilon([*spent, GaussianRelease(noise_multiplier)], cap.delta) >= cap.epsilon

    if spent and epsilon(spent, cap.delta) >= cap.epsilon:
        return
    quiet, loud = _QUIETEST, _LOUDEST
    while quiet / loud > 1.001:
        middle = (quiet * loud) ** 0.5
        quiet, loud = (quiet, middle) if full(middle) else (middle, loud)
    result.added.append((identity, SETTLED, 0, 0, *row_of(GaussianRelease(loud)), None, None, SETTLED))


def _identities(config: SiteConfig, result: Settlement) -> set[str]:
    identities = {row[0] for row in (*result.booked, *result.added)}
    return identities | {dataset.identity for dataset in config.datasets}


def _times(traces: Traces, config: SiteConfig, key: SigningKey) -> int:
    """Return how often these records were settled, here or in the folder that the coordinator's record is of."""
    times = [traces.settled]
    for unsettled in traces.open:
        with suppress(SealError, ValueError):
            times.append(records.own_statement(unsettled.signed, config, key).settled)
    return max(times)


def _tell(result: Settlement, config: SiteConfig, key: SigningKey, traces: Traces, listed: list[Release]) -> None:
    """Say per identity what each of the records holds, and what is added."""
    if result.broken:
        result.lines.append(
            f"{config.journal.name} is kept as {config.journal.name}.before-settle-..., and a new one begins; the next "
            "proposal compares it with the coordinator's record, and may ask for `settle` once more"
        )
    delta, name = config.policy.delta, records.keyed(key)
    recorded: Counter[str] = Counter()
    for unsettled in traces.open:
        for keyed, entry in _spent_in(unsettled, config, key).items():
            recorded[keyed] = max(recorded[keyed], entry.count)
    sent = {(study, *place(release, number)) for study, release, number in traces.left}
    replies = Counter(row[0] for row in (*result.booked, *result.added) if _place(row) in sent)
    for identity in sorted(_identities(config, result)):
        stored = [entry for entry in result.booked if entry[0] == identity]
        more = [entry for entry in result.added if entry[0] == identity]
        lost = sum(entry[0] == identity for entry in listed)
        before, after = (epsilon([_event(entry) for entry in rows], delta) for rows in (stored, stored + more))
        counts = (
            f"{len(stored)} releases in the ledger, {len(stored) + lost if lost else len(stored)} with the journal's"
        )
        in_record = f", {recorded[name(identity)]} in the coordinator's record" if name(identity) in recorded else ""
        result.lines.append(f"{identity}: {counts}, {replies[identity]} replies in the outbox{in_record}")
        result.lines.append(
            f"  epsilon {before:.3f} is booked, {after:.3f} once settled ({PER_PATIENT}, delta {delta:g}): "
            f"{len(more)} releases are added"
        )


def _spent_in(unsettled: Unsettled, config: SiteConfig, key: SigningKey) -> dict[str, Spent]:
    try:
        return reconcile.parsed(records.own_statement(unsettled.signed, config, key).spent)
    except (SealError, ValueError):
        return {}


def _place(row: Release) -> tuple[str, str, int]:
    return (row[1], *place(row[-1], row[2]))


def _event(release: Release) -> Event:
    kind: Kind = release[4], release[5], release[6]
    return event_of(*kind, release[7])


def _keep(path: Path) -> None:
    """Copy the ledger beside itself before it changes."""
    if path.exists():
        copy = path.with_name(_kept_name(path))
        shutil.copyfile(path, copy)
        copy.chmod(0o600)


def _kept_name(path: Path) -> str:
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    return f"{path.name}.before-settle-{now}"
