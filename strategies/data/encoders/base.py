"""The interface of an encoder: a fixed public function that makes numbers of one image.

What it makes of an image depends on that image alone, and every number is in [-1, 1] by construction.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record


class Encoder(ABC):
    """Makes numbers of images."""

    name: ClassVar[str]

    @abstractmethod
    def encode(self, record: NDArray[np.float32], column: Record) -> NDArray[np.float64]:
        """Return (numbers,) in [-1, 1], as many as `column.encoded`.

        Args:
            record: (channels, sides...), as the study brings every record to its size and scale.
        """
