"""What a study would read of a source, as a page: a table of columns, and findings with what to do about each.

Built of the notes of one thorough reading (client/connectors/notes.py), for `archipel-site check --data`, for
`review --data` and, of a researcher's own file, for `archipel data`. Where a key of site.yaml can mend something, the
very line is given, for the data set's section (configs/schema/mapping.py). No cell's text is on it but words of public
lists (client/connectors/clues.py).
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from client.connectors.clues import ANOTHER_UNIT, MOST, OTHER_WORDS, Clue
from client.connectors.notes import MANY, ColumnNotes, Notes
from client.patients import Split
from configs.records.data_page import ColumnLook, DataFinding, DataPage
from configs.schema import Feature, Record, Study
from configs.shown import shown
from strategies.data.base import TrainablePatients
from strategies.data.registry import data_of
from strategies.telltale import telltale

FEW_LISTED = 12  # values of a category that are named in a table
FAR_FROM_ANNOUNCED = 2.0  # times more or fewer patients than the study announces


def page_of(study: Study, notes: Notes, people: Split, *, site: str = "", min_patients: int = 0) -> DataPage:
    """Return the page of one thorough reading.

    Args:
        site: the hospital, whose announced size is compared.
        min_patients: of the hospital's policy.
    """
    features = {column.name: column for column in study.counted}
    columns = [_look(notes, column, features.get(column.name)) for column in notes.columns.values()]
    findings = [
        *_of_size(study, notes, site, min_patients),
        *(DataFinding(text=text, todo=todo) for text, todo in notes.of_rows()),
        *_of_few_equal(notes),
        *(each for column in notes.columns.values() for each in _of_column(notes, column, features.get(column.name))),
        *_of_outcome(study, people),
    ]
    return DataPage(
        name=study.name,
        study=study.sha256,
        rows=notes.rows,
        counted=notes.counted,
        patients=notes.patients,
        train=people.train.count,
        test=people.test.count if data_of(study).keeps_aside else None,
        columns=tuple(columns),
        findings=tuple(findings),
    )


def _look(notes: Notes, column: ColumnNotes, feature: Feature | None) -> ColumnLook:
    return ColumnLook(
        name=column.name,
        kind=column.kind,
        unit=(feature.unit if feature else None) or "",
        expected=_expected(feature),
        rows=notes.rows,
        unknown=column.unknown,
        unread=column.unread,
        outside=column.outside,
    )


def _expected(feature: Feature | None) -> str:
    """Return the study's range or values."""
    if feature is None:
        return ""
    if isinstance(feature, Record):
        return f"{' x '.join(map(str, feature.full_shape))}, {feature.reader}"
    if feature.values:
        more = len(feature.values) - FEW_LISTED
        return ", ".join(map(_plain, feature.values[:FEW_LISTED])) + (f" and {more} more" if more > 0 else "")
    if feature.minimum is None or feature.maximum is None:
        return ""
    return f"{feature.minimum:g} to {feature.maximum:g}"


def _plain(word: str) -> str:
    return shown(word)[1:-1]


# Findings about rows and patients


def _of_size(study: Study, notes: Notes, site: str, min_patients: int) -> Iterator[DataFinding]:
    announced, patients = study.announced_patients(site), notes.patients
    if patients < min_patients:
        yield DataFinding(
            text=f"{patients:,} patients, fewer than {min_patients:,} (policy.min_patients of site.yaml)",
            todo="see whether the export is whole, and what counts as one patient; the node judges what is announced",
        )
    ratio = max(patients, 1) / announced if announced else 1.0
    if not 1 / FAR_FROM_ANNOUNCED <= ratio <= FAR_FROM_ANNOUNCED:
        yield DataFinding(
            text=f"{patients:,} patients, where the study announces {announced:,} of this hospital (cohort)",
            todo="see whether the export is whole, or have the consortium announce another round number: the noise "
            "follows the announced one",
        )


def _of_few_equal(notes: Notes) -> Iterator[DataFinding]:
    """Yield equal rows where they are too few to be an export twice, which the notes tell."""
    if 0 < notes.equal <= MANY * notes.counted:
        rows = "1 row equals" if notes.equal == 1 else f"{notes.equal:,} rows equal"
        yield DataFinding(text=f"{rows} another, word for word", todo="see whether a join doubled rows")


