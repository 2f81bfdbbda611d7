"""The files of records: found below one folder by what a row says, and nothing outside of it is ever opened."""

import os
import unicodedata
from pathlib import Path

import pytest

from client.connectors import files
from client.connectors.files import Below
from strategies.data.source import UnreadError, Why


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "series").mkdir(parents=True)
    (folder / "a b.png").write_text("one")
    (folder / "series" / "2.dcm").write_text("two")
    (folder / "series" / "1.dcm").write_text("three")
    (folder / "series" / ".hidden").write_text("no")
    (tmp_path / "outside.png").write_text("another's")
    (folder / "out.png").symlink_to(tmp_path / "outside.png")
    (folder / "in.png").symlink_to(folder / "a b.png")
    os.mkfifo(folder / "pipe")
    return folder


def why(root: Path, text: str) -> Why:
    with pytest.raises(UnreadError) as caught:
        Below(str(root)).find(text)
    assert text not in str(caught.value) or not text
    return caught.value.why


def test_a_file_a_folder_of_files_and_a_link_within_are_found(root: Path) -> None:
    below = Below(str(root))
    assert below.find("a b.png").files == (str(root / "a b.png"),)
    assert below.find("series").files == (str(root / "series" / "1.dcm"), str(root / "series" / "2.dcm"))
    assert below.find("in.png").files == (str(root / "a b.png"),)
    assert below.find("series\\1.dcm").files == (str(root / "series" / "1.dcm"),)  # as Windows writes it


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Why.UNKNOWN),
        ("c.png", Why.MISSING),
        ("A B.png", Why.MISSING),
        ("a b.png/c", Why.MISSING),
        ("../outside.png", Why.OUTSIDE),
        ("series/../../outside.png", Why.OUTSIDE),
        ("..\\outside.png", Why.OUTSIDE),
        ("/etc/passwd", Why.OUTSIDE),
        ("out.png", Why.OUTSIDE),
        ("a b.png\0", Why.OUTSIDE),
        ("pipe", Why.NO_FILE),
        ("x" * 5000, Why.MISSING),
    ],
)
def test_what_is_not_below_the_root_or_no_file_is_not_opened(root: Path, text: str, expected: Why) -> None:
    assert why(root, text) is expected


def test_a_link_out_of_a_series_and_an_empty_one_are_not_opened(root: Path) -> None:
    (root / "empty").mkdir()
    (root / "series" / "3.dcm").symlink_to(root.parent / "outside.png")
    assert why(root, "series") is Why.OUTSIDE
    assert why(root, "empty") is Why.MISSING


def test_too_many_bytes_or_files_are_not_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILES", 1)
    assert why(root, "series") is Why.TOO_LARGE
    monkeypatch.setattr(files, "MAX_BYTES", 2)
    assert why(root, "a b.png") is Why.TOO_LARGE


def test_accents_may_be_written_in_either_way(root: Path) -> None:
    one, two = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    for written, asked in ((f"{one}-1.png", f"{two}-1.png"), (f"{two}-2.png", f"{one}-2.png")):
        (root / written).write_text("x")
        assert Below(str(root)).find(asked).files == (str(root / written),)


def test_a_digest_changes_with_a_file_and_unchanged_ones_are_not_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = Below(str(root))
    before = [below.digest(text) for text in ("a b.png", "series", "c.png")]
    assert len(set(before)) == 3
    with monkeypatch.context() as patched:
        patched.setattr(files, "_hashed", lambda _: pytest.fail("read again"))
        assert [below.digest(text) for text in ("a b.png", "series")] == before[:2]
    (root / "series" / "1.dcm").write_text("changed")
    assert below.digest("series") != before[1]
    (root / "c.png").write_text("new")
    assert below.digest("c.png") != before[2]
