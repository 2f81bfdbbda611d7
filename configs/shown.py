"""Texts of others: the characters allowed in them, and how they are printed.

They stand in a study or a paper. A study's purpose, its columns, a hospital's request are written by people whom the
reader does not know, and shown on a terminal, which obeys what it is told. So what may be written is a short list, and
whatever is printed all the same (a name in an error, a study that an earlier release took) goes through `shown`:
quoted, escaped, on one line.

>>> flaw_of("Créat. | µmol/l"), flaw_of("Predict\\nheart disease", lines=True)
('', '')
>>> flaw_of("age\\x1b[2J")
"expected letters, numbers, signs and plain spaces, found '\\\\x1b'"
>>> print(shown("age\\x1b[2J  \\u202eegap"))
'age\\x1b[2J \\x20\\u202eegap'
"""

import re
import unicodedata

MAX_MARKS = 2  # on one letter: more overlay the lines above and below
LIMIT = 200
DIGITS = 20  # of a study's digest, where it is shown and in what decides: no two studies share them
KINDS = "LMNPS"  # letters, marks, numbers, punctuation, symbols
# Letters, marks and symbols that are drawn as nothing, and marks that strike another letter out.
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
SELECTORS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
OVERLAY = 1  # the combining class of marks that strike out


def flaw_of(text: str, *, lines: bool = False) -> str:
    """Say what may not stand in a text that others will read on a terminal; empty where nothing is wrong.

    Args:
        lines: whether line breaks are allowed.
    """
    odd = [c for c in text if not (_is_allowed(c) or (lines and c == "\n"))]
    if odd:
        return f"expected letters, numbers, signs and plain spaces, found {shown(odd[0])}"
    if not unicodedata.is_normalized("NFC", text):
        return "expected text in the normal form NFC, found letters and accents apart; type it anew"
    marks = 0
    for c in " " + text:
        marks = marks + 1 if unicodedata.category(c)[0] == "M" else 0
        if marks > MAX_MARKS:
            return f"expected at most {MAX_MARKS} accents on a letter, found more"
    if text and unicodedata.category(text[0])[0] == "M":
        return "expected a letter before an accent, found none"
    return ""


def _is_allowed(character: str) -> bool:
    if character == " ":
        return True
    if unicodedata.category(character)[0] not in KINDS or unicodedata.category(character) == "Me":
        return False
    if unicodedata.combining(character) == OVERLAY or character in BLANK:
        return False
    return not any(ord(character) in selectors for selectors in SELECTORS)


def escaped(text: str) -> str:
    """Return a text of others on one line, without quotation marks: what may not stand in it is escaped.

    >>> escaped("heart\\n  WRONG  keys"), escaped("a\\u0301\\u0302\\u0303")
    ('heart\\\\n \\\\x20WRONG \\\\x20keys', 'a\\u0301\\u0302\\\\u0303')
    """
    parts, marks, before = [], 0, ""
    for c in str(text):
        marks = marks + 1 if unicodedata.category(c)[0] == "M" else 0
        plain = _is_allowed(c) and marks <= MAX_MARKS and not (c == before == " ") and not (marks and not before)
        parts.append(c if plain else _code(c))
        before = c
    return "".join(parts)


def _code(character: str) -> str:
    escapes = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    point = ord(character)
    wide = f"\\x{point:02x}" if point < 256 else f"\\u{point:04x}" if point < 65_536 else f"\\U{point:08x}"
    return escapes.get(character, wide)


def shown(text: object, limit: int = LIMIT) -> str:
    """Return a text of others quoted, escaped and on one line; longer ones are cut.

    >>> shown("it's"), shown("x" * 300, 10)
    ('"it\\'s"', "'xxxxxxxxxx'...")
    """
    words = str(text)
    cut = escaped(words[:limit])
    mark = '"' if "'" in cut and '"' not in cut else "'"
    body = cut.replace("\\", "\\\\") if cut == words[:limit] and "\\" in cut else cut
    body = body.replace("'", "\\'") if mark == "'" else body
    return f"{mark}{body}{mark}{'...' if len(words) > limit else ''}"


def guarded(text: str) -> str:
    """Return whatever is about to be printed without what a terminal would obey; our own line breaks stay.

    >>> guarded("── heart\\n") == "── heart\\n", guarded("a\\x1b[2J\\u202e")
    (True, 'a\\\\x1b[2J\\\\u202e')
    """
    parts, marks = [], 0
    for c in text:
        marks = marks + 1 if unicodedata.category(c)[0] == "M" else 0
        parts.append(c if c == "\n" or (_is_allowed(c) and marks <= MAX_MARKS) else _code(c))
    return "".join(parts)


def quoted_lines(text: str) -> list[str]:
    """Return a text of several lines as lines that begin with `| `, so that none can be taken for one of ours.

    >>> quoted_lines("Predict heart disease\\nWRONG    keys: lost")
    ['| Predict heart disease', '| WRONG keys: lost']
    """
    return [f"| {escaped(line)}" for line in re.sub(" +", " ", text).split("\n")]


def mixed_scripts(text: str) -> str:
    """Name the alphabets of a word that has letters of several; empty where it has one. Letters of two may look alike.

    >>> mixed_scripts("âge"), mixed_scripts("\\u0430ge"), mixed_scripts("µmol/l")
    ('', 'CYRILLIC and LATIN', '')
    """
    for word in text.split():
        names = {unicodedata.name(c, "").split(" ")[0] for c in word if c.isalpha() and c not in "µμΩΩ°ªº"}
        scripts = sorted(names & {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "FULLWIDTH", "MATHEMATICAL"})
        if len(scripts) > 1 or set(scripts) & {"FULLWIDTH", "MATHEMATICAL"}:
            return " and ".join(scripts)
    return ""


def short(text: str, limit: int = 80) -> str:
    """Return the text, cut where a message would grow too long."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def printable(text: str, limit: int) -> str:
    """Return the printable characters of a text of others, at most so many: for log lines and other programs' words.

    >>> printable("lil\\x1ble\\n", 5)
    'lille'
    """
    return "".join(c for c in text if c.isprintable())[:limit]
