"""SQL Server and Oracle by the promises of the base; their servers are played (tests/databases.py)."""

import contextlib
import csv
import ctypes
import gc
import itertools
import socket
import ssl
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import mssql_python
import numpy as np
import oracledb
import pytest

from client.connectors import oracle, probe, read_table, sql, sql_server, try_source
from client.connectors.notes import Notes
from client.connectors.registry import CONNECTORS
from client.data_check import look_at_data
from configs.errors import DataError
from configs.schema import CsvFile
from configs.schema.source import OracleQuery, SqlQuery, SqlServerQuery
from server.pki import Pki
from tests.client.connectors.test_csv_file import MARKER, study
from tests.client.connectors.test_postgresql import HEART_STUDY, bits
from tests.consortium import Consortium
from tests.databases import DRIVERS, ORACLE, Base, of_oracle, of_sql_server
from tests.debian import install
from tests.postgresql import DATA, PASSWORD

SOURCES: dict[str, type[SqlQuery]] = {"sql_server": SqlServerQuery, "oracle": OracleQuery}
SCHEMES = {"sql_server": "sqlserver", "oracle": "oracle"}
QUERY = "select * from heart"
NAMES = ("age", "chol", "sex", "stage", "ill")
ROW = (50, Decimal("200.00"), "male", "i", False)
TYPES = ("int", "decimal(7,2)", "nvarchar(20)", "char(9)", "bit")


@pytest.fixture(params=SOURCES)
def kind(request: pytest.FixtureRequest) -> str:
    """One of the two dialects."""
    return str(request.param)


@pytest.fixture
def play(kind: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Base]:
    """Makes a data base that is asked in the place of a server."""
    monkeypatch.setenv("EDS_URL", f"{SCHEMES[kind]}://reader:{PASSWORD}@localhost/eds")

    def start(rows: Any = (), types: Any = TYPES, names: Any = NAMES, **answers: Any) -> Base:
        columns = [(name, ORACLE[of] if kind == "oracle" else of) for name, of in zip(names, types, strict=True)]
        base = Base(columns, rows, **answers)
        monkeypatch.setattr(DRIVERS[kind][1], "connect", base.connect)
        return base

    return start


def source(kind: str, query: str = QUERY, **options: Any) -> SqlQuery:
    return SOURCES[kind]("EDS_URL", query, **options)


def told(use: Callable[[], object]) -> str:
    """The error; nobody who prints it, with all that it is chained to, sees a secret, a value or the query."""
    with pytest.raises(DataError) as caught:
        use()
    everything = "".join(traceback.format_exception(caught.value))
    for secret in (PASSWORD, MARKER, "reader:", "SECRETS", "DDBC", "mssql_python.exc", "oracledb.exc"):
        assert secret not in everything
    return str(caught.value)


# The same patients, the same bits


def typed(row: dict[str, str]) -> list[Any]:
    """A patient as the drivers give them: a `real` is widened, a NUMBER with closing zeros, a truth value a bool."""
    makes: dict[str, Callable[[str], Any]] = {
        "age": int,
        "trestbps": lambda cell: float(np.float32(cell)),
        "chol": lambda cell: Decimal(cell).quantize(Decimal("1.00")),
        "thalach": float,
        "oldpeak": lambda cell: float(np.float32(cell)),
        "disease": lambda cell: cell == "1",
    }
    return [None if not cell else makes.get(name, str)(cell) for name, cell in row.items()]


