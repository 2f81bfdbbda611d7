"""Named float32 arrays <-> Flower's ArrayRecord, exactly.

Flower carries an array as an .npy file. Reading one with a general parser would trust a header that the other side
wrote; here the expected shape is known, so the only header accepted is the one that NumPy writes for it, byte for byte.
That is also what makes it quick: 2 microseconds an array instead of 30.

Large arrays are not copied on their way: what `from_record` gives is a view of the record's bytes, `to_record` finds
those bytes again, and a pass over values (are they finite?) goes through them in pieces. Small ones are joined instead,
so that one pass does for all.

>>> record = to_record({"bias": np.zeros(3, np.float32)})
>>> from_record(record, {"bias": ((3,), "float32")})
{'bias': array([0., 0., 0.], dtype=float32)}
>>> from_record(record, {"bias": ((4,), "float32")})
Traceback (most recent call last):
    ...
configs.errors.WireError: array 'bias': expected ((4,), 'float32'), found ((3,), 'float32')
"""

import io
import math
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from configs.errors import WireError
from configs.frame import Buffer, windows
from configs.memory import LARGE_BLOCK_BYTES, ROOM
from configs.wire import ArraySpec
from strategies.exchange.flower import bare_array, record_of
from strategies.exchange.pieces import pieces

Arrays = dict[str, NDArray[np.float32]]
_STYPE = "numpy.ndarray"
_HEADER_BYTES = 128  # of the .npy format for the shapes here, which pads them to a multiple of 64
LARGE_BYTES = 1 << 16  # of an array that is not copied where it need not be
_LITTLE = np.dtype("<f4")
_FINITE = "_finite"  # of an Array: the large data of its own that were found finite in this process


def spec(array: Array) -> ArraySpec:
    """Return the shape and type that the array claims; `from_record` checks that its bytes agree."""
    return tuple(array.shape), array.dtype


def to_record(arrays: Mapping[str, NDArray[np.float32]]) -> ArrayRecord:
    """Return an ArrayRecord of the arrays as little-endian float32, in their order."""
    return record_of({name: array_of((array.shape, "float32"), to_buffer(array)) for name, array in arrays.items()})


def from_record(record: ArrayRecord, specs: Mapping[str, ArraySpec]) -> Arrays:
    """Return the arrays of exactly these names, shapes and types, in the order of `specs`.

    Raises:
        WireError: a name too many or too few, another shape or type, bytes that do not fit, a value not finite.
    """
    arrays = dict(record.items())
    if arrays.keys() != specs.keys():
        odd = sorted(arrays.keys() ^ specs.keys())
        raise WireError(f"arrays: expected {', '.join(specs)}; found a difference at {', '.join(odd)[:200]}")
    joined = joined_of(arrays, specs)
    if joined is not None:
        return joined
    return {name: _from_array(name, arrays[name], expected) for name, expected in specs.items()}


def joined_of(held: Mapping[str, Array], specs: Mapping[str, ArraySpec]) -> Arrays | None:
    """Return what `from_record` does for a small model without a fault, None of any other, for a closer look.

    The arrays are views of one copy of all values, one after the other.
    """
    places = _layout(tuple(specs.items()))
    if not places or len(held) != len(places):
        return None
    buffers: dict[str, Buffer] = {}
    for place in places:
        array = held.get(place.name)
        if array is None or array.shape != place.shape or array.dtype != place.dtype or array.stype != _STYPE:
            return None
        buffers[place.name] = array.data
    return _joined(buffers, places)


def from_buffers(buffers: Mapping[str, Buffer], specs: Mapping[str, ArraySpec]) -> Arrays:
    """Return the arrays in these .npy files, which have exactly these names, shapes and types.

    Raises:
        WireError: bytes that do not fit, a value not finite.
    """
    places = _layout(tuple(specs.items()))
    if places and (joined := _joined(buffers, places)) is not None:
        return joined
    return {name: _values(name, _readonly(buffers[name]), expected) for name, expected in specs.items()}


def _readonly(data: Buffer) -> Buffer:
    return data if isinstance(data, bytes) else memoryview(data).toreadonly()


