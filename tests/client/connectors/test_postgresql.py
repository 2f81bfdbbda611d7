"""A query of a real PostgreSQL: the bits of a CSV file, and errors without password, address, query or value."""

import contextlib
import logging
import os
import socket
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from client.connectors import postgresql, probe, read_table, sql, try_source
from client.connectors.notes import Notes
from client.connectors.sql_errors import why_not_connected
from configs.errors import DataError
from configs.load import load_study
from configs.schema import CsvFile, SqlQuery, Study
from server.pki import Pki
from strategies.data.source import Table
from tests.client.connectors.test_csv_file import MARKER, study
from tests.postgresql import DATA, HEART, PASSWORD, PostgreSql, heart

ROOT = Path(__file__).resolve().parents[3]
HEART_STUDY = load_study(ROOT / "configs" / "presets" / "heart_disease.yaml")
ONE_ROW = "select 50 as age, 200 as chol, 'male' as sex, 'i' as stage, {} as ill"
GOOD = ONE_ROW.format(0) + " union all " + ONE_ROW.format(1)


@pytest.fixture(autouse=True)
def address(server: PostgreSql, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The variable as a hospital sets it; afterwards no driver's log has said anything."""
    monkeypatch.setenv("EDS_URL", server.url())
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[assignment,method-assign]
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)
    assert [record for record in said if record.name.startswith("psycopg")] == []


def read(query: str, of: Study | None = None, **options: Any) -> Table:
    return read_table(SqlQuery(url_env="EDS_URL", query=query, **options), of or study())


def told(query: str = GOOD, of: Study | None = None, **options: Any) -> str:
    """The error; nobody who prints it, with all that it is chained to, sees a secret or a value."""
    with pytest.raises(DataError) as caught:
        read(query, of, **options)
    everything = "".join(traceback.format_exception(caught.value))
    for secret in (PASSWORD, MARKER, "postgresql://reader", "psycopg.errors"):
        assert secret not in everything
    text = str(caught.value)
    assert text.startswith(("EDS_URL: ", "expected an address that site.yaml lists"))
    assert "select" not in text
    return text


def bits(table: Table) -> tuple[Any, ...]:
    columns = [*sorted(table.numbers.items()), *sorted(table.categories.items())]
    arrays = [array for _, array in columns] + [*table.targets.values(), table.patients, np.array(table.in_test)]
    return [name for name, _ in columns], [(a.dtype, a.tobytes()) for a in arrays], table.keys


# The same patients, the same bits


@pytest.mark.parametrize("site", ["cleveland", "hungary"])
@pytest.mark.parametrize("types", [{}, HEART, HEART | {"disease": "boolean", "age": "numeric(6,3)"}])
@pytest.mark.parametrize("split", [None, "flamby_split"])
def test_patients_from_a_data_base_are_the_bits_of_their_csv_file(
    server: PostgreSql, site: str, types: dict[str, str], split: str | None
) -> None:
    server.table("heart", heart(site), types)
    of = replace(HEART_STUDY, evaluation=replace(HEART_STUDY.evaluation, split_column=split))
    found = read("select * from heart order by row_number", of)
    assert bits(found) == bits(read_table(CsvFile(DATA / f"{site}.csv"), of))
    assert len(found.keys) > 200


def test_null_is_unknown_as_an_empty_cell_is_and_blanks_at_the_end_are_none(tmp_path: Path) -> None:
    query = """select 50::numeric(4,1) as age, null::float8 as chol, 'male'::char(9) as sex, '?' as stage, 0 as ill
               union all select 61.50, 0, 'female', null, 1"""
    (tmp_path / "same.csv").write_text("age,chol,sex,stage,ill\n50,,male,?,0\n61.5,0,female,,1\n")
    found = read(query)
    assert bits(found) == bits(read_table(CsvFile(tmp_path / "same.csv"), study()))
    assert np.isnan(found.numbers["chol"]).all()
    assert found.categories["stage"].tolist() == [-1, -1]


