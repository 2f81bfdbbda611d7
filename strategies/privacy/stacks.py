"""Clipped sums of small linear stacks in NumPy, for patients of one row each: the tabular models of most studies.

At these sizes the calls cost more than the arithmetic, and NumPy's cost a third of PyTorch's. The method is that of
`ClosedForm` (gradients.py), which asks for it: norms from what each layer read and what came back, then one product a
layer. Not for wide layers or patients of several rows: PyTorch does those.

Rows are worked through in portions so small that OpenBLAS takes one thread for every product: so the bits, and the
time, do not depend on how many it may take.

>>> import torch
>>> from configs.schema import Model, Task
>>> from strategies.tasks.tabular import tabular_task
>>> model = FlatModel(tabular_task(Task("binary", "disease"), Model("logistic"), inputs=1))
>>> SmallStack(model, clip_norm=0.5).sum_into_gradient(torch.tensor([[30.0]]), torch.tensor([1.0]))
>>> round(float(model.gradient.norm()), 4)
0.5
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from strategies.tasks.gradients import FlatModel

_MATRIX, _VECTOR = (
    2**18,
    9215,
)  # multiplications of a product that OpenBLAS leaves to one thread: of matrices, by vectors
_FEWEST = 32  # rows of a portion; layers so wide that fewer are left gain nothing: there the arithmetic is what costs
_ONE, _TINY = np.float32(1.0), np.float32(1e-6)

Floats = NDArray[np.float32]


class SmallStack:
    """The clipped sum of one model, which is read as it is at each call."""

    def __init__(self, model: FlatModel, clip_norm: float) -> None:
        self._task, self._clip = model.task, np.float32(clip_norm)
        self._parameters, self._sums = (_numpy(views) for views in (model.views, model.gradient_views))
        self._gradient = model.gradient.numpy()
        self._transposed = [weight.T for weight in self._parameters[0::2]]
        self._portion = _portion(model)

    @staticmethod
    def suits(model: FlatModel) -> bool:
        """Whether a model is a linear stack of small layers, and not on another device."""
        return model.is_linear_stack and model.flat.device.type == "cpu" and _portion(model) >= _FEWEST

    def sum_into_gradient(self, x: Tensor, y: Tensor) -> None:
        """Write the clipped sum into the model's `gradient`. x: (patients, inputs) float32; y: (patients,)."""
        with np.errstate(all="ignore"):  # a gradient that is not finite is found in the sum
            self._write_in_portions(x.numpy(), y.numpy())

    def _write_in_portions(self, x: Floats, y: Floats) -> None:
        self._write(x[: self._portion], y[: self._portion])
        if len(x) <= self._portion:
            return
        total = self._gradient.copy()
        for start in range(self._portion, len(x), self._portion):
            self._write(x[start : start + self._portion], y[start : start + self._portion])
            total += self._gradient
        self._gradient[:] = total

    def _write(self, x: Floats, y: Floats) -> None:
        reads, backs = self._factors(x, y)
        weights = self._clip_factors(reads, backs)
        for i, (read, back) in enumerate(zip(reads, backs, strict=True)):
            np.dot(weights, back, out=self._sums[2 * i + 1])
            back *= weights[:, None]
            np.dot(back.T, read, out=self._sums[2 * i])

    def _factors(self, x: Floats, y: Floats) -> tuple[list[Floats], list[Floats]]:
        """Of each layer what it read, (patients, in), and the loss's derivative there, (patients, out)."""
        weights, biases, reads = self._parameters[0::2], self._parameters[1::2], [x]
        for weight, bias in zip(self._transposed[:-1], biases[:-1], strict=True):
            read = np.dot(reads[-1], weight)
            read += bias
            reads.append(np.maximum(read, 0.0, out=read))
        outputs = np.dot(reads[-1], self._transposed[-1])
        outputs += biases[-1]
        backs = [self._task.residual_in_numpy(outputs, y)]
        for weight, read in zip(weights[:0:-1], reads[:0:-1], strict=True):
            back = np.dot(backs[-1], weight)
            back *= np.sign(read)  # of the ReLU: quicker than by booleans
            backs.append(back)
        return reads, backs[::-1]

    def _clip_factors(self, reads: list[Floats], backs: list[Floats]) -> Floats:
        """(patients,): clip / (norm + 1e-6), at most 1."""
        layers = [_squares(read, back) for read, back in zip(reads, backs, strict=True)]
        squares = layers[0]
        for more in layers[1:]:
            squares += more
        np.sqrt(squares, out=squares)
        squares += _TINY
        np.divide(self._clip, squares, out=squares)
        return np.minimum(squares, _ONE, out=squares)


def _squares(read: Floats, back: Floats) -> Floats:
    """(patients,): each one's squared norm in a layer, bias included: the norms of both factors multiply."""
    own: Floats = np.vecdot(read, read)
    own += _ONE
    own *= np.vecdot(back, back)
    return own


def _numpy(views: list[Tensor]) -> list[Floats]:
    return [view.numpy() for view in views]


def _portion(model: FlatModel) -> int:
    """Rows for which no product of the step is past OpenBLAS's limits for one thread."""
    shapes = [weight.shape for weight in model.views[0::2]]
    return min(min(_MATRIX // (out * into), _VECTOR // max(out, into)) for out, into in shapes)
