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
ANOTHER_UNIT = "another unit"
OTHER_WORDS = "other words"  # a clue whose count is that of different words, not of cells
MOST, NEARLY_ALL, FEW = 0.5, 0.95, 20  # shares of the values; values below which nothing is suspected of units
NARROW = 0.02  # of the range: values that spread less look like another unit
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?Z?")
COMMA = re.compile(r"[-+]?\d+,\d+")
THOUSANDS = re.compile(r"[-+]?\d{1,3}([ \u00a0\u202f'.,])\d{3}(\1\d{3})*([.,]\d+)?")
SCIENTIFIC = re.compile(r"\d([.,]\d+)?[eE]\+?\d{2}")


@dataclass(frozen=True)
class Factor:
    """Values times `times` plus `plus` would be in the unit `to`; `of` says of what, and `names` how columns begin."""

    times: float
    plus: float = 0.0
    to: str = ""
    of: str = ""
    names: tuple[str, ...] = ()


def _both(times: float, one: str, other: str, of: str, *names: str) -> tuple[Factor, Factor]:
    """Return the change from one unit to another, and back."""
    return (
        Factor(times, 0.0, other, f"{of}{one} to {other}", names),
        Factor(1 / times, 0.0, one, f"{of}{other} to {one}", names),
    )


TENS = tuple(Factor(10.0**power) for power in (1, -1, 2, -2, 3, -3, 6, -6))
FACTORS = (
    *_both(38.67, "mmol/l", "mg/dl", "cholesterol, ", "chol", "ldl", "hdl"),
    *_both(18.016, "mmol/l", "mg/dl", "glucose, ", "gluc", "glyc", "gaj"),
    *_both(88.57, "mmol/l", "mg/dl", "triglycerides, ", "trig", "tg"),
    *_both(88.42, "mg/dl", "\u00b5mol/l", "creatinine, ", "creat", "cr\u00e9at"),
    *_both(17.1, "mg/dl", "\u00b5mol/l", "bilirubin, ", "bili"),
    *_both(59.48, "mg/dl", "\u00b5mol/l", "uric acid, ", "uric", "urat"),
    *_both(2.54, "in", "cm", "", "height", "taille"),
    *_both(0.4536, "lb", "kg", "", "weight", "poids"),
    *_both(7.5006, "kpa", "mmhg", ""),
    *(
        Factor(5 / 9, -160 / 9, "\u00b0c", "Fahrenheit to Celsius"),
        Factor(1.8, 32.0, "\u00b0f", "Celsius to Fahrenheit"),
    ),
    *_both(365.25, "years", "days", ""),
    *_both(12.0, "years", "months", ""),
    *_both(30.4375, "months", "days", ""),
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
    factor = _factor(values, feature)
    kind = "crowded" if is_crowded else ANOTHER_UNIT
    return [Clue(kind, int(outside.sum()), factor=factor)] if factor or not is_crowded else []


def _factor(values: NDArray[np.float64], feature: Feature) -> Factor | None:
    """Return the likeliest change of units after which nearly all values are in the range.

    One of the column's own substance comes first, then one of any substance to the study's unit or a power of ten, then
    one of another substance; of several the one that brings the median nearest to the range's middle.
    """
    assert feature.minimum is not None
    assert feature.maximum is not None
    unit = (feature.unit or "").casefold().replace("\u03bc", "\u00b5")  # two signs that look alike
    name = feature.name.casefold()
    to_unit = [factor for factor in FACTORS if factor.to == unit]
    own = [factor for factor in to_unit if name.startswith(factor.names or ("\0",))]
    for factors in (own, [*TENS, *(factor for factor in to_unit if not factor.names)], to_unit):
        fits = {}
        for factor in factors:
            changed = values * factor.times + factor.plus
            if ((changed >= feature.minimum) & (changed <= feature.maximum)).mean() >= NEARLY_ALL:
                fits[abs(float(np.median(changed)) - (feature.minimum + feature.maximum) / 2)] = factor
        if fits:
            return fits[min(fits)]
    return None


def _of_words(column: Column, feature: Feature) -> list[Clue]:
    """Return what the words are that a study does not list, as far as public lists have them."""
    listed = {*feature.values, *feature.missing}
    alike = {value.casefold(): value for value in feature.values}
    cells = Counter(cell for cell in column.texts() if cell and cell not in listed)
    odd = {cell: count for cell, count in cells.items() if not _is_number_of(cell, listed)}
    unknown = {cell: count for cell, count in odd.items() if cell.casefold() in UNKNOWN_WORDS}
    spelled = {cell: count for cell, count in odd.items() if cell.casefold() in alike and cell not in unknown}
    common = {c: n for c, n in odd.items() if c.casefold() in COMMON_WORDS and c not in unknown and c not in spelled}
    others = odd.keys() - unknown.keys() - spelled.keys() - common.keys()
    clues = [
        Clue("words for unknown", sum(unknown.values()), tuple(sorted(unknown))),
        Clue("another case", sum(spelled.values()), tuple(sorted(spelled))),
        Clue("common words", sum(common.values()), tuple(sorted(common))),
        Clue(OTHER_WORDS, len(others)),
    ]
    return [clue for clue in clues if clue.count]


def _is_number_of(cell: str, listed: set[str]) -> bool:
    """Return whether a cell is a listed number that is written otherwise: 1.0 for 1."""
    try:
        value = float(cell)
    except ValueError:
        return False
    return any(re.fullmatch(r"[-+]?\d+(\.\d+)?", word) and float(word) == value for word in listed)
