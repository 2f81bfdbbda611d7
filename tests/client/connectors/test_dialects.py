"""Files as hospitals have them: what they are is said, with line and cure, and never with what stands in them."""

from pathlib import Path

import pytest

from client.connectors import probe, read_table
from client.connectors.csv_file import read_columns
from client.connectors.notes import Notes
from configs.errors import DataError
from configs.schema import CsvFile, DataSource, Study
from tests.builders import study

SECRET = "Zérbinette"  # a patient's, in a column that no study reads
STUDY = study(
    features={
        "age": {"type": "number", "range": [20, 90]},
        "tabac": {"type": "category", "values": ["jamais", "sevré", "actif"]},
    },
    patient_id="ipp",
)
HEADER = ["ipp", "age", "tabac", "disease", "nom"]
ROWS = [[f"00{n}", str(30 + n), ("jamais", "sevré", "actif")[n % 3], str(n % 2), SECRET] for n in range(30)]


def table(separator: str = ",", above: str = "", header: list[str] | None = None) -> str:
    lines = [separator.join(row) for row in [header or HEADER, *ROWS]]
    return above + "\n".join(lines) + "\n"


def source_of(folder: Path, content: bytes | str) -> DataSource:
    path = folder / "patients.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return CsvFile(path)


def refusal(folder: Path, content: bytes | str, of: Study = STUDY) -> str:
    """What is said of a file that is refused, by a look at its header and by a reading alike."""
    source, said = source_of(folder, content), []
    for look in (probe, read_table):
        with pytest.raises(DataError) as caught:
            look(source, of)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert SECRET not in said[0]
    assert "Zerbinette" not in said[0]
    return said[0]


def noted(folder: Path, content: bytes | str) -> tuple[list[str], Notes]:
    notes = Notes()
    read_table(source_of(folder, content), STUDY, notes)
    lines = list(notes.oddities())
    assert SECRET not in " ".join(lines)
    return lines, notes


TITLE = "Extraction du 12/03/2024;;;\n"
SEP = "line 1 is `sep=`, which Excel writes"
HEADERS = {
    "sep=,": (table(above="sep=,\n"), f"{SEP}: write dialect: {{skip_lines: 1}} beside path"),
    "sep=;": (
        table(";", above="sep=;\n"),
        f"{SEP} and the columns are separated by semicolons: write dialect: {{separator: semicolon, skip_lines: 1}} "
        "beside path, or dialect: french where decimals have a comma",
    ),
    '"sep=;"': (table(";", above='"sep=;"\n'), f"{SEP} and the columns are separated by semicolons: write dialect"),
    "semicolons": (
        table(";"),
        "separated by semicolons: write dialect: {separator: semicolon} beside path, or dialect: french where decimals",
    ),
    "tabs": (table("\t"), "the columns are separated by tabs: write dialect: {separator: tab} beside path"),
    "bars": (table("|"), "the columns are separated by bars: write dialect: {separator: bar} beside path"),
    "a title": (
        table(above="Rapport\n"),
        "line 1 stands above the header: write dialect: {skip_lines: 1} beside path",
    ),
    "a title with commas": (table(above="Rapport,,,,\n"), "write dialect: {skip_lines: 1} beside path"),
    "three lines": (
        table(above="Rapport\n\nCHU\n"),
        "lines 1 to 3 stand above the header: write dialect: {skip_lines: 3} beside path",
    ),
    "a title and semicolons": (table(";", above=TITLE), "write dialect: {separator: semicolon, skip_lines: 1} beside"),
    "capitals": (
        table(header=[name.upper() for name in HEADER]),
        "capitals, accents or spaces alone: write columns: {age: AGE, tabac: TABAC, disease: DISEASE, ipp: IPP} beside",
    ),
    "spaces": (table(header=["ipp", "age", "ta\u00a0bac", "disease", "nom"]), "capitals, accents or spaces alone"),
    "accents": (
        table(header=["ipp", "âge", "tabac", "disease", "nom"]),
        "capitals, accents or spaces alone: write columns: {age: âge} beside path",
    ),
    "no header": ("\n".join(",".join(row) for row in ROWS) + "\n", "are not in the header; add them"),
    "a column less": (
        table(header=["ipp", "age", "smoke", "disease", "nom"]),
        "'tabac' are not in the header; add them",
    ),
    "a column twice": (table(header=["ipp", "age", "tabac", "disease", "age"]), "'age' stands twice in the header"),
}


@pytest.mark.parametrize(("content", "says"), HEADERS.values(), ids=HEADERS)
def test_what_is_wrong_with_a_header_is_said_with_the_cure(tmp_path: Path, content: str, says: str) -> None:
    said = refusal(tmp_path, content)
    assert says in said
    assert ("read as Windows-1252" in said, "capitals" in said) == (False, "capitals" in says)


