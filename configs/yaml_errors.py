r"""What a mistake in YAML's own signs is, in words: where it is, what was expected, what was found, what to do.

PyYAML names the place where it could not go on, which is often a line below the mistake, in a parser's words. No text
of the file is repeated: it may hold a password.

>>> text = "training:\n\trounds: 20\n"
>>> try:
...     yaml.safe_load(text)
... except yaml.YAMLError as error:
...     print(in_words(error, text))
(2, 1, 'expected spaces, found a tab; replace it by spaces')
"""

import re
from typing import Any, NamedTuple

import yaml

from configs.shown import guarded, short

EACH_ONCE = "expected each key once"
_CANNOT_START = re.compile(r"found character '(.+)' that cannot start any token")
_GOT = re.compile(r"expected ',' or '(.)', but got '(.+)'")
_STRAY = re.compile(r"expected <block end>, but found '(.+)'")
_COLON = re.compile(r":(?:\s|$)")
_NO_COLON = "expected key: value, found no colon with a space after it; write it"
_SPACE_BEFORE = re.compile(r"\s*")
_CLOSED_BY = {"}": "the mapping", "]": "the list"}


class Slip(NamedTuple):
    """A mistake: line and column, from 1, and what it is."""

    line: int
    column: int
    text: str


def in_words(error: yaml.YAMLError | ValueError, text: str) -> tuple[int, int, str]:
    """Return the line and the column of a mistake, from 1, 0 where unknown, and what it is."""
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    if mark is None:
        return 0, 0, f"not valid YAML: {guarded(short(problem, 200))}"
    lines = text.splitlines()
    slip = (
        _space(lines, mark.line)
        or _quote(text, mark)
        or _known(problem, mark, context, lines)
        or Slip(mark.line, mark.column, f"not valid YAML: {guarded(short(problem, 200))}")
    )
    return slip.line + 1, slip.column + 1, slip.text


def _space(lines: list[str], until: int) -> Slip | None:
    """Return the last line up to the error that begins with a space which YAML does not take for one."""
    for number in range(min(until, len(lines) - 1), max(-1, until - 3), -1):
        before = _SPACE_BEFORE.match(lines[number])
        odd = before.group().strip(" ") if before else ""
        if odd:
            kind = "a tab" if odd[0] == "\t" else f"another kind of space (U+{ord(odd[0]):04X})"
            return Slip(number, lines[number].index(odd[0]), f"expected spaces, found {kind}; replace it by spaces")
    return None


def _quote(text: str, mark: Any) -> Slip | None:
    """Return the quotation mark that was not closed where it should have been."""
    begun = None
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            start, end = token.start_mark, token.end_mark
            if isinstance(token, yaml.ScalarToken) and token.style in ("'", '"') and start.line < end.line:
                begun = start if end.line >= mark.line else None
    except yaml.YAMLError as error:
        if getattr(error, "context", "") == "while scanning a quoted scalar":
            begun = getattr(error, "context_mark", None)
    if begun is None:
        return None
    return Slip(begun.line, begun.column, "expected a closing quotation mark on this line, found none; close it")


def _known(problem: str, mark: Any, context: Any, lines: list[str]) -> Slip | None:
    """Return the mistake by the parser's words, None where it is none of those that are known."""
    if match := _CANNOT_START.fullmatch(problem):
        if match.group(1) == "\\t":
            return Slip(mark.line, mark.column, "expected spaces, found a tab; replace it by spaces")
        sign = "which cannot begin a text; put the text in quotes"
        return Slip(mark.line, mark.column, f"expected a value, found the sign {match.group(1)}, {sign}")
    if problem == "could not find expected ':'":
        place = context or mark
        return Slip(place.line, place.column, _NO_COLON)
    if problem == "mapping values are not allowed here":
        return _colon(mark, lines)
    if match := _GOT.fullmatch(problem):
        return _unclosed(match.group(1), match.group(2), mark, context)
    if match := _STRAY.fullmatch(problem):
        return _stray(match.group(1), mark)
    if problem.startswith(EACH_ONCE):
        return Slip(mark.line, mark.column, guarded(short(problem, 200)))
    if problem == "but found another document":
        return Slip(mark.line, mark.column, "expected one document, found a second one; remove the line ---")
    return None


def _colon(mark: Any, lines: list[str]) -> Slip:
    """Return the mistake where a colon stands that no key can have: another indentation, or one within a text."""
    here = _indentation(lines[mark.line])
    earlier = next((n for n in range(mark.line - 1, -1, -1) if _is_content(lines[n])), mark.line)
    above = _indentation(lines[earlier])
    if here > above:
        return Slip(mark.line, here, f"expected an indentation of {above}, as above, found one of {here}; line it up")
    if here == above and not _COLON.search(lines[earlier]):
        return Slip(earlier, above, _NO_COLON)
    todo = "put the text in quotes"
    return Slip(mark.line, mark.column, f"expected a text without a colon and a space in it, found one; {todo}")


def _unclosed(closing: str, got: str, mark: Any, context: Any) -> Slip:
    """Return the mistake within brackets."""
    if (context is not None and mark.line > context.line) or got in ("<stream end>", *"]}"):
        place, of = context or mark, _CLOSED_BY.get(closing, "what was opened")
        return Slip(place.line, place.column, f"expected {closing} that closes {of}, found none; write it")
    return Slip(mark.line, mark.column, "expected a comma between two entries, found none; write it")


def _stray(sign: str, mark: Any) -> Slip:
    """Return the mistake where something follows that no indentation above explains."""
    if sign in ("}", "]", ","):
        return Slip(mark.line, mark.column, f"expected nothing more, found {sign}; remove it")
    if sign == "<block mapping start>":
        text = f"expected the indentation of a line above, found one of {mark.column}; line it up"
        return Slip(mark.line, mark.column, text)
    if sign in ("-", "<block sequence start>"):
        return Slip(mark.line, mark.column, "expected key: value, found an entry of a list; write it as key: value")
    return Slip(mark.line, mark.column, "expected the end of the value, found more text; put all of it in quotes")


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _is_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")
