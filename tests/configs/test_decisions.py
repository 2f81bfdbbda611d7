"""Decision records: numbered without a gap, one form."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "decisions"
RECORDS = sorted(FOLDER.glob("[0-9]*.md"))


def test_records_are_numbered_from_one_without_a_gap() -> None:
    assert [int(path.name[:4]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))


@pytest.mark.parametrize("path", [*RECORDS, FOLDER / "template.md"], ids=lambda path: path.stem)
def test_a_record_has_a_title_with_its_number_and_the_three_parts(path: Path) -> None:
    text = path.read_text("utf-8")
    number = "N" if path.stem == "template" else str(int(path.name[:4]))
    assert text.startswith(f"# {number}. ")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Context",
        "## Decision",
        "## Consequences",
    ]
    parts = [part.strip() for part in text.split("\n## ")[1:]]
    assert all(len(part.splitlines()) > 1 for part in parts)
