"""The studies that this hospital approved.

Only a person at the hospital changes that, one digest at a time. A study that arrives is kept as waiting, in its
canonical form, so that it can be reviewed. Any change of a study is another digest, and waits anew.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     admissions = Admissions.open(Path(folder) / "admissions.sqlite")
...     admissions.propose("ab" * 32, "heart", "{}").state
...     admissions.decide("ab" * 32, "approved").state
...     admissions.close()
'waiting'
'approved'
"""

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from configs import database
from configs.errors import AdmissionError, RunError
from configs.load import study_from
from configs.paths import too_long
from configs.schema import Study
from configs.shown import DIGITS, shown

State = Literal["waiting", "approved", "refused"]
MAX_WAITING_BYTES = 20_000_000  # nor its memory
MAX_WAITING = 1000  # a coordinator cannot fill this hospital's disk with proposals
_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    sha256 TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    canonical TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'approved', 'refused')),
    why TEXT NOT NULL DEFAULT '',
    arrived TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    quiet_s REAL NOT NULL DEFAULT 0
)
"""
_ADDED = (("studies", "quiet_s", "REAL NOT NULL DEFAULT 0"),)
QUIET_S = 3600.0  # before its start a study is proposed every five minutes at least, then in every round
_COLUMNS = "sha256, name, canonical, state, why, arrived, quiet_s"


@dataclass(frozen=True, slots=True)
class Admission:
    """One study as this hospital sees it. For `quiet_s` of contact the coordinator has not proposed it any more."""

    sha256: str
    name: str
    canonical: str
    state: State
    why: str
    arrived: str
    quiet_s: float = 0.0

    @property
    def waits(self) -> bool:
        """Return whether somebody has to decide: not where the study was stopped, or ended without this hospital."""
        return self.state == "waiting" and self.quiet_s < QUIET_S

    @property
    def study(self) -> Study:
        """Return the study itself."""
        return study_from(json.loads(self.canonical), source=f"study {self.sha256[:DIGITS]}")


class Admissions:
    """The file `admissions.sqlite`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        database.prepare(connection, _SCHEMA, version=1, what="the list of approved studies", added=_ADDED)

    @classmethod
    def open(cls, path: Path) -> "Admissions":
        """Open or create it.

        Raises:
            RunError: it cannot be opened.
        """
        try:
            connection = database.connect(path)
            with database.closed_on_error(connection):
                return cls(connection)
        except sqlite3.Error as error:
            raise RunError(f"{path}: the list of approved studies cannot be opened: {error}{too_long(path)}") from None

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def propose(self, sha256: str, name: str, canonical: str) -> Admission:
        """Keep a study that arrived, as waiting unless it is known.

        Raises:
            RunError: too many wait already.
        """
        if (admission := self.find(sha256)) is not None:
            return admission
        count, size = self._connection.execute(
            "SELECT count(*), COALESCE(sum(length(CAST(canonical AS BLOB))), 0) FROM studies"
            " WHERE state = 'waiting' AND quiet_s < ?",
            (QUIET_S,),
        ).fetchone()
        if count >= MAX_WAITING:
            raise RunError(f"expected at most {MAX_WAITING} waiting studies, found more; refuse some")
        if size + len(canonical.encode()) > MAX_WAITING_BYTES:
            megabytes = MAX_WAITING_BYTES // 1_000_000
            raise RunError(f"expected at most {megabytes} MB of waiting studies, found more; refuse some")
        self._connection.execute(
            "INSERT OR IGNORE INTO studies (sha256, name, canonical, state) VALUES (?, ?, ?, 'waiting')",
            (sha256, name, canonical),
        )
        return self.require_known(sha256)

    def decide(self, digest: str, state: State, why: str = "") -> Admission:
        """Approve or refuse the study with a digest that begins like this.

        Raises:
            RunError: no study's digest does, or several do.
        """
        meant = self.meant(digest)
        self._connection.execute("UPDATE studies SET state = ?, why = ? WHERE sha256 = ?", (state, why, meant.sha256))
        return self.require_known(meant.sha256)

    def meant(self, digest: str) -> Admission:
        """Return the one study that a decision is about.

        Raises:
            RunError: fewer digits than a decision takes, no study's digest begins so, or several do.
        """
        admissions = self.named(digest)
        if len(admissions) != 1 or len(digest) < DIGITS:
            raise RunError(
                f"{shown(digest, 64)}: expected at least {DIGITS} digits of the digest of one study, found "
                f"{len(admissions)} with these {len(digest)} digits; compare with the page: archipel-site review"
            )
        return admissions[0]

    def named(self, digest: str) -> list[Admission]:
        """Return every study with a digest that begins like this; none for fewer than eight digits."""
        begins = digest.lower()
        if len(begins) < 8 or not set(begins) <= set("0123456789abcdef"):
            return []
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM studies WHERE sha256 LIKE ? ORDER BY sha256",  # noqa: S608
            (f"{begins}%",),
        )
        return [Admission(*row) for row in rows]

    def proposed(self, sha256: str) -> None:
        """Note that the coordinator still proposes a study."""
        self._connection.execute("UPDATE studies SET quiet_s = 0 WHERE sha256 = ? AND quiet_s > 0", (sha256,))

    def passed(self, seconds: float) -> None:
        """Note so long a contact with the coordinator, in which it could have proposed what waits."""
        self._connection.execute("UPDATE studies SET quiet_s = quiet_s + ? WHERE state = 'waiting'", (seconds,))

    def all(self) -> list[Admission]:
        """Return every study that arrived, oldest first."""
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM studies ORDER BY arrived, sha256")  # noqa: S608
        return [Admission(*row) for row in rows]

    def find(self, sha256: str) -> Admission | None:
        """Return one study by its whole digest."""
        query = f"SELECT {_COLUMNS} FROM studies WHERE sha256 = ?"  # noqa: S608 - names of columns
        row = self._connection.execute(query, (sha256,)).fetchone()
        return Admission(*row) if row else None

    def require_known(self, sha256: str) -> Admission:
        """Return one study by its whole digest, which must be there."""
        admission = self.find(sha256)
        assert admission is not None
        return admission

    def approved(self, sha256: str) -> Study:
        """Return the study, if this hospital approved it.

        Raises:
            AdmissionError: it has not, or it refused.
        """
        admission = self.find(sha256)
        if admission is None or admission.state == "waiting":
            raise AdmissionError("the hospital has not approved this study yet", waiting=True)
        if admission.state == "refused":
            raise AdmissionError("the hospital refused this study", waiting=False)
        return admission.study
