"""The check whether the coordinator's folder was restored, copied or moved since its last use.

A coordinator goes on with its runs by itself after a stop or a crash. After a restore a person has to look first:
hospitals that were revoked since the backup are members again, studies that were stopped wait again. Four things are
held against each other at each start:

- a number that grows with each record of the journal and stands in the database and in the record: the database first,
  so that a crash leaves it at most one ahead. A database or a journal of an earlier time differs.
- a random word of the last start: in the database, in the journal's signed record `started`, and in `coordinator.mark`.
- the inodes of database and journal, as `coordinator.mark` names them: a folder that was copied back has new ones,
  unless the file system gives out old ones again.
- the time at which the kernel last changed the journal's inode (ctime; no tool can set it) against the time in its last
  record: a journal that was overwritten in place was changed later.

A snapshot of a whole disk takes all four back; nothing in the folder can tell. After such a restore, start with
`archipel-coordinator start --hold`. Folders of earlier releases have no marks: nothing is held against them, once.
"""

import json
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any

from configs import journal as journals
from configs.coordinator import CoordinatorConfig
from configs.files import write_atomically
from configs.journal import Journal
from configs.records.coordinator_journal import Started
from configs.records.kinds import Kind
from server.membership import Membership

MARK_FILE = "coordinator.mark"
TOUCHED_S = 10.0  # between a record's time and its writing
NUMBER, WORD = "number", "word"


def note(members: Membership, journal: Journal, record: Kind) -> None:
    """Write a record into the coordinator's journal, with the next number of the database."""
    journal.append(record.kind, **record.to_facts(), number=members.count())


def begin(config: CoordinatorConfig, members: Membership, journal: Journal) -> None:
    """Mark this start, once `difference` has looked."""
    word = secrets.token_hex(16)
    members.mark(WORD, word)
    members.mark(NUMBER, str(max(int(members.marked(NUMBER) or 0), _recorded(config.journal)[0])))
    note(members, journal, Started(listen=config.listen, word=word))
    marks = {"word": word, "inodes": _inodes(config)}
    write_atomically(config.folder / MARK_FILE, (json.dumps(marks) + "\n").encode("ascii"))


def difference(config: CoordinatorConfig, members: Membership) -> str:
    """Return what shows that the folder is not as the last coordinator left it; empty where nothing does.

    Raises:
        JournalError: the journal's chain is broken.
    """
    numbers, word, last = _recorded(config.journal)
    marks = _marks(config.folder / MARK_FILE)
    counted, marked = int(members.marked(NUMBER) or 0), members.marked(WORD) or ""
    if not (word or marked or marks):
        return ""  # a new folder, or one of an earlier release
    if counted not in (numbers, numbers + 1):
        older = "database" if counted < numbers else "journal"
        return f"the {older} is older than the {'journal' if older == 'database' else 'database'}"
    if not word == marked == marks.get("word"):
        return "database, journal and coordinator.mark are not of one start"
    if marks.get("inodes") != _inodes(config):
        return "the database or the journal is a copy"
    if last is not None and abs(config.journal.stat().st_ctime - last) > TOUCHED_S:
        return "the journal's file was touched after its last record"
    return ""


def _recorded(path: Path) -> tuple[int, str, float | None]:
    """Return the newest number and the last start's word in the journal, and the time of its last record.

    The time is Unix time.
    """
    number, word, last = 0, "", None
    for record in journals.read(path) if path.exists() else ():
        number = max(number, int(record.facts.get("number") or 0))
        word = started.word if (started := record.of(Started)) else word
        last = datetime.fromisoformat(record.time).timestamp()
    return number, word, last


def _marks(path: Path) -> dict[str, Any]:
    try:
        marks = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return marks if isinstance(marks, dict) else {}


def _inodes(config: CoordinatorConfig) -> list[int]:
    return [path.stat().st_ino if path.exists() else 0 for path in (config.database, config.journal)]
