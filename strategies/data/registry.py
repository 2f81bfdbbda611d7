"""The registered kinds of patients' data.

>>> DATA.names
('table', 'cells', 'person_periods', 'records')
"""

from configs.kinds import Registry
from configs.schema import Study
from strategies.data.base import DataKind
from strategies.data.cells import CELLS
from strategies.data.person_periods import PERSON_PERIODS
from strategies.data.records import RECORDS
from strategies.data.table import TABLE

DATA: Registry[DataKind] = Registry(
    "kind of data", ("read", "scaled", "nobody"), [TABLE, CELLS, PERSON_PERIODS, RECORDS]
)


def data_of(study: Study) -> DataKind:
    """Return how a study reads patients: rows of a table or cells, as its task says."""
    return DATA[study.data]
