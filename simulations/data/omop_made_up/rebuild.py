"""Write the CSV extracts anew: make each hospital's CDM in a PostgreSQL, ask it as omop_risk.yaml says, keep the rows.

    python -m simulations.data.omop_made_up.rebuild --url postgresql://me:secret@localhost/scratch [--check]

The data base is a scratch one: the schemas cdm_nord, cdm_sud and cdm_ouest are made anew in it.
"""

import argparse
import contextlib
import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg

from client.connectors.notes import Notes
from client.connectors.registry import CONNECTORS
from configs.keys.values import Place
from configs.schema.omop import OmopCohort
from configs.schema.source import SOURCE
from configs.sections import Section
from configs.strict_yaml import read_yaml
from simulations.data.omop_made_up.cdm import COLUMNS, HOSPITALS, Cdm, made_cdm, statements

FOLDER = Path(__file__).resolve().parent
DEFINITION = FOLDER / "source.yaml"
VARIABLE = "OMOP_MADE_UP_URL"


def load(url: str, schema: str, cdm: Cdm, reader: str = "") -> None:
    """Make a CDM of a schema in a PostgreSQL; `reader` may select from it."""
    with contextlib.closing(psycopg.connect(url)) as connection, connection:
        for statement in statements(schema):
            connection.execute(statement.encode())
        for table, rows in cdm.items():
            with connection.cursor().copy(
                f"copy {schema}.{table} ({', '.join(COLUMNS[table])}) from stdin".encode()
            ) as copy:
                for row in rows:
                    copy.write_row(row)
        if reader:
            connection.execute(f"grant usage on schema {schema} to {reader}".encode())
            connection.execute(f"grant select on all tables in schema {schema} to {reader}".encode())


def source_of(hospital: str) -> OmopCohort:
    """Return how a hospital's CDM is asked: source.yaml, with the hospital's schema."""
    section = Section({"source": read_yaml(DEFINITION) | {"schema": f"cdm_{hospital}"}}, "", [])
    source = SOURCE.read(Place(section, "source", section.take("source"), {"folder": FOLDER}))
    if section.problems or not isinstance(source, OmopCohort):
        raise ValueError("\n".join(section.problems))
    return source


def extract(hospital: str) -> str:
    """Return the rows of a hospital's cohort as CSV, the address in the variable."""
    source = source_of(hospital)
    names = dict.fromkeys((name for name, _ in source.define), "text")
    columns = CONNECTORS[source.connector].columns(source, names, (), Notes())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*(columns[name].texts() for name in names), strict=True))
    return text.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Write the extracts, or with --check say whether they are what the data base gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="a scratch data base of PostgreSQL")
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args(argv)
    os.environ[VARIABLE] = arguments.url
    different = 0
    for hospital in HOSPITALS:
        load(arguments.url, f"cdm_{hospital}", made_cdm(hospital))
        text, path = extract(hospital), FOLDER / f"{hospital}.csv"
        different += not path.exists() or path.read_text() != text
        if not arguments.check:
            path.write_text(text)
    print(f"{different} of {len(HOSPITALS)} files are not what the data base gives" if arguments.check else "written")
    return min(1, different) if arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