def _joined(buffers: Mapping[str, Buffer], places: "tuple[_Place, ...]") -> Arrays | None:
    values = []
    for place in places:
        data = buffers[place.name]
        if not isinstance(data, bytes | bytearray) or len(data) != place.size or not data.startswith(place.header):
            return None
        values.append(data[len(place.header) :])
    flat = np.frombuffer(b"".join(values), _LITTLE)
    if not np.logical_and.reduce(np.isfinite(flat)):
        return None
    return {place.name: flat[place.span].reshape(place.shape) for place in places}


def copied(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a copy; a large one lies as `to_record` will need it, so that it is not copied again."""
    if array.nbytes < LARGE_BYTES:
        return array.copy()
    return np.frombuffer(_written(array), "<f4", offset=_HEADER_BYTES).reshape(array.shape)


def flat_of(arrays: Collection[NDArray[np.float32]]) -> NDArray[np.float32] | None:
    """Return all values of a small model, array after array, for one pass; None of a larger one, which has pieces."""
    if sum([array.nbytes for array in arrays]) >= LARGE_BYTES or not arrays:
        return None
    return np.concatenate([array.reshape(-1) for array in arrays])


def all_finite(arrays: Collection[NDArray[np.float32]]) -> bool:
    """Return whether all values are finite, without a mask of a whole large array."""
    if (flat := flat_of(arrays)) is not None:
        return bool(np.logical_and.reduce(np.isfinite(flat)))
    return all(np.isfinite(piece).all() for array in arrays for piece in pieces(array))


def array_of(expected: ArraySpec, data: Buffer) -> Array:
    """Return an array of this shape and type around these bytes; small ones are copied, large ones are not.

    `from_record` checks that they agree.
    """
    shape, dtype = expected
    if len(data) < LARGE_BYTES or isinstance(data, bytes):
        return bare_array(dtype, tuple(shape), _STYPE, bytes(data))
    return bare_array(dtype, tuple(shape), _STYPE, memoryview(data).toreadonly())  # Flower slices it and no more


def mark_finite(array: Array) -> Array:
    """Note that an array's values were found finite in this process: `from_record` need not look at them again."""
    if isinstance(array.data, memoryview) and array.data.readonly:  # a large one, which is never changed
        array.__dict__[_FINITE] = weakref.ref(array.data)
    return array


def payload_bytes(record: ArrayRecord) -> int:
    """Return the number of bytes of the arrays and their names, as they are sent."""
    return sum(len(name) + len(array.data) for name, array in record.items())


def reads_as_text(data: Buffer) -> bool:
    """Return whether twelve values in a row, behind an array's header, are made of printable ASCII characters alone.

    Trained parameters are not: less than one float32 of a usual size in forty is, and twelve in a row make no false
    alarm in a lifetime (equal neighbours do not count: an array of 0.7 is no text). It finds text that was written as
    numbers, not text that somebody took pains to hide: against that stand the noise, and that the code which trains is
    the hospital's own.

    >>> text = np.frombuffer(b"Mme Dupont, 73 ans, code postal 59000 Lille, diabetique.", "<f4")
    >>> reads_as_text(to_record({"w": text})["w"].data), reads_as_text(to_record({"w": text[:9]})["w"].data)
    (True, False)
    """
    tail = np.empty(0, "<u4")
    for window in windows(data, skip=_HEADER_BYTES):
        four = np.concatenate([tail, np.frombuffer(window, "<u4")])
        if _holds_text(four, first=not len(tail)):
            return True
        tail = four[-_RUN:].copy()
    return False


_RUN, _APART, _FEW = 12, 4, 64


def _holds_text(four: NDArray[np.uint32], *, first: bool) -> bool:
    """Return whether _RUN values in a row are text; `first`: none stands before, else the first is only compared.

    Such a row has three of every fourth value in a row: only where those are text, each value is looked at.
    """
    some = _text(four[::_APART])
    (places,) = np.nonzero(some[:-2] & some[1:-1] & some[2:])
    if len(places) > _FEW:
        return _has_run(four, first=first)
    begins = [max(0, _APART * (int(place) - 1)) for place in places]
    return any(_has_run(four[at : at + 2 * _RUN], first=first and not at) for at in begins)


def _text(four: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return which values are made of printable ASCII characters: in each byte, 0x20 <= character <= 0x7e."""
    step, space = np.uint32(0x01010101), np.uint32(0x20202020)
    text: NDArray[np.bool_] = ((four | (four + step) | (four - space)) & np.uint32(0x80808080)) == 0
    return text


def _has_run(four: NDArray[np.uint32], *, first: bool) -> bool:
    run = _text(four)
    run[1:] &= four[1:] != four[:-1]
    run[:1] &= first
    for reach in (1, 2, 4, 4):  # a position then stands for 2, 4, 8, 12 values
        if len(run) <= reach or not run.any():
            return False
        run = run[:-reach] & run[reach:]
    return bool(run.any())


@lru_cache(maxsize=4096)
def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the .npy header (version 1.0) that NumPy writes for such an array."""
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": descr})
    return buffer.getvalue()


def to_buffer(array: NDArray[np.float32]) -> Buffer:
    """Return the .npy file of an array as little-endian float32; a large one from a message is not copied."""
    if array.nbytes >= LARGE_BYTES:
        return _held(array) or _written(array)
    array = np.asarray(array, dtype=_LITTLE)
    return _header(array.shape, "<f4") + array.tobytes()


def _written(array: NDArray[np.float32]) -> Buffer:
    array = np.asarray(array, dtype="<f4", order="C")
    header, values = _header(array.shape, "<f4"), array.reshape(-1).view(np.uint8).data
    if array.nbytes < LARGE_BLOCK_BYTES:
        return b"".join((header, values))
    written = ROOM.of(len(header) + len(values))
    written[: len(header)], written[len(header) :] = header, values
    return written.toreadonly()


def _held(array: NDArray[np.float32]) -> Buffer | None:
    """Return the bytes that an array from `from_record` is a view of: header, then all of it; None for any other."""
    base = array.base.base if isinstance(array.base, np.ndarray) else None
    if not isinstance(base, bytes | memoryview) or array.flags.writeable or not array.flags.c_contiguous:
        return None
    header = _header(array.shape, "<f4")
    address = np.frombuffer(base, np.uint8).ctypes.data
    whole = len(base) == len(header) + array.nbytes and array.ctypes.data == address + len(header)
    return base if whole and array.dtype == np.dtype("<f4") and bytes(base[: len(header)]) == header else None


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of an array among others that were joined, and the bytes that it must begin with."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    header: bytes
    size: int  # of header and values, in bytes
    span: slice


@lru_cache(maxsize=64)
def _layout(specs: tuple[tuple[str, ArraySpec], ...]) -> tuple[_Place, ...]:
    """Return the places of small arrays in the order of `specs`; none where they are better left apart."""
    places, end = [], 0
    for name, (shape, dtype) in specs:
        start, end = end, end + math.prod(shape)
        if dtype != "float32" or 4 * end >= LARGE_BYTES:
            return ()
        header = _header(shape, "<f4")
        places.append(_Place(name, shape, dtype, header, len(header) + 4 * (end - start), slice(start, end)))
    return tuple(places)


def _from_array(name: str, array: Array, expected: ArraySpec) -> NDArray[np.float32]:
    if spec(array) != expected or array.stype != _STYPE:
        raise WireError(f"array {name!r}: expected {expected}, found {spec(array)}")
    data = array.data
    mark = array.__dict__.get(_FINITE)
    values = _values(name, data, expected, finite=mark is not None and mark() is data)
    mark_finite(array)
    return values


def _values(name: str, data: Buffer, expected: ArraySpec, *, finite: bool = False) -> NDArray[np.float32]:
    """Return the array in a .npy file; `finite`: its values were looked at before."""
    shape, _ = expected
    header = _header(shape, "<f4")
    if len(data) != len(header) + 4 * math.prod(shape) or bytes(data[: len(header)]) != header:
        raise WireError(f"array {name!r}: its bytes are not those of an array of {expected}")
    values = np.frombuffer(data, "<f4", offset=len(header)).reshape(shape)
    if not finite and values.nbytes < LARGE_BYTES:
        finite = bool(np.isfinite(values).all())
    elif not finite:
        finite = all(np.isfinite(np.frombuffer(part, "<f4")).all() for part in windows(data, len(header)))
    if not finite:
        raise WireError(f"array {name!r}: expected finite values, found some that are not; training diverged?")
    return values
