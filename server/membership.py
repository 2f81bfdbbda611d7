"""The members of the consortium and the studies that wait, in SQLite.

These are the coordinator's own facts, and they outlive every process. The gateway, the coordinator and the command line
read and write the same file; each opens it for itself.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     members = Membership.open(Path(folder) / "coordinator.sqlite")
...     members.admit(Member("lille", b"PEM", "ab" * 32, "2027-01-01T00:00:00+00:00"))
...     members.revoke("lille")
...     members.lookup(b"PEM") is None, members.sites()[0].revoked
...     members.close()
(True, True)
"""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs import database
from configs.errors import RunError
from configs.requests import SIGNED_FROM
from configs.seal import Signed
from server.database import opened

_SCHEMA = """
CREATE TABLE IF NOT EXISTS members (
    site TEXT PRIMARY KEY,
    public_key BLOB NOT NULL UNIQUE,
    signing_key TEXT NOT NULL UNIQUE,
    expires TEXT NOT NULL,
    without_certificate INTEGER NOT NULL DEFAULT 0,
    revoked INTEGER NOT NULL DEFAULT 0,
    admitted TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('QUEUED', 'WAITING', 'RUNNING', 'STOPPING', 'COMPLETE', 'INCOMPLETE')),
    why TEXT NOT NULL DEFAULT '',
    attempt INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS presence (
    run TEXT NOT NULL,
    site TEXT NOT NULL,
    state TEXT NOT NULL,
    epsilon TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (run, site)
);
CREATE TABLE IF NOT EXISTS releases (
    site TEXT PRIMARY KEY,
    protocol INTEGER NOT NULL,
    release TEXT NOT NULL,
    arithmetic INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS statements (site TEXT PRIMARY KEY, statement TEXT NOT NULL, signature TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS connected (site TEXT PRIMARY KEY, online INTEGER NOT NULL);
"""
_ADDED = (("runs", "ready", "TEXT NOT NULL DEFAULT ''"), ("members", "signs", "INTEGER NOT NULL DEFAULT 0"))
ENDED = ("COMPLETE", "INCOMPLETE")


@dataclass(frozen=True, slots=True)
class Member:
    """A hospital: `public_key` opens connections (PEM), `signing_key` signs messages (hexadecimal)."""

    site: str
    public_key: bytes
    signing_key: str
    expires: str
    without_certificate: bool = False
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """A hospital with a key that opens connections. Without a certificate its signatures alone identify it.

    `signs`: its node was seen to sign each of its requests whole (server/signatures.py).
    """

    site: str
    certificate_required: bool = True
    signs: bool = False


@dataclass(frozen=True, slots=True)
class RunState:
    """A submitted study. QUEUED, WAITING for hospitals, RUNNING, STOPPING, or ended COMPLETE or INCOMPLETE."""

    name: str
    state: str
    why: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Talk:
    """The protocol and release that a hospital's node named. A node of protocol 1 names none: empty and 0."""

    protocol: int = 1
    release: str = ""
    arithmetic: int = 0


