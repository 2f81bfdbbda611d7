"""Decode one record: found, read, and brought to the study's size and scale, or unknown.

Nothing here refuses because of a record: one that cannot be read is unknown, for whatever reason, and is counted for
the hospital's own people.
"""

import warnings
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record
from strategies.data.fit import fit, is_resized
from strategies.data.readers.registry import READERS
from strategies.data.source import Files, UnreadError, Why


@dataclass
class Unread:
    """Counts of one column's records: those that were not read by why, and images of another size than the study's."""

    why: Counter[Why] = field(default_factory=Counter)
    resized: int = 0

    @property
    def words(self) -> dict[str, int]:
        """Return the counts by the reason in words."""
        return {why.value: count for why, count in sorted(self.why.items(), key=lambda pair: pair[0].name)}


def decoded(files: Files | None, text: str, column: Record, unread: Unread | None = None) -> NDArray[np.float32] | None:
    """Return one record, (channels, sides...); None where it cannot be read.

    Args:
        text: the cell that names it.
        unread: gets the counts.

    Raises:
        KindError: the column's reader is not registered.
    """
    reader, counts = READERS[column.reader], Unread() if unread is None else unread
    try:
        if files is None:
            raise UnreadError(Why.MISSING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries write into them what a file holds
            values = np.asarray(reader.read(files.find(text), column))
            made = _as_it_is(values, column) if reader.is_ready else fit(values, column)
    except UnreadError as error:
        counts.why[error.why] += 1
        return None
    except (Exception, SystemExit):  # a library's, of whatever kind: its text may hold a patient's value
        counts.why[Why.UNREADABLE] += 1
        return None
    counts.resized += not reader.is_ready and is_resized(values, column)
    return made


def _as_it_is(values: NDArray[np.float32], column: Record) -> NDArray[np.float32]:
    if values.shape != column.full_shape:
        raise UnreadError(Why.SHAPE)
    return np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
