"""An append-only, hash-chained journal: one JSON record a line; each record quotes the hash of the one before.

Both sides keep one. Whoever changes, cuts out or reorders a record breaks the chain at that record, and `verify` names
it. Cutting the end off is seen by whoever kept a later hash: the other side, or the run's manifest.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     journal = Journal(Path(folder) / "journal.jsonl")
...     first = journal.append("round", round=1, contributed=["lille"])
...     second = journal.append("round", round=2, contributed=["lille"])
...     [record.facts["round"] for record in read(journal.path)], verify(journal.path) == second
([1, 2], True)
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.errors import JournalError
from configs.schema import canonical_json

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Record:
    """One journal line. `hash` covers everything else, `previous` included."""

    sequence: int
    time: str
    kind: str
    facts: dict[str, Any]
    previous: str
    hash: str


class Journal:
    """The writing end. One process writes a journal; `durable` asks the disk for every record."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path, self._durable = path, durable
        self._sequence, self._previous = 0, GENESIS
        torn = _cut_torn_tail(path) if path.exists() else 0
        for record in read(path) if path.exists() else ():
            self._sequence, self._previous = record.sequence, record.hash
        if torn:
            self.append("recovered", torn_bytes=torn)

    @property
    def head(self) -> str:
        """Hash of the last record; 64 zeros before the first."""
        return self._previous

    def append(self, kind: str, **facts: Any) -> str:
        """Write one record and return its hash."""
        body = {
            "sequence": self._sequence + 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kind": kind,
            "facts": facts,
            "previous": self._previous,
        }
        digest = _digest(body)
        with self.path.open("ab") as file:
            file.write(canonical_json({**body, "hash": digest}).encode("ascii") + b"\n")
            if self._durable:
                file.flush()
                os.fsync(file.fileno())
        self._sequence, self._previous = self._sequence + 1, digest
        return digest


def read(path: Path) -> Iterator[Record]:
    """The records in order, each checked against the chain.

    Raises:
        JournalError: naming the first record that was changed, cut or reordered.
    """
    previous = GENESIS
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            record = _parse(path, number, line)
            if record.sequence != number or record.previous != previous:
                raise JournalError(
                    f"{path}: record {number}: expected sequence {number} after {previous[:12]}, found sequence "
                    f"{record.sequence} after {record.previous[:12]}; a record was cut out or moved here"
                )
            yield record
            previous = record.hash


def verify(path: Path) -> str:
    """Walk the whole chain and return the last hash (64 zeros for an empty journal).

    Raises:
        JournalError: naming the first record that does not fit.
    """
    last = GENESIS
    for record in read(path):
        last = record.hash
    return last


def _parse(path: Path, number: int, line: bytes) -> Record:
    try:
        record = Record(**json.loads(line))
        body = {key: getattr(record, key) for key in ("sequence", "time", "kind", "facts", "previous")}
        intact = _digest(body) == record.hash
    except (ValueError, TypeError, RecursionError):
        raise JournalError(f"{path}: record {number}: expected one JSON record, found something else") from None
    if not intact:
        raise JournalError(f"{path}: record {number}: its hash does not fit its content; the record was changed")
    return record


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body).encode("ascii")).hexdigest()


def _cut_torn_tail(path: Path) -> int:
    """Drop a last line without its line feed: a write that a crash cut short was never acknowledged."""
    content = path.read_bytes()
    torn = len(content) - (content.rfind(b"\n") + 1)
    if torn:
        os.truncate(path, len(content) - torn)
    return torn
