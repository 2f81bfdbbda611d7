"""OMOP CDM 5.4 over one of the data bases: what site.yaml declares becomes one query, read as any other is.

The query's text is written in configs/schema/omop_query.py, so that a person can read it before anything is asked.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from client.connectors.base import Connector
from client.connectors.columns import Column
from client.connectors.notes import Notes
from client.connectors.sql import SqlConnector
from configs.schema.omop import OmopCohort


class Omop(Connector):
    """A cohort of a CDM, through the connector of the data base that holds it."""

    name, section = "omop", OmopCohort
    keeper, remedy = SqlConnector.keeper, SqlConnector.remedy

    def __init__(self, databases: Mapping[str, SqlConnector]) -> None:
        """Read through these connectors, by the name that `database` has for each."""
        self._databases = databases

    def columns(
        self, source: OmopCohort, wanted: Mapping[str, str], optional: Collection[str], notes: Notes
    ) -> Mapping[str, Column]:
        """Return the wanted columns of the cohort's rows, in the order of persons and index dates."""
        return self._databases[source.database].columns(source, wanted, optional, notes)

    def probe(self, source: OmopCohort, wanted: Mapping[str, str]) -> None:
        """Let the data base plan the query and name its columns; it is not run."""
        self._databases[source.database].probe(source, wanted)

    def attempt(self, source: OmopCohort) -> None:
        """Open a session and let the data base plan the query."""
        self._databases[source.database].attempt(source)

    def files(self, source: OmopCohort, environment: Mapping[str, str]) -> set[Path]:
        """Return the files that the data base's driver reads."""
        return self._databases[source.database].files(source, environment)

    def has_socket(self, source: OmopCohort, environment: Mapping[str, str]) -> bool:
        """Return whether the data base is reached through a Unix socket of this machine."""
        return self._databases[source.database].has_socket(source, environment)

    def binds(self, source: OmopCohort) -> bool:
        """Return whether the data base's driver binds its own end of a connection first."""
        return self._databases[source.database].binds(source)
