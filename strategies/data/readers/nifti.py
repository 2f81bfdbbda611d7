"""The reader of NIfTI volumes: one file, compressed or not, its axes brought to those of an axial DICOM series.

The axes of a record are (slice, row, column): from feet to head, from front to back, from the patient's right to left.
Values are scaled as the header says. A file with several volumes is no record.
"""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record
from strategies.data.readers.base import Reader, only_file, require_readable
from strategies.data.source import Located, UnreadError, Why


class NiftiReader(Reader):
    """Reads NIfTI files with nibabel."""

    name = "nifti"
    needs = ("nibabel",)

    def read(self, record: Located, column: Record) -> NDArray[Any]:
        """Return (slices, rows, columns), or (rows, columns) where there is one slice."""
        import nibabel

        del column
        logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)
        path = only_file(record)
        image: Any = nibabel.load(path)
        sides = image.shape
        require_readable(*sides)
        if len(sides) < 2 or any(side > 1 for side in sides[3:]):
            raise UnreadError(Why.SHAPE)
        upright = nibabel.as_closest_canonical(image)  # type: ignore[no-untyped-call]
        values = np.asarray(upright.dataobj, np.float32)
        volume = values.reshape(*values.shape[:3], *[1] * (3 - values.ndim))
        ordered = volume.transpose(2, 1, 0)[:, ::-1, ::-1]  # right, anterior, superior: each axis ends there before
        return ordered[0] if len(ordered) == 1 else ordered


NIFTI = NiftiReader()
