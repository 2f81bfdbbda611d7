"""Named float32 arrays <-> Flower's ArrayRecord, exactly.

Flower carries an array as an .npy file. Reading one with a general parser would trust a header that the other side
wrote; here the expected shape is known, so the only header accepted is the one that NumPy writes for it, byte for byte.
That is also what makes it quick: 2 microseconds an array instead of 30.

>>> record = to_record({"bias": np.zeros(3, np.float32)})
>>> from_record(record, {"bias": ((3,), "float32")})
{'bias': array([0., 0., 0.], dtype=float32)}
>>> from_record(record, {"bias": ((4,), "float32")})
Traceback (most recent call last):
    ...
configs.errors.WireError: array 'bias': expected ((4,), 'float32'), found ((3,), 'float32')
"""

import io
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from configs.errors import WireError
from configs.wire import ArraySpec

Arrays = dict[str, NDArray[np.float32]]
_STYPE = "numpy.ndarray"
_HEADER_BYTES = 128  # of the .npy format for the shapes here, which pads them to a multiple of 64


def spec(array: Array) -> ArraySpec:
    """What the array says of itself; `from_record` checks that its bytes agree."""
    return tuple(array.shape), array.dtype


def to_record(arrays: Mapping[str, NDArray[np.float32]]) -> ArrayRecord:
    """An ArrayRecord of the arrays as little-endian float32, in their order."""
    return ArrayRecord({name: _to_array(array) for name, array in arrays.items()})


def from_record(record: ArrayRecord, specs: Mapping[str, ArraySpec]) -> Arrays:
    """The arrays of exactly these names, shapes and types, in the order of `specs`.

    Raises:
        WireError: a name too many or too few, another shape or type, bytes that do not fit, a value not finite.
    """
    if odd := sorted(set(record) ^ set(specs)):
        raise WireError(f"arrays: expected {', '.join(specs)}; found a difference at {', '.join(odd)[:200]}")
    return {name: _from_array(name, record[name], expected) for name, expected in specs.items()}


def array_of(expected: ArraySpec, data: bytes | bytearray | memoryview) -> Array:
    """An array of this shape and type around these bytes; `from_record` checks that they agree."""
    shape, dtype = expected
    return Array(dtype, shape, _STYPE, bytes(data))


def payload_bytes(record: ArrayRecord) -> int:
    """Bytes of the arrays and their names, as they are sent."""
    return sum(len(name) + len(array.data) for name, array in record.items())


def reads_as_text(data: bytes | bytearray | memoryview) -> bool:
    """Whether twelve values in a row, behind an array's header, are made of printable ASCII characters alone.

    Trained parameters are not: less than one float32 of a usual size in forty is, and twelve in a row make no false
    alarm in a lifetime (equal neighbours do not count: an array of 0.7 is no text). It finds text that was written as
    numbers, not text that somebody took pains to hide: against that stand the noise, and that the code which trains is
    the hospital's own.

    >>> text = np.frombuffer(b"Mme Dupont, 73 ans, code postal 59000 Lille, diabetique.", "<f4")
    >>> reads_as_text(to_record({"w": text})["w"].data), reads_as_text(to_record({"w": text[:9]})["w"].data)
    (True, False)
    """
    four = np.frombuffer(data, "<u4")[_HEADER_BYTES // 4 :]
    one, space = np.uint32(0x01010101), np.uint32(0x20202020)  # in each byte: 0x20 <= character <= 0x7e
    run = ((four | (four + one) | (four - space)) & np.uint32(0x80808080)) == 0
    run[1:] &= four[1:] != four[:-1]
    for reach in (1, 2, 4, 4):  # a position then stands for 2, 4, 8, 12 values
        if len(run) <= reach or not run.any():
            return False
        run = run[:-reach] & run[reach:]
    return bool(run.any())


@lru_cache(maxsize=4096)
def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """The .npy header (version 1.0) that NumPy writes for such an array."""
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": descr})
    return buffer.getvalue()


def _to_array(array: NDArray[np.float32]) -> Array:
    array = np.asarray(array, dtype="<f4", order="C")
    return Array("float32", array.shape, _STYPE, _header(array.shape, "<f4") + array.tobytes())


def _from_array(name: str, array: Array, expected: ArraySpec) -> NDArray[np.float32]:
    if spec(array) != expected or array.stype != _STYPE:
        raise WireError(f"array {name!r}: expected {expected}, found {spec(array)}")
    shape, _ = expected
    header = _header(shape, "<f4")
    if not array.data.startswith(header) or len(array.data) != len(header) + 4 * int(np.prod(shape)):
        raise WireError(f"array {name!r}: its bytes are not those of an array of {expected}")
    values = np.frombuffer(array.data, "<f4", offset=len(header)).reshape(shape)
    if not np.isfinite(values).all():
        raise WireError(f"array {name!r}: expected finite values, found some that are not; training diverged?")
    return values
