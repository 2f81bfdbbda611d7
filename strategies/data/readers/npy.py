"""The reader of arrays as NumPy saves them: images or series, numbers alone and never a pickle."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record
from strategies.data.readers.base import Reader, only_file, require_readable
from strategies.data.source import Located, UnreadError, Why


class NpyReader(Reader):
    """Reads `.npy` files."""

    name = "npy"

    def read(self, record: Located, column: Record) -> NDArray[Any]:
        """Return (channels, sides...), or (sides...) of one channel."""
        del column
        array = np.load(only_file(record), mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise UnreadError(Why.UNREADABLE)
        require_readable(*array.shape)
        return np.asarray(array)


NPY = NpyReader()
