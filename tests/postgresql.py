"""A real PostgreSQL in a folder of its own, on a free port of loopback; SCRAM passwords, TLS with its own authority."""

import contextlib
import csv
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from server.pki import Pki
from tests.debian import install

USER, READER, PASSWORD = "keeper", "reader", "Pa55-of-the-test"
DATA = Path(__file__).resolve().parents[1] / "simulations" / "data" / "heart_disease"
HEART = {"age": "int", "trestbps": "real", "chol": "numeric(7,2)", "thalach": "float8", "oldpeak": "numeric(4,2)"}


@dataclass(frozen=True)
class PostgreSql:
    """A running server. `reader` may log in and read what it was granted."""

    port: int
    ca: Path

    def url(self, user: str = READER, password: str = PASSWORD, host: str = "localhost", name: str = "eds") -> str:
        return f"postgresql://{user}:{password}@{host}:{self.port}/{name}"

    def run(self, *statements: str, name: str = "eds") -> None:
        """What the data base's keeper does."""
        url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"
        with contextlib.closing(psycopg.connect(url, autocommit=True)) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def table(self, name: str, rows: Sequence[Mapping[str, str]], types: Mapping[str, str]) -> None:
        """Rows of text in a table; a column is text unless `types` says otherwise, an empty cell is NULL."""
        columns = ", ".join(f'"{column}" {types.get(column, "text")}' for column in rows[0])
        self.run(f"drop table if exists {name}", f"create table {name} (row_number int, {columns})")
        url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/eds"
        with contextlib.closing(psycopg.connect(url)) as connection, connection:
            with connection.cursor().copy(f"copy {name} from stdin".encode()) as copy:
                for number, row in enumerate(rows):
                    copy.write_row([str(number), *(cell or None for cell in row.values())])
            connection.execute(f"grant select on {name} to {READER}".encode())


def heart(site: str) -> list[dict[str, str]]:
    """One hospital's rows of the heart study, as text."""
    with (DATA / f"{site}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def programs() -> Path | None:
    """The folder of initdb and postgres, which Debian does not put on the path; the newest."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda path: float(path.parent.name), default=None)


@contextlib.contextmanager
def running() -> Iterator[PostgreSql]:
    """A server, which as root runs as nobody; skips the test where there is none to run."""
    if programs() is None:
        install("postgresql", 300)
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed, and cannot be: apt-get install postgresql")
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:  # pytest's own is closed to nobody
        home = Path(made).resolve()
        nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        as_whom: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if nobody else {}
        Pki(home / "pki").create("Data base", ["localhost"], None)
        (home / "password").write_text(PASSWORD)
        for path in (home, *home.rglob("*")):
            if nobody:
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        made_by: list[str | Path] = [folder / "initdb", "-D", home / "data", "-U", USER, "-A", "scram-sha-256"]
        made_by += ["--no-sync", "-E", "UTF8"]
        made_by += ["--no-locale", "--pwfile", home / "password"]
        subprocess.run(made_by, check=True, capture_output=True, cwd=home, **as_whom)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": home, "fsync": "off"}
        settings |= {"ssl": "on", "ssl_cert_file": home / "pki/server.crt", "ssl_key_file": home / "pki/server.key"}
        with (home / "data/postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        log = stack.enter_context((home / "log").open("wb"))
        command: list[str | Path] = [folder / "postgres", "-D", home / "data"]
        server = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log, cwd=home, **as_whom))
        stack.callback(server.terminate)
        ready: list[str | Path] = [folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "30"]
        for _ in range(300):
            assert server.poll() is None, (home / "log").read_text()
            if subprocess.run(ready, check=False).returncode == 0:
                break
            time.sleep(0.1)
        ca = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".crt"))
        ca.write((home / "pki/ca.crt").read_bytes())
        ca.flush()
        found = PostgreSql(port, Path(ca.name))
        found.run("create database eds", name="postgres")
        found.run(f"create role {READER} login password '{PASSWORD}'")
        yield found
        server.send_signal(2)  # fast shutdown: SIGTERM would wait for sessions
        server.wait(30)
