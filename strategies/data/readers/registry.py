"""The registered readers of records, by the name in a study's `features`.

>>> READERS.names
('png', 'dicom', 'nifti', 'csv', 'npy')
"""

from configs.kinds import Family, Registry
from configs.kit import PART
from configs.schema.records import READER_KEYS, ReaderKeys
from strategies.data.readers.base import Reader
from strategies.data.readers.csv_series import CSV_SERIES
from strategies.data.readers.dicom import DICOM
from strategies.data.readers.nifti import NIFTI
from strategies.data.readers.npy import NPY
from strategies.data.readers.of_a_kit import FAMILY, KitReader
from strategies.data.readers.png import PNG

READERS: Registry[Reader] = Registry("reader", ("read",), [PNG, DICOM, NIFTI, CSV_SERIES, NPY])
READERS.register_family(Family(FAMILY, PART, KitReader))


def register(reader: Reader, keys: ReaderKeys | None = None) -> None:
    """Add a reader, so that studies may name it; that of a study kit, `kit/name`, needs no keys.

    Raises:
        KindError: another one has its name, it lacks a part, or its keys have another name.
    """
    if keys is None:
        READERS.register(reader)
    else:
        READERS.register_with(reader, keys, READER_KEYS)
