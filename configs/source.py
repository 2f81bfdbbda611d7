"""Where rows come from, as `site.yaml` and a study's `simulation` write it: which keys each connector has.

A data base's address holds a password. So a file names the environment variable that holds it, and an address that
stands in a file all the same is refused without being shown.

>>> from configs.sections import Section
>>> entry = Section({"connector": "sql", "url_env": "postgresql://me:secret@db/eds", "path": "a.csv"}, "", [])
>>> _ = data_source(entry, Path("."))
>>> print("\\n".join(entry.problems))
path: expected nothing with connector: sql, found a value; remove it, or write connector: csv
url_env: expected the NAME of an environment variable, found something else (not shown: it may hold a password); \
set that variable where the node starts, and write its name here
query: expected one SELECT statement, found nothing; add it
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from configs.schema import QUERY_TIMEOUT_S, DataSource

if TYPE_CHECKING:
    from configs.sections import Section

CONNECTORS = {"csv": ("path", "multiline"), "sql": ("url_env", "query", "query_timeout_s")}
MAX_QUERY_CHARACTERS = 20_000
MAX_QUERY_TIMEOUT_S = 86_400
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def data_source(entry: "Section", folder: Path, default: str | None = None) -> DataSource:
    """One data source; what is wrong with it is noted in `entry`.

    Args:
        folder: where a relative path begins.
        default: the connector where none is named.
    """
    connector = entry.choice("connector", CONNECTORS, default)
    if (entry.take("connector") or default) not in CONNECTORS:
        for keys in CONNECTORS.values():
            entry.known.update(keys)  # whose they were meant to be is not known
        return DataSource(connector)
    for other, keys in CONNECTORS.items():
        for key in keys if other != connector else ():
            if entry.take(key) is not None:
                advice = f"remove it, or write connector: {other}"
                entry.note(key, f"expected nothing with connector: {connector}, found a value; {advice}")
    if connector == "csv":
        return DataSource(connector, path=folder / _path(entry), multiline=_multiline(entry))
    return DataSource(
        connector,
        url_env=_variable(entry),
        query=_query(entry),
        query_timeout_s=entry.integer("query_timeout_s", 1, MAX_QUERY_TIMEOUT_S, QUERY_TIMEOUT_S),
    )


def _path(entry: "Section") -> str:
    path = entry.text("path", "a file's path")
    if "://" in path:
        advice = "give a path, or connector: sql with the address in the variable that url_env names"
        entry.note("path", f"expected a file's path, found an address (not shown: it may hold a password); {advice}")
    return path


def _multiline(entry: "Section") -> bool:
    found = entry.take("multiline")
    if found is not None and not isinstance(found, bool):
        entry.problem(
            "multiline", "true where quoted text has lines that look like rows, else false", found, "correct it"
        )
    return found is True


def _variable(entry: "Section") -> str:
    found = entry.take("url_env")
    if isinstance(found, str) and _VARIABLE.fullmatch(found):
        return found
    shown = "nothing" if found is None else "something else (not shown: it may hold a password)"
    advice = "set that variable where the node starts, and write its name here"
    entry.note("url_env", f"expected the NAME of an environment variable, found {shown}; {advice}")
    return ""


def _query(entry: "Section") -> str:
    found = entry.take("query")
    if isinstance(found, str) and 0 < len(found.strip()) <= MAX_QUERY_CHARACTERS and "\0" not in found:
        return found.strip()
    shown = "nothing" if found is None else "something else"
    limit = f" of at most {MAX_QUERY_CHARACTERS} characters" if isinstance(found, str) and found.strip() else ""
    entry.note("query", f"expected one SELECT statement{limit}, found {shown}; {'correct' if found else 'add'} it")
    return ""
