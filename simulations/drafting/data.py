"""The command `archipel data`; nothing heavy is imported until it runs."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import RunError
from configs.views import to_json

if TYPE_CHECKING:
    from configs.records.data_page import DataPage
    from configs.records.file_profile import FileColumn, FileProfile
    from configs.schema import DataSource, Study


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `data` to the commands."""
    data = commands.add_parser("data", help="what the columns of a file look like, or what a study would read of it")
    data.add_argument("file", type=Path, metavar="FILE", help="your own or a public file: CSV or Parquet")
    about = "a study file: what it would read of the file, as a hospital sees it (default: the file alone)"
    data.add_argument("--study", dest="of_study", type=Path, metavar="STUDY", help=about)
    data.add_argument("--json", action="store_true", help="as JSON")
    data.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Show a file.

    Raises:
        ArchipelError: the file or the study cannot be read.
    """
    from client.views.data_text import data_page

    if not arguments.file.exists():
        raise RunError(f"{arguments.file}: expected a file, found none; correct the path")
    if arguments.of_study is None:
        from simulations.drafting.profile import profiled

        profile = profiled(arguments.file)
        print(to_json(profile) if arguments.json else "\n".join(_lines(profile)))
        return 0
    page = page_of_file(arguments.file, arguments.of_study)
    section = "the file's source: simulation.sites in a study, datasets in site.yaml"
    print(to_json(page) if arguments.json else "\n".join(data_page(page, section)))
    return 0


def page_of_file(path: Path, study_file: Path) -> "DataPage":
    """Return what a study would read of a file, mapped as its own `simulation` says where that names the file.

    Raises:
        ArchipelError: the file or the study cannot be read, or the header does not fit.
    """
    from client.connectors.notes import Notes
    from client.looking import page_of
    from client.patients import load_patients
    from simulations.complete import load_completed

    study = load_completed(study_file)
    site, source = _source(study, path)
    notes = Notes(thorough=True)
    people = load_patients(source, study, site, notes)
    return page_of(study, notes, people, site=site)


def _source(study: "Study", path: Path) -> "tuple[str, DataSource]":
    """Return the hospital of the simulation that has this file, and its source; else the file as its bytes show it."""
    from simulations.drafting.profile import source_of

    for site, source in study.simulation:
        if source.path is not None and source.path.resolve() == path.resolve():
            return site, source
    return "", source_of(path)


def _lines(profile: "FileProfile") -> Iterator[str]:
    """Yield a profile's lines for a terminal."""
    from client.views.data_text import findings, table

    yield f"{profile.file}: {profile.rows:,} rows"
    yield f"source: {profile.source}"
    yield ""
    yield from table(
        [
            ("column", "looks like", "values", "distinct", "unknown"),
            *(_cells(c, profile.rows) for c in profile.columns),
        ],
        3,
    )
    yield ""
    yield from findings(profile.findings, "the file's source: simulation.sites in a study, datasets in site.yaml")
    yield "ranges and values of a study come from public documentation, never from patients: archipel new"


def _cells(column: "FileColumn", rows: int) -> tuple[str, ...]:
    from client.views.data_text import share
    from configs.shown import escaped, short

    values = ", ".join(column.values)
    if column.low is not None and column.high is not None:
        values = f"{column.low:g} to {column.high:g}"
    return (
        short(escaped(column.name), 30),
        column.looks_like,
        short(escaped(values), 40),
        f"{column.distinct:,}",
        share(column.unknown, rows),
    )
