"""Arrow's arrays as columns: what stands in a Parquet file is what its text would be.

>>> column_of(pa.array([1.5, None, float("nan"), -0.0]), as_text=False).texts()
['1.5', '', '', '-0']
>>> column_of(pa.array([0.1, 16777216.0], pa.float32()), as_text=False).numbers().tolist()
[0.1, 16777216.0]
>>> column_of(pa.array([decimal.Decimal("120.50"), None], pa.decimal128(38, 2)), as_text=False).texts()
['120.5', '']
"""

import datetime
import decimal
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds
from numpy.typing import NDArray

from client.connectors.columns import Cells, Coded, Column, Numbers

NUMBER, TEXT, TRUTH, TIME, EMPTY = "number", "text", "truth", "time", "empty"
BEYOND = "?"  # what a time is that no calendar here has: no number, no date
EXACT = 2**53  # whole numbers up to here are exact in 64 bits of floating point
EXACT_DECIMAL = 10**15  # decimals of fewer digits are there and back
EXACT_SCALE = 22  # as is this power of ten
_DECIMALS = range(7)  # tried for numbers of 32 bits
_SHORT_BETWEEN = (1e-3, 1e7)  # where a number of 32 bits has so few decimals
_TEXTS: Sequence[Callable[[Any], bool]] = (
    *(kinds.is_string, kinds.is_large_string, kinds.is_string_view),
    *(kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view),
)
_TIMES: Sequence[Callable[[Any], bool]] = (kinds.is_date, kinds.is_timestamp, kinds.is_time)


def form_of(arrow: Any) -> str | None:
    """Return what cells of an Arrow type are, a number, text, truth, a time or nothing; None where they are no cells.

    >>> form_of(pa.dictionary(pa.int8(), pa.string())), form_of(pa.list_(pa.int8()))
    ('text', None)
    """
    if kinds.is_dictionary(arrow):
        return form_of(arrow.value_type)
    if kinds.is_integer(arrow) or kinds.is_floating(arrow) or kinds.is_decimal(arrow):
        return NUMBER
    if any(is_kind(arrow) for is_kind in _TEXTS):
        return TEXT
    if any(is_kind(arrow) for is_kind in _TIMES):
        return TIME
    return TRUTH if kinds.is_boolean(arrow) else EMPTY if kinds.is_null(arrow) else None


def column_of(array: Any, *, as_text: bool) -> Column:
    """Return an array as a column.

    Args:
        as_text: whether most texts differ, as ids do: then they are not looked up in a list of words.

    Raises:
        ValueError: cells of such a type cannot be read.
    """
    arrow = array.type
    if kinds.is_dictionary(arrow):
        return _of_words(array)
    form = form_of(arrow)
    if form == NUMBER:
        return _numbers(array)
    if form == TRUTH:
        codes = pc.fill_null(array.cast(pa.int8()), -1).to_numpy(zero_copy_only=False) + 1
        return Coded(codes, ["", "0", "1"], is_truth=True)
    if form == EMPTY:
        return Numbers(np.full(len(array), np.nan))
    if form is None:
        raise ValueError(f"{arrow} is no type of a cell")
    return Cells(_texts(array)) if as_text and form == TEXT else _of_words(array)


def text_of(value: Any) -> str:
    """Return a value as it would stand in a file.

    >>> text_of(decimal.Decimal("2.50")), text_of(datetime.datetime(2024, 1, 31, 8)), text_of(None)
    ('2.5', '2024-01-31 08:00:00', '')
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace").strip()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    if isinstance(value, decimal.Decimal):
        digits = format(value, "f")
        return digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "" if value is None else str(value)


def _of_words(array: Any) -> Coded:
    """Return codes into the different cells, the empty one first."""
    encoded = array if kinds.is_dictionary(array.type) else pc.dictionary_encode(array)
    codes = pc.fill_null(encoded.indices.cast(pa.int32()), -1).to_numpy(zero_copy_only=False) + 1
    words = encoded.dictionary
    if kinds.is_boolean(words.type) or kinds.is_floating(words.type):
        return Coded(codes, ["", *column_of(words, as_text=False).texts()], is_truth=kinds.is_boolean(words.type))
    if kinds.is_timestamp(words.type) and words.type.unit == "ns":
        words = words.cast(pa.timestamp("us", words.type.tz), safe=False)
    return Coded(codes, ["", *_texts(words)])


def _texts(array: Any) -> list[str]:
    """Return the text of each cell. No cell decides how another is read: what Python has no value for is a word, too.

    Such are times before the year 1 or after 9999, and text that is no UTF-8.
    """
    try:
        return list(map(text_of, array.to_pylist()))
    except (OverflowError, ValueError):
        return [_text_alone(cell) for cell in array]


def _text_alone(cell: Any) -> str:
    try:
        return text_of(cell.as_py())
    except (OverflowError, ValueError):
        if form_of(cell.type) == TEXT:
            return text_of(cell.cast(pa.large_binary() if kinds.is_large_string(cell.type) else pa.binary()).as_py())
        return BEYOND


def _numbers(array: Any) -> Column:
    """Return typed numbers as such where their text reads back as them, else as text."""
    arrow = array.type
    if kinds.is_decimal(arrow):
        values = _of_decimals(array)
        return _of_words(array) if values is None else Numbers(values)
    if kinds.is_integer(arrow) and arrow.bit_width == 64 and len(array) > array.null_count:
        edges = pc.min_max(array).as_py()
        if not -EXACT <= edges["min"] <= edges["max"] <= EXACT:
            return _of_words(array)
    if arrow in (pa.float16(), pa.float32()):
        return Numbers(_shortest(array.to_numpy(zero_copy_only=False)))
    values = array if arrow == pa.float64() else array.cast(pa.float64())
    return Numbers(values.to_numpy(zero_copy_only=False))


def _of_decimals(array: Any) -> NDArray[np.float64] | None:
    """Return the nearest 64-bit numbers to decimals, None where one has too many digits to be read back from it.

    Each is a whole number that is exact over a power of ten that is exact, so rounded once.
    """
    scale = array.type.scale
    if array.type.bit_width > 128 or not 0 <= scale <= EXACT_SCALE:
        return None
    wide = array.cast(pa.decimal128(38, scale))
    low, high = np.frombuffer(wide.buffers()[1], np.int64).reshape(-1, 2)[wide.offset : wide.offset + len(wide)].T
    unknown = array.is_null().to_numpy(zero_copy_only=False)
    fits = (high == low >> 63) & (low < EXACT_DECIMAL) & (low > -EXACT_DECIMAL)
    return np.where(unknown, np.nan, low / 10.0**scale) if (fits | unknown).all() else None


def _shortest(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return, of each 16- or 32-bit number, the shortest decimal that reads back as it, in 64 bits."""
    wide = values.astype(np.float64)
    size = np.abs(wide)
    special = (wide == 0.0) | ~np.isfinite(wide)
    short = np.where(special, wide, np.nan)
    left = np.flatnonzero(~special & (size >= _SHORT_BETWEEN[0]) & (size < _SHORT_BETWEEN[1]))
    for decimals in _DECIMALS:
        rounded = np.round(wide[left] * 10.0**decimals) / 10.0**decimals
        same = rounded.astype(values.dtype) == values[left]
        short[left[same]] = rounded[same]
        left = left[~same]
    left = np.flatnonzero(np.isnan(short) & ~np.isnan(wide))
    short[left] = [float(str(value)) for value in values[left]]
    return short
