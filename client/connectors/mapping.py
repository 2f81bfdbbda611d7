"""The site's mapping, applied between a connector and the checks: local columns -> columns as the study writes them.

What site.yaml says (configs/schema/mapping.py) is public and says for each cell alone what it is in the study: no row
changes how another is read, and no row is a reason to refuse. A cell that cannot be read as site.yaml says is unknown,
and counted for the hospital's people. Refused is what the study and site.yaml decide: a unit that is not the study's.

Of a number's cell, in this order: a word that `words` lists is the study's word; a code of `missing` is unknown; a code
that the study itself lists stays one; then decimal comma and thousands are read, and the unit is converted.

>>> change = number_change(SiteMapping(decimal=",", thousands=" ", missing=(("", ("-9",)),)), Feature("chol", "number"))
>>> [change(cell) for cell in ("1 234,5", "-9,0", "1.5", "12 34", "<5")]
['1234.5', '', '?1.5', '?12 34', '<5']
"""

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache, partial
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from client.connectors.checks import Misfits, columns_of
from client.connectors.columns import Coded, Column, Numbers, number, shortest
from client.connectors.dates import NO_DATE, between, date_reader, likely_form
from client.connectors.notes import Notes
from configs.schema import DataSource, Feature, Study
from configs.schema.mapping import DURATIONS, Dates, SiteMapping, UnitChange

SPACES = " \u00a0\u2009\u202f"
_SIGNS = {" ": f"[{SPACES}]", "'": "['\u2019]", ".": r"\.", ",": ","}
UNREAD = "?"  # before a cell that is not written as site.yaml says: no number begins with it
Change = Callable[[str], str]


def local_columns(source: SiteMapping, wanted: Mapping[str, str]) -> dict[str, str]:
    """Return the hospital's columns for the study's wanted ones, and what each is read as."""
    names, dates = dict(source.columns), {each.name: each for each in source.dates}
    local: dict[str, str] = {}
    for name, kind in wanted.items():
        columns = dates[name].columns if name in dates else (names.get(name, name),)
        read_as = "text" if name in dates else kind
        for column in columns:
            local[column] = read_as if local.get(column, read_as) == read_as else "text"
    return local


def local_names(source: SiteMapping, names: Collection[str]) -> list[str]:
    """Return the hospital's columns for some of the study's."""
    return list(local_columns(source, dict.fromkeys(names, "text")))


def check_mapping(source: DataSource, study: Study) -> None:
    """See whether a source's mapping fits the study, by what both declare.

    Raises:
        DataError: a unit is not the study's, or a number is made where the study has none.
    """
    misfits(source, study).raise_if_any()


def misfits(source: DataSource, study: Study) -> Misfits:
    """Return what a source's mapping and the study declare of one column, each otherwise."""
    numbers = {column.name: column for column in study.counted if column.type == "number"}
    others = {column.name: column for column in study.counted if column.type != "number"}
    odd = Misfits("the source's mapping")
    for change in source.units:
        unit = numbers[change.name].unit if change.name in numbers else None
        if unit is not None and _sign(change.after) != _sign(unit):
            odd.add(
                f"units.{change.name}.to: expected {unit!r}, the study's unit, found {change.after!r}; correct it, and "
                "the factor with it"
            )
    for dates in source.dates:
        unit = numbers[dates.name].unit if dates.name in numbers else None
        if unit in DURATIONS and unit != dates.unit.removeprefix("whole "):
            odd.add(f"dates.{dates.name}.unit: expected {unit!r}, the study's unit, found {dates.unit!r}; correct it")
    for key, name in (*(("units", each.name) for each in source.units), *(("dates", d.name) for d in source.dates)):
        if name in others:
            odd.add(f"{key}.{name}: expected a number of the study, found a {others[name].type}; take it out")
    return odd


def _sign(unit: str) -> str:
    return normalize("NFKC", unit)  # there are two signs for micro


def remarks(source: SiteMapping, study: Study) -> Iterator[str]:
    """Yield what the mapping names and the study does not have; a typo perhaps. No row is looked at."""
    counted = {column.name: column for column in study.counted}
    names = columns_of(study)
    for key, name in source.mapped_names:
        if name not in names:
            yield f"{key}.{name}: the study has no such column{_hint(name, names)}"
    for name, pairs in source.words:
        column = counted.get(name)
        for word in dict.fromkeys(word for _, word in pairs if word):
            if column is not None and column.type == "category" and not _lists(column, word):
                listed = (*column.values, *column.missing)
                yield f"words.{name}: the study lists no {word!r} there{_hint(word, listed)}"


