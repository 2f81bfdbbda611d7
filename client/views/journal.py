"""Records of the journal as lines: decisions, by whom and when, and what came and left."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from configs.journal import Record, read
from configs.records.site_journal import (
    Approved,
    Joined,
    KitAdded,
    KitApproved,
    KitWithdrawn,
    Proposed,
    RefusedStudy,
    Settled,
    Started,
    Stopped,
)
from configs.shown import DIGITS
from configs.site import SiteConfig

DECISIONS = (Proposed, Approved, RefusedStudy, Joined, Started, Stopped, Settled, KitAdded, KitApproved, KitWithdrawn)
PEOPLE = tuple(kind.kind for kind in DECISIONS)
HIDDEN = ("message", "instruction", "answers", "content", "their_journal", "bytes", "site_yaml", "coordinator_key")


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of the journal without what people do not read; a study stands with its name."""

    time: str
    sequence: int
    kind: str
    facts: Mapping[str, object]


def entries(config: SiteConfig, names: Mapping[str, str], *, decisions: bool = False) -> Iterator[Entry]:
    """Yield the journal's records, oldest first.

    Args:
        names: studies' names by digest.
        decisions: only what people decided, and when the node started and stopped.
    """
    for record in read(config.journal) if config.journal.exists() else ():
        if not decisions or record.kind in PEOPLE:
            yield Entry(record.time, record.sequence, record.kind, _facts(record, names))


def _facts(record: Record, names: Mapping[str, str]) -> dict[str, object]:
    facts = {name: value for name, value in record.facts.items() if name not in HIDDEN and value not in ("", None)}
    if (study := str(facts.pop("study", ""))) and study:
        name = names.get(study) or str(facts.get("name", ""))
        facts.pop("name", None)
        facts = {"study": f"{name} {study[:DIGITS]}".strip(), **facts}
    return facts
