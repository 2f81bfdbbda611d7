"""Columns that hold records: each cell is the path of an image or a series below the hospital's `root`.

A record is read by a reader (strategies/data/readers/), brought to the study's size, and scaled by the public window,
or by its own values where there is none. An encoder makes named numbers of public range of it
(strategies/data/encoders/); without one the model reads the record itself.

>>> Image("scan", "image", reader="png", size=(32, 32)).shape
(1, 32, 32)
>>> scan = Image("scan", "image", reader="png", size=(32, 32), encoder="texture")
>>> scan.shape, scan.inputs[0], len(scan.predictors)
(None, 'scan.texture.0', 189)
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from configs.keys.declare import REQUIRED, declaration_of, key
from configs.keys.one_of import Kind
from configs.keys.values import Around, Integer, Place, Span, Value, nearest
from configs.kinds import Registry
from configs.schema.task import FEATURE_TYPES, NO_RANGE, Feature
from configs.sections import Section

MAX_SIDE, MAX_CHANNELS, MAX_LENGTH = 2048, 64, 1_000_000
MAX_NUMBERS = 1 << 24  # of one record, once it has the study's size
MAX_ENCODED = 65_536  # numbers that an encoder makes of a record
NONE = "none"
OF_A_KIT = re.compile(r"[a-z][a-z0-9_]{0,62}/[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class ReaderKeys:
    """A reader's name, and the axes of its records beside the channels: 1 of a series, 2 or 3 of an image."""

    name: str
    axes: tuple[int, ...]


@dataclass(frozen=True)
class EncoderKeys:
    """An encoder's name, how many numbers it makes of each channel, and the axes as `ReaderKeys` has them."""

    name: str
    numbers: int
    axes: tuple[int, ...]


READER_KEYS: Registry[ReaderKeys] = Registry(
    "reader",
    ("axes",),
    [
        ReaderKeys("png", (2,)),
        ReaderKeys("dicom", (2, 3)),
        ReaderKeys("nifti", (2, 3)),
        ReaderKeys("csv", (1,)),
        ReaderKeys("npy", (1, 2, 3)),
    ],
)
TEXTURE = EncoderKeys("texture", 189, (2, 3))
ENCODER_KEYS: Registry[EncoderKeys] = Registry("encoder", ("numbers", "axes"), [TEXTURE])


@dataclass(frozen=True)
class NamedKind(Value):
    """The name of a registered kind, or of one that a kit brings: `kit/name`."""

    kinds: Registry[Any]
    none: bool = False

    @property
    def expected(self) -> str:  # type: ignore[override]
        """Return the names."""
        return f"one of {', '.join((*self.kinds.names, *([NONE] if self.none else [])))}, or KIT/NAME of a study kit"

    def read(self, at: Place) -> str | None:
        """Return the name, None for none; another word is noted."""
        if self.none and at.found == NONE:
            return None
        if isinstance(at.found, str) and (at.found in self.kinds or OF_A_KIT.fullmatch(at.found)):
            return at.found
        at.problem(self.expected, nearest(at.found, self.kinds.names, "choose one"))
        return None if self.none else self.kinds.names[0]

    @property
    def schema(self) -> dict[str, Any]:
        """Return the names, or the pattern of a kit's."""
        names = [*self.kinds.names, *([NONE] if self.none else [])]
        return {"anyOf": [{"enum": names}, {"type": "string", "pattern": f"^(?:{OF_A_KIT.pattern})$"}]}


