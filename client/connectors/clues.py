"""Clues: why cells of a column could not be read, or lie outside its range, and which key of site.yaml would mend it.

A clue is a count and what stands in public lists of this file: words that people write for unknown, names of both
sexes, factors between units. No other text of a cell is ever in one. A clue is a suspicion; nothing follows from it but
a sentence for people (client/looking.py).

>>> from client.connectors.columns import Cells
>>> from configs.schema import Feature
>>> age = Feature("age", "number", minimum=20.0, maximum=90.0)
>>> [(clue.kind, clue.count, clue.words) for clue in clues_of(Cells(["NR", "50,5", "60"]), age)]
[('words for unknown', 1, ('NR',)), ('decimal comma', 1, ())]
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.connectors.columns import Column
from configs.schema import Feature

UNKNOWN_WORDS = frozenset(
    (
        *("na", "n/a", "n.a.", "nan", "nd", "n.d.", "nr", "n.r.", "nc", "ni", "ns", "nsp", "np", "null", "none", "nil"),
        *(".", "..", "-", "--", "?", "??", "x", "xx", "unknown", "unk", "missing", "inconnu", "inconnue", "manquant"),
        *("non renseigné", "non renseigne", "non fait", "non disponible", "indéterminé", "pending", "en cours", "\\n"),
        *("#n/a", "#na", "#value!", "#valeur!", "#ref!", "#div/0!", "#num!", "#name?", "#nom?"),
    )
)
COMMON_WORDS = frozenset(
    (
        *("m", "f", "h", "w", "masculin", "féminin", "feminin", "homme", "femme", "male", "female", "man", "woman"),
        *("oui", "non", "o", "n", "y", "yes", "no", "vrai", "faux", "true", "false", "v", "t"),
        *("0", "1", "2", "3", "4", "5", "9", "99", "-1", "-9", "positif", "négatif", "negatif", "positive", "negative"),
    )
)
MOST, NEARLY_ALL, FEW = 0.5, 0.95, 20  # shares of the values; values below which nothing is suspected of units
NARROW = 0.02  # of the range: values that spread less look like another unit
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?Z?")
COMMA = re.compile(r"[-+]?\d+,\d+")
THOUSANDS = re.compile(r"[-+]?\d{1,3}([ \u00a0\u202f'.,])\d{3}(\1\d{3})*([.,]\d+)?")
SCIENTIFIC = re.compile(r"\d([.,]\d+)?[eE]\+?\d{2}")


@dataclass(frozen=True)
class Factor:
    """Values times `times` plus `plus` would be in the study's unit; `of` says which change of units that is."""

    times: float
    plus: float = 0.0
    of: str = ""


FACTORS = (
    *(Factor(10.0**power) for power in (1, -1, 2, -2, 3, -3, 6, -6)),
    *(Factor(38.67, of="cholesterol, mmol/L to mg/dl"), Factor(1 / 38.67, of="cholesterol, mg/dl to mmol/L")),
    *(Factor(88.42, of="creatinine, mg/dl to \u00b5mol/l"), Factor(1 / 88.42, of="creatinine, \u00b5mol/l to mg/dl")),
    *(Factor(18.016, of="glucose, mmol/L to mg/dl"), Factor(1 / 18.016, of="glucose, mg/dl to mmol/L")),
    *(Factor(88.57, of="triglycerides, mmol/L to mg/dl"), Factor(1 / 88.57, of="triglycerides, mg/dl to mmol/L")),
    *(Factor(17.1, of="bilirubin, mg/dl to \u00b5mol/l"), Factor(1 / 17.1, of="bilirubin, \u00b5mol/l to mg/dl")),
    *(Factor(2.54, of="inches to cm"), Factor(1 / 2.54, of="cm to inches"), Factor(0.4536, of="pounds to kg")),
    *(Factor(2.2046, of="kg to pounds"), Factor(7.5006, of="kPa to mmHg"), Factor(1 / 7.5006, of="mmHg to kPa")),
    *(Factor(5 / 9, -160 / 9, "Fahrenheit to Celsius"), Factor(1.8, 32.0, "Celsius to Fahrenheit")),
    *(Factor(365.25, of="years to days"), Factor(1 / 365.25, of="days to years"), Factor(12.0, of="years to months")),
)


@dataclass(frozen=True)
class Clue:
    """Something that speaks for one cause: its `kind`, how many cells, words of the public lists, a change of unit."""

    kind: str
    count: int
    words: tuple[str, ...] = ()
    factor: Factor | None = None


