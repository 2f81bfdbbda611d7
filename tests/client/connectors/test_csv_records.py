"""Which lines of a CSV file are records: a line with a stray quotation mark takes no other record with it."""

import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client.connectors import probe, read_table
from client.connectors.csv_file import read_columns
from client.connectors.notes import Notes
from client.connectors.records import Form, records
from configs.errors import DataError
from configs.schema import CsvFile
from configs.schema.dialect import Dialect
from tests.client.connectors.test_csv_file import study

WIDTH = 4
TEXTS = {  # proper cells of several lines
    "two lines": "fever\nand cough",
    "begins with a line break": "\nfever",
    "ends with one": "fever\n",
    "an empty line within": "fever\n\ncough",
    "nothing but line breaks": "\n\n",
    "quotation marks": 'said ""no""\nand ""yes""',
    "a mark at a line's end": 'said\n""no""\n""yes""',
    "commas": "fever, cough\nand, as was said, more\n",
    "a list": "- fever,\n- cough,\n",
    "commas alone": "fever\n,,,\ncough",
    "Windows' line ends": "fever\r\ncough",
    "very many lines": "x\n" * 20_000,
}
PLACES = {  # where such a cell stands in a row
    "first": '"a{0}",1,2,3',
    "in the middle": '1,"{0}",2,3',
    "last": '1,2,3,"{0}"',
    "twice": '"a{0}",1,2,"{0}"',
    "beside a quoted cell": '"a, b","{0}","",3',
}


def rows_of(text: str, *, multiline: bool = False) -> list[list[str]]:
    return [row for _, row in records(text, WIDTH, Notes(), Form(Dialect(), multiline=multiline))]


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_proper_text_of_several_lines_is_one_cell(text: str, place: str) -> None:
    lines = ["a,1,2,3", place.format(text), "b,1,2,3", place.format(text), place.format(text), "c,1,2,3", ""]
    got = rows_of("\n".join(lines))
    assert got == rows_of("\n".join(lines), multiline=True)
    assert (len(got), got[1], got[4]) == (6, got[3], got[3])
    assert any(cell.endswith(text.replace('""', '"')) for cell in got[1])


LINES = st.text(alphabet='",ab ', max_size=12)  # anything, on one line
PROPER = st.sampled_from([place.format(text) for text in list(TEXTS.values())[:9] for place in PLACES.values()]) | (
    st.lists(
        st.text(alphabet='a ,"\n', max_size=5).map(lambda c: f'"{c.replace(chr(34), chr(34) * 2)}"'),
        min_size=3,
        max_size=3,
    )
    .map(lambda cells: "p," + ",".join(cells))
    .filter(lambda text: len(rows_of(text)) == 1)
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(PROPER, min_size=1, max_size=4),
    st.lists(LINES, max_size=4),
    st.randoms(use_true_random=False),
    st.sampled_from([',"', ';"', "\t'", '|"']),
)
@example(['p,1,"\nfever\n",1'] * 3, ['x,1,5,"y'], __import__("random").Random(0), ',"')
def test_whatever_line_comes_between_every_proper_record_is_read_as_it_stands(
    proper: list[str], between: list[str], random: object, signs: str
) -> None:
    form, written = Form(Dialect(separator=signs[0], quote=signs[1])), str.maketrans(',"', signs)

    def rows_of(text: str) -> list[list[str]]:
        return [row for _, row in records(text.translate(written), WIDTH, Notes(), form)]

    parts = [*((text, True) for text in proper), *((line, False) for line in between)]
    random.shuffle(parts)  # type: ignore[attr-defined]
    wanted = [rows_of(text)[0] for text, is_proper in parts if is_proper]
    got = iter(rows_of("\n".join(text for text, _ in parts) + "\n"))
    assert all(row in got for row in wanted)  # in this order, each of them


STRAY = {  # a line with an unclosed quotation, and a later one with a stray mark, which would close it
    "at a cell's beginning and its end": ('"q,1,2,x', 'r",1,2,z'),
    "in the last cell": ('q,1,2,"x', 'z",1,2,3'),
    "in two cells": ('q,"1,2,x', 'r,1",2,z'),
    "before a comma": ('"q,1,2,x', '",1,2,z'),
    "alone on a line": ('q,1,2,"x', '"'),
    "at the end of a line": ('q,1,2,"', '"'),
    "after a doubled one": ('q,1,2,"x""', 'y"'),
    "of a text": ('q,"fever and', '"cough",1,2'),
}


@pytest.mark.parametrize("between", ["{0},1,2,3", '{0},"1",2,"3"', '{0},1,2,"fever\nand cough"', '{0},"\n",2,"\n"'])
@pytest.mark.parametrize(("opened", "closed"), STRAY.values(), ids=STRAY)
def test_an_unclosed_quotation_and_a_stray_mark_swallow_no_row_between(opened: str, closed: str, between: str) -> None:
    rows = [between.format(f"p{n}") for n in range(9)]
    got = rows_of("\n".join([rows[0], opened, *rows[1:5], closed, *rows[5:], ""]))
    assert [row[0] for row in got if row[0].startswith("p")] == [f"p{n}" for n in range(9)]


FORMS = {
    "semicolons": Dialect(separator=";"),
    "tabs": Dialect(separator="\t"),
    "bars and apostrophes": Dialect(separator="|", quote="'"),
    "backslashes": Dialect(escape="\\"),
    "comments": Dialect(comment="#"),
}


