"""The reference of all keys: a JSON Schema for editors, a page, and single keys.

It says what each file may hold.

>>> print(explain("privacy.spare"))
study: privacy.spare: lost releases that each hospital may make anew, within epsilon
  only with mode: local
  expected  an integer from 0 to 1000
  default   0
>>> explain("batch_size")
Traceback (most recent call last):
    ...
configs.errors.ArchipelError: batch_size: unknown key; did you mean training.local.batch_size?
"""

import difflib
from collections.abc import Callable
from typing import Any

from configs.coordinator import CoordinatorConfig
from configs.errors import ArchipelError
from configs.keys.declare import Part, declaration_of
from configs.keys.explain import Row, explained, matching, rows_of, table
from configs.records import further  # noqa: F401 - Archipel's own further releases declare their keys there
from configs.schema.study import Study, study_schema
from configs.shown import guarded, short
from configs.site import SiteConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_CLASSES = {"study": Study, "site": SiteConfig, "coordinator": CoordinatorConfig}
_SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {"study": study_schema}
FILES = tuple(_CLASSES)


def json_schema(file: str) -> dict[str, Any]:
    """Return the JSON Schema of one of FILES. It knows each key; what two keys say together, only the reader knows."""
    schema = _SCHEMAS.get(file, lambda: declaration_of(_CLASSES[file]).schema)()
    return {"$schema": DIALECT, "title": f"Archipel: a {file} file", **schema}


def explain(path: str) -> str:
    """Return what a key of any of FILES is, in words.

    Raises:
        ArchipelError: no file has it; the nearest one is named.
    """
    rows = {file: _rows(file) for file in FILES}
    texts = [f"{file}: {explained(row)}" for file in FILES for row in matching(rows[file], path)]
    if texts:
        return "\n".join(texts)
    paths = list(dict.fromkeys(row.path for file in FILES for row in rows[file]))
    near = [p for p in paths if p.endswith(f".{path}")] or difflib.get_close_matches(path, paths, 1)
    advice = f"did you mean {near[0]}?" if near else "archipel explain, without a key, lists them"
    raise ArchipelError(f"{guarded(short(path))}: unknown key; {advice}")


def listed() -> str:
    """Return the paths of all keys, a file after the other."""
    return "\n".join(f"{file}: {row.path}" for file in FILES for row in _rows(file))


def page() -> str:
    """Return the reference page of all keys, in Markdown."""
    parts = [f"## {file.capitalize()}\n\n{table(_rows(file))}\n" for file in FILES]
    return "\n".join([_HEAD, *parts])


def _rows(file: str) -> list[Row]:
    return rows_of(Part(_CLASSES[file]).children)


_HEAD = """# Every key of every file

Written by `archipel explain --markdown > configs/KEYS.md`; a test compares. A word in capitals is a name that the file
chooses. A kind in brackets, as (name: mlp), means that only this kind has the key. A study of `task.type: statistics`
has no `model`, `evaluation`, `scaling` and `privacy.clip_norm`, and of `training` the quorum and the time alone.
"""
