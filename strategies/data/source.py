"""A hospital's rows as a connector returns them: typed, checked columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Table:
    """Columns of one hospital. A number that is unknown is NaN, a category that is unknown is -1.

    `targets` are the columns that the outcome is read from: (rows,) numbers, or positions in the column's values.
    `patients` maps each row to a position in `keys`: (rows,) integers, every patient having one row or more.
    `records` are the texts of columns of paths, below the folder `root`: (rows,) each; an unknown one is empty.
    `in_test` is given where a column of the data decides the split: (patients,) booleans.
    """

    numbers: Mapping[str, NDArray[np.float64]]
    categories: Mapping[str, NDArray[np.int64]]
    targets: Mapping[str, NDArray[np.float64]]
    patients: NDArray[np.int64]
    keys: tuple[str, ...]
    in_test: NDArray[np.bool_] | None = None
    records: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    root: Path | None = None
