r"""Put keys into the text of a YAML file, so that its comments stay.

Only the plain forms that study files have are understood: a section at the left margin, as a block or on one line. The
caller reads the result again and compares; a text of another form it writes anew.

>>> text = "name: x  # ours\nmodel: {name: logistic}\nprivacy:\n  mode: local\n"
>>> print(with_key(with_key(text, "model", "init: share"), "privacy", "clip_norm: 1.5  # by the columns"), end="")
name: x  # ours
model: {name: logistic, init: share}
privacy:
  mode: local
  clip_norm: 1.5  # by the columns
"""

import re
from collections.abc import Sequence


def with_section(text: str, name: str, block: Sequence[str], before: str) -> str:
    """Return the text with a section's lines in the place of its own, or before another section, or at the end."""
    lines = text.splitlines()
    first, last = _span(lines, name)
    if first is None:
        first = last = _above(lines, _span(lines, before)[0])
    return "\n".join([*lines[:first], *block, *lines[last:]]) + "\n"


def with_key(text: str, section: str, line: str) -> str:
    """Return the text with a further key in a section, which stands on one line or as a block; else unchanged.

    Args:
        line: the key and its value, and a comment, which a section on one line gets behind it.
    """
    lines = text.splitlines()
    first, last = _span(lines, section)
    if first is None:
        return text
    entry, _, comment = line.partition("  # ")
    if flow := re.fullmatch(rf"({re.escape(section)}:\s*\{{.*[^\s,])\s*,?\s*\}}(\s*#.*)?", lines[first]):
        notes = "; ".join(filter(None, ((flow[2] or "").strip(" #"), comment)))
        lines[first] = f"{flow[1]}, {entry}}}" + (f"  # {notes}" if notes else "")
    else:
        indents = [re.match(r"\s*", each)[0] for each in lines[first + 1 : last] if each.strip()]  # type: ignore[index]
        lines.insert(last, f"{indents[0] if indents else '  '}{line}")
    return "\n".join(lines) + "\n"


def _span(lines: Sequence[str], name: str) -> tuple[int | None, int]:
    """Return a section's first line and the one after its last, which is no blank and no comment at the margin."""
    starts = [i for i, line in enumerate(lines) if re.match(rf"{re.escape(name)}:(\s|$)", line)]
    if not starts:
        return None, len(lines)
    last = starts[0] + 1
    for i in range(starts[0] + 1, len(lines)):
        if lines[i].strip() and not lines[i][0].isspace():
            if lines[i].startswith("#"):
                continue
            break
        if lines[i].strip():
            last = i + 1
    return starts[0], last


def _above(lines: Sequence[str], first: int | None) -> int:
    """Return where lines go that stand before a section: above the comments that belong to it."""
    place = len(lines) if first is None else first
    while place > 0 and first is not None and lines[place - 1].startswith("#"):
        place -= 1
    return place