def test_how_a_number_is_written_moves_no_patient_across_the_split(tmp_path: Path) -> None:
    """Where a row is a patient, its numbers are part of the key: 50 and 50.00 must be the same one."""
    (tmp_path / "a.csv").write_text("age,chol,sex,stage,ill\n50.00,2e2,male,i,0.0\n61,150,male,i,1\n")
    found = read_table(CsvFile(tmp_path / "a.csv"), study())
    assert found.keys[0] == read(GOOD).keys[0]


def test_patients_of_several_rows_and_dates_are_taken_as_text() -> None:
    query = """select * from (values (12345678901234567890::numeric, 50, 200, 'male', 'i', 0, date '2024-01-31'),
                 (7, 60, 210, 'male', 'i', 1, date '2024-02-01'),
                 (12345678901234567890, 51, 201, 'male', 'i', 0, date '2024-01-31'))
               as v(patient, age, chol, sex, stage, ill, day)"""
    assert read(query, study(patient_id="patient")).keys == ("12345678901234567890", "7")
    assert read(query, study(patient_id="day")).patients.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("values", "codes"),
    [(["false", "true"], [1, 0]), (["0", "1"], [1, 0]), (["true", "false"], [0, 1]), (["False", "True"], [1, 0])],
)
def test_a_boolean_is_written_as_the_study_writes_it(values: list[str], codes: list[int]) -> None:
    features = {"smokes": {"type": "category", "values": values}}
    query = "select true as smokes, false as ill union all select false, true"
    found = read(query, study(features=features))
    assert (found.categories["smokes"].tolist(), found.targets["ill"].tolist()) == (codes, [0, 1])


def test_a_category_in_a_numeric_column_is_a_whole_number() -> None:
    features = {"stage": {"type": "category", "values": ["1", "2", "10"]}}
    query = "select 10.00::numeric(5,2) as stage, 0 as ill union all select 1, 1"
    assert read(query, study(features=features)).categories["stage"].tolist() == [2, 0]


@pytest.mark.parametrize("kind", ["numeric(5,2)", "numeric", "float8", "real"])
def test_a_category_of_numbers_is_the_studys_however_either_writes_them(kind: str) -> None:
    features = {"dose": {"type": "category", "values": ["1.50", "2.0", "3"], "missing": ["-9.0"]}}
    query = f"""select v::{kind} as dose, ill from (values (1.5, 0), (2, 1), (3, 1), (-9, 1), (null, 1)) as q(v, ill)"""
    assert read(query, study(features=features)).categories["dose"].tolist() == [0, 1, 2, -1, -1]


def test_columns_that_the_study_does_not_name_are_not_kept() -> None:
    assert MARKER not in repr(read(f"select *, '{MARKER}' as name from ({GOOD}) as q"))


@pytest.mark.parametrize("query", [GOOD + ";", f"with q as ({GOOD}) select * from q -- the end", f"({GOOD})"])
def test_one_statement_may_be_written_in_many_ways(query: str) -> None:
    assert len(read(query).keys) == 2


def test_a_percent_sign_is_no_parameter() -> None:
    assert len(read(f"select * from ({GOOD}) as q where sex like 'm%'").keys) == 2


# What the query must not do, and what is wrong with it


def test_nothing_can_be_written(server: PostgreSql) -> None:
    server.run("create table if not exists notes (a int)", "grant all on notes to public")
    server.run("create sequence if not exists s", "grant all on sequence s to public")
    row = "a as age, a as chol, a as sex, a as stage, a as ill"
    writes = [
        f"insert into notes values (1) returning {row}",
        f"with w as (insert into notes values (1) returning a) select {row} from w",
        f"select nextval('s'), {row} from (values (1)) as v(a)",
        "create table other (a int)",
        "set transaction read write",
        "commit",
    ]
    for query in writes:
        assert any(part in told(query) for part in ("it may only read", "no rows at all", "does not answer"))
    assert len(read("select a as age, 1 as chol, 'male' as sex, 'i' as stage, 0 as ill from notes").keys) == 0


