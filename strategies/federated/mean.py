"""Pure functions on named arrays that combine models beside Flower's strategies.

>>> mean_of({"bias": np.array([2.0])}, count=4)["bias"].tolist()
[0.5]
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from configs.frame import windows
from configs.memory import LARGE_BLOCK_BYTES, ROOM
from configs.schema import Study
from strategies.exchange.arrays import LARGE_BYTES, Arrays, array_of
from strategies.exchange.flower import record_of
from strategies.exchange.halves import both, spans
from strategies.exchange.pieces import pieces

Sums = dict[str, NDArray[np.float64]]


def site_weights(study: Study, sites: Sequence[str]) -> dict[str, float]:
    """Return each hospital's weight: its announced patients, or 1; never a count of the data, which would leak."""
    if study.training.weights == "uniform":
        return dict.fromkeys(sites, 1.0)
    return {site: float(study.announced_patients(site) or 1) for site in sites}


def add(sums: Sums, arrays: Arrays, zeros: Callable[[tuple[int, ...]], NDArray[np.float64]] = np.zeros) -> Sums:
    """Return running sums in float64, for the average of iterates (Polyak and Juditsky 1992); those given are added to.

    Args:
        zeros: makes the first sums, of a shape.
    """
    added = {name: sums[name] if name in sums else zeros(array.shape) for name, array in arrays.items()}
    for name, total in added.items():
        for into, values in zip(pieces(total), _alike(arrays[name], total), strict=True):
            into += values
    return added


def _alike(array: NDArray[np.float32], other: NDArray[np.float64]) -> Iterator[NDArray[np.float32]]:
    """Yield an array in pieces of as many values as another one's."""
    flat, start = array.reshape(-1), 0
    for piece in pieces(other):
        yield flat[start : start + len(piece)]
        start += len(piece)


def weighted_mean(records: Sequence[ArrayRecord], weights: Sequence[float]) -> ArrayRecord:
    """Return the mean of records of the same arrays: Flower's arithmetic, in its order and to its bits, piece by piece.

    Flower's own holds every record a second time. The records have been checked (`from_record`).
    """
    total = sum(weights)
    factors = [weight / total for weight in weights]
    if sum(len(array.data) for array in records[0].values()) < LARGE_BYTES:
        return _mean_of_small(records, factors)
    return record_of({name: _mean([record[name] for record in records], factors) for name in records[0]})


def _mean_of_small(records: Sequence[ArrayRecord], factors: Sequence[float]) -> ArrayRecord:
    """Return the same of all arrays at once, one after the other."""
    first = dict(records[0].items())
    sizes = [(name, 4 * math.prod(array.shape)) for name, array in first.items()]
    mean: Any = None
    for record, factor in zip(records, factors, strict=True):
        arrays_of_record = dict(record.items())
        values = b"".join(
            [arrays_of_record[name].data[len(arrays_of_record[name].data) - size :] for name, size in sizes]
        )
        part = np.frombuffer(values, "<f4") * factor
        mean = part if mean is None else np.add(mean, part, out=mean)
    means, start = {}, 0
    for name, size in sizes:
        array = first[name]
        header = bytes(array.data[: len(array.data) - size])
        means[name] = array_of((array.shape, array.dtype), header + mean[start : start + size // 4].tobytes())
        start += size // 4
    return record_of(means)


def _mean(arrays: Sequence[Array], factors: Sequence[float]) -> Array:
    first = arrays[0]
    header = len(first.data) - 4 * math.prod(first.shape)
    large = len(first.data) >= LARGE_BLOCK_BYTES
    data = ROOM.of(len(first.data)) if large else memoryview(bytearray(len(first.data)))
    data[:header] = first.data[:header]
    bodies = [memoryview(array.data)[header:] for array in arrays]

    def write(span: slice) -> None:
        mean, start = np.frombuffer(data[header:][span], "<f4"), 0
        for parts in zip(*(windows(view[span]) for view in bodies), strict=True):
            values = [np.frombuffer(piece, "<f4") for piece in parts]
            into = mean[start : start + len(values[0])]
            np.multiply(values[0], factors[0], out=into)
            for value, factor in zip(values[1:], factors[1:], strict=True):
                into += value * factor
            start += len(into)

    both(write, spans(len(data) - header), len(data))
    return array_of((first.shape, first.dtype), data)


def mean_of(sums: Mapping[str, NDArray[np.float64]], count: int) -> Arrays:
    """Return the average as float32."""
    means: Arrays = {}
    for name, total in sums.items():
        means[name], start = np.empty(total.shape, np.float32), 0
        flat = means[name].reshape(-1)
        for piece in pieces(total):
            flat[start : start + len(piece)] = piece / count
            start += len(piece)
    return means