def test_patients_are_the_bits_of_their_csv_file(kind: str, play: Callable[..., Base]) -> None:
    with (DATA / "cleveland.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    of = {"age": "int", "trestbps": "real", "chol": "decimal(7,2)", "thalach": "float", "oldpeak": "real"}
    of |= {"disease": "bit"}
    play([typed(row) for row in rows], [of.get(name, "nvarchar(20)") for name in rows[0]], list(rows[0]))
    found = read_table(source(kind), HEART_STUDY)
    assert bits(found) == bits(read_table(CsvFile(DATA / "cleveland.csv"), HEART_STUDY))
    assert len(found.keys) > 200


TEXTS = {  # what a driver gives, of which type, and the text that PostgreSQL would give
    "bytes": (b"m\xe2", "varbinary(8)", "\\x6de2"),
    "a moment": (datetime(2024, 1, 31, 8, 5, 0, 120000), "datetime2(3)", "2024-01-31 08:05:00.12"),
    "a moment in a zone": (datetime(2024, 1, 31, 8, tzinfo=UTC), "datetime2(3)", "2024-01-31 08:00:00+00"),
    "a long decimal": (Decimal("12345678901234567890.10"), "decimal(7,2)", "12345678901234567890.1"),
    "blanks at the end": ("ab       ", "char(9)", "ab"),
    "no number of four bytes": (None, "real", ""),
}


@pytest.mark.parametrize(("value", "of", "text"), TEXTS.values(), ids=TEXTS)
def test_every_type_is_the_text_of_postgresql(
    kind: str, play: Callable[..., Base], value: Any, of: str, text: str
) -> None:
    play([(value, "x")], [of, "nvarchar(20)"], ["v", "w"])
    columns = CONNECTORS[kind].columns(source(kind), {"v": "text"}, ["w", "none"], Notes())
    assert {name: column.texts() for name, column in columns.items()} == {"v": [text], "w": ["x"]}


def test_a_day_is_a_day_in_both(kind: str, play: Callable[..., Base]) -> None:
    play([(datetime(2024, 1, 31) if kind == "oracle" else date(2024, 1, 31),)], ["date"], ["v"])
    assert CONNECTORS[kind].columns(source(kind), {"v": "text"}, [], Notes())["v"].texts() == ["2024-01-31"]


# What the query must not do


def test_a_session_only_reads_and_ends_in_a_rollback(kind: str, play: Callable[..., Base]) -> None:
    base = play([ROW] * 2500)
    assert len(read_table(source(kind, query_timeout_s=7), study()).targets["ill"]) == 2500
    before = {
        "sql_server": [sql_server.RIGHTS, sql_server.DESCRIBE],
        "oracle": ["ALTER SESSION SET TIME_ZONE = 'UTC'", "SET TRANSACTION READ ONLY", f"parse {QUERY}"],
    }
    assert base.asked == [*before[kind], QUERY]
    assert base.ended == ["rollback", "close"]
    limits = {"sql_server": ("timeout", 7), "oracle": ("call_timeout", 7000)}
    assert base.settings[limits[kind][0]] == limits[kind][1]
    assert base.settings.get("autocommit", False) is False


def test_what_the_header_decides_is_refused_without_running_the_query(kind: str, play: Callable[..., Base]) -> None:
    base = play([ROW], names=("age", "chol", "sex", "stage", "sick"))
    assert "columns 'ill' are not in the query's result" in told(lambda: probe(source(kind), study()))
    assert QUERY not in base.asked
    assert "columns 'ill' are not in the query's result" in told(lambda: read_table(source(kind), study()))
    assert QUERY not in base.asked
    try_source(source(kind))
    assert QUERY not in base.asked


WRITES = [
    "insert into notes values (1)",
    "update notes set a = 1",
    "drop table notes",
    "begin delete from notes; end;",
    "select 1; delete from notes",
    "/* select */ merge into notes using x on (1 = 1)",
    "",
]
OF_SQL_SERVER = [
    "select 1 delete from notes",
    "select a into other from notes",
    "select 'it''s' as a exec sp_who",
    "with q as (select 1 as a) delete from q",
    "select 1 as a commit",
    'select 1 as "a" /* */ drop table notes -- select',
]


@pytest.mark.parametrize("query", [*WRITES, *OF_SQL_SERVER])
def test_what_is_not_one_select_is_refused_before_a_session_opens(
    kind: str, play: Callable[..., Base], query: str
) -> None:
    if kind == "oracle" and query in OF_SQL_SERVER:
        pytest.skip("Oracle takes one statement alone, in a transaction that can only read")
    base = play([ROW])
    assert "the query is not one SELECT statement" in told(lambda: read_table(source(kind, query), study()))
    assert (base.asked, base.settings) == ([], {})


@pytest.mark.parametrize(
    "query",
    [
        "select 'drop; delete' as a -- update",
        'select [insert] as "exec" from t /* set; */;',
        "with q as (select 1 as a) select created, offset_, upd@te from q;\n",
    ],
)
def test_words_in_quotes_and_comments_are_none(query: str) -> None:
    sql.require_one_select(SqlServerQuery("EDS_URL", query), sql_server.OTHERS)


def test_a_user_of_sql_server_who_may_write_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Base(may_write=3)
    monkeypatch.setenv("EDS_URL", f"sqlserver://reader:{PASSWORD}@localhost/eds")
    monkeypatch.setattr(mssql_python, "connect", base.connect)
    assert "this user may change data" in told(lambda: try_source(source("sql_server")))
    assert (base.asked, base.ended) == ([sql_server.RIGHTS], ["close"])


def test_a_query_that_drips_is_cut_off(kind: str, play: Callable[..., Base], monkeypatch: pytest.MonkeyPatch) -> None:
    base, clock = play([ROW] * 5000), itertools.count(0.0, 0.001)
    monkeypatch.setattr(sql, "monotonic", lambda: next(clock))
    text = told(lambda: read_table(source(kind, query_timeout_s=3), study()))
    assert text == (
        "EDS_URL: the query takes longer than query_timeout_s (3 s); make it quicker, or raise query_timeout_s"
    )
    assert base.ended == ["rollback", "close"]


# What is wrong, in words of our own


E = mssql_python
REFUSALS = {
    "sql_server": [
        (
            of_sql_server(
                E.ProgrammingError, "Syntax error or access violation", "The SELECT permission was denied on"
            ),
            "may not read a table or column",
        ),
        (of_sql_server(E.ProgrammingError, "Column not found", f"Invalid column name '{MARKER}'."), "a column of the"),
        (
            of_sql_server(E.ProgrammingError, "Base table or view not found", "Invalid object name 'x'."),
            "a table or view",
        ),
        (
            of_sql_server(E.DataError, "", f"Conversion failed when converting '{MARKER}' to data type int."),
            "fails on a row (it is not shown)",
        ),
        (
            of_sql_server(E.OperationalError, "Timeout expired", "Query timeout expired"),
            "longer than query_timeout_s (300",
        ),
        (of_sql_server(E.OperationalError, "Communication link failure", f"{MARKER} 0x68"), "the connection broke"),
        (of_sql_server(E.DatabaseError, "General error", f"{MARKER}"), "the data base does not take the query"),
    ],
    "oracle": [
        (
            of_oracle("ORA-00942", f'table or view "{MARKER}" does not exist'),
            "is not there, or this user may not read it",
        ),
        (of_oracle("ORA-00904", f'"{MARKER}": invalid identifier'), "a column of the query is not in the data base"),
        (of_oracle("ORA-01722", f"unable to convert string value {MARKER}"), "fails on a row (it is not shown)"),
        (
            of_oracle("ORA-01456", "may not perform insert in READ ONLY transaction"),
            "it may only read; write one SELECT",
        ),
        (of_oracle("DPY-4024", f"call timeout of {MARKER} ms exceeded"), "longer than query_timeout_s (300 s)"),
        (of_oracle("DPY-4011", f"{MARKER}"), "the connection broke while the query ran"),
        (of_oracle("ORA-99999", f"{MARKER}"), "the data base does not take the query; try it with sqlplus [ORA-99999]"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, n) for kind, all_of in REFUSALS.items() for n in range(len(all_of))]
)
@pytest.mark.parametrize("when", ["refusal", "late_refusal"])
def test_what_is_refused_is_said_without_a_value(kind: str, number: int, when: str, play: Callable[..., Base]) -> None:
    error, expected = REFUSALS[kind][number]
    base = play([ROW], **{when: error})
    assert expected in told(lambda: read_table(source(kind), study()))
    assert base.ended == ["rollback", "close"]


def test_a_session_that_cannot_be_made_one_that_only_reads_is_none(kind: str, play: Callable[..., Base]) -> None:
    error = REFUSALS[kind][-1][0]
    base = play([ROW], first_refusal=error)
    assert "localhost" in told(lambda: read_table(source(kind), study()))
    assert QUERY not in base.asked


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://reader:{}@db.test/eds",
        "{scheme}://reader:{}@db.test",
        "{scheme}://reader@db.test/eds",
        "{scheme}://reader:1@{}@db.test/eds",
        "{scheme}://reader:1/{}@db.test/eds",
        "{scheme}://reader:{}@db.test:port/eds",
        "{scheme}://reader:{}@db\\inst/eds",
        "Server=db;UID=reader;PWD={}",
    ],
)
def test_an_address_that_is_none_is_not_shown(kind: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDS_URL", url.format(PASSWORD, scheme=SCHEMES[kind]))
    assert f"expected an address as {SCHEMES[kind]}://USER" in told(lambda: try_source(source(kind)))
    monkeypatch.setenv("EDS_URL", f"{SCHEMES[kind]}://reader:{PASSWORD}@db.test/eds?{MARKER}=1")
    assert "found one option of another name" in told(lambda: try_source(source(kind)))
    monkeypatch.delenv("EDS_URL")
    assert "in this environment variable, found nothing; set it where" in told(lambda: try_source(source(kind)))


def test_no_value_ends_a_connection_string(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Base()
    monkeypatch.setattr(mssql_python, "connect", base.connect)
    monkeypatch.setenv("EDS_URL", "sqlserver://me:a%7D%3BEncrypt=no%3Bx={b@db.test:1444/eds%3BUID=sa?encrypt=strict")
    try_source(source("sql_server"))
    assert base.settings["pwd"] == "a};Encrypt=no;x={b"
    assert base.settings["database"] == "eds;UID=sa"
    assert (base.settings["server"], base.settings["uid"], base.settings["encrypt"]) == (
        "tcp:db.test,1444",
        "me",
        "strict",
    )


def test_tls_is_on_and_verified_by_the_listed_name(monkeypatch: pytest.MonkeyPatch) -> None:
    address = sql_server.FORM.read("V", {"V": "sqlserver://me:x@db.example.org/eds"})
    text = sql_server.connection_string(address, ("127.0.0.2", 1433))
    for part in (
        "Server={tcp:127.0.0.2,1433}",
        "HostnameInCertificate={db.example.org}",
        "Encrypt={yes}",
        "TrustServerCertificate={no}",
    ):
        assert f"{part};" in text
    address = oracle.FORM.read("V", {"V": "oracle://me:x@db.example.org/eds"})
    keys = oracle.parameters(address)
    assert (keys["protocol"], keys["host"], keys["ssl_server_dn_match"]) == ("tcps", "db.example.org", True)
    assert keys["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    here = oracle.FORM.read("V", {"V": "oracle://me:x@localhost/eds"})
    assert oracle.parameters(here)["protocol"] == "tcp"


def test_a_driver_that_is_not_installed_is_named_by_its_extra(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, DRIVERS[kind][1].__name__, None)
    monkeypatch.delitem(sys.modules, f"client.connectors.{kind}")
    extra = {"sql_server": "mssql", "oracle": "oracle"}[kind]
    assert f"pip install 'archipel[{extra}]'" in told(lambda: try_source(source(kind)))
    assert CONNECTORS[kind].files(source(kind), {}) == set()


# The real drivers, against what is no data base


Server = Callable[[Callable[[socket.socket], object]], int]


@pytest.fixture
def server() -> Iterator[Server]:
    """Starts servers that do something with each connection; returns their port."""
    ends: list[socket.socket] = []

    def start(behave: Callable[[socket.socket], object]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        ends.append(listener)

        def run() -> None:
            try:
                while True:
                    connection, _ = listener.accept()
                    ends.append(connection)
                    behave(connection)
            except (OSError, ssl.SSLError):
                pass

        threading.Thread(target=run, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for end in ends:
        end.close()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    Pki(folder).create("Data base", ["localhost"], None)
    return folder


@pytest.fixture(scope="module")
def loads() -> bool:
    """Whether Microsoft's driver loads; it needs a library of the system's."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            return bool(ctypes.CDLL("libltdl.so.7"))
        install("libltdl7")
    return False


def tried(kind: str, monkeypatch: pytest.MonkeyPatch, where: str, *, loads: bool) -> str:
    if kind == "sql_server" and not loads:
        pytest.skip("Microsoft's driver does not load here: apt-get install libltdl7")
    monkeypatch.setenv("EDS_URL", f"{SCHEMES[kind]}://reader:{PASSWORD}@{where}")
    monkeypatch.setattr(DRIVERS[kind][0], "LOGIN_TIMEOUT_S", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # oracledb leaves a socket open when TLS fails
        text = told(lambda: try_source(source(kind)))
        gc.collect()
    return text


def tls(pki: Path) -> Callable[[socket.socket], object]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.crt", pki / "server.key")
    context.set_alpn_protocols(["tds/8.0"])

    def behave(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1000)

    return behave


def test_the_real_drivers_say_why_no_session_opens(
    kind: str, monkeypatch: pytest.MonkeyPatch, server: Server, pki: Path, *, loads: bool
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = free.getsockname()[1]
    assert "refuses the connection" in tried(kind, monkeypatch, f"127.0.0.1:{nobody}/eds", loads=loads)
    assert "is not known here" in tried(kind, monkeypatch, "db.invalid/eds", loads=loads)
    silent = server(lambda _: None)
    assert "does not answer" in tried(kind, monkeypatch, f"localhost:{silent}/eds", loads=loads)
    closing = server(lambda connection: connection.close())
    assert "cannot be reached" in tried(kind, monkeypatch, f"localhost:{closing}/eds", loads=loads)
    option = {"sql_server": "encrypt=strict", "oracle": "tls=yes"}[kind]
    secure = server(tls(pki))
    assert "is not signed by an authority" in tried(kind, monkeypatch, f"localhost:{secure}/eds?{option}", loads=loads)


def test_the_real_drivers_verify_the_name(
    kind: str, monkeypatch: pytest.MonkeyPatch, server: Server, pki: Path, *, loads: bool
) -> None:
    port = server(tls(pki))
    monkeypatch.setenv("SSL_CERT_FILE", str(pki / "ca.crt"))
    option = {"sql_server": "encrypt=strict", "oracle": f"tls=yes&ca={pki}/ca.crt"}[kind]
    assert "is for other names" in tried(kind, monkeypatch, f"127.0.0.1:{port}/eds?{option}", loads=loads)
    assert "cannot be reached" in tried(kind, monkeypatch, f"localhost:{port}/eds?{option}", loads=loads)


def test_the_drivers_work_behind_the_fence_by_the_forwarder(
    kind: str, monkeypatch: pytest.MonkeyPatch, server: Server, pki: Path, tmp_path: Path, *, loads: bool
) -> None:
    """The name is verified, and what the address names is read, in a process without a network."""
    if kind == "sql_server" and not loads:
        pytest.skip("Microsoft's driver does not load here: apt-get install libltdl7")
    shaken: list[bool] = []
    secure = tls(pki)
    port = server(lambda connection: shaken.append(secure(connection) is None))
    option = {"sql_server": f"encrypt=strict&certificate={pki}/server.crt", "oracle": f"tls=yes&ca={pki}/ca.crt"}[kind]
    monkeypatch.setenv("EDS_URL", f"{SCHEMES[kind]}://reader:{PASSWORD}@localhost:{port}/eds?{option}")
    datasets = {"heart": {"connector": kind, "url_env": "EDS_URL", "query": QUERY}}
    config = Consortium(tmp_path / "consortium").hospital(
        "lille", datasets=datasets, worker_network=[f"localhost:{port}"]
    )
    (finding,) = look_at_data(config)
    assert f"localhost:{port} cannot be reached" in finding.text
    assert shaken == [True]


def test_oracles_own_kinds_are_the_drivers() -> None:
    assert {oracledb.DB_TYPE_NUMBER, oracledb.DB_TYPE_BOOLEAN} == {*oracle._KINDS}
