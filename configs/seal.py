"""What the two sides sign: a statement about one message, and the checks that it must pass.

Flower's own node signature covers a timestamp alone, so whoever opens TLS on the way could change or repeat a message.
A seal is a statement (who to whom, run, round, study, message, hash of the content, which message it answers) with an
Ed25519 signature over its canonical form. Signing is in strategies/keys.py; here is only what is said.

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
CLOCK_TOLERANCE_S = 900  # between two machines; a message is used once anyway


@dataclass(frozen=True, slots=True)
class Statement:
    """`answers` is the message id that a reply answers, empty otherwise; `journal` is the sender's journal head.

    `expires` is in seconds since 1970; 0 means never. `epsilon` is what the study has spent at the hospital so far, as
    its ledger has it ("1.2345"); it follows from the plan alone, so it says nothing about patients.
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

    @property
    def text(self) -> str:
        """The canonical form, which is signed."""
        return canonical_json({"version": VERSION, **asdict(self)})

    @classmethod
    def parse(cls, text: str) -> "Statement":
        """The statement in a canonical form.

        Raises:
            SealError: it is not one.
        """
        try:
            values: Any = json.loads(text) if len(text) <= MAX_TEXT else None
            good = isinstance(values, dict) and values.pop("version", None) == VERSION
            good = good and set(values) == {f.name for f in fields(cls)}
            good = good and all(type(values[f.name]) is f.type for f in fields(cls))
            good = good and bool(_EPSILON.fullmatch(values["epsilon"]))
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