class Size(Value):
    """The sides of an image, in the order of its axes."""

    expected = f"a list of two or three sides from 1 to {MAX_SIDE}"

    def read(self, at: Place) -> tuple[int, ...]:
        """Return the sides; a stand-in in place of a mistake."""
        sides = at.found if isinstance(at.found, list) else []
        if len(sides) in (2, 3) and all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
            return tuple(sides)
        at.problem(self.expected, "for example [128, 128]")
        return (8, 8)

    def write(self, value: Sequence[int]) -> list[int]:
        """Return the sides as a list."""
        return list(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list of two or three integers."""
        side = {"type": "integer", "minimum": 1, "maximum": MAX_SIDE}
        return {"type": "array", "items": side, "minItems": 2, "maxItems": 3}


@dataclass(frozen=True, slots=True)
class Record(Feature):
    """A column of paths. `low` and `high`: the public window, which becomes [-1, 1]; beyond it values are cut off.

    Without a window a record's own 1st and 99th percentile become -1 and 1.
    """

    reader: str = key(
        NamedKind(READER_KEYS),
        "how one record is read: the name of a reader, or KIT/NAME of a study kit's",
        default=REQUIRED,
        init="npy",
    )
    channels: int = key(Integer(1, MAX_CHANNELS), "how many channels a record has", default=1)
    low: float | None = key(
        Span(),
        "the public window of values, which becomes [-1, 1]; a record's own 1st and 99th percentile where it is absent",
        default=NO_RANGE,
        init=None,
        name="window",
        fills=("high",),
    )
    high: float | None = None
    size: tuple[int, ...] = ()
    encoder: str | None = None
    numbers: int | None = None
    labels: bool = False  # a mask: its values are classes, which nothing is between

    @property
    def is_record(self) -> bool:
        """Return that its cells are paths of records."""
        return True

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Return (channels, sides...) of each record."""
        return (self.channels, *self.size)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Return the same where the model reads the record itself; None with an encoder."""
        return self.full_shape if self.encoder is None else None

    @property
    def encoded(self) -> int:
        """Return how many numbers an encoder makes of a record; 0 without one."""
        if self.encoder is None:
            return 0
        return self.numbers or ENCODER_KEYS[self.encoder].numbers * self.channels

    @property
    def predictors(self) -> tuple[Feature, ...]:
        """Return the numbers that an encoder makes of it, each in [-1, 1]; nothing without one."""
        name = f"{self.name}.{(self.encoder or '').rpartition('/')[2]}"
        return tuple(Feature(f"{name}.{i}", "number", -1.0, 1.0) for i in range(self.encoded))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the names of those numbers."""
        return tuple(feature.name for feature in self.predictors)

    def check(self, section: Section, around: Around) -> None:
        """Note a size that the reader or the encoder does not have, and too large ones."""
        del around
        axes = len(self.size)
        for name, keys in (("reader", READER_KEYS), ("encoder", ENCODER_KEYS)):
            kind = getattr(self, name)
            if kind in keys and axes not in keys[kind].axes:
                section.problem(name, f"one for records of {axes} axes", kind, "choose another, or another size")
        if math.prod(self.full_shape) > MAX_NUMBERS:
            section.note("channels", f"expected at most {MAX_NUMBERS:,} numbers a record, found more; make it smaller")
        of_a_kit = self.encoder is not None and self.encoder not in ENCODER_KEYS
        if of_a_kit != (self.numbers is not None):
            expected = "how many numbers the kit's encoder makes" if of_a_kit else "nothing without a kit's encoder"
            section.problem("numbers", expected, self.numbers, "add it" if of_a_kit else "remove it")


@dataclass(frozen=True, slots=True)
class Image(Record):
    """A column of images: pictures of two axes, or volumes of three."""

    size: tuple[int, ...] = key(
        Size(), "the sides to which each image is brought, in the order of its axes", default=REQUIRED, init=()
    )
    encoder: str | None = key(
        NamedKind(ENCODER_KEYS, none=True),
        "a fixed public encoder that makes numbers of an image; none: the model reads the image itself",
        default=None,
    )
    numbers: int | None = key(
        Integer(1, MAX_ENCODED), "how many numbers, each in [-1, 1], a study kit's encoder makes", default=None
    )


class _Length(Integer):
    """The length of a series, as a size of one side."""

    def read(self, at: Place) -> Any:
        """Return the length as a size."""
        return (Integer.read(self, at),)

    def write(self, value: Any) -> Any:
        """Return the one side."""
        return value[0]


@dataclass(frozen=True, slots=True)
class Series(Record):
    """A column of series: channels over time. A longer one is cut at its end, a shorter one filled up with zeros."""

    size: tuple[int, ...] = key(
        _Length(1, MAX_LENGTH), "points in time that are read of a series", name="length", default=REQUIRED, init=()
    )


_OF_A_NUMBER = ("range", "values", "unit", "missing", "curve")
for name, section in (("image", Image), ("series", Series)):
    FEATURE_TYPES.register(Kind(name, declaration_of(section).without(*_OF_A_NUMBER)))
