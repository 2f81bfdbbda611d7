"""How site.yaml maps a study to the hospital's data, column by column, for the page that a person reads."""

from collections.abc import Iterator

from client.connectors.checks import columns_of
from client.connectors.mapping import misfits, remarks
from configs.schema import DataSource, Feature, Study
from configs.schema.mapping import DECIMALS, THOUSANDS
from configs.shown import shown

_MOST_WORDS = 12  # of a column, on one line


def mapping_lines(source: DataSource, study: Study) -> list[str]:
    """Return a line for each column that is mapped, for the whole source, and a warning for each misfit; none without.

    No row is looked at: it is what site.yaml and the study say.
    """
    counted = {column.name: column for column in study.counted}
    columns = [
        f"{shown(name)}: {'; '.join(parts)}"
        for name in columns_of(study)
        if (parts := list(_of_column(source, name, counted.get(name))))
    ]
    warnings = [f"WARNING {text}" for text in (*misfits(source, study).found, *remarks(source, study))]
    return [*columns, *_of_all(source), *warnings]


def _of_column(source: DataSource, name: str, column: Feature | None) -> Iterator[str]:
    """Yield what is said of one column alone."""
    dates = next((dates for dates in source.dates if dates.name == name), None)
    if dates is not None:
        yield str(dates)
    if (local := dict(source.columns).get(name)) is not None:
        yield f"column {shown(local)}"
    if pairs := dict(source.words).get(name, ()):
        words = [f"{shown(word)} is {shown(meaning) if meaning else 'unknown'}" for word, meaning in pairs]
        more = f" and {len(words) - _MOST_WORDS} more" if len(words) > _MOST_WORDS else ""
        yield ", ".join(words[:_MOST_WORDS]) + more
    if codes := dict(source.missing).get(name, ()):
        yield f"unknown where {', '.join(map(shown, codes))}"
    unit = next((unit for unit in source.units if unit.name == name), None)
    if unit is not None:
        declared = column is None or column.unit is not None
        yield f"{unit}{'' if declared else ' (the study declares no unit)'}"


def _of_all(source: DataSource) -> Iterator[str]:
    """Yield what is said of every column, or of the file."""
    if codes := dict(source.missing).get("", ()):
        yield f"every column but the patient's id: unknown where {', '.join(map(shown, codes))}"
    signs = []
    if source.decimal_sign != ".":
        signs.append(f"a {_name(source.decimal_sign, DECIMALS)} before decimals")
    if source.thousands_sign:
        signs.append(f"a {_name(source.thousands_sign, THOUSANDS)} between thousands")
    if signs:
        yield f"numbers: {', '.join(signs)}"
    if form := source.form:
        yield f"file: {form}"


def _name(sign: str, names: dict[str, str]) -> str:
    return next(name for name, each in names.items() if each == sign)
