"""The outbox and the journal as lines for people: what left, who decided what and when.

>>> folded([("a", 1), ("a", 2), ("b", 3)], key=lambda entry: entry[0])
[[('a', 1), ('a', 2)], [('b', 3)]]
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from configs import wire
from configs.journal import Record, read
from configs.records.site_journal import Approved, Joined, Proposed, RefusedStudy, Settled, Started, Stopped
from configs.shown import DIGITS
from configs.site import SiteConfig

if TYPE_CHECKING:
    from client.audit import Outgoing

Entry = TypeVar("Entry")
DECISIONS = (Proposed, Approved, RefusedStudy, Joined, Started, Stopped, Settled)
PEOPLE = tuple(kind.kind for kind in DECISIONS)
HIDDEN = ("message", "instruction", "answers", "content", "their_journal", "bytes", "site_yaml", "coordinator_key")


def folded(entries: Iterable[Entry], key: Callable[[Entry], Any]) -> list[list[Entry]]:
    """Return entries in groups of neighbours with one key."""
    return [list(group) for _, group in itertools.groupby(entries, key)]


def outbox_lines(config: SiteConfig, outgoing: "Iterable[Outgoing]") -> Iterator[str]:
    """Yield a line for each message that left; equal refusals that follow each other are one line."""
    answers = _answers()
    for group in folded(outgoing, key=lambda o: (o.study, o.round, o.form, o.sha256, "" if o.sha256 in answers else o)):
        first, more = group[0], len(group) - 1
        frame_path = config.outbox / f"{first.message}.frame"
        size = frame_path.stat().st_size if frame_path.exists() else first.bytes
        kind, answer = answers.get(first.sha256, (first.form, ""))
        again = f", and {more:,} time{'' if more == 1 else 's'} more until {group[-1].time[:19]}" if more else ""
        yield (
            f"{first.time[:19]}  {first.message[:8]}  study {first.study[:DIGITS]}  round {first.round:4}  {kind:12} "
            f"{size:>10} bytes  sha256 {first.sha256[:16]}{f'  {answer}' if answer else ''}{again}"
        )


def _answers() -> dict[str, tuple[str, str]]:
    """Every refusal that can leave, by the digest of its frame: its kind, and its sentence."""
    from client.egress import SENTENCES
    from configs.frame import Frame

    return {
        Frame("refusal", {"code": code, "reason": reason}).sha256: (
            "not yet" if code == wire.WAITING_FOR_APPROVAL else "refusal",
            f"answered: {reason}",
        )
        for code, reason in SENTENCES.items()
    }


def journal_lines(config: SiteConfig, names: Mapping[str, str], *, decisions: bool = False) -> Iterator[str]:
    """Yield a line for each record of the journal, oldest first.

    Args:
        names: studies' names by digest.
        decisions: only what people decided, and when the node started and stopped.
    """
    for record in read(config.journal) if config.journal.exists() else ():
        if not decisions or record.kind in PEOPLE:
            yield f"{record.time[:19]}  {record.sequence:>7}  {record.kind:14} {_facts(record, names)}".rstrip()


def _facts(record: Record, names: Mapping[str, str]) -> str:
    facts = {name: value for name, value in record.facts.items() if name not in HIDDEN and value not in ("", None)}
    if (study := str(facts.pop("study", ""))) and study:
        name = names.get(study) or str(facts.get("name", ""))
        facts.pop("name", None)
        facts = {"study": f"{name} {study[:DIGITS]}".strip(), **facts}
    return ", ".join(f"{name} {_printable(value)}" for name, value in facts.items())


def _printable(value: object) -> str:
    """Return a fact on one line; what no terminal should be shown is escaped."""
    text = str(value)
    return text if text.isprintable() else ascii(text)
