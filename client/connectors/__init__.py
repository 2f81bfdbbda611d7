"""Connectors read a hospital's own store and hand over a checked `Table`. The only folder that touches patients' data.

One that reads a data base connects to an address of site.yaml's `worker_network`; client/forwarder.py says how.

>>> sorted(CONNECTORS)
['csv']
"""

from collections.abc import Callable, Mapping

from client.connectors.csv_file import read_csv
from configs.schema import DataSource, Study
from strategies.tasks.table import Table

CONNECTORS: Mapping[str, Callable[[DataSource, Study], Table]] = {"csv": read_csv}


def read_table(source: DataSource, study: Study) -> Table:
    """Rows of one data source, checked against the study.

    Raises:
        DataError: the data do not fit the study; the text names columns and rows, never values.
    """
    return CONNECTORS[source.connector](source, study)
