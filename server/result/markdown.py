"""Markdown of texts that come from anywhere.

Every text of a run passes `md`, so that none of it can become a heading, a link, a table or HTML.

>>> print(md("# <b>a|b</b> [x](https://e.x)"))
\\# &lt;b&gt;a\\|b&lt;/b&gt; \\[x\\](https\\://e.x)
"""

import re
from collections.abc import Sequence

from server.result.spread import MANY
from server.result.wording import NONE

SPECIAL = re.compile(r"([\\`*{}\[\]#|~!@$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.)")


def md(text: str) -> str:
    """Return the text escaped so that Markdown shows it as it is."""
    return SPECIAL.sub(r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def bullets(lines: Sequence[str]) -> str:
    """Return a list."""
    return "\n".join(f"- {line}" for line in lines)


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are Markdown already."""
    lines = [headings, ["---"] * len(headings), *([cell or NONE for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def each_hospital(headings: Sequence[str], rows: Sequence[Sequence[str]], first: int = 0) -> str:
    """Return a table with a row for each hospital; of more than a page can show, folded after the `first` rows."""
    if len(rows) - first <= MANY:
        return grid(headings, rows)
    shown = f"{grid(headings, rows[:first])}\n\n" if first else ""
    rest = grid(headings, rows[first:])
    return f"{shown}<details><summary>All {len(rows) - first:,} hospitals</summary>\n\n{rest}\n\n</details>"
