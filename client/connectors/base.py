"""The interface of a connector, which reads the rows of one kind of source at a hospital.

A connector hands over cells as text, a column a name; client/connectors/checks.py makes a typed table of them, and
notes what is odd. It may raise what the store or its header decides, never what a row decides: a refusal would tell
that the row is there.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from client.connectors.notes import Notes
from client.findings import DATA
from configs.schema import DataSource, Study
from strategies.data.source import Table


class Connector(ABC):
    """Reads one kind of source; `section` is that source's class, with the keys that a file may give.

    Where something is wrong with the data, `keeper` says who mends it, and `remedy` how.
    """

    name: ClassVar[str]
    section: ClassVar[type[DataSource]]
    keeper: ClassVar[str] = DATA
    remedy: ClassVar[str] = "correct the data, or tell the consortium"

    @abstractmethod
    def read(self, source: Any, study: Study, notes: Notes) -> Table:
        """Return the study's columns of every row.

        Args:
            source: one of the class `section`.
            notes: gets the counts of what was come upon.

        Raises:
            SourceError: the store does not open. DataError: it does not have the study's columns.
        """

    @abstractmethod
    def probe(self, source: Any, study: Study) -> None:
        """See whether the source opens and has the study's columns, by its header alone; no row is looked at.

        Raises:
            SourceError, DataError: as `read`.
        """

    def attempt(self, source: Any) -> None:
        """See whether the source could be read, without any study; a file is left to the checks of its path.

        Raises:
            SourceError: it could not.
        """
        del source
