"""A toy connector: a file with one JSON object a line. Not part of the product."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.connectors.base import Connector
from client.connectors.checks import Misfits
from client.connectors.columns import Cells, Column
from client.connectors.notes import Notes
from client.connectors.registry import register
from configs.errors import SourceError
from configs.keys.declare import key
from configs.schema import DataSource
from configs.schema.source import FilePath


@dataclass(frozen=True, slots=True)
class JsonLines(DataSource):
    """A file of JSON lines."""

    connector = "jsonl"
    path: Path = key(FilePath(), about="the file, relative to the folder of the one that names it")


class JsonLinesConnector(Connector):
    """Reads JSON lines. A line that is no object is no patient's, as a CSV line with another number of cells."""

    name, section = "jsonl", JsonLines

    def columns(
        self, source: JsonLines, wanted: Mapping[str, str], optional: Collection[str], notes: Notes
    ) -> dict[str, Column]:
        """Return the wanted columns of the file, and the optional ones of its first object."""
        self.probe(source, wanted)
        columns: dict[str, list[str]] = {name: [] for name in [*wanted, *optional]}
        for number, record in _records(source.path):
            if isinstance(record, dict):
                notes.numbers.append(number)
                for name, cells in columns.items():
                    cells.append("" if record.get(name) is None else str(record[name]).strip())
            else:
                notes.note_torn(number)
        return {name: Cells(cells) for name, cells in columns.items()}

    def probe(self, source: JsonLines, wanted: Mapping[str, str]) -> None:
        """See whether the file opens and its first object has the wanted columns."""
        _, first = next(_records(source.path), (0, None))
        names: Sequence[str] = list(first) if isinstance(first, dict) else []
        misfits = Misfits(str(source.path))
        misfits.check_header(names, wanted, "the first object", "keep one", "add them to every object")
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