def clues_of(column: Column, feature: Feature) -> list[Clue]:
    """Return what is suspected of the cells that a study's column cannot take."""
    if feature.type == "number":
        return [*_of_unread(column, feature), *_of_units(column.numbers(), feature)]
    return _of_words(column, feature)


def clues_of_ids(column: Column) -> list[Clue]:
    """Return whether ids were destroyed by a spreadsheet: 8.4E+11 stands for many patients."""
    count = int(column.each(lambda cell: SCIENTIFIC.fullmatch(cell) is not None, bool).sum())
    return [Clue("ids of a spreadsheet", count)] if count else []


def _of_unread(column: Column, feature: Feature) -> list[Clue]:
    """Return what stands where a number should: words for unknown, dates, numbers as other countries write them."""
    rows = np.flatnonzero(np.isnan(column.numbers()) & ~column.empty())
    cells = Counter(cell for cell in column.taken(rows).texts() if cell not in feature.missing)
    words = {cell: count for cell, count in cells.items() if cell.casefold() in UNKNOWN_WORDS}
    counts = {
        "dates": _matching(cells, DATE),
        "decimal comma": _matching(cells, COMMA),
        "thousands": _matching({c: n for c, n in cells.items() if not COMMA.fullmatch(c)}, THOUSANDS),
    }
    clues = [Clue("words for unknown", sum(words.values()), tuple(sorted(words)))] if words else []
    return clues + [Clue(kind, count) for kind, count in counts.items() if count]


def _matching(cells: Mapping[str, int], pattern: re.Pattern[str]) -> int:
    return sum(count for cell, count in cells.items() if pattern.fullmatch(cell))


def _of_units(values: NDArray[np.float64], feature: Feature) -> list[Clue]:
    """Return a change of units that would bring nearly all values into the range, where most are outside or crowded."""
    low, high = feature.minimum, feature.maximum
    codes = [float(code) for code in feature.missing if re.fullmatch(r"[-+]?\d+(\.\d+)?", code)]
    values = values[~np.isnan(values) & ~np.isin(values, codes)]
    if low is None or high is None or len(values) < FEW:
        return []
    outside = (values < low) | (values > high)
    ends = np.quantile(values, [0.05, 0.95])
    is_crowded = not outside.any() and 0 < ends[1] - ends[0] < NARROW * (high - low)
    if outside.mean() <= MOST and not is_crowded:
        return []
    factor = _factor(values, low, high)
    kind = "crowded" if is_crowded else "another unit"
    return [Clue(kind, int(outside.sum()), factor=factor)] if factor or not is_crowded else []


def _factor(values: NDArray[np.float64], low: float, high: float) -> Factor | None:
    """Return the change of units after which most values are in the range and their median nearest to its middle."""
    best: tuple[float, Factor] | None = None
    for factor in FACTORS:
        changed = values * factor.times + factor.plus
        if ((changed >= low) & (changed <= high)).mean() >= NEARLY_ALL:
            distance = abs(float(np.median(changed)) - (low + high) / 2)
            best = (distance, factor) if best is None or distance < best[0] else best
    return best[1] if best else None


def _of_words(column: Column, feature: Feature) -> list[Clue]:
    """Return what the words are that a study does not list, as far as public lists have them."""
    listed = {*feature.values, *feature.missing}
    alike = {value.casefold(): value for value in feature.values}
    cells = Counter(cell for cell in column.texts() if cell and cell not in listed)
    odd = {cell: count for cell, count in cells.items() if not _is_number_of(cell, listed)}
    unknown = {cell: count for cell, count in odd.items() if cell.casefold() in UNKNOWN_WORDS}
    spelled = {cell: count for cell, count in odd.items() if cell.casefold() in alike and cell not in unknown}
    common = {c: n for c, n in odd.items() if c.casefold() in COMMON_WORDS and c not in unknown and c not in spelled}
    clues = [
        Clue("words for unknown", sum(unknown.values()), tuple(sorted(unknown))),
        Clue("another case", sum(spelled.values()), tuple(sorted(spelled))),
        Clue("common words", sum(common.values()), tuple(sorted(common))),
        Clue("different words", len(odd)),
    ]
    return [clue for clue in clues if clue.count]


def _is_number_of(cell: str, listed: set[str]) -> bool:
    """Return whether a cell is a listed number that is written otherwise: 1.0 for 1."""
    try:
        value = float(cell)
    except ValueError:
        return False
    return any(re.fullmatch(r"[-+]?\d+(\.\d+)?", word) and float(word) == value for word in listed)
