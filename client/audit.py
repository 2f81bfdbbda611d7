"""The hospital's signed journal and its outbox.

They hold what came, what was decided, and every message that left, byte for byte. A message is in the outbox and in the
journal before its first byte is sent. The owner of an outbox file can prove with the journal that it is what left, and
the coordinator's journal quotes the same hashes.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from client.broken import advised
from client.traces import TRACED, Traces
from configs import wire
from configs.errors import JournalError, RunError, WireError
from configs.frame import Frame
from configs.journal import Journal, Record, read
from configs.records.kinds import Kind
from configs.records.site_journal import Received, RefusedAgain, Sent
from configs.site import SiteConfig
from configs.wire import without_optional
from strategies.exchange.keys import SigningKey, verify
from strategies.releases.registry import is_reply

REMEMBERED = (*TRACED, Received)
ENDED = f"{wire.ASKS[wire.END]} reply"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message that left."""

    message: str
    time: str
    study: str
    round: int
    form: str
    bytes: int
    sha256: str


@dataclass
class _Refused:
    """A refusal that was kept, and how often it left."""

    message: str
    sha256: str
    why: str
    times: int = 1


class Audit:
    """The journal and the outbox of one hospital."""

    def __init__(self, config: SiteConfig, key: SigningKey) -> None:
        self._config, self._key = config, key
        self.traces = Traces()
        self._seen: set[str] = set()
        self._refused: dict[tuple[str, str], _Refused] = {}  # the newest refusal of each instruction, and how often
        self._kept: dict[tuple[str, str], str] = {}  # (study, content of the instruction) -> the message that answered
        self._readings: dict[str, tuple[str, str]] = {}  # study -> of which rows the answer before was, and the newest
        with advised(config):
            self.journal = Journal(config.journal, sign=key.sign)
            for record in read(config.journal) if config.journal.exists() else ():
                self._remember(record.of(*REMEMBERED))

    def note(self, record: Kind) -> None:
        """Write one record.

        Raises:
            JournalError: another process left a record that does not fit. OSError: the disk is full.
        """
        with advised(self._config):
            self.journal.write(record)
        self._remember(record)

    def seen(self, message: str) -> bool:
        """Return whether an instruction was used before, in this process or an earlier one."""
        return message in self._seen

    def answer_to(self, study: str, content: str) -> Frame | None:
        """Return what this hospital answered to the same instruction before: sent again, nothing is spent twice."""
        message = self._kept.get((study, content))
        path = self._config.outbox / f"{message}.frame"
        return _read(path) if message and path.is_file() else None

    def was_refused(self, frame: Frame, study: str, instruction: str, why: str) -> bool:
        """Return whether an equal refusal is the newest answer to this instruction, kept in this process's time."""
        refusal = self._refused.get((study, instruction))
        return refusal is not None and (refusal.sha256, refusal.why) == (frame.sha256, why)

    def count_refusal(self, asked: str, study: str, instruction: str) -> str:
        """Count a refusal that left before, once more, and return the message in which it is kept.

        The journal gets a record whenever the count doubles. The instruction that `asked` counts as used.
        """
        refusal = self._refused[study, instruction]
        self._seen.add(asked)
        refusal.times += 1
        if refusal.times & (refusal.times - 1) == 0:
            self.note(RefusedAgain(message=refusal.message, study=study, times=refusal.times))
        return refusal.message

    def remember_refusal(self, frame: Frame, message: str, study: str, instruction: str, why: str) -> None:
        """Remember a refusal that was kept, so that an equal one need not be."""
        self._refused[study, instruction] = _Refused(message, frame.sha256, why)

    def rows_changed(self, study: str) -> bool:
        """Return whether the newest answer to a study is of other rows than the one before it, before a restart too."""
        before, newest = self._readings.get(study, ("", ""))
        return before != newest

    def keep(
        self,
        frame: Frame,
        message: str,
        *,
        study: str,
        round: int,
        answers: str,
        content: str,
        why: str = "",
        reading: str = "",
    ) -> None:
        """Keep a message that is about to leave: on disk first, then in the journal.

        Args:
            answers, content: the instruction's message id and what names it in the outbox (`instruction_of`).
            reading: the keyed digest of the rows that it is made of: the same rows, the same digest.
            why: it is noise alone, for the hospital to know: in this record, as one more would be counted outside.

        Raises:
            OSError: the disk is full; the message must not leave.
        """
        self._refused.pop((study, content), None)
        self._config.outbox.mkdir(mode=0o700, exist_ok=True)
        path = self._config.outbox / f"{message}.frame"
        _write(path, frame)
        try:
            self.note(
                Sent(
                    message=message,
                    study=study,
                    round=round,
                    form=frame.form,
                    bytes=frame.size,
                    content=frame.sha256,
                    answers=answers,
                    instruction=content,
                    why=why,
                    reading=reading,
                )
            )
        except OSError:
            path.unlink(missing_ok=True)  # it does not leave
            raise

    def outgoing(self) -> list[Outgoing]:
        """Return every message that left, oldest first."""
        with advised(self._config):
            entries = [(record.time, record.of(Sent)) for record in read(self._config.journal)]
        return [_outgoing(time, sent) for time, sent in entries if sent is not None]

    def show(self, message: str) -> Frame:
        """Return one message that left, compared with the journal.

        Raises:
            RunError: there is none of this id. JournalError: its bytes are not those that the journal names.
        """
        matches = [o for o in self.outgoing() if o.message.startswith(message)] if len(message) >= 6 else []
        if len(matches) != 1:
            raise RunError(f"{message!r}: expected the id of one message (6 characters or more), found {len(matches)}")
        return self._open(matches[0].message, matches[0].sha256)

    def verify(self) -> int:
        """Walk the journal and the outbox; return the number of records.

        Raises:
            JournalError: naming the first record that was changed, cut, reordered or forged, or a changed message.
        """
        count, messages = 0, set[str]()
        for record in self._checked():
            count += 1
            if (sent := record.of(Sent)) is not None:
                if sent.message in messages:
                    raise JournalError(f"{self._config.journal}: record {count}: {sent.message} had left before")
                messages.add(sent.message)
                self._open(sent.message, sent.content)
        return count

    def _open(self, message: str, sha256: str) -> Frame:
        path = self._config.outbox / f"{message}.frame"
        frame = _read(path)
        if frame.sha256 != sha256:
            raise JournalError(f"{path}: its bytes are not those that the journal names; it was changed")
        return frame

    def _checked(self) -> Iterator[Record]:
        with advised(self._config):
            yield from read(
                self._config.journal, check=lambda digest, signature: verify(self._key.public, digest, signature)
            )

    def _remember(self, record: Kind | None) -> None:
        self.traces.take(record)
        if isinstance(record, Received):
            self._seen.add(record.message)
        elif isinstance(record, Sent):
            if is_reply(record.form) or record.form == ENDED:  # sent again if asked again; refusals are not
                self._kept[record.study, record.instruction] = record.message
            if record.reading:
                before = self._readings.get(record.study, ("", record.reading))[1]
                self._readings[record.study] = (before, record.reading)


def instruction_of(frame: Frame, content: str) -> str:
    """Return what names an instruction in the outbox: the hash of what it asks for, however often it is asked.

    A reply that was kept answers every further attempt: nothing is released a second time that can be had again.

    Args:
        content: the hash of the whole frame.
    """
    fields = without_optional(frame.form, frame.fields)
    return content if fields == dict(frame.fields) else Frame(frame.form, fields, frame.arrays).sha256


def _outgoing(time: str, sent: Sent) -> Outgoing:
    return Outgoing(sent.message, time, sent.study, sent.round, sent.form, sent.bytes, sent.content)


def _read(path: Path) -> Frame:
    """Read a message that was kept.

    Raises:
        WireError: the file was changed.
    """
    with path.open("rb") as file:
        frame = Frame.read(lambda count: _exactly(file, count))
        if file.read(1):
            raise WireError(f"{path}: expected the end of the message, found more; it was changed")
    return frame


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise WireError("frame: expected more bytes, found its end; it was cut short")
    return data


def _write(path: Path, frame: Frame) -> None:
    """Write a file whole or not at all; it is on the disk when this returns."""
    part = path.with_suffix(".part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for piece in frame.encode():
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