def _hint(word: str, words: Collection[str]) -> str:
    near = difflib.get_close_matches(word, words, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(map(repr, words))}"


def _lists(column: Feature, word: str) -> bool:
    listed = (*column.values, *column.missing)
    return word in listed or number(word) in _numbers_of(listed)


def as_the_study_writes(
    columns: Mapping[str, Column], source: SiteMapping, study: Study, wanted: Collection[str], notes: Notes
) -> dict[str, Column]:
    """Return the wanted columns by the study's names, cells as the study writes them.

    Args:
        columns: by the hospital's names, as its connector read them; those of optional columns may not be there.
        notes: gets the counts of cells that are not written as site.yaml says, and of names that the study lacks.
    """
    notes.remarks += remarks(source, study)
    names, dates = dict(source.columns), {each.name: each for each in source.dates}
    counted = {column.name: column for column in study.counted}
    written: dict[str, Column] = {}
    for name in wanted:
        local = names.get(name, name)
        if name in dates:
            written[name] = _time_between(columns, dates[name], codes_of(source, name), notes)
        elif local in columns:
            feature = counted.get(name, Feature(name, "category"))
            written[name] = columns[local].changed(partial(changed, source=source, feature=feature))
    return written


def changed(column: Column, source: SiteMapping, feature: Feature) -> Column:
    """Return one column with each cell as the study writes it; the very same column where nothing is mapped."""
    words = dict(dict(source.words).get(feature.name, ()))
    if isinstance(column, Coded) and column.is_truth:
        if not words:
            return column
        column = column.written([*words])
    if feature.type != "number":
        change = word_change(source, feature)
        return column if change is None else column.mapped(change)
    if isinstance(column, Numbers) and not words:
        return _converted(column, source, feature)
    change = number_change(source, feature, typed=isinstance(column, Numbers))
    return column if change is None else column.mapped(change)


def codes_of(source: SiteMapping, name: str) -> tuple[str, ...]:
    """Return the hospital's codes for unknown in a column of the study."""
    codes = dict(source.missing)
    return (*codes.get("", ()), *codes.get(name, ()))


def number_change(source: SiteMapping, feature: Feature, *, typed: bool = False) -> Change | None:
    """Return what a number's cell becomes, None where it stays what it is.

    Args:
        typed: whether the cells are a typed store's numbers, which have a decimal point whatever site.yaml says.
    """
    words, codes = dict(dict(source.words).get(feature.name, ())), codes_of(source, feature.name)
    plain_form = None if typed else _plain_form(source.decimal_sign, source.thousands_sign)
    unit = _unit(source, feature.name)
    if not (words or codes or plain_form or unit):
        return None
    known = _by_word_and_number(words, codes, plain_form) if words or codes else None
    kept = set(feature.missing)
    kept_numbers = _numbers_of(kept)

    def change(cell: str) -> str:
        text = plain_form(cell) if plain_form is not None else cell
        if known is not None and (word := known(cell, text)) is not None:
            return word
        if unit is None or cell in kept:
            return cell if cell in kept else text
        value = number(text)
        return text if math.isnan(value) or value in kept_numbers else shortest(unit.convert(value))

    return change


def word_change(source: SiteMapping, feature: Feature) -> Change | None:
    """Return what a word's cell becomes, None where it stays what it is.

    A code of every column is no code of a patient's id, which is text of its own.
    """
    words, codes = dict(dict(source.words).get(feature.name, ())), codes_of(source, feature.name)
    if not feature.values:
        codes = dict(source.missing).get(feature.name, ())
    plain_form = _plain_form(source.decimal_sign, source.thousands_sign) if feature.values else None
    if not (words or codes or plain_form):
        return None
    listed = {*feature.values, *feature.missing}
    known = _by_word_and_number(words, codes, plain_form)

    def change(cell: str) -> str:
        text = plain_form(cell) if plain_form is not None else cell
        if (word := known(cell, text)) is not None:
            return word
        return cell if cell in listed or text.startswith(UNREAD) else text

    return change