@pytest.mark.parametrize("dialect", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("between", ["{0},1,2,3", '{0},1,2,"fever\nand cough"'])
@pytest.mark.parametrize(("opened", "closed"), STRAY.values(), ids=STRAY)
def test_stray_marks_swallow_no_row_in_any_dialect(dialect: Dialect, opened: str, closed: str, between: str) -> None:
    rows = [between.format(f"p{n}") for n in range(9)]
    text = "\n".join([rows[0], opened, *rows[1:5], closed, *rows[5:], ""])
    text = text.replace(",", dialect.separator).replace('"', dialect.quote)
    got = [row for _, row in records(text, WIDTH, Notes(), Form(dialect))]
    assert [row[0] for row in got if row[0].startswith("p")] == [f"p{n}" for n in range(9)]


def test_marks_that_a_backslash_escapes_are_part_of_a_cell_and_a_last_backslash_takes_no_row_with_it() -> None:
    rows = ['a,"said \\"no\\", twice",2,3', "b,x\\,y,2,3", "c,1,2,3\\", "d,1,2,3", 'e,"1\\",2,3', "f,1,2,3", ""]
    got = [row for _, row in records("\n".join(rows), WIDTH, Notes(), Form(Dialect(escape="\\")))]
    assert [row[0] for row in got] == ["a", "b", "d", "f"]
    assert (got[0][1], got[1][1]) == ('said "no", twice', "x,y")


@pytest.mark.parametrize("comment", ["# a remark", '# it is "not closed', '#"', "#,,,", '# 5" more'])
def test_a_comment_is_no_record_and_takes_none_with_it(comment: str) -> None:
    notes = Notes()
    text = "\n".join(["a,1,2,3", comment, "b,1,2,3", comment, 'c,1,2,"3"', ""])
    got = [(number, row[0]) for number, row in records(text, WIDTH, notes, Form(Dialect(comment="#")))]
    assert got == [(1, "a"), (3, "b"), (5, "c")]
    assert notes.torn == 0


def test_a_comment_does_not_go_on_into_the_next_line() -> None:
    notes, text = Notes(), 'a,1,2,3\n#,"x\ny",2,3\nb,1,2,3\n'
    got = [row[0] for _, row in records(text, WIDTH, notes, Form(Dialect(comment="#")))]
    assert (got, notes.torn_where) == (["a", "b"], [3])


def test_without_quotations_every_line_is_one_record() -> None:
    text = 'a,"1,2,3\nb,1",2,"\nc,1,2,3\n'
    got = [row for _, row in records(text, WIDTH, Notes(), Form(Dialect(quote="")))]
    assert got == [["a", '"1', "2", "3"], ["b", '1"', "2", '"'], ["c", "1", "2", "3"]]


HEADERS = {  # a header whose quotation never ends, and what follows
    "nothing": ('age,chol,sex,stage,ill,"note', []),
    "rows": ('age,chol,sex,stage,ill,"note', ["50,200,male,i,0,x"] * 3),
    "rows, and a stray mark": ('age,chol,sex,stage,ill,"note', ["50,200,male,i,0,x"] * 3 + ['50,200,male,i,0,x"']),
    "one row with a stray mark": ('age,chol,sex,stage,ill,"note', ['50,200,male,i,0,"']),
    "a row that is no other's": ('age,chol,sex,stage,ill,"note', ['5"']),
    "a mark that is not doubled": ('age,chol,sex,stage,ill,"no"te', ["50,200,male,i,0,x"]),
}


@pytest.mark.parametrize(("header", "rows"), HEADERS.values(), ids=HEADERS)
def test_a_header_ends_on_its_line_whatever_the_rows_are(header: str, rows: list[str], tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("\n".join([header, *rows, ""]))
    said = set()
    for look in (probe, read_table):
        with pytest.raises(DataError) as caught:
            look(CsvFile(path), study())
        said.add(str(caught.value))
    assert said == {
        f"{path}: expected a header line, found a broken quotation in it; export it again, or, if a name in it has "
        "several lines, write multiline: true beside path"
    }


def test_a_name_of_several_lines_is_read_where_site_yaml_says_so(tmp_path: Path) -> None:
    path, source = tmp_path / "data.csv", CsvFile(tmp_path / "data.csv", multiline=True)
    path.write_text('age,"chol\n(mg/dl)",chol,sex,stage,ill\n50,1,200,male,i,0\n')
    probe(source, study())
    assert read_table(source, study()).numbers["chol"].tolist() == [200]
    path.write_text('age,chol,sex,stage,ill,"note\n50,200,male,i,0,x\n50,200,male,i,0,x"\n')
    for look in (probe, read_table):
        with pytest.raises(DataError, match=r"a broken quotation in it; export it again\Z"):
            look(source, study())


@pytest.mark.parametrize("line", ['x,1,"', 'x,1,2,"y', '"', '"q', 'a"b,"c', '"",""x,"'])
def test_very_many_broken_lines_take_no_longer_than_their_number(line: str) -> None:
    def seconds(count: int) -> float:
        began = time.process_time()
        rows_of("\n".join([line] * count))
        return time.process_time() - began

    assert min(seconds(8_000) for _ in range(3)) < 40 * max(0.002, min(seconds(1_000) for _ in range(3)))


def test_lines_are_numbered_as_in_the_file() -> None:
    text = 'a,"x\ny",2,3\nb,1,2,"z\nc,1,2,3\n"\nd,1,2,"\n\n"\ne,1,2,3\n'
    notes = Notes()
    assert [(number, row[0]) for number, row in records(text, WIDTH, notes)] == [(1, "a"), (4, "c"), (6, "d"), (9, "e")]
    assert (notes.torn, notes.torn_where, notes.within, notes.within_where) == (2, [3, 5], 1, [3])
    assert read_columns("h,i\n" + '1,"a\nb"\n', ["h", "i"], CsvFile(Path("demo.csv")))["i"] == ["a\nb"]
