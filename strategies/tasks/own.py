"""The task types `own` and `own_mask`: outcomes that are learned with the loss and the score of a study kit.

The kit's code is run where a patient's records are: its loss by the engine, its score by the model. For an outcome of
two words a patient's score is a risk in [0, 1], and figures are made of it as of any prediction; for a record, such as
a mask, it says how good the prediction is.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from configs.errors import KindError
from configs.records.result import Bin
from configs.schema import Study
from configs.schema.kit import KitKeys
from configs.schema.kit import OwnMask as OwnMaskTask
from strategies.kits.shelf import SHELF
from strategies.tasks.base import Objective
from strategies.tasks.classification import AUPRC, BALANCED_ACCURACY, BRIER, Classification, calibration
from strategies.tasks.masks import MaskOutcome
from strategies.tasks.metrics import Floats
from strategies.tasks.scores import score_metric

if TYPE_CHECKING:
    from torch import Tensor

_NO_KIT = "expected a model of a study kit, found another; name one, or another task"


@dataclass(frozen=True)
class OfAKit(Objective):
    """An outcome with a kit's loss. `model` is the study's section of a kit's model."""

    kit: KitKeys | None = None
    model: Any = None

    @classmethod
    def of(cls, study: Study) -> Self:
        """Return the outcome of a study.

        Raises:
            KindError: its model is no kit's.
        """
        if study.kit is None or not hasattr(study.model, "start"):
            raise KindError(f"task.type {study.task.type}: {_NO_KIT}")
        return cls(study.task, study.kit, study.model)

    @property
    def residual_bound(self) -> tuple[float, float]:
        """Return no bound: nothing is known of a kit's loss, and no engine of a kit asks."""
        return math.inf, math.inf

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
        raise KindError(f"task.type {self.task.type}: {_NO_KIT}")


@dataclass(frozen=True)
class Own(OfAKit, Classification):
    """An outcome of two words: y is 1 with the second, else 0."""

    name = "own"
    prediction = "the probability of"
    outcome = 1
    metrics = (*Classification.metrics, AUPRC)
    always = (AUPRC.name, BALANCED_ACCURACY.name, BRIER.name)

    def bins(self, y: Floats, predicted: Floats) -> tuple[Bin, ...]:
        """Return the tenths of the outcome's predicted risk."""
        return calibration(y, predicted[:, 1])

    def predict(self, outputs: Floats) -> Floats:
        """Return the risks of both words: the model puts out the kit's score of the second."""
        return np.concatenate([1.0 - outputs, outputs], axis=1)


@dataclass(frozen=True)
class OwnMask(MaskOutcome, OfAKit):
    """An outcome that is a record: y is (rows, 1, sides...)."""

    name = "own_mask"
    prediction = "the kit's score of"
    metrics = (score_metric("score", "Score", "the kit's own score of a patient, the mean over patients"),)
    task: OwnMaskTask

    def predict(self, outputs: Floats) -> Floats:
        """Return the outputs: what they mean is the kit's."""
        return outputs