def _of_outcome(study: Study, people: Split) -> Iterator[DataFinding]:
    """Yield what is odd about the outcome: one alone, or a column that says it."""
    target = ", ".join(column.name for column in study.task.columns)
    parts = [part for part in (people.train, people.test) if isinstance(part, TrainablePatients) and part.count]
    outcomes = [part.outcomes for part in parts]
    in_words = bool(study.task.classes and outcomes) and all(y.ndim == 1 for y in outcomes)
    if in_words and len(np.unique(np.concatenate(outcomes))) == 1:
        yield DataFinding(
            column=target,
            text="all patients have the same outcome: the model learns little here",
            todo="see whether the export took one outcome alone, or whether a word of the other is not listed",
        )
    for name in telltale(study, parts):
        yield DataFinding(
            column=name,
            text=f"says {target} alone: it may be the outcome in disguise, or was written down after it",
            todo="tell the consortium; a model that reads it is of no use before the outcome is known",
        )


# Findings about a column


def _of_column(notes: Notes, column: ColumnNotes, feature: Feature | None) -> Iterator[DataFinding]:
    """Yield what is odd about a column: each known cause with its remedy, then what no cause is known for."""
    if column.why:
        yield _records(notes, column)
        return
    causes = [clue for clue in column.clues if clue.kind in _FINDINGS]
    for clue in causes:
        yield _FINDINGS[clue.kind](clue, column.name, feature)
    if sum(clue.count for clue in causes if clue.kind in _UNREAD) < column.unread:
        yield _unread(notes, column, feature)
    if column.share_outside(notes.rows) > MOST and not any(clue.kind == ANOTHER_UNIT for clue in causes):
        yield _units(Clue(ANOTHER_UNIT, column.outside), column.name, feature)
    if notes.all_unknown(column):
        todo, line = "see whether another column holds it", f"columns: {{{_key(column.name)}: LOCAL COLUMN}}"
        yield DataFinding(column=column.name, text="UNKNOWN OF ALL: is it another column?", todo=todo, line=line)


def _records(notes: Notes, column: ColumnNotes) -> DataFinding:
    """Return how many images or series cannot be read, for each reason."""
    return DataFinding(
        column=column.name,
        text="; ".join(sentence.removeprefix(f"{column.name}: ") for sentence in notes.unread_of(column)),
        todo="compare the paths with the files below root: / between folders, upper and lower case as they are",
        line="root: FOLDER",
    )


def _unread(notes: Notes, column: ColumnNotes, feature: Feature | None) -> DataFinding:
    """Return where the cells are that could not be read for no known cause."""
    text = "; ".join(sentence.removeprefix(f"{column.name}: ") for sentence in notes.unread_of(column))
    name, todo, line = _key(column.name), "look at these lines in the export", ""
    if feature is not None and feature.values:
        words = sum(clue.count for clue in column.clues if clue.kind == OTHER_WORDS)
        text += f"; {words:,} different word{'' if words == 1 else 's'} without a known meaning" if words else ""
        todo = f"map each local word to one of {', '.join(map(_word, feature.values))}, or to null where it is unknown"
        line = f"words: {{{name}: {{LOCAL WORD: {_word(feature.values[0])}}}}}"
    elif feature is not None and column.limits < column.unread:
        todo, line = "look at these lines; list codes for unknown", f"missing: {{{name}: [CODE]}}"
    return DataFinding(column=column.name, text=text, todo=todo, line=line)


def _unknown_words(clue: Clue, name: str, _feature: Feature | None) -> DataFinding:
    codes = ", ".join(_word(word) for word in clue.words)
    return DataFinding(
        column=name,
        text=f"{_cells(clue.count)} a word for unknown: {codes}",
        todo="list them as codes",
        line=f"missing: {{{_key(name)}: [{codes}]}}",
    )


def _dates(clue: Clue, name: str, feature: Feature | None) -> DataFinding:
    unit = feature.unit if feature is not None and feature.unit in ("days", "months", "years") else "days"
    return DataFinding(
        column=name,
        text=f"{_cells(clue.count)} a date, where the study expects a number",
        todo="name the two dates between which the study counts, and their form",
        line=f"dates: {{{_key(name)}: {{from: LOCAL COLUMN, to: LOCAL COLUMN, format: DD/MM/YYYY, unit: {unit}}}}}",
    )


