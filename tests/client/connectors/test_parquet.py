"""The connector of Parquet: the same patients are the same bits from a file of text, and damage is a sentence."""

import datetime
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.csv import read_csv

from client.admission import Admissions
from client.cli import main
from client.connectors import probe, read_table, stamp_of
from client.connectors.notes import Notes
from client.connectors.parquet import read_parquet
from client.patients import load_patients
from configs.errors import ArchipelError, DataError, SourceError
from configs.load import load_study
from configs.schema import CsvFile, Study
from configs.schema.mapping import UnitChange
from configs.schema.source import ParquetFiles
from strategies.data.registry import data_of
from strategies.data.source import Table
from tests import builders
from tests.client.connectors.test_columns import same
from tests.client.connectors.test_csv_file import MARKER, study
from tests.consortium import Consortium

ROOT = Path(__file__).resolve().parents[3]
HEART, PRESETS = ROOT / "simulations" / "data" / "heart_disease", ROOT / "configs" / "presets"

ROWS = 40
AGES = [20 + row for row in range(ROWS)]
CHOL = [None if row % 7 == 0 else round(100 + 7.3 * row, 2) for row in range(ROWS)]
SEX = ["female" if row % 3 else "male" for row in range(ROWS)]
STAGE = [("i", "ii", None, "?")[row % 4] for row in range(ROWS)]
ILL = [row % 2 for row in range(ROWS)]


def text_of(cells: list[Any]) -> list[str]:
    return ["" if cell is None else str(cell) for cell in cells]