def test_a_second_statement_is_refused_before_the_first_is_run(server: PostgreSql) -> None:
    server.run("create table if not exists notes (a int)", "grant all on notes to public")
    assert "not one SELECT statement" in told(f"{GOOD}; commit; insert into notes values (2)")
    assert len(read("select a as age, 1 as chol, 'male' as sex, 'i' as stage, 0 as ill from notes").keys) == 0


QUERIES = {
    "no columns": ("select 1 as age", "columns 'chol', 'sex', 'stage', 'ill' are not in the query's result"),
    "a column twice": (GOOD.replace("200 as chol", "200 as chol, 51 as age"), "column 'age' stands twice"),
    "an unknown column": ("select agee from pg_class", "a column of the query is not in the data base (character 8"),
    "an unknown table": ("select 1 from nothere", "a table or view of the query is not in the data base (character 15"),
    "an unknown schema": ("select 1 from no.where", "42P01"),
    "an unknown function": ("select nofunction(1)", "a function or comparison"),
    "no SQL": ("selekt 1", "not one SELECT statement of PostgreSQL (character 1 of it)"),
    "no query": ("-- nothing", "gives no rows at all"),
    "a copy": ("copy (select 1) to stdout", "gives no rows at all"),
    "no permission": ("select * from pg_authid", "may not read a table or column of the query"),
    "a cast that fails": (f"select '{MARKER}'::text::int as age", "fails on a row (it is not shown); try it with psql"),
    "a late failure": ("select q.*, 1/(i-3000) from (" + GOOD + ") as q, generate_series(1,9999) as i", "22012"),
}


@pytest.mark.parametrize(("query", "expected"), QUERIES.values(), ids=QUERIES.keys())
def test_what_is_wrong_with_a_query_is_said_without_its_text(query: str, expected: str) -> None:
    text = told(query)
    assert expected in text
    assert "nothere" not in text


ODD = {  # a query, and what is noted of its rows
    "no rows": (f"select * from ({GOOD}) as q where false", "0 rows, 0 patients"),
    "a value out of place": (GOOD.replace("'male'", f"'{MARKER}'", 1), "sex: 1 of 2 rows is no value that the study"),
    "a category": (GOOD.replace("'i'", f"'{MARKER}'"), "stage: 2 of 2 rows are no value that the study lists (rows 1"),
    "an unknown number": (GOOD.replace("50 as", "null::int as", 1), "age: 50 % unknown"),
    "nothing but nulls": (GOOD + " union all select null, null, null, '  ', null", "1 row with nothing in it"),
}


@pytest.mark.parametrize(("query", "expected"), ODD.values(), ids=ODD)
def test_no_row_is_refused_and_odd_ones_are_noted_without_a_value(query: str, expected: str) -> None:
    notes = Notes()
    read_table(SqlQuery(url_env="EDS_URL", query=query), study(), notes)
    assert any(expected in line for line in notes.lines()), list(notes.lines())
    assert MARKER not in "".join(notes.lines())


HEADERS = [
    "no columns",
    "a column twice",
    "an unknown column",
    "an unknown table",
    "no SQL",
    "no permission",
]


@pytest.mark.parametrize("name", HEADERS)
def test_what_the_names_decide_is_refused_without_running_the_query(name: str) -> None:
    query, expected = QUERIES[name]
    with pytest.raises(DataError) as caught:
        probe(SqlQuery(url_env="EDS_URL", query=query), study())
    assert expected in str(caught.value)


def test_what_a_row_decides_is_no_reason_to_refuse_before_the_rows_are_read() -> None:
    probe(SqlQuery(url_env="EDS_URL", query=QUERIES["a late failure"][0]), study())