def _decimals(clue: Clue, name: str, _feature: Feature | None) -> DataFinding:
    text = f"{_cells(clue.count)} a number with a decimal comma"
    return DataFinding(column=name, text=text, todo="say how decimals are written", line="decimal: comma")


def _thousands(clue: Clue, name: str, _feature: Feature | None) -> DataFinding:
    return DataFinding(
        column=name,
        text=f"{_cells(clue.count)} a number with a sign between thousands",
        todo="say which: space, point, comma or apostrophe",
        line="thousands: space",
    )


def _units(clue: Clue, name: str, feature: Feature | None) -> DataFinding:
    """Return a suspicion: no factor is ever applied that a person has not written."""
    unit = _word(feature.unit) if feature is not None and feature.unit else "UNIT OF THE STUDY"
    crowded = clue.kind == "crowded"
    odd = "nearly all values lie in a fiftieth of" if crowded else "MOST VALUES LIE OUTSIDE"
    factor = clue.factor
    if factor is None:
        text, times = f"{odd} the study's range: is it another unit?", "FACTOR"
    else:
        known = f" ({factor.of})" if factor.of else ""
        text = f"{odd} the study's range: is it another unit? {factor.times:.5g} times them would fit{known}"
        times = f"{factor.times:.5g}" + (f", plus: {factor.plus:.5g}" if factor.plus else "")
    return DataFinding(
        column=name,
        text=text,
        todo="ask the laboratory which unit it is, and write it with its factor, which depends on the substance",
        line=f"units: {{{_key(name)}: {{from: UNIT HERE, to: {unit}, times: {times}}}}}",
    )


def _spelled(clue: Clue, name: str, feature: Feature | None) -> DataFinding:
    values = {value.casefold(): value for value in (feature.values if feature is not None else ())}
    pairs = ", ".join(f"{_word(word)}: {_word(values[word.casefold()])}" for word in clue.words)
    return DataFinding(
        column=name,
        text=f"{_cells(clue.count)} a value of the study in other letters",
        todo="map them",
        line=f"words: {{{_key(name)}: {{{pairs}}}}}",
    )


def _common(clue: Clue, name: str, feature: Feature | None) -> DataFinding:
    values = ", ".join(map(_word, feature.values)) if feature is not None else ""
    pairs = ", ".join(f"{_word(word)}: WORD OF THE STUDY" for word in clue.words)
    return DataFinding(
        column=name,
        text=f"{_cells(clue.count)} a common word that the study does not list: {', '.join(map(_word, clue.words))}",
        todo=f"map each to one of {values}",
        line=f"words: {{{_key(name)}: {{{pairs}}}}}",
    )


def _of_spreadsheet(clue: Clue, name: str, _feature: Feature | None) -> DataFinding:
    return DataFinding(
        column=name,
        text=f"{clue.count:,} ids were shortened by a spreadsheet (as in 8.4E+11): several patients have become one",
        todo="export again, the ids as text, without opening the file in a spreadsheet",
    )


_UNREAD = ("words for unknown", "dates", "decimal comma", "thousands", "another case", "common words")
_FINDINGS: Mapping[str, Callable[[Clue, str, Feature | None], DataFinding]] = {
    "words for unknown": _unknown_words,
    "dates": _dates,
    "decimal comma": _decimals,
    "thousands": _thousands,
    ANOTHER_UNIT: _units,
    "crowded": _units,
    "another case": _spelled,
    "common words": _common,
    "ids of a spreadsheet": _of_spreadsheet,
}


def _cells(count: int) -> str:
    return f"{count:,} cell holds" if count == 1 else f"{count:,} cells hold"


def _key(name: str) -> str:
    return name if name.replace("_", "a").isalnum() and not name[0].isdigit() else f'"{name}"'


def _word(word: str) -> str:
    """Return a word as YAML has it."""
    plain = word.replace("_", "a").replace("/", "a").replace("%", "a").isalnum()
    return word if plain and word.casefold() not in ("null", "true", "false") else f'"{_plain(word)}"'
