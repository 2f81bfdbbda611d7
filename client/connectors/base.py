"""The interface of a connector, which reads the rows of one kind of source at a hospital.

A connector hands over columns (client/connectors/columns.py); client/connectors/checks.py makes a typed table of them,
and notes what is odd. It may raise what the store or its header decides, never what a row decides: a refusal would tell
that the row is there.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from client.connectors.columns import Column
from client.connectors.notes import Notes
from client.findings import DATA
from configs.schema import DataSource


class Connector(ABC):
    """Reads one kind of source; `section` is that source's class, with the keys that a file may give.

    Where something is wrong with the data, `keeper` says who mends it, and `remedy` how.
    """

    name: ClassVar[str]
    section: ClassVar[type[DataSource]]
    keeper: ClassVar[str] = DATA
    remedy: ClassVar[str] = "correct the data, or tell the consortium"

    @abstractmethod
    def columns(
        self, source: Any, wanted: Mapping[str, str], optional: Collection[str], notes: Notes
    ) -> Mapping[str, Column]:
        """Return the wanted columns of every row, and those optional ones that the store has once.

        Args:
            source: one of the class `section`.
            wanted: the columns' names in the store, and what each is read as: "number", "category" or "text".
            notes: gets the counts of what was come upon, and the rows' numbers for people.

        Raises:
            SourceError: the store does not open. DataError: it does not have the wanted columns.
        """

    @abstractmethod
    def probe(self, source: Any, wanted: Mapping[str, str]) -> None:
        """See whether the source opens and has the wanted columns, by its header alone; no row is looked at.

        Raises:
            SourceError, DataError: as `columns`.
        """

    def attempt(self, source: Any) -> None:
        """See whether the source could be read, without any study; a file is left to the checks of its path.

        Raises:
            SourceError: it could not.
        """
        del source

    def files(self, source: Any, environment: Mapping[str, str]) -> set[Path]:
        """Return the files, beside the source's own path, that reading it opens; `environment` is the worker's."""
        del source, environment
        return set()

    def has_socket(self, source: Any, environment: Mapping[str, str]) -> bool:
        """Return whether the source is reached through a Unix socket of this machine."""
        del source, environment
        return False

    def binds(self, source: Any) -> bool:
        """Return whether a driver binds its own end of a connection to any free port first; the fence then lets it."""
        del source
        return False
