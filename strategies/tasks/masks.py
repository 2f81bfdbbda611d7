"""Outcomes that are a mask of each image: what tasks with such an outcome have alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema.masks import MaskTask
from strategies.tasks.base import Objective
from strategies.tasks.metrics import Floats


class MaskOutcome(Objective):
    """An outcome that is read with the images: `y` is (rows, 1, sides...) of labels. Each patient has one score."""

    has_score = True
    task: MaskTask

    def encode(self, targets: Mapping[str, Floats]) -> tuple[Floats, Mapping[str, int]]:
        """Return no numbers: masks are read with the images."""
        return np.empty((len(targets.get(self.task.target, ())), 0)), {}

    def made_up(self, rows: int) -> NDArray[np.float32]:
        """Return masks with every second place in the first structure."""
        y = np.zeros((rows, 1, *self.task.size), np.float32)
        y[..., ::2] = 1.0
        return y

    def in_unit(self, y: NDArray[Any]) -> Floats:
        """Return nothing but how many rows there are: scores hold what is judged."""
        return np.zeros(len(y))
