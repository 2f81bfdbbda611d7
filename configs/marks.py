"""The lines and columns of a file's keys, beside its plain values.

>>> document = {"training": {"rounds": 3}}
>>> marks = Marks(document)
>>> marks.put(document, "training", (11, 1))
>>> marks.put(document["training"], "rounds", (12, 3))
>>> marks.where(document, "training.rounds"), marks.where(document, "training.local"), marks.where(document, "model")
('line 12, column 3: ', 'line 11, column 1: ', '')
"""

from collections.abc import Mapping
from typing import Any

import yaml

Mark = tuple[int, int]  # line and column, from 1


class Marks:
    """The place of each key of each mapping of one document, which it keeps."""

    def __init__(self, document: Any) -> None:
        self.document = document  # kept, as mappings are known by their identity
        self._marks: dict[int, dict[str, Mark]] = {}

    @classmethod
    def of(cls, document: Any, node: yaml.Node | None) -> "Marks":
        """Return the places of a document that was made of a node."""
        marks = cls(document)
        marks._walk(document, node)
        return marks

    def _walk(self, value: Any, node: yaml.Node | None) -> None:
        if isinstance(node, yaml.MappingNode) and isinstance(value, dict):
            for (key_node, child), key in zip(node.value, value, strict=True):
                self.put(value, key, (key_node.start_mark.line + 1, key_node.start_mark.column + 1))
                self._walk(value[key], child)
        elif isinstance(node, yaml.SequenceNode) and isinstance(value, list):
            for child, entry in zip(node.value, value, strict=True):
                self._walk(entry, child)

    def put(self, mapping: Mapping[Any, Any], key: Any, mark: Mark) -> None:
        """Note the place of a key."""
        self._marks.setdefault(id(mapping), {})[str(key)] = mark

    def move(self, key: Any, source: dict[Any, Any], target: dict[Any, Any], name: Any = None) -> None:
        """Move a key with its value and its place into another mapping, or rename it."""
        target[key if name is None else name] = source.pop(key)
        if (mark := self._marks.get(id(source), {}).get(str(key))) is not None:
            self.put(target, key if name is None else name, mark)

    def where(self, mapping: Mapping[Any, Any], path: str) -> str:
        """Return the place of a key for a message, or of the last section on its way that is there; empty without."""
        mark, within = None, mapping
        parts = [path] if path in self._marks.get(id(mapping), {}) else path.split(".")
        for part in parts:
            following = self._marks.get(id(within), {}).get(part)
            if following is None:
                break
            mark, value = following, within.get(part)
            within = value if isinstance(value, Mapping) else {}
        return f"line {mark[0]}, column {mark[1]}: " if mark else ""