def test_a_query_that_takes_too_long_is_ended_by_the_data_base() -> None:
    assert "takes longer than query_timeout_s (1 s)" in told(
        ONE_ROW.format(0).replace("50", "pg_sleep(20)::text"), query_timeout_s=1
    )


def test_a_data_base_that_says_nothing_any_more_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "GRACE_S", -8.0)
    assert "said nothing for 2.0 s" in told(ONE_ROW.format(0).replace("50", "pg_sleep(60)::text"), query_timeout_s=10)


def test_a_session_that_the_data_base_ends_is_said() -> None:
    assert "57P01" in told(ONE_ROW.format(0).replace("50", "pg_terminate_backend(pg_backend_pid())::text"))


def test_text_in_another_encoding_is_said(server: PostgreSql, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.suppress(Exception):
        server.run("create database bytes encoding 'SQL_ASCII' template template0", name="postgres")
    monkeypatch.setenv("EDS_URL", server.url(name="bytes"))
    latin = "convert_from('\\x6de26c65'::bytea, 'SQL_ASCII')"
    assert "bytes that are no text in the data base's encoding" in told(GOOD.replace("'male'", latin))


def test_the_drivers_own_log_stays_silent(server: PostgreSql) -> None:
    """The fixture above looks at it; here the driver has an error to tell: a savepoint that is gone."""
    with contextlib.closing(psycopg.connect(server.url())) as connection:
        connection.execute("select 1")
        with contextlib.suppress(psycopg.Error), connection.transaction():
            connection.execute("commit")
            connection.execute("select 1/0")


# The address


def test_what_check_tries_reads_no_row_and_finds_the_same_mistakes(server: PostgreSql) -> None:
    try_source(SqlQuery(url_env="EDS_URL", query="select 1/(i-1) as age from generate_series(1,9) as i;"))
    for query, expected in (
        ("select 1 from nothere", "(character 15 of it)"),
        ("table pg_authid", "may not read"),
        ("analyze select 1", "not one SELECT statement of PostgreSQL (character 1 of it)"),
    ):
        with pytest.raises(DataError) as caught:
            try_source(SqlQuery(url_env="EDS_URL", query=query))
        assert expected in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://reader:{PASSWORD}@db.test/eds",
        f"reader:{PASSWORD}@db.test/eds",
        f"postgresql://reader:{PASSWORD}",
        f"postgresql://reader:{PASSWORD}@/eds",
        f"postgresql://reader:{PASSWORD}@db.test",
        f"postgresql://reader:{PASSWORD}@db.test/eds?sslmod=require",
        f"postgresql://reader:1@{PASSWORD}@db.test/eds",
        f"postgresql://reader:1/{PASSWORD}@db.test/eds",
        f"postgresql://reader:{PASSWORD} 2@db.test/eds",
    ],
)
def test_an_address_that_is_none_is_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDS_URL", url)
    assert "expected an address as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, found something else" in told()


def test_a_variable_that_is_not_set_is_said_with_where_to_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDS_URL")
    assert "in this environment variable, found nothing; set it where this command and the node start" in told()