def csv_table(folder: Path, of: Study, **columns: list[Any]) -> Table:
    path = folder / "same.csv"
    lines = [",".join(columns), *(",".join(row) for row in zip(*map(text_of, columns.values()), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return read_table(CsvFile(path), of)


def written(path: Path, **columns: Any) -> ParquetFiles:
    pq.write_table(pa.table(columns), path, row_group_size=16, write_page_checksum=True)
    return ParquetFiles(path)


def good(**changes: Any) -> dict[str, Any]:
    return {"age": AGES, "chol": CHOL, "sex": SEX, "stage": STAGE, "ill": ILL} | changes


def refused(work: Callable[[], Any]) -> str:
    with pytest.raises(ArchipelError) as caught:
        work()
    assert MARKER not in str(caught.value)
    return str(caught.value)


TYPES: dict[str, dict[str, Any]] = {
    "float64": {"age": pa.array(AGES, pa.float64()), "ill": pa.array(ILL, pa.float64())},
    "float32": {"age": pa.array(AGES, pa.float32()), "chol": pa.array(CHOL, pa.float32())},
    "int8": {"age": pa.array(AGES, pa.int8()), "ill": pa.array(ILL, pa.int8())},
    "int16": {"age": pa.array(AGES, pa.uint16())},
    "int32": {"age": pa.array(AGES, pa.int32())},
    "decimal": {"chol": pa.array([None if c is None else decimal.Decimal(str(c)) for c in CHOL], pa.decimal128(38, 4))},
    "short decimal": {
        "chol": pa.array([None if c is None else decimal.Decimal(str(c)) for c in CHOL], pa.decimal128(7, 2))
    },
    "words": {"sex": pa.array(SEX).dictionary_encode(), "stage": pa.array(STAGE).dictionary_encode()},
    "numbers as text": {"age": pa.array(text_of(AGES)), "chol": pa.array(text_of(CHOL), pa.large_string())},
    "bytes": {"sex": pa.array([word.encode() for word in SEX])},
    "truth": {"ill": pa.array([bool(cell) for cell in ILL])},
}


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("name", sorted(TYPES))
def test_the_same_patients_are_the_same_bits(tmp_path: Path, name: str, ids: bool) -> None:
    of = study(patient_id="id") if ids else study()
    columns = good(**({"id": [f"P{row // 2:03d}" for row in range(ROWS)]} if ids else {}))
    table = read_table(written(tmp_path / "a.parquet", **columns | TYPES[name]), of)
    text = csv_table(tmp_path, of, **columns)
    assert same(text, table)
    first, second = (data_of(of).read(source, of)[0].digest for source in (text, table))
    assert first == second


@pytest.mark.parametrize(
    "ids",
    [
        [2**60 + row for row in range(ROWS)],
        [float(row) for row in range(ROWS)],
        [datetime.date(2024, 1, 1 + row % 28) for row in range(ROWS)],
    ],
)
def test_ids_that_are_no_text_are_told_apart_as_their_text(tmp_path: Path, ids: list[Any]) -> None:
    of = study(patient_id="id")
    table = read_table(written(tmp_path / "a.parquet", **good(id=ids)), of)
    assert table.keys == tuple(dict.fromkeys(str(key).removesuffix(".0") for key in ids))


def test_odd_numbers_are_what_their_text_is(tmp_path: Path) -> None:
    ages = [30.0, float("nan"), float("inf"), -0.0, 1e300, None, 55.0, 60.5]
    columns = good(age=ages) | {name: cells[: len(ages)] for name, cells in good().items() if name != "age"}
    notes = Notes()
    table = read_table(written(tmp_path / "a.parquet", **columns), study(), notes)
    text = csv_table(tmp_path, study(), **columns | {"age": [None if cell != cell else cell for cell in ages]})
    assert same(text, table)
    assert "age: 1 of 8 rows is no number that can be read (row 3)" in list(notes.lines())


def test_32_bits_are_the_shortest_decimal_that_reads_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [rng.standard_normal(300) * 10.0 ** rng.integers(-12, 12, 300), [3.4e38, 1.1, 16777217]]
    ).astype(np.float32)
    source = written(tmp_path / "a.parquet", x=values)
    column = read_parquet(source.path, {"x": "number"}, (), Notes())["x"]
    assert column.numbers().tolist() == [float(str(value)) for value in values]


def test_a_row_with_nothing_in_it_is_no_patients(tmp_path: Path) -> None:
    columns = good()
    empty = {name: [*cells[:3], None, *cells[4:]] for name, cells in columns.items()}
    empty["sex"][3] = " "
    notes = Notes()
    table = read_table(written(tmp_path / "a.parquet", **empty), study(), notes)
    assert (len(table.patients), notes.empty, notes.left_out) == (ROWS - 1, 1, 0)
    kept = read_table(written(tmp_path / "b.parquet", **empty, note=["x"] * ROWS), study(), notes := Notes())
    assert (len(kept.patients), notes.empty, notes.left_out) == (ROWS - 1, 0, 1)


def test_no_cell_decides_how_others_are_read(tmp_path: Path) -> None:
    """A day of no year from 1 to 9999, as exported for `infinity`, and text that is no UTF-8 are one cell's."""
    days = pa.array([0, 2**31 - 1, -(2**31), None], pa.int32()).cast(pa.date32())
    moments = [
        pa.array([0, 2**60, -(2**60), None], pa.int64()).cast(pa.timestamp("us", zone)) for zone in (None, "UTC")
    ]
    offsets, letters = np.array([0, 2, 3, 3, 4], np.int32), pa.py_buffer(b"\xff\xfeaa")
    words = pa.Array.from_buffers(pa.string(), 4, [None, pa.py_buffer(offsets.tobytes()), letters])
    expected = ["1970-01-01", "?", "?", ""]
    for array in (days, *moments, words):
        pq.write_table(pa.table({"seen": array, "age": [1, 2, 3, 4]}), tmp_path / "a.parquet")
        for read_as in ("text", "category"):
            column = read_parquet(tmp_path / "a.parquet", {"seen": read_as}, (), Notes())["seen"]
            assert [text[:10] for text in column.texts()] == (
                ["\\xff\\xfe", "a", "", "a"] if array is words else expected
            )


def test_a_folder_of_parts_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "_SUCCESS").write_text("")
    for part in range(4):
        cells = {name: cells[10 * part : 10 * part + 10] for name, cells in good().items()}
        ages: Any = pa.array(cells["age"], pa.float64() if part == 2 else pa.int64())
        chol: Any = pa.nulls(10) if part == 3 else cells["chol"]
        written(folder / f"part-{part}.parquet", **cells | {"age": ages, "chol": chol})
    source, before = ParquetFiles(folder), stamp_of(ParquetFiles(folder))
    text = csv_table(tmp_path, study(), **good(chol=[*CHOL[:30], *[None] * 10]))
    assert same(text, read_table(source, study()))
    written(folder / "part-1.parquet", **{name: cells[:1] for name, cells in good().items()})
    assert stamp_of(source) != before


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a list": ({"age": [[1, 2]] * ROWS}, "column 'age' is list in the file, expected one plain value a row"),
    "a structure": ({"age": [{"value": MARKER}] * ROWS}, "column 'age' is struct in the file"),
    "times": ({"age": [datetime.datetime(2024, 1, 1)] * ROWS}, "is timestamp in the file, expected numbers"),
    "a stretch of time": ({"age": [datetime.timedelta(1)] * ROWS}, "is duration in the file"),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_what_the_footer_decides_is_refused_before_a_row_is_read(tmp_path: Path, name: str) -> None:
    changes, sentence = WRONG[name]
    source = written(tmp_path / "a.parquet", **good(**changes))
    assert sentence in refused(lambda: probe(source, study()))
    assert sentence in refused(lambda: read_table(source, study()))


def test_a_missing_and_a_doubled_column_are_named(tmp_path: Path) -> None:
    columns = good()
    del columns["sex"]
    assert "columns 'sex' are not in the file; add them" in refused(
        lambda: probe(written(tmp_path / "a.parquet", **columns), study())
    )
    twice = pa.Table.from_arrays([pa.array(cells) for cells in (*good().values(), AGES)], names=[*good(), "age"])
    pq.write_table(twice, tmp_path / "b.parquet")
    sentence = refused(lambda: probe(ParquetFiles(tmp_path / "b.parquet"), study()))
    assert "column 'age' stands twice in the file; keep one" in sentence


@pytest.mark.parametrize(
    ("ages", "sentence"),
    [
        (None, "columns 'age' are not in part-2.parquet"),
        ([MARKER] * ROWS, "column 'age' is string in part-2.parquet, and of another kind (number)"),
    ],
)
def test_a_part_of_another_schema_is_named(tmp_path: Path, ages: Any, sentence: str) -> None:
    columns = good(age=ages)
    written(tmp_path / "part-1.parquet", **good())
    written(tmp_path / "part-2.parquet", **{name: cells for name, cells in columns.items() if cells is not None})
    assert sentence in refused(lambda: probe(ParquetFiles(tmp_path), study()))


def changed(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


BROKEN: dict[str, tuple[Callable[[bytes], bytes], type[ArchipelError], str]] = {
    "truncated": (lambda data: data[: len(data) // 2], SourceError, "it ends before its footer"),
    "cut to its head": (lambda data: data[:5], SourceError, "it ends before its footer"),
    "a text": (lambda _: b"age,sex\n50,male\n", DataError, "expected a Parquet file, found"),
    "empty": (lambda _: b"", DataError, "expected a Parquet file, found an empty file"),
    "encrypted": (lambda data: data[:-4] + b"PARE", SourceError, "it is encrypted"),
    "a damaged footer": (
        lambda data: data[: -8 - int.from_bytes(data[-8:-4], "little")] + bytes(60) + data[-8:],
        SourceError,
        "its footer cannot be read",
    ),
    "a footer of no length": (lambda data: data[:-8] + bytes(4) + data[-4:], SourceError, "its footer cannot be read"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_file_that_is_broken_is_refused_at_once(tmp_path: Path, name: str) -> None:
    damage, kind, sentence = BROKEN[name]
    source = written(tmp_path / "a.parquet", **good(note=[MARKER] * ROWS))
    source.path.write_bytes(damage(source.path.read_bytes()))
    for work in (lambda: probe(source, study()), lambda: read_table(source, study())):
        assert sentence in refused(work)
        with pytest.raises(kind):
            work()


def test_a_damaged_page_in_the_middle_is_the_files_fault_and_names_its_column(tmp_path: Path) -> None:
    source = written(tmp_path / "a.parquet", **good())
    page = pq.ParquetFile(source.path).metadata.row_group(1).column(0)
    place = (
        page.data_page_offset + page.total_compressed_size - (page.data_page_offset - page.dictionary_page_offset) - 2
    )
    source.path.write_bytes(changed(source.path.read_bytes(), place))
    probe(source, study())
    with pytest.raises(SourceError, match="column 'age' is damaged in the file; export it again"):
        data_of(study()).read(read_table(source, study()), study())


def test_a_file_that_is_gone_or_a_folder_without_parts_is_named(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(lambda: probe(ParquetFiles(tmp_path / "none"), study()))
    assert "files that end with .parquet in this folder, found none" in refused(
        lambda: probe(ParquetFiles(tmp_path), study())
    )


def test_a_file_that_is_written_over_while_it_is_read_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "a.parquet", **good())
    column = read_parquet(source.path, {"age": "number"}, (), Notes())["age"]
    assert len(column.numbers()) == ROWS
    with source.path.open("r+b") as file:
        file.write(source.path.read_bytes() + b"more")
    with pytest.raises(SourceError, match="was written while it was read"):
        column.numbers()


def test_no_row_is_read_to_probe(tmp_path: Path) -> None:
    source = written(tmp_path / "a.parquet", **good())
    data = source.path.read_bytes()
    start = pq.ParquetFile(source.path).metadata.row_group(0).column(0).data_page_offset
    source.path.write_bytes(data[:start] + bytes(200) + data[start + 200 :])
    probe(source, study())


def test_what_a_site_maps_is_done_to_typed_columns_as_to_text(tmp_path: Path) -> None:
    mapped: dict[str, Any] = {
        "columns": (("age", "AGE"),),
        "words": (("sex", (("H", "male"), ("F", "female"))),),
        "missing": (("", ("-9",)),),
        "units": (UnitChange("chol", "mmol/L", "mg/dl", 38.67, 0.0),),
    }
    chol = [-9.0 if cell is None else round(cell / 38.67, 3) for cell in CHOL]
    local = good(sex=["FH"[word == "male"] for word in SEX], chol=chol)
    columns = {"AGE" if name == "age" else name: cells for name, cells in local.items()}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    csv = tmp_path / "a.csv"
    csv.write_text(
        "\n".join([",".join(columns), *(",".join(row) for row in zip(*map(text_of, columns.values()), strict=True))])
    )
    table = read_table(ParquetFiles(tmp_path / "a.parquet", **mapped), study())
    assert same(read_table(CsvFile(csv, **mapped), study()), table)
    assert int(np.isnan(table.numbers["chol"]).sum()) == CHOL.count(None)
    assert set(table.categories["sex"].tolist()) == {0, 1}


@pytest.mark.parametrize("site", ["cleveland", "hungary"])
def test_a_hospitals_export_is_the_same_bits_from_parquet_for_training_and_for_test(tmp_path: Path, site: str) -> None:
    csv = HEART / f"{site}.csv"
    pq.write_table(read_csv(csv), tmp_path / "a.parquet")
    of = load_study(PRESETS / "heart_disease.yaml")
    text, typed = (load_patients(source, of, site) for source in (CsvFile(csv), ParquetFiles(tmp_path / "a.parquet")))
    assert (text.train.digest, text.test.digest) == (typed.train.digest, typed.test.digest)
    assert (text.clipped, text.oddities) == (
        typed.clipped,
        tuple(line.replace("row ", "line ") for line in typed.oddities),
    )
    assert typed.train.count > 100


def test_the_workers_process_reads_parquet_behind_its_fence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"age": AGES, "sex": SEX, "disease": ILL}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    chosen = builders.study()
    dataset = {"connector": "parquet", "path": str(tmp_path / "a.parquet"), "identity": "all"}
    config = Consortium(tmp_path).hospital("lille", datasets={chosen.name: dataset})
    admissions = Admissions.open(config.admissions)
    admissions.propose(chosen.sha256, chosen.name, chosen.canonical)
    admissions.close()
    assert main(["-C", str(config.folder), "review", "--data", chosen.sha256]) == 0
    assert f"{ROWS} rows" in capsys.readouterr().out
