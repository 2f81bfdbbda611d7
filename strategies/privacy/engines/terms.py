"""Per-patient gradients of one parameter: squared norms and weighted sum.

Each is computed by the cheapest exact way. For most layers a row's gradient is a sum of outer products over positions
(pixels, tokens): what came back times what went in. Its norm needs no gradient: it follows from the Gram matrices of
both factors (ghost norm: Li et al. 2021, arXiv 2110.05679, section 4), and the weighted sum of everybody's is one
product with the weights folded in (book-keeping: Bu et al. 2022, arXiv 2210.00038, section 3). Where positions are many
and the weight is small, building each patient's gradient costs less; `Outer` compares both. Rows of one patient are
further positions of the same sum.

Gram matrices lose digits where a patient's terms cancel: then that layer's gradients are built after all, so that the
norm that is clipped is the norm of what is added up.

>>> groups = Groups.of(torch.tensor([0, 0]), 1)  # one patient with two rows
>>> outer = Outer(torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]]), torch.ones(2, 1, 1), torch.Size([1, 2]))
>>> outer.squares(groups).norms.tolist(), outer.weighted_sum(groups, torch.tensor([0.5])).tolist()
([25.0], [[1.5, 2.0]])
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from strategies.privacy.engines.groups import Groups

_MOVE = 16  # one number of a built gradient, written and read, costs about as much as so many multiplied and added
_KEPT = 1 << 25  # numbers of built gradients that a layer may keep between norm and sum: 128 MB
_BUILT = 1 << 23  # numbers of gradients that are built at once where they are not kept: 32 MB
_SEGMENT = 1 << 11  # numbers whose squares are added up without a loss that counts
_FEW_PATCHES = 256  # of a batch, up to which a plain product is quicker than the convolution's own code
_CANCELLATION = 32.0  # squared norms of the terms over that of their sum, beyond which single precision is not trusted


@dataclass(frozen=True)
class Squares:
    """Each patient's squared norm, (count,). Where it may have lost digits: the squares of its terms, and a better way.

    `terms` is (count,); `built` returns the norms of built gradients, whatever they cost.
    """

    norms: Tensor
    terms: Tensor | None = None
    built: Callable[[], Tensor] | None = None


class Term(Protocol):
    """The gradients of one parameter. `squares` comes before `weighted_sum`, which may use what it kept."""

    def squares(self, groups: Groups, /) -> Squares:
        """Return squared norms of the patients' gradients."""

    def weighted_sum(self, groups: Groups, weights: Tensor, /) -> Tensor:
        """Return the sum over patients of weight times gradient, in the parameter's shape."""

    def rows(self) -> Tensor:
        """Return every row's gradient: (rows, *shape)."""