def _by_word_and_number(
    words: Mapping[str, str], codes: Collection[str], plain_form: Change | None
) -> Callable[[str, str], str | None]:
    """Return what a cell is that site.yaml lists, by its word, or else by the number that it is; None of any other."""
    listed = dict.fromkeys(codes, "") | dict(words)
    numbers: dict[float, str] = {}
    for word, meaning in (*words.items(), *((code, "") for code in codes)):
        for text in (word, plain_form(word) if plain_form is not None else word):
            if not math.isnan(value := number(text)):
                numbers.setdefault(value, meaning)

    def known(cell: str, text: str) -> str | None:
        if cell in listed:
            return listed[cell]
        return numbers.get(number(text)) if numbers else None

    return known


def _numbers_of(codes: Collection[str]) -> set[float]:
    return {value for code in codes if not math.isnan(value := number(code))}


def _unit(source: SiteMapping, name: str) -> UnitChange | None:
    return next((unit for unit in source.units if unit.name == name and (unit.times, unit.plus) != (1.0, 0.0)), None)


def _converted(column: Numbers, source: SiteMapping, feature: Feature) -> Numbers:
    """Return typed numbers in the study's unit, as `number_change` makes them of their text."""
    unit, codes = _unit(source, feature.name), _numbers_of(codes_of(source, feature.name))
    if unit is None and not codes:
        return column
    values = np.where(np.isin(column.values, list(codes)), np.nan, column.values)
    if unit is not None:
        kept = np.isin(values, list(_numbers_of(feature.missing)))
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.where(kept, values, values * unit.times + unit.plus)
    return Numbers(values)


@lru_cache(maxsize=16)
def _plain_form(decimal: str, thousands: str) -> Change | None:
    """Return how a number of this writing is written with a point and no thousands; None where it is so already.

    A cell that is not written so is marked as one that cannot be read, if it would be a number otherwise.
    """
    if decimal == "." and not thousands:
        return None
    sign = _SIGNS.get(thousands, "")
    grouped = re.compile(rf"([+-]?[0-9]{{1,3}})((?:{sign}[0-9]{{3}})+)((?:{_SIGNS[decimal]}[0-9]*)?)") if sign else None
    strays = "." if decimal == "," else ""
    separators = re.compile(sign) if sign else None

    def plain_form(cell: str) -> str:
        text = cell
        if grouped is not None and separators is not None and separators.search(cell):
            groups = grouped.fullmatch(cell)
            if groups is None:
                return f"{UNREAD}{cell}" if cell[:1] in "+-.0123456789" else cell
            text = groups[1] + separators.sub("", groups[2]) + groups[3]
        if strays and strays in text:
            return text if math.isnan(number(text)) else f"{UNREAD}{cell}"
        return text.replace(decimal, ".") if decimal != "." else text

    return plain_form


def _time_between(columns: Mapping[str, Column], dates: Dates, codes: Collection[str], notes: Notes) -> Column:
    """Return the time between two dates as a number; a cell that is no date of the declared form is unknown."""
    rows = len(columns[dates.columns[0]])
    ends = [
        _moments(columns, text, form, codes, notes, rows)
        for text, form in zip((dates.start, dates.end), dates.forms, strict=True)
    ]
    return Numbers(between(ends[0], ends[1], dates.unit))


def _moments(
    columns: Mapping[str, Column], text: str, form: str, codes: Collection[str], notes: Notes, rows: int
) -> NDArray[np.int64]:
    """Return (rows,) seconds of a column's dates, or of the public day that `text` is; NO_DATE is unknown."""
    if text not in columns:
        return np.full(rows, date_reader("YYYY-MM-DD")(text), np.int64)
    column, read = columns[text].held(), date_reader(form)
    moments: NDArray[np.int64] = column.each(read, np.int64)
    is_code = column.each(set(codes).__contains__, bool)
    unread = (moments == NO_DATE) & ~column.empty() & ~is_code
    moments[is_code] = NO_DATE
    if count := int(unread.sum()):
        other = likely_form(column.taken(np.flatnonzero(unread)).texts())
        seems = f"; they seem to be {other}" if other and other != form else ""
        verb = "is" if count == 1 else "are"
        notes.remark(f"{text}: {count:,} of {rows:,} dates {verb} not written as {form}, so unknown{seems}", unread)
    return moments