def test_why_no_session_opens_is_said(server: PostgreSql, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = free.getsockname()[1]
    elsewhere = replace(server, port=nobody)
    for url, expected in {
        server.url(password="wr0ng"): "does not accept this user and password",
        server.url(user="whoever"): "does not accept this user and password",
        server.url().replace(f":{PASSWORD}", ""): "does not accept this user and password",
        server.url(name="nodb"): "no data base of the name in the address",
        server.url(host="db.invalid"): f"the name in db.invalid:{server.port} is not known here",
        elsewhere.url(host="127.0.0.1"): f"127.0.0.1:{nobody} refuses the connection",
        f"{server.url()},127.0.0.1:1".replace("/eds,127.0.0.1:1", ",127.0.0.1:x/eds"): "a port for each host",
    }.items():
        monkeypatch.setenv("EDS_URL", url)
        assert expected in told()
        assert "wr0ng" not in told()


def test_a_server_that_speaks_another_language_is_understood_by_what_it_asked_for() -> None:
    german = 'connection failed: FATAL:  Passwort-Authentifizierung für Benutzer "x" fehlgeschlagen'
    assert "does not accept this user, password or data base's name" in why_not_connected(german, used_password=True)
    assert why_not_connected("FATAL:  autre chose", used_password=False).startswith("{where} opens no session")


def test_a_data_base_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "LOGIN_TIMEOUT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("EDS_URL", f"postgresql://reader:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/eds")
        assert "does not answer" in told()


# TLS


def test_tls_is_asked_for_unless_the_address_or_this_machine_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def mode(url: str) -> str | None:
        info = postgresql.address_of("V", {"V": url})
        postgresql._listed(info, "V")
        return info.get("sslmode")

    monkeypatch.delenv("PGSSLMODE", raising=False)
    assert mode("postgresql://reader@db.example.org/eds") == "require"
    assert mode("postgresql://reader@10.0.0.5/eds") == "require"
    assert mode("postgresql://reader@db.example.org/eds?sslmode=disable") == "disable"
    assert mode("postgresql://reader@db.example.org/eds?sslmode=verify-full") == "verify-full"
    for here in ("localhost", "127.0.0.1", "[::1]"):
        assert mode(f"postgresql://reader@{here}/eds") is None
    monkeypatch.setenv("PGSSLMODE", "prefer")
    assert mode("postgresql://reader@db.example.org/eds") is None


def test_an_address_cannot_lead_elsewhere_than_to_its_listed_name(monkeypatch: pytest.MonkeyPatch) -> None:
    info = postgresql.address_of("V", {"V": "postgresql://reader@db.example.org/eds?hostaddr=192.0.2.1"})
    asked: list[str] = []
    monkeypatch.setattr(postgresql, "reach", lambda address: asked.append(address) or ("db.example.org", 5432))
    postgresql._listed(info, "V")
    assert (asked, info.get("hostaddr")) == (["db.example.org:5432"], None)
    monkeypatch.setattr(postgresql, "reach", lambda address: ("127.0.0.2", 5432))
    postgresql._listed(info, "V")
    assert (info["host"], info["hostaddr"]) == ("db.example.org", "127.0.0.2")


def test_certificates_are_verified_where_the_address_asks_for_it(
    server: PostgreSql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    verified = f"?sslmode=verify-full&sslrootcert={server.ca}"
    monkeypatch.setenv("EDS_URL", server.url() + verified)
    assert len(read(GOOD).keys) == 2
    monkeypatch.setenv("EDS_URL", server.url(host="127.0.0.1") + verified)
    assert "is for other names" in told()
    Pki(tmp_path / "other").create("Other", ["localhost"], None)
    monkeypatch.setenv("EDS_URL", f"{server.url()}?sslmode=verify-full&sslrootcert={tmp_path / 'other' / 'ca.crt'}")
    assert "is not signed by an authority that is trusted here" in told()
    monkeypatch.setenv("EDS_URL", f"{server.url()}?sslmode=verify-full&sslrootcert={tmp_path / 'none.crt'}")
    assert "(sslrootcert) is not there" in told()
    server.run("alter system set ssl = off", "select pg_reload_conf()")
    try:
        monkeypatch.setenv("EDS_URL", server.url() + "?sslmode=require")
        for _ in range(50):
            with contextlib.suppress(AssertionError):
                assert "offers no TLS" in told()
                break
        else:
            pytest.fail("TLS is still on")
    finally:
        server.run("alter system set ssl = on", "select pg_reload_conf()")


def test_a_users_own_pgpass_may_hold_the_password(
    server: PostgreSql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pgpass").write_text(f"localhost:{server.port}:eds:reader:{PASSWORD}\n")
    os.chmod(tmp_path / "pgpass", 0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    monkeypatch.setenv("EDS_URL", server.url().replace(f":{PASSWORD}", ""))
    assert len(read(GOOD).keys) == 2