class Built:
    """Gradients that exist: of biases, norms' scales and shifts, and layers that only Opacus knows."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def squares(self, groups: Groups) -> Squares:
        """See `Term`."""
        self._patients = groups.sum(self._rows.flatten(1))  # (count, numbers)
        return Squares(_squared_norms(self._patients))

    def weighted_sum(self, _groups: Groups, weights: Tensor) -> Tensor:
        """See `Term`."""
        return (weights @ self._patients).view(self._rows.shape[1:])

    def rows(self) -> Tensor:
        """See `Term`."""
        return self._rows


class Outer:
    """A weight that multiplies: inputs (rows, positions, in) and what came back (rows, positions, out)."""

    def __init__(self, inputs: Tensor, back: Tensor, shape: torch.Size) -> None:
        self._given, self._back, self._shape = inputs, back, shape
        self._kept: list[tuple[Tensor | None, Tensor]] = []
        self._build = False

    def _inputs(self) -> Tensor:
        return self._given

    def squares(self, groups: Groups) -> Squares:
        """See `Term`."""
        return self._squares(groups, build=False)

    def _squares(self, groups: Groups, *, build: bool) -> Squares:
        self._kept, self._build = [], build
        inputs, back = self._inputs(), self._back
        if groups.one_row_each and inputs.shape[1] == 1:  # a single outer product: nothing can cancel
            return Squares(inputs.square().sum((1, 2)) * back.square().sum((1, 2)))
        wide, tall = inputs.shape[2], back.shape[2]
        ghost = [not build and _ghost_is_cheaper(n, wide, tall) for n in _positions(groups, inputs.shape[1])]
        keep = not any(ghost) and groups.count * wide * tall <= _KEPT
        norms, terms = inputs.new_zeros(groups.count), inputs.new_zeros(groups.count)
        for by_ghost, (who, a, g) in zip(ghost, _pieces(groups, inputs, back), strict=True):
            place: Tensor | slice = slice(None) if who is None else who
            if by_ghost:
                norms[place], terms[place] = _ghost(a, g)
            elif keep:
                gradients = torch.bmm(g.transpose(1, 2), a)  # (patients, out, in)
                self._kept.append((who, gradients))
                norms[place] = _squared_norms(gradients)
            else:
                norms[place] = torch.cat([_squared_norms(b) for b in _built(a, g)])
                terms[place] = (a.square().sum(2) * g.square().sum(2)).sum(1)
        if keep or build:
            return Squares(norms)
        return Squares(norms, terms, lambda: self._squares(groups, build=True).norms)

    def weighted_sum(self, groups: Groups, weights: Tensor) -> Tensor:
        """See `Term`."""
        if not self._kept and not self._build:
            return self._whole(self._back * groups.of_rows(weights)[:, None, None])
        total = weights.new_zeros(self._shape.numel())
        for who, gradients in self._kept:
            total += _chosen(weights, who) @ gradients.flatten(1)
        for who, a, g in () if self._kept else _pieces(groups, self._inputs(), self._back):
            members, done = _chosen(weights, who), 0
            for gradients in _built(a, g):
                total += members[done : done + len(gradients)] @ gradients.flatten(1)
                done += len(gradients)
        return self._in_shape(total)[0]

    def rows(self) -> Tensor:
        """See `Term`."""
        return self._in_shape(torch.bmm(self._back.transpose(1, 2), self._inputs()))

    def _in_shape(self, gradients: Tensor) -> Tensor:
        """Reshape count * out * in numbers to (count, *shape), which may be a view of them."""
        return gradients.view(-1, *self._shape)

    def _whole(self, back: Tensor) -> Tensor:
        return (back.flatten(0, 1).T @ self._inputs().flatten(0, 1)).view(self._shape)


class Convolution(Outer):
    """A 1-D or 2-D convolution: each output pixel multiplies its patch. images: (rows, channels, [height,] width)."""

    def __init__(self, layer: nn.Conv1d | nn.Conv2d, images: Tensor, back: Tensor) -> None:
        if isinstance(layer, nn.Conv1d):
            images, back = images.unsqueeze(2), back.unsqueeze(2)
        self._images, self._grid = images, back
        self._kernel, self._stride = _two(layer.kernel_size, 1), _two(layer.stride, 1)
        self._padding, self._dilation = _two(layer.padding, 0), _two(layer.dilation, 1)
        super().__init__(images, back.flatten(2).transpose(1, 2), layer.weight.shape)

    def _inputs(self) -> Tensor:
        """Return patches: (rows, positions, kernel * channels).

        With the channels last, a line of a patch is one piece of memory: that is copied in a third of unfold's time.
        """
        if self._kernel == (1, 1) and self._padding == (0, 0):
            return self._images[:, :, :: self._stride[0], :: self._stride[1]].flatten(2).transpose(1, 2)
        rows, channels, height, width = self._images.shape
        above, before = self._padding
        padded = self._images.new_zeros((rows, height + 2 * above, width + 2 * before, channels))
        padded[:, above : above + height, before : before + width] = self._images.permute(0, 2, 3, 1)
        row, line, pixel, number = padded.stride()
        down, right = (step * by for step, by in zip((line, pixel), self._stride, strict=True))
        lower, further = (step * by for step, by in zip((line, pixel), self._dilation, strict=True))
        patches = padded.as_strided(
            (rows, *self._grid.shape[2:], *self._kernel, channels), (row, down, right, lower, further, number)
        )
        return patches.reshape(rows, self._grid.shape[2] * self._grid.shape[3], -1)

    def _in_shape(self, gradients: Tensor) -> Tensor:
        out, channels = self._shape[:2]
        return gradients.view(-1, out, *self._kernel, channels).permute(0, 1, 4, 2, 3).reshape(-1, *self._shape)

    def _whole(self, back: Tensor) -> Tensor:
        if back.shape[0] * back.shape[1] <= _FEW_PATCHES:
            return self._in_shape(back.flatten(0, 1).T @ self._inputs().flatten(0, 1))[0]
        shape = (self._shape[0], self._shape[1], *self._kernel)
        grid = back.transpose(1, 2).reshape(self._grid.shape)
        gradient: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
            self._images, shape, grid, self._stride, self._padding, self._dilation
        )
        return gradient.view(self._shape)


class Lookup:
    """An embedding: tokens (rows, positions), back (rows, positions, width). A patient's equal tokens are added up."""

    def __init__(self, tokens: Tensor, back: Tensor, shape: torch.Size) -> None:
        self._tokens, self._back, self._shape = tokens, back, shape

    def squares(self, groups: Groups) -> Squares:
        """See `Term`."""
        keys = (groups.patients[:, None] * self._shape[0] + self._tokens).flatten()
        self._keys, place = torch.unique(keys, return_inverse=True)  # each patient's tokens, once
        self._sums = self._back.new_zeros((len(self._keys), self._shape[1]))
        self._sums.index_add_(0, place, self._back.flatten(0, 1))
        norms = self._back.new_zeros(groups.count, dtype=torch.float64)  # of many words, added up one after the other
        squares = self._sums.square().sum(1, dtype=torch.float64)
        return Squares(norms.index_add_(0, self._keys // self._shape[0], squares).to(self._back.dtype))

    def weighted_sum(self, _groups: Groups, weights: Tensor) -> Tensor:
        """See `Term`."""
        weighted = self._sums * weights[self._keys // self._shape[0]][:, None]
        return self._back.new_zeros(self._shape).index_add_(0, self._keys % self._shape[0], weighted)

    def rows(self) -> Tensor:
        """See `Term`."""
        place = self._tokens[:, :, None].expand_as(self._back)
        return self._back.new_zeros((len(self._back), *self._shape)).scatter_add_(1, place, self._back)


def clipped_sums(terms: list[Term], groups: Groups, clip_norm: float) -> tuple[list[Tensor], Tensor]:
    """Return each parameter's sum over patients of gradients, a patient's norm over all terms being at most the clip.

    The factor is Opacus's: clip / (norm + 1e-6), at most 1. Beside the sums: which patients' norms are finite,
    (patients,) bool; if any is not, the sums are not to be used.
    """
    squares = [term.squares(groups) for term in terms]
    norms = torch.stack([square.norms for square in squares])  # (terms, patients)
    allowed = norms.sum(0).clamp(min=clip_norm**2) * _CANCELLATION
    for i, square in enumerate(squares):
        if square.terms is not None and square.built is not None and bool((square.terms > allowed).any()):
            norms[i] = square.built()
    total = norms.sum(0)
    finite = total.isfinite()
    weights = clip_factors(total, clip_norm)
    return [term.weighted_sum(groups, weights) for term in terms], finite


def clip_factors(squares: Tensor, clip_norm: float) -> Tensor:
    """Return the clip factor of each patient from its squared norm, which is overwritten."""
    return squares.sqrt_().add_(1e-6).reciprocal_().mul_(clip_norm).clamp_(max=1.0)


def _ghost_is_cheaper(positions: int, wide: int, tall: int) -> bool:
    return positions**2 * (wide + tall) < _MOVE * wide * tall


def _positions(groups: Groups, each: int) -> list[int]:
    """Return the positions of a patient in each piece of `_pieces`."""
    return [each] if groups.one_row_each else [rows.shape[1] * each for _, rows, _ in groups.buckets]


def _pieces(groups: Groups, inputs: Tensor, back: Tensor) -> Iterator[tuple[Tensor | None, Tensor, Tensor]]:
    """Yield patients of about as many rows together: positions (None for all), and both factors, (patients, ...)."""
    if groups.one_row_each:
        yield None, inputs, back
        return
    for who, rows, real in groups.buckets:
        yield who, inputs[rows].flatten(1, 2), (back[rows] * real[:, :, None, None]).flatten(1, 2)


def _chosen(weights: Tensor, who: Tensor | None) -> Tensor:
    return weights if who is None else weights[who]


def _ghost(inputs: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared norms from Gram matrices, and the squares of the terms on their diagonal: (patients,) each."""
    product = torch.bmm(inputs, inputs.transpose(1, 2)).mul_(torch.bmm(back, back.transpose(1, 2)))
    return product.sum((1, 2)).clamp_(min=0.0), product.diagonal(dim1=1, dim2=2).sum(1)


def _squared_norms(gradients: Tensor) -> Tensor:
    """Square and add up: (patients, ...) -> (patients,), in one pass without a copy.

    Squares that are added one after the other in single precision are three thousandths off after two million, and a
    patient then weighs more than the clip: here each segment has its own sum, and those are added in pairs.
    """
    flat = gradients.flatten(1)
    whole = flat.shape[1] - flat.shape[1] % _SEGMENT
    norms: Tensor = torch.linalg.vector_norm(flat[:, whole:], dim=1).square_()
    if whole:
        segments = flat[:, :whole].unflatten(1, (-1, _SEGMENT))  # type: ignore[no-untyped-call]
        norms += torch.linalg.vector_norm(segments, dim=2).square_().sum(1)
    return norms


def _built(inputs: Tensor, back: Tensor) -> Iterator[Tensor]:
    """Yield gradients, (patients, out, in), in portions that fit into memory."""
    portion = max(1, _BUILT // (inputs.shape[2] * back.shape[2]))
    for a, g in zip(torch.split(inputs, portion), torch.split(back, portion), strict=True):
        yield torch.bmm(g.transpose(1, 2), a)


def _two(value: object, before: int) -> tuple[int, int]:
    assert isinstance(value, tuple)
    return (before, value[0]) if len(value) == 1 else (value[0], value[1])
