"""The signed statement about one message, and the checks that it must pass.

Flower's own node signature covers a timestamp alone, so a party that opens TLS on the way could change or repeat a
message. A seal is a statement (who to whom, run, round, study, message, hash of the content, which message it answers)
with an Ed25519 signature over its canonical form. Signing is in strategies/exchange/keys.py; here is only what is said.

>>> said = Statement("coordinator", "lille", "run-1", 3, "ab" * 32, "m1", "cd" * 32, "", 0, "", "")
>>> Statement.parse(said.text) == said
True
>>> said.require(sender="coordinator", to="lyon")
Traceback (most recent call last):
    ...
configs.errors.SealError: seal: expected a message to lyon, found one to lille; it was sent to another address
"""

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from configs.errors import SealError
from configs.schema import canonical_json

VERSION = "archipel-seal/1"
COORDINATOR = "coordinator"
MAX_TEXT = 2000
_EPSILON = re.compile(r"([0-9]{1,6}\.[0-9]{4})?")
MAX_SPENT = 900  # characters of a statement for what was spent
_SPENT = re.compile(rf"[0-9a-z:;=/.+-]{{0,{MAX_SPENT}}}")
CLOCK_TOLERANCE_S = 900  # between two machines; a message is used once anyway


_OWN = frozenset({"settled", "sequence", "spent"})  # fields that came later


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement in its canonical form, and the signature over it."""

    statement: str
    signature: str

    @property
    def text(self) -> str:
        """Return both as one text."""
        return canonical_json([self.statement, self.signature])

    @classmethod
    def parse(cls, text: str) -> "Signed | None":
        """Return what `text` holds, None where it is something else; whether it holds is for the reader to check."""
        try:
            values = json.loads(text) if text else None
        except (ValueError, RecursionError):
            return None
        good = isinstance(values, list) and len(values) == 2 and all(isinstance(value, str) for value in values)
        return cls(*values) if good and values else None


@dataclass(frozen=True, slots=True)
class Statement:
    """`answers` is the message id that a reply answers, empty otherwise; `journal` is the sender's journal head.

    `expires` is in seconds since 1970; 0 means never. `epsilon` is what the study has spent at the hospital so far, as
    its ledger has it ("1.2345"); it follows from the plan alone, so it says nothing about patients.

    The last three are a hospital's, for itself: the coordinator keeps the newest statement and gives it back, so that a
    hospital whose folder was put back or copied sees it. How often a person has settled its records, the number of the
    record at the head of its journal, and what its ledger holds (client/reconcile.py), by identities that only the
    hospital can name. They follow from plans alone. A statement without them is what the first release wrote.
    """

    sender: str
    to: str
    run: str
    round: int
    study: str
    message: str
    content: str
    answers: str
    expires: int
    journal: str
    epsilon: str
    settled: int = 0
    sequence: int = 0
    spent: str = ""

    @property
    def text(self) -> str:
        """Return the canonical form, which is signed."""
        values = asdict(self)
        if not self.sequence:
            values = {name: value for name, value in values.items() if name not in _OWN}
        return canonical_json({"version": VERSION, **values})

    @classmethod
    def parse(cls, text: str) -> "Statement":
        """Return the statement in a canonical form.

        Raises:
            SealError: it is not one.
        """
        try:
            values: Any = json.loads(text) if len(text) <= MAX_TEXT else None
            good = isinstance(values, dict) and values.pop("version", None) == VERSION
            names = {f.name for f in fields(cls)}
            good = good and set(values) in (names, names - _OWN)
            good = good and all(type(value) is _TYPES[name] for name, value in values.items())
            good = good and bool(_EPSILON.fullmatch(values["epsilon"]) and _SPENT.fullmatch(values.get("spent", "")))
            statement = cls(**values) if good else None
            good = statement is not None and statement.text == text
        except (ValueError, RecursionError):
            good, statement = False, None
        if not good or statement is None:
            raise SealError(f"seal: expected a statement of {VERSION}, found something else; install one release")
        return statement

    def require(
        self,
        *,
        sender: str,
        to: str,
        run: str | None = None,
        round: int | None = None,
        study: str | None = None,
        content: str | None = None,
        answers: str | None = None,
        now: float = 0.0,
    ) -> None:
        """Compare with what the receiver knows; None means that it knows nothing about that.

        Raises:
            SealError: naming the first that differs.
        """
        if self.sender != sender:
            raise SealError(f"seal: expected a message from {sender}, found another sender")
        if self.to != to:
            raise SealError(f"seal: expected a message to {to}, found one to {self.to}; it was sent to another address")
        for name, expected in (("run", run), ("round", round), ("study", study), ("answers", answers)):
            if expected is not None and getattr(self, name) != expected:
                raise SealError(f"seal: expected this message's own {name}, found another; it was moved or repeated")
        if content is not None and self.content != content:
            raise SealError("seal: the content is not what was signed; it was changed on the way")
        if self.expires and now > self.expires + CLOCK_TOLERANCE_S:
            raise SealError("seal: the message has expired; it was held back, or this machine's clock is wrong")


_TYPES = {f.name: f.type for f in fields(Statement)}
