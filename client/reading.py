"""One study's patients as they were last read, whole.

Reading is apart from refusing: `probe` and `require` look at no row and may refuse; `patients` looks at rows, and in a
private study whatever fails in it leaves as noise alone (client/site.py).
"""

from client.connectors import probe
from client.site import Patients, load_patients
from configs.schema import DataSource, Study


class Reading:
    """The data set of one study at one hospital."""

    def __init__(self, source: DataSource, study: Study, site: str) -> None:
        self._source, self._study, self._site = source, study, site
        self._patients: Patients | None = None

    def probe(self) -> None:
        """See whether the source opens and has the study's columns, whatever its rows hold.

        Raises:
            SourceError: it does not open. DataError: a column is missing.
        """
        probe(self._source, self._study)

    def require(self) -> None:
        """See, before a booking, that there is something to train on: a reading, or a source that opens.

        Raises:
            SourceError, DataError: neither.
        """
        if self._patients is None:
            self.probe()

    def patients(self) -> Patients:
        """Return the patients, who are read at first use.

        Raises:
            SourceError, DataError: they cannot be read.
        """
        if self._patients is None:
            self._patients = load_patients(self._source, self._study, self._site)
        return self._patients
