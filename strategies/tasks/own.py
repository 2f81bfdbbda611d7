"""The task type `own`: an outcome of two words, learned with the loss and the score of a study kit.

The kit's code is run where a patient's records are: its loss by the engine, its score by the model's `evaluate`. Here
the score of a patient, a risk in [0, 1], is all that is known of it; what is made of the score is as for any outcome.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from configs.errors import KindError
from configs.records.result import Bin
from configs.schema import Study
from configs.schema.kit import KitKeys
from strategies.kits.shelf import SHELF
from strategies.tasks.classification import AUPRC, BALANCED_ACCURACY, BRIER, Classification, calibration
from strategies.tasks.metrics import Floats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Own(Classification):
    """A kit's loss: y is 1 with the outcome, else 0. `model` is the study's section of a kit's model."""

    name = "own"
    prediction = "the probability of"
    outcome = 1
    metrics = (*Classification.metrics, AUPRC)
    always = (AUPRC.name, BALANCED_ACCURACY.name, BRIER.name)

    kit: KitKeys | None = None
    model: Any = None

    @classmethod
    def of(cls, study: Study) -> Self:
        """Return the outcome of a study.

        Raises:
            KindError: its model is no kit's.
        """
        if study.kit is None or not hasattr(study.model, "start"):
            raise KindError("task.type own: expected a model of a study kit, found another; name one, or another task")
        return cls(study.task, study.kit, study.model)

    @property
    def residual_bound(self) -> tuple[float, float]:
        """Return infinity: nothing is known of a kit's loss, and no engine of a kit asks."""
        return float("inf"), 0.0

    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return each record's loss by the kit; the kit is opened.

        Raises:
            KitError: it is not here. Anything: the kit's own failure.
        """
        assert self.kit is not None
        return SHELF.opened(self.kit).model(self.model.name).loss(outputs, y)

    def residual(self, outputs: Floats, y: NDArray[np.float32]) -> Floats:
        """Refuse: only linear stacks are asked for it.

        Raises:
            KindError: always.
        """
        del outputs, y
        raise KindError("task.type own: expected a model of a study kit, found another; name one, or another task")

    def bins(self, y: Floats, predicted: Floats) -> tuple[Bin, ...]:
        """Return the tenths of the outcome's predicted risk."""
        return calibration(y, predicted[:, 1])

    def predict(self, outputs: Floats) -> Floats:
        """Return the risks of both words: the model puts out the kit's score of the second."""
        return np.concatenate([1.0 - outputs, outputs], axis=1)
