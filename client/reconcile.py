"""The rules that a hospital's records must satisfy together.

Pure functions from facts to reasons for a person: no disk, no clock, no network. Four things remember what a hospital
has released: its ledger, its signed journal, its outbox, and the coordinator, which keeps the hospital's own newest
signed statement and gives it back. They are held against each other, because a ledger that was deleted, a folder that
came back from a backup, or one that was copied and is used in two places holds less than what left.

More bookings than releases are no contradiction: a crash between the two costs budget, and never gives any back. Nor is
a coordinator's record that is behind: its keeper could otherwise stop a hospital.

>>> here = Standing(settled=0, sequence=7, head="aa")
>>> judged(Standing(0, 9, "bb"), here, lambda sequence: "aa")
'it has record 9 of the journal here, which ends at record 7'
>>> judged(Standing(0, 5, "cc"), here, lambda sequence: "cc")
''
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from configs.seal import MAX_SPENT
from configs.shown import DIGITS

# Data set, study, round, attempt, kind, noise multiplier, sampling rate, steps; the plan's steps and evaluation noise;
# the release's name, None of what was booked before releases had names
Release = tuple[str, str, int, int, str, float, float, int, int | None, float | None, str | None]
Kind = tuple[str, float, float]  # kind, noise multiplier, sampling rate
_LETTERS = {"s": "sampled gaussian", "g": "gaussian", "l": "laplace"}
_IDENTITY = re.compile(r"([0-9a-f]{16}):([0-9]{1,9})((?:[=+][sgl]/[0-9.e+-]{1,25}/[0-9.e+-]{1,25}/[0-9]{1,12})*)")


@dataclass(frozen=True, slots=True)
class Standing:
    """The progress of a hospital's records: how often a person settled them, the journal's last record and its hash."""

    settled: int
    sequence: int
    head: str


@dataclass(frozen=True)
class Spent:
    """The releases about one identity: how many bookings, and their steps by kind (None where not known)."""

    count: int
    steps: Mapping[Kind, int] | None


@dataclass(frozen=True)
class Facts:
    """The facts compared at a start: the ledger as it lies there, and what the journal and the outbox say of it.

    `noted` is the row that the journal noted last, `digest` that of this row in the ledger now (empty where it has
    none). `left` are releases of private studies that left, `booked` those of the ledger, as (study, *place) of
    client/ledger_file.py; `orphans` counts messages in the outbox that the journal does not name, once every start
    counts them.
    """

    flaw: str = ""
    rows: int = 0
    noted: tuple[int, str] = (0, "")
    digest: str = ""
    left: frozenset[tuple[str, str, int]] = frozenset()
    booked: frozenset[tuple[str, str, int]] = frozenset()
    orphans: int = 0


def contradictions(facts: Facts) -> list[str]:
    """Say what does not fit together in the hospital's own folder; nothing where all fits."""
    reasons = []
    if facts.flaw:
        reasons.append(f"ledger.sqlite: {facts.flaw}")
    rows, digest = facts.noted
    if facts.rows < rows:
        reasons.append(
            f"ledger.sqlite holds {facts.rows} releases, the journal lists {rows}; it was deleted or put back"
        )
    elif rows and facts.digest != digest and not facts.flaw:
        reasons.append("ledger.sqlite is not the one that the journal lists; it was changed or replaced")
    elif unbooked := facts.left - facts.booked:
        studies = ", ".join(sorted({study[:DIGITS] for study, *_ in unbooked}))
        reasons.append(f"{len(unbooked)} releases left that ledger.sqlite does not hold (study {studies})")
    if facts.orphans > 1:
        reasons.append(f"the outbox holds {facts.orphans} messages that the journal does not name; it was put back")
    return reasons


def judged(record: Standing, here: Standing, hash_at: Callable[[int], str], counted: Iterable[Standing] = ()) -> str:
    """Say why the coordinator's record of this hospital shows other records than those here; empty if it does not.

    Args:
        hash_at: the hash of a record of the journal here, by its number.
        counted: records that a person has settled: what they list is booked here.
    """
    if record.settled < here.settled:
        matches = hash_at(record.sequence) == record.head
        if matches or any((record.settled, record.sequence) <= (old.settled, old.sequence) for old in counted):
            return ""  # behind
        return "it was made by a folder that went on elsewhere; what it released was not known when a person settled"
    if record.settled > here.settled:
        return "it was made by a folder whose records were settled after these here were copied"
    if record.sequence > here.sequence:
        return f"it has record {record.sequence} of the journal here, which ends at record {here.sequence}"
    if hash_at(record.sequence) != record.head:
        return f"record {record.sequence} of the journal here is another one; a copy of this folder is in use elsewhere"
    return ""


def written(spent: Mapping[str, Spent]) -> str:
    """Write what was spent for a signed statement, by keyed hash of the identity; as much of it as has room."""
    for detailed in (True, False):
        text = ";".join(
            f"{key}:{spending.count}{_kinds(spending) if detailed else ''}" for key, spending in sorted(spent.items())
        )
        if len(text) <= MAX_SPENT:
            return text
    return ""


def parsed(text: str) -> dict[str, Spent]:
    """Read what `written` wrote. An identity without its kinds has a count alone.

    Raises:
        ValueError: it is not of this form.
    """
    spent = {}
    for part in text.split(";") if text else ():
        match = _IDENTITY.fullmatch(part)
        if match is None:
            raise ValueError("expected what was spent by identity, found something else")
        kinds: dict[Kind, int] = {}
        for piece in re.split("[=+](?=[sgl]/)", match[3])[1:]:
            letter, noise, rate, steps = piece.split("/")
            kinds[_LETTERS[letter], float(noise), float(rate)] = int(steps)
        spent[match[1]] = Spent(int(match[2]), kinds or None)
    return spent


def spent_by(releases: Iterable[Release], key: Callable[[str], str]) -> dict[str, Spent]:
    """Count releases by the keyed hash of their identity."""
    counts: Counter[str] = Counter()
    steps: dict[str, Counter[Kind]] = {}
    for dataset, _, _, _, kind, noise, rate, number, *_ in releases:
        name = key(dataset)
        counts[name] += 1
        steps.setdefault(name, Counter())[kind, noise, rate] += number
    return {name: Spent(counts[name], dict(steps[name])) for name in counts}


def together(spent: Mapping[str, Spent], more: Mapping[str, Spent]) -> dict[str, Spent]:
    """Add what was released later to what was released before."""
    total = dict(spent)
    for name, spending in more.items():
        before = total.get(name, Spent(0, {}))
        total[name] = Spent(before.count + spending.count, Counter(before.steps or {}) + Counter(spending.steps or {}))
    return total


def missing(listed: Iterable[Release], booked: Iterable[Release]) -> list[Release]:
    """Return the releases that are listed and not booked, each as often as it is missing."""
    return list((Counter(listed) - Counter(booked)).elements())


def beyond(record: Spent, here: Spent) -> dict[Kind, int] | None:
    """Return the steps that a record has and that are not here, by kind; None where the record says only how many."""
    if record.steps is None:
        return {} if record.count <= here.count else None
    own_steps = here.steps or {}
    return {
        kind: steps - own_steps.get(kind, 0) for kind, steps in record.steps.items() if steps > own_steps.get(kind, 0)
    }


def _kinds(spent: Spent) -> str:
    letters = {name: letter for letter, name in _LETTERS.items()}
    pieces = [
        f"{letters[kind]}/{noise!r}/{rate!r}/{n}" for (kind, noise, rate), n in sorted((spent.steps or {}).items())
    ]
    return f"={'+'.join(pieces)}" if pieces else ""
