"""The task type `segmentation`: a mask of each image, judged by the Dice coefficient.

The loss of an image is one less its soft Dice (Milletari et al. 2016, arXiv 1606.04797), the mean over structures, or
the mean cross entropy of its places. A patient's images are added up before the clip, as any rows.

A patient's score is the mean Dice of the patient's images, from 0 to 1: what a place belongs to where its output is
above 0, against the mask; 1 where neither the model nor the mask has any of a structure. The score of a hospital is the
mean over patients.

>>> from configs.schema import Segmentation as Keys
>>> task = Segmentation(Keys("segmentation", "mask", size=(2, 2)))
>>> task.score(np.array([[[[9.0, 9.0], [-9.0, -9.0]]]]), np.array([[[[1.0, 1.0], [0.0, 0.0]]]], np.float32))
1.0
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Segmentation as SegmentationTask
from strategies.exact.functions import sigmoid
from strategies.tasks.masks import MaskOutcome
from strategies.tasks.metrics import Floats
from strategies.tasks.scores import score_metric

if TYPE_CHECKING:
    from torch import Tensor

_SMOOTH = 1.0  # places that soft Dice adds to both: an image without the structure has a gradient too
DICE = score_metric(
    "dice", "Dice", "how far model and mask agree: twice their common places over the places of both; 1 is perfect"
)


class Segmentation(MaskOutcome):
    """Masks. `y` is (rows, 1, sides...) of labels; outputs are (rows, structures, sides...), above 0 for yes."""

    name = "segmentation"
    metrics = (DICE,)
    prediction = "the share of each place in"
    task: SegmentationTask

    @property
    def outputs(self) -> int:
        """Return one output for each structure, at every place."""
        return len(self.task.structures)

    @property
    def predicted(self) -> tuple[str, ...]:
        """Return the structures."""
        return self.task.structures

    @property
    def residual_bound(self) -> tuple[float, float]:
        """Return no bound: only linear stacks are asked for one."""
        return math.inf, math.inf

    @property
    def remark(self) -> str:
        """Return what the labels mean."""
        if len(self.task.structures) == 1:
            return f"of the mask, every label above 0 is {self.task.structures[0]}"
        labels = ", ".join(f"{label} {name}" for label, name in enumerate(self.task.structures, 1))
        return f"of the mask, the labels are {labels}"

    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return the loss of each image: (rows,)."""
        from torch.nn import functional

        inside = self._inside(y).to(outputs.dtype)
        if self.task.loss == "bce":
            each = functional.binary_cross_entropy_with_logits(outputs, inside, reduction="none")
            mean: Tensor = each.flatten(1).mean(1)
            return mean
        chance, inside = outputs.sigmoid().flatten(2), inside.flatten(2)  # (rows, structures, places)
        both, either = (chance * inside).sum(2), chance.sum(2) + inside.sum(2)
        soft: Tensor = ((2 * both + _SMOOTH) / (either + _SMOOTH)).mean(1)
        return 1 - soft

    def residual(self, outputs: Floats, y: NDArray[np.float32]) -> Floats:
        """Raise, as only linear stacks are asked for it."""
        raise NotImplementedError

    def predict(self, outputs: Floats) -> Floats:
        """Return the share of each place in each structure: (rows, structures, sides...)."""
        return sigmoid(outputs)

    def score(self, outputs: Floats, y: NDArray[np.float32]) -> float:
        """Return the mean Dice over one patient's images and the structures."""
        inside, found = self._inside(y), outputs > 0
        places = tuple(range(2, outputs.ndim))
        both, either = (inside & found).sum(places), inside.sum(places) + found.sum(places)
        return float(np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0).mean())

    def _inside(self, y: Any) -> Any:
        """Return which places are in which structure: (rows, structures, sides...) booleans."""
        if self.outputs == 1:
            return y > 0
        labels = np.arange(1, self.outputs + 1, dtype=np.float32).reshape(1, -1, *(1,) * (y.ndim - 2))
        return y == (labels if isinstance(y, np.ndarray) else y.new_tensor(labels))
