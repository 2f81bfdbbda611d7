"""The description of a file's keys: one row for each key, by its path.

>>> from configs.keys.declare import Part
>>> from configs.schema.training import Training
>>> rows = rows_of(Part(Training).children)
>>> print(explained(next(row for row in rows if row.path == "local.batch_size")))
local.batch_size: the number of patients expected in a step; full: all of them
  expected  an integer from 1, or full
  default   required
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from configs.keys.declare import REQUIRED, Key


@dataclass(frozen=True)
class Row:
    """One key by its path. `kinds` are those that have it, where a section is one of several: `name: mlp`."""

    path: str
    key: Key
    kinds: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """Return what may stand there, in the words of an error."""
        return self.key.value.expected

    @property
    def default(self) -> str:
        """Return what holds where the key is absent."""
        default = self.key.default
        return "required" if default is REQUIRED else self.key.unsaid or _plain(default)


def rows_of(children: Iterable[tuple[str, Key]], prefix: str = "") -> list[Row]:
    """Return a row for each key and each key below it; kinds that declare a key alike share one."""
    rows: dict[tuple[str, str, str], Row] = {}
    for kind, key in children:
        path = f"{prefix}{key.name}"
        for row in (Row(path, key), *rows_of(key.value.children, f"{path}.")):
            same = (row.path, row.expected, row.default)
            former = rows.get(same, row)
            rows[same] = replace(former, kinds=former.kinds + ((kind,) if kind and row.key is key else ()))
    return list(rows.values())


def explained(row: Row) -> str:
    """Return a key in words, on some lines."""
    lines = [f"{row.path}: {row.key.about}" if row.key.about else row.path]
    if row.kinds:
        lines.append(f"  only with {', '.join(row.kinds)}")
    lines += [f"  expected  {row.expected}", f"  default   {row.default}"]
    keys = dict.fromkeys(key.name for _, key in row.key.value.children)
    return "\n".join([*lines, f"  keys      {', '.join(keys)}"] if keys else lines)


def matching(rows: Iterable[Row], path: str) -> Iterator[Row]:
    """Yield the rows of a path, in which a name may stand in the place of a word in capitals: features.age.range."""
    pattern = path.split(".")
    for row in rows:
        parts = row.path.split(".")
        if len(parts) == len(pattern) and all(b.isupper() or a == b for a, b in zip(pattern, parts, strict=True)):
            yield row


def table(rows: Iterable[Row]) -> str:
    """Return rows as a table in Markdown."""
    lines = ["| key | what it is | expected | default |", "|---|---|---|---|"]
    for row in rows:
        kinds = f" ({', '.join(row.kinds)})" if row.kinds else ""
        cells = (f"`{row.path}`{kinds}", row.key.about, row.expected, row.default)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "none" if set(value) == {None} else f"[{', '.join(map(_plain, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
