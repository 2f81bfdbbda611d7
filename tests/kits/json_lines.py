"""A toy connector: a file with one JSON object a line. Not part of the product."""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.connectors.base import Connector
from client.connectors.checks import Misfits, columns_of, table_of
from client.connectors.notes import Notes
from client.connectors.registry import register
from configs.errors import SourceError
from configs.keys.declare import key
from configs.schema import DataSource, Study
from configs.schema.source import FilePath
from strategies.data.source import Table


@dataclass(frozen=True, slots=True)
class JsonLines(DataSource):
    """A file of JSON lines."""

    connector = "jsonl"
    path: Path = key(FilePath(), about="the file, relative to the folder of the one that names it")


class JsonLinesConnector(Connector):
    """Reads JSON lines. A line that is no object is no patient's, as a CSV line with another number of cells."""

    name, section = "jsonl", JsonLines

    def read(self, source: JsonLines, study: Study, notes: Notes) -> Table:
        """Return the study's columns of the file."""
        self.probe(source, study)
        columns: dict[str, list[str]] = {name: [] for name in columns_of(study)}
        numbers = array("q")
        for number, record in _records(source.path):
            if isinstance(record, dict):
                numbers.append(number)
                for name, cells in columns.items():
                    cells.append("" if record.get(name) is None else str(record[name]).strip())
            else:
                notes.note_torn(number)
        return table_of(columns, study, notes, numbers)

    def probe(self, source: JsonLines, study: Study) -> None:
        """See whether the file opens and its first object has the study's columns."""
        _, first = next(_records(source.path), (0, None))
        names: Sequence[str] = list(first) if isinstance(first, dict) else []
        misfits = Misfits(str(source.path))
        misfits.check_header(names, columns_of(study), "the first object", "keep one", "add them to every object")
        misfits.raise_if_any()


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                yield number, _parsed(line)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def install() -> None:
    """Let files name it."""
    register(JsonLinesConnector())
