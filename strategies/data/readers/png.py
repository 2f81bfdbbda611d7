"""The reader of PNG pictures: 8 or 16 bits, grey or colour, with a palette or transparency.

Transparency is left out, and so is what a file says of its orientation or colour space. A picture of labels keeps the
numbers of a palette in the place of its colours. Of 16 bits of colour the upper 8 are kept (Pillow).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record
from strategies.data.readers.base import Reader, only_file, require_readable
from strategies.data.source import Located

_GREY = ("1", "L", "I", "I;16", "F")


class PngReader(Reader):
    """Reads PNG files with Pillow."""

    name = "png"
    needs = ("PIL",)

    def read(self, record: Located, column: Record) -> NDArray[Any]:
        """Return (channels, height, width): one channel of grey, three of colour."""
        from PIL import Image

        with Image.open(only_file(record), formats=("PNG",)) as picture:
            require_readable(picture.width, picture.height, len(picture.getbands()))
            if picture.mode == "P" and column.labels:
                return np.asarray(picture)[None]
            if picture.mode == "LA":
                picture = picture.convert("L")  # type: ignore[assignment]
            elif picture.mode not in _GREY:
                picture = picture.convert("RGB")  # type: ignore[assignment]
            pixels = np.asarray(picture)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


PNG = PngReader()
