"""An append-only, hash-chained journal with one JSON record a line.

Each record quotes the hash of the one before. Both sides keep one. Each record holds 128 random bits, which are hashed
and never leave: a hash that was quoted to the other side says nothing of the record, however few records are possible.
A record that is changed, cut out or moved breaks the chain there, and `verify` names it. With a signing key each hash
is signed too, so that no other party can write a new chain. Cutting the end off is seen by a party that kept a later
hash: the other side, or the run's manifest. Several processes may append: a file lock keeps their records in one chain.

>>> from tempfile import TemporaryDirectory
>>> from configs.records.run_journal import Judged
>>> with TemporaryDirectory() as folder:
...     journal = Journal(Path(folder) / "journal.jsonl")
...     first = journal.write(Judged(round=1, value=0.5))
...     second = journal.write(Judged(round=2, value=0.6))
...     [record.of(Judged).value for record in read(journal.path)], verify(journal.path) == second
([0.5, 0.6], True)
"""

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import JournalError, RecordError
from configs.records.kinds import Kind
from configs.schema import canonical_json

GENESIS = "0" * 64
SALT_BYTES = 16
Asked = TypeVar("Asked", bound=Kind)


@dataclass(frozen=True, slots=True)
class Record:
    """One journal line. `hash` covers everything but the signature, `previous` included; `signature` is over it."""

    sequence: int
    time: str
    kind: str
    facts: dict[str, Any]
    previous: str
    hash: str
    signature: str = ""
    salt: str = ""  # records of earlier releases have none

    def of(self, *kinds: type[Asked]) -> Asked | None:
        """Return the record as the one of these kinds that it is, None where it is none of them.

        Raises:
            JournalError: a fact is missing or is of another type.
        """
        kind = next((kind for kind in kinds if kind.kind == self.kind), None)
        try:
            return None if kind is None else kind.from_facts(self.facts)
        except RecordError as error:
            flaws = "; ".join(error.problems)
            text = f"record {self.sequence} ({self.kind}): {flaws}; keep the journal, and open it with the release"
            raise JournalError(f"{text} that wrote it") from None


Sign = Callable[[bytes], str]  # the hash's bytes -> a signature as text
Check = Callable[[bytes, str], bool]


class Journal:
    """The writing end. `durable` asks the disk for every record; `sign` makes each record's signature."""

    def __init__(self, path: Path, *, durable: bool = True, sign: Sign | None = None) -> None:
        self.path, self._durable, self._sign = path, durable, sign
        self._sequence, self._previous, self._size = 0, GENESIS, 0
        self._hashes = bytearray()  # of every record, in order
        if path.exists():
            with self._locked() as file:
                self._catch_up(file)

    @property
    def head(self) -> str:
        """Hash of the last record; 64 zeros before the first."""
        return self._previous

    @property
    def sequence(self) -> int:
        """Number of the last record; 0 before the first."""
        return self._sequence

    def hash_at(self, sequence: int) -> str:
        """Return the hash of the record of a number that this journal has reached; 64 zeros for 0."""
        start = 32 * (sequence - 1)
        return self._hashes[start : start + 32].hex() if sequence else GENESIS

    def write(self, record: Kind) -> str:
        """Write one record and return its hash.

        Raises:
            JournalError, OSError: as `append`.
        """
        return self.append(record.kind, **record.to_facts())

    def append(self, kind: str, **facts: Any) -> str:
        """Write one record, given its kind's name and its facts, and return its hash.

        Raises:
            JournalError: another process left a record that does not fit.
            OSError: the disk is full; nothing was written.
        """
        with self._locked() as file:
            self._catch_up(file)
            return self._write(file, kind, facts)

    def _write(self, file: FileIO, kind: str, facts: dict[str, Any]) -> str:
        body = {
            "sequence": self._sequence + 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kind": kind,
            "facts": facts,
            "previous": self._previous,
            "salt": secrets.token_hex(SALT_BYTES),
        }
        digest = _digest(body)
        signature = {"signature": self._sign(bytes.fromhex(digest))} if self._sign else {}
        line = canonical_json({**body, "hash": digest, **signature}).encode("ascii") + b"\n"
        try:
            _write_whole(file, line)
            if self._durable:
                os.fsync(file.fileno())
        except OSError:
            os.truncate(self.path, self._size)  # half a record must not stay for the next one to follow
            raise
        self._sequence, self._previous, self._size = self._sequence + 1, digest, self._size + len(line)
        self._hashes += bytes.fromhex(digest)
        return digest

    @contextmanager
    def _locked(self) -> Iterator[FileIO]:
        # Unbuffered: on a full disk a buffer would be written again when the file is closed, behind what was cut off.
        with self.path.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _catch_up(self, file: FileIO) -> None:
        """Read what others wrote since, and drop a torn tail."""
        size = file.seek(0, os.SEEK_END)
        if size == self._size:
            return
        torn = _cut_torn_tail(self.path)
        for record in read(self.path, self._size, self._sequence, self._previous):
            self._sequence, self._previous = record.sequence, record.hash
            self._hashes += bytes.fromhex(record.hash)
        self._size = size - torn
        if torn:
            self._write(file, "recovered", {"torn_bytes": torn})


def _write_whole(file: FileIO, content: bytes) -> None:
    done = 0
    while done < len(content):
        done += file.write(content[done:]) or 0


def read(
    path: Path, offset: int = 0, sequence: int = 0, previous: str = GENESIS, check: Check | None = None
) -> Iterator[Record]:
    """Yield the records in order, each checked against the chain; with `check`, its signature too.

    Args:
        offset, sequence, previous: where to go on, if the records before were read already.

    Raises:
        JournalError: naming the first record that was changed, cut or reordered.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for number, line in enumerate(file, sequence + 1):
            record = _parse(path, number, line)
            if record.sequence != number or record.previous != previous:
                raise JournalError(
                    f"{path}: record {number}: expected sequence {number} after {previous[:12]}, found sequence "
                    f"{record.sequence} after {record.previous[:12]}; a record was cut out or moved here"
                )
            if check is not None and not check(bytes.fromhex(record.hash), record.signature):
                raise JournalError(
                    f"{path}: record {number}: expected a signature by this journal's key, found another; it was forged"
                )
            yield record
            previous = record.hash


def verify(path: Path, check: Check | None = None) -> str:
    """Walk the whole chain and return the last hash (64 zeros for an empty journal).

    Raises:
        JournalError: naming the first record that does not fit.
    """
    last = GENESIS
    for record in read(path, check=check):
        last = record.hash
    return last


def _parse(path: Path, number: int, line: bytes) -> Record:
    try:
        record = Record(**json.loads(line))
        body = {key: getattr(record, key) for key in ("sequence", "time", "kind", "facts", "previous")}
        if record.salt:
            body["salt"] = record.salt
        intact = _digest(body) == record.hash
    except (ValueError, TypeError, RecursionError):
        raise JournalError(f"{path}: record {number}: expected one JSON record, found something else") from None
    if not intact:
        raise JournalError(
            f"{path}: record {number}: expected a hash that fits its content, found another; the record was changed"
        )
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
