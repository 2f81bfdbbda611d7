"""What a study kit imports: the model and the reader of records that a researcher writes. No engine stands here.

A model is three functions of plain PyTorch. Each is given the records of ONE patient and never sees another; clip,
noise, sampling and what leaves the hospital are none of its business. strategies/KITS.md says how a kit is made, handed
over and approved.

>>> Reader(read=lambda path: None, shape=(1, 128, 128), needs=["tifffile"]).needs
('tifffile',)
>>> net = Model(build=lambda width=8: ..., loss=lambda outputs, target: ..., options={"width": (4, 32)})
>>> net.chosen({"width": 64})
Traceback (most recent call last):
    ...
configs.errors.KitError: kit: expected the option 'width' from 4 to 32, found 64; correct it in the study
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import KitError

if TYPE_CHECKING:  # commands that list a kit's models start without PyTorch
    from torch import Tensor, nn

Shape = tuple[int, ...]
Scalar = int | float | str | bool
MAX_OPTIONS = 32


@dataclass(frozen=True)
class RowInput:
    """The study's columns as numbers, (rows, inputs) float32; `build` is given `inputs`, how many there are."""

    shape: Shape | None = None


@dataclass(frozen=True)
class ImageInput:
    """Records of one shape, (records, channels, *size) float32: an image, a volume."""

    shape: Shape


@dataclass(frozen=True)
class SeriesInput:
    """Series of one shape, (records, channels, length) float32."""

    shape: Shape


Input = RowInput | ImageInput | SeriesInput


@dataclass(frozen=True)
class Model:
    """A model of one's own.

    Args:
        build: returns the module; it is given the study's options by name, and `inputs` where `input` is a `RowInput`.
        loss: (outputs, target) -> (rows,): of each of one patient's records.
        score: (outputs, target) -> a number in [0, 1] for the patient: a risk where there is an outcome, how good the
            prediction is (Dice) where the target is a record. It is all that may be counted of test patients.
        input: what `forward` is given.
        target: the shape of a target that is a record, such as a mask; None where it is a number, (rows,) float32.
        options: name -> (lowest, highest) of a number, or the words to choose from. The defaults are those of `build`.
    """

    build: Callable[..., "nn.Module"]
    loss: Callable[["Tensor", "Tensor"], "Tensor"]
    score: Callable[["Tensor", "Tensor"], float] | None = None
    input: Input = field(default_factory=RowInput)
    target: ImageInput | SeriesInput | None = None
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no model.

        Raises:
            KitError: says what was expected.
        """
        for name in ("build", "loss", *(["score"] if self.score is not None else [])):
            if not callable(getattr(self, name)):
                raise KitError(f"kit: expected a function as the model's {name}, found another thing; write one")
        if not isinstance(self.input, RowInput):
            _require_shape("input", self.input.shape)
        if self.target is not None:
            _require_shape("target", self.target.shape)
        if len(self.options) > MAX_OPTIONS or not all(_is_choice(bounds) for bounds in self.options.values()):
            raise KitError("kit: expected options as name: (lowest, highest) or (word, ...), found another; correct it")

    def chosen(self, options: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return a study's options, checked against what the kit allows.

        Raises:
            KitError: one is unknown or out of its bounds.
        """
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise KitError(f"kit: expected options of {known}, found {name!r}; correct it in the study")
            bounds = self.options[name]
            words = all(isinstance(bound, str) for bound in bounds)
            good = value in bounds if words else _within(value, bounds)
            if not good:
                allowed = f"as one of {', '.join(bounds)}" if words else f"from {bounds[0]} to {bounds[1]}"
                raise KitError(f"kit: expected the option {name!r} {allowed}, found {value!r}; correct it in the study")
        return dict(options)

    def module(self, options: Mapping[str, Scalar], inputs: int) -> "nn.Module":
        """Return the module for a study's options.

        Args:
            inputs: the numbers of a row, where the model reads rows.

        Raises:
            KitError: an option is not allowed. Anything: the kit's own failure.
        """
        rows = {"inputs": inputs} if isinstance(self.input, RowInput) else {}
        return self.build(**self.chosen(options), **rows)


def _require_shape(what: str, shape: object) -> None:
    if not isinstance(shape, tuple) or not shape or not all(isinstance(n, int) and 1 <= n <= 65_536 for n in shape):
        raise KitError(f"kit: expected a shape such as (1, 128, 128) as the {what}, found {shape!r}; correct it")


def _is_choice(bounds: object) -> bool:
    if not isinstance(bounds, tuple) or not bounds:
        return False
    if all(isinstance(bound, str) for bound in bounds):
        return True
    return len(bounds) == 2 and all(isinstance(bound, int | float) for bound in bounds) and bounds[0] <= bounds[1]


def _within(value: Scalar, bounds: tuple[Any, ...]) -> bool:
    if isinstance(value, bool | str) or (isinstance(value, float) and all(isinstance(b, int) for b in bounds)):
        return False
    return bool(bounds[0] <= value <= bounds[1])


@dataclass(frozen=True)
class Reader:
    """A reader of one record, from one file.

    Args:
        read: path -> an array of `shape`, float32.
        needs: distributions that it imports beside NumPy and PyTorch, as pyproject.toml requires them.
    """

    read: Callable[[str], Any]
    shape: Shape
    needs: Iterable[str] = ()

    def __post_init__(self) -> None:
        """Refuse what is no reader.

        Raises:
            KitError: says what was expected.
        """
        if not callable(self.read):
            raise KitError("kit: expected a function that reads one file, found another thing; write one")
        _require_shape("record", self.shape)
        object.__setattr__(self, "needs", tuple(self.needs))

    def decode(self, path: str) -> NDArray[np.float32]:
        """Return one record, of the declared shape.

        Raises:
            KitError: it has another shape. Anything: the kit's own failure.
        """
        record = np.asarray(self.read(path), np.float32)
        if record.shape != tuple(self.shape):
            raise KitError(f"kit: expected a record of shape {tuple(self.shape)}, read another; the reader is wrong")
        return record