KINDS = {
    "xlsx": (b"PK\x03\x04\x14\x00\x06\x00", "an Excel workbook (.xlsx)"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook"),
    "gz": (b"\x1f\x8b\x08\x00", "unpack it (gunzip)"),
    "bz2": (b"BZh91AY", "unpack it (bunzip2)"),
    "xz": (b"\xfd7zXZ\x00\x00", "unpack it (unxz)"),
    "zstd": (b"\x28\xb5\x2f\xfd\x24", "unpack it (unzstd)"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00", "a 7z archive"),
    "parquet": (b"PAR1\x15\x04", "a Parquet file"),
    "sqlite": (b"SQLite format 3\x00", "an SQLite data base"),
    "pdf": (b"%PDF-1.7\n", "a PDF"),
    "spss": (b"$FL2@(#)", "an SPSS file"),
    "utf-16 with its mark": (table().encode("utf-16"), "text in UTF-16"),
    "utf-16 big endian": (b"\xfe\xff" + table().encode("utf-16-be"), "text in UTF-16"),
    "utf-16 without": (table().encode("utf-16-le"), "text in UTF-16 without a mark"),
    "utf-16-be without": (table().encode("utf-16-be"), "text in UTF-16 without a mark"),
    "utf-32": (table().encode("utf-32"), "text in UTF-32"),
}


@pytest.mark.parametrize(("content", "says"), KINDS.values(), ids=KINDS)
def test_a_file_that_is_no_csv_is_called_what_it_is(tmp_path: Path, content: bytes, says: str) -> None:
    said = refusal(tmp_path, content)
    assert f"found {says}" in said or says in said
    assert "expected comma-separated text in UTF-8" in said


ACCENTED = study(
    features={
        "âge": {"type": "number", "range": [20, 90]},
        "tabac": {"type": "category", "values": ["jamais", "actif"]},
    },
    patient_id="ipp",
)
ENCODINGS = {
    "cp1252": "the file is no UTF-8 but Windows-1252, it seems: write dialect: {encoding: cp1252} beside path",
    "mac_roman": "the file is no UTF-8 but MacRoman, it seems: write dialect: {encoding: macroman} beside path",
    "cp850": "the file is no UTF-8 but DOS code page 850, it seems: write dialect: {encoding: cp850} beside path",
}


@pytest.mark.parametrize(("codec", "says"), ENCODINGS.items())
def test_a_header_in_another_encoding_is_named(tmp_path: Path, codec: str, says: str) -> None:
    text = table(header=["ipp", "âge", "tabac", "disease", "nom"])
    assert says in refusal(tmp_path, text.encode(codec), ACCENTED)


def test_a_header_that_was_encoded_twice_is_named(tmp_path: Path) -> None:
    text = table(header=["ipp", "âge", "tabac", "disease", "nom"])
    said = refusal(tmp_path, text.encode("utf-8").decode("cp1252").encode("utf-8"), ACCENTED)
    assert "written in UTF-8 and read as Windows-1252 once" in said


@pytest.mark.parametrize(("codec", "name"), [("cp1252", "cp1252"), ("mac_roman", "macroman"), ("cp850", "cp850")])
def test_cells_in_another_encoding_are_unknown_and_noted_by_line_and_likely_encoding(
    tmp_path: Path, codec: str, name: str
) -> None:
    lines, notes = noted(tmp_path, table().encode(codec))
    assert notes.rows == 30
    said = f"10 cells are no text in UTF-8 (lines 3, 6, 9 and 7 more), {name} it seems: write dialect: {{encoding: "
    assert any(said in line for line in lines)


@pytest.mark.parametrize("codec", ["cp1252", "mac_roman"])
def test_an_accent_in_a_column_that_no_study_reads_is_nobodys_concern(tmp_path: Path, codec: str) -> None:
    lines, notes = noted(tmp_path, table().replace("sevré", "actif").encode(codec))
    assert notes.foreign == 0
    assert not any("UTF-8" in line for line in lines)


def test_cells_that_were_encoded_twice_are_noted(tmp_path: Path) -> None:
    lines, _ = noted(tmp_path, table().encode("utf-8").decode("cp1252").encode("utf-8"))
    assert any("10 cells are written in UTF-8 and read as Windows-1252 once, it seems" in line for line in lines)


def test_clean_files_have_nothing_to_note(tmp_path: Path) -> None:
    for content in (table(), "\ufeff" + table(), table().replace("\n", "\r\n")):
        assert noted(tmp_path, content)[0] == []


def test_a_path_with_backslashes_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it has backslashes: write / between folders"):
        read_table(CsvFile(tmp_path / "..\\data\\lille.csv"), STUDY)


def test_a_word_that_comes_again_is_held_once(tmp_path: Path) -> None:
    """A million rows of a few words take little memory: by construction, as every cell of a word is one object."""
    columns = read_columns(table(), HEADER, CsvFile(Path("t.csv")))
    for name in ("tabac", "disease", "nom"):
        assert len({id(cell) for cell in columns[name]}) == len(set(columns[name]))


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolon"), ("\t", "tab"), ("|", "bar")])
def test_a_header_of_other_names_in_another_dialect_is_told_both(tmp_path: Path, sign: str, name: str) -> None:
    text = refusal(tmp_path, table(sign, header=["IPP", "Âge", "Fume", "Maladie", SECRET]))
    assert f"write dialect: {{separator: {name}}}, and then add them, or say what they are called there: " in text
    assert "columns: {age: LOCAL COLUMN} beside path" in text


def test_a_header_of_other_names_is_told_where_they_are_written(tmp_path: Path) -> None:
    text = refusal(tmp_path, table(header=["IPP", "Âge", "Fume", "Maladie", SECRET]))
    assert "columns: {age: LOCAL COLUMN} beside path; is the first line a header?" in text