class Membership:
    """The file `coordinator.sqlite`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        database.prepare(connection, _SCHEMA, version=1, what="the coordinator's database", added=_ADDED)

    @classmethod
    def open(cls, path: Path) -> "Membership":
        """Open or create it.

        Raises:
            RunError: it cannot be opened.
        """
        return opened(path, cls)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    # Hospitals

    def admit(self, member: Member) -> None:
        """Take a hospital in, or again with new keys. Whether its node signs requests whole is then open again.

        Raises:
            RunError: its keys belong to another hospital.
        """
        try:
            self._connection.execute(
                "INSERT INTO members (site, public_key, signing_key, expires, without_certificate)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT (site) DO UPDATE SET public_key = excluded.public_key,"
                " signing_key = excluded.signing_key, expires = excluded.expires, revoked = 0,"
                " without_certificate = excluded.without_certificate, signs = 0",
                (member.site, member.public_key, member.signing_key, member.expires, member.without_certificate),
            )
        except sqlite3.IntegrityError:
            raise RunError(f"{member.site}: its keys are another hospital's; each hospital enrols by itself") from None
        self._connection.execute("DELETE FROM releases WHERE site = ?", (member.site,))
        database.checkpoint(self._connection)  # a copy of the one file knows every member

    def revoke(self, site: str) -> None:
        """Shut a hospital out; the gateway looks at every request, so that this also ends open connections.

        Raises:
            RunError: there is no such hospital.
        """
        if not self._connection.execute("UPDATE members SET revoked = 1 WHERE site = ?", (site,)).rowcount:
            raise RunError(f"{site}: expected an admitted hospital, found none of that name; see: sites")
        database.checkpoint(self._connection)

    def sites(self) -> list[Member]:
        """Return every hospital, by name, revoked ones too."""
        rows = self._connection.execute(
            "SELECT site, public_key, signing_key, expires, without_certificate, revoked FROM members ORDER BY site"
        )
        return [Member(s, bytes(k), sk, e, bool(w), bool(r)) for s, k, sk, e, w, r in rows]

    def members(self) -> dict[str, Member]:
        """Return the hospitals that may take part, by name."""
        return {member.site: member for member in self.sites() if not member.revoked}

    def lookup(self, public_key: bytes) -> Admitted | None:
        """Return the hospital that opens connections with this key, None for strangers and the revoked."""
        row = self._connection.execute(
            "SELECT site, without_certificate, signs OR EXISTS (SELECT 1 FROM releases"
            " WHERE releases.site = members.site AND protocol >= ?)"
            " FROM members WHERE public_key = ? AND revoked = 0",
            (SIGNED_FROM, public_key),
        ).fetchone()
        return Admitted(row[0], certificate_required=not row[1], signs=bool(row[2])) if row else None

    def set_signs(self, site: str) -> None:
        """Note that a hospital's node signs its requests whole."""
        self._connection.execute("UPDATE members SET signs = 1 WHERE site = ?", (site,))

    def any_without_certificate(self) -> bool:
        """Return whether some hospital is admitted by its message signatures alone."""
        query = "SELECT 1 FROM members WHERE without_certificate = 1 AND revoked = 0 LIMIT 1"
        return self._connection.execute(query).fetchone() is not None

    # Runs

    def submit(self, name: str) -> None:
        """Put a run into the queue, or an ended one again."""
        self._connection.execute(
            "INSERT INTO runs (name, state) VALUES (?, 'QUEUED')"
            " ON CONFLICT (name) DO UPDATE SET state = 'QUEUED', why = '', ready = ''",
            (name,),
        )
        database.checkpoint(self._connection)

    def runs(self) -> list[RunState]:
        """Return every run, oldest first."""
        return [
            RunState(*row) for row in self._connection.execute("SELECT name, state, why, attempt FROM runs ORDER BY id")
        ]

    def run(self, name: str) -> RunState | None:
        """Return one run."""
        return next((run for run in self.runs() if run.name == name), None)

    def unready(self) -> list[str]:
        """Return the runs with hospitals that have yet to answer, oldest first."""
        query = "SELECT name FROM runs WHERE state IN ('QUEUED', 'WAITING') AND ready = '' ORDER BY id"
        return [row[0] for row in self._connection.execute(query)]

    def set_ready(self, name: str, sites: Sequence[str]) -> None:
        """Note that a run's hospitals have answered, and which of them take part."""
        self._connection.execute(
            "UPDATE runs SET ready = ? WHERE name = ? AND state IN ('QUEUED', 'WAITING')",
            (json.dumps({"since": time.time(), "sites": list(sites)}), name),
        )

    def ready(self, name: str) -> list[str]:
        """Return the hospitals that take part in a run, once they have answered."""
        row = self._connection.execute("SELECT ready FROM runs WHERE name = ?", (name,)).fetchone()
        return list(json.loads(row[0])["sites"]) if row and row[0] else []

    def next_run(self) -> str | None:
        """Return the run that has been ready longest, to be conducted now."""
        query = "SELECT name, ready FROM runs WHERE state IN ('QUEUED', 'WAITING') AND ready != ''"
        ready = {name: json.loads(text) for name, text in self._connection.execute(query)}
        waiting = sorted((facts["since"], name) for name, facts in ready.items() if not facts.get("conducted"))
        for _, name in waiting:
            row = self._connection.execute(
                "UPDATE runs SET state = 'WAITING', attempt = attempt + 1, ready = ? WHERE name = ?"
                " AND state IN ('QUEUED', 'WAITING') RETURNING name",
                (json.dumps(ready[name] | {"conducted": True}), name),
            ).fetchone()
            if row:
                return str(row[0])
        return None

    def set_state(self, name: str, state: str, why: str = "") -> None:
        """Write down how far a run is. A run that was asked to stop stays so until it ends.

        RUNNING, which each round writes, also means that its attempts are counted anew.
        """
        self._connection.execute(
            "UPDATE runs SET state = ?, why = ?, attempt = CASE ? WHEN 'RUNNING' THEN 0 ELSE attempt END"
            " WHERE name = ? AND (state != 'STOPPING' OR ? IN ('COMPLETE', 'INCOMPLETE'))",
            (state, why, state, name, state),
        )

    def ask_to_stop(self, name: str) -> bool:
        """Ask a run to stop after what it is doing; False if it has ended or there is none."""
        stopped = self._connection.execute(
            "UPDATE runs SET state = 'INCOMPLETE', why = 'stopped' WHERE name = ? AND state = 'QUEUED'", (name,)
        ).rowcount
        changed = self._connection.execute(
            "UPDATE runs SET state = 'STOPPING' WHERE name = ? AND state IN ('WAITING', 'RUNNING')", (name,)
        ).rowcount
        return bool(stopped or changed)

    def stopped(self, conducted: str = "") -> list[str]:
        """End the runs that were asked to stop and that no process conducts; their names.

        Args:
            conducted: the run that one does.
        """
        query = "SELECT 1 FROM runs WHERE state = 'STOPPING' AND name != ? LIMIT 1"
        if self._connection.execute(query, (conducted,)).fetchone() is None:
            return []  # asked often: no need to lock the file
        rows = self._connection.execute(
            "UPDATE runs SET state = 'INCOMPLETE', why = 'stopped by the consortium' WHERE state = 'STOPPING'"
            " AND name != ? RETURNING name",
            (conducted,),
        )
        return [row[0] for row in rows.fetchall()]

    def take_up(self) -> list[str]:
        """Put the runs that a process left behind into the queue again; their names. All are proposed anew."""
        self._connection.execute("UPDATE runs SET ready = ''")
        rows = self._connection.execute(
            "UPDATE runs SET state = 'QUEUED', why = '' WHERE state IN ('WAITING', 'RUNNING') RETURNING name"
        )
        return [row[0] for row in rows.fetchall()]

    def hold(self, why: str) -> list[str]:
        """Let every run that has not ended wait for a person; their names."""
        rows = self._connection.execute(
            "UPDATE runs SET state = 'INCOMPLETE', why = ? WHERE state IN ('QUEUED', 'WAITING', 'RUNNING')"
            " RETURNING name",
            (f"{why}; go on with: archipel-coordinator resume",),
        )
        return [row[0] for row in rows.fetchall()]

    def set_presence(self, run: str, site: str, state: str, epsilon: str = "") -> None:
        """Keep what a hospital does in a run: a word or a sentence, and the epsilon it last reported."""
        self._connection.execute(
            "INSERT INTO presence (run, site, state, epsilon) VALUES (?, ?, ?, ?) ON CONFLICT (run, site) DO UPDATE SET"
            " state = excluded.state, epsilon = CASE excluded.epsilon WHEN '' THEN epsilon ELSE excluded.epsilon END",
            (run, site, state, epsilon),
        )

    def presence(self, run: str) -> dict[str, tuple[str, str]]:
        """Return a mapping: hospital -> what it does and its epsilon."""
        rows = self._connection.execute("SELECT site, state, epsilon FROM presence WHERE run = ? ORDER BY site", (run,))
        return {site: (state, epsilon) for site, state, epsilon in rows}

    def set_talk(self, site: str, talk: Talk) -> None:
        """Keep what a hospital's node last said of its release."""
        self._connection.execute(
            "INSERT OR REPLACE INTO releases (site, protocol, release, arithmetic) VALUES (?, ?, ?, ?)",
            (site, talk.protocol, talk.release, talk.arithmetic),
        )

    def set_statement(self, site: str, signed: Signed) -> None:
        """Keep a hospital's newest signed statement about its own records, to give it back."""
        self._connection.execute(
            "INSERT INTO statements (site, statement, signature) VALUES (?, ?, ?) ON CONFLICT (site) DO UPDATE SET"
            " statement = excluded.statement, signature = excluded.signature",
            (site, signed.statement, signed.signature),
        )

    def statements(self) -> dict[str, Signed]:
        """Return each hospital's newest statement about its own records."""
        rows = self._connection.execute("SELECT site, statement, signature FROM statements")
        return {site: Signed(statement, signature) for site, statement, signature in rows}

    def talks(self) -> dict[str, Talk]:
        """Return a mapping: hospital -> the protocol and the releases that its node last named."""
        rows = self._connection.execute("SELECT site, protocol, release, arithmetic FROM releases")
        return {site: Talk(protocol, release, arithmetic) for site, protocol, release, arithmetic in rows}

    # Whether this file is as it was left: server/continuity.py

    def count(self) -> int:
        """Return the next number for a record of the journal."""
        row = self._connection.execute(
            "INSERT INTO marks (name, value) VALUES ('number', '1')"
            " ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1 RETURNING value"
        ).fetchone()
        return int(row[0])

    def mark(self, name: str, value: str) -> None:
        """Keep a word under a name."""
        self._connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, value))

    def marked(self, name: str) -> str | None:
        """Return the word under a name."""
        row = self._connection.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    # Connections

    def set_connected(self, online: dict[str, bool]) -> None:
        """Store which hospitals' nodes are connected now."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("DELETE FROM connected")
        self._connection.executemany("INSERT INTO connected VALUES (?, ?)", [(s, int(o)) for s, o in online.items()])
        self._connection.execute("COMMIT")

    def connected(self) -> set[str]:
        """Return the hospitals with a node that was connected at the last look."""
        return {row[0] for row in self._connection.execute("SELECT site FROM connected WHERE online = 1")}
