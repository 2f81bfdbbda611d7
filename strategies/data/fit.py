"""Bring a record to the study's size and scale, each by itself.

Sizes change by the weights of a triangle as wide as a pixel of the coarser grid, axis by axis (linear interpolation
that leaves out no value where an image becomes smaller). Sums are in float64 and the results are rounded to a grid of
2^-16, so that processors agree. Labels take the nearest value and are never scaled. A series is cut at its end, or
filled up with zeros.

>>> resized(np.array([[0.0, 2.0], [4.0, 6.0]]), (1, 1)).tolist(), resized(np.array([[0.0, 4.0]]), (1, 4)).tolist()
([[3.0]], [[0.0, 1.0, 3.0, 4.0]])
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record
from strategies.data.source import UnreadError, Why

Floats = NDArray[np.float64]
OWN = (1.0, 99.0)  # percentiles of a record's own values that become -1 and 1 where the study has no window
GRID = 65_536.0
_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114  # what of each makes grey (ITU-R BT.601)


def fit(values: NDArray[Any], column: Record) -> NDArray[np.float32]:
    """Return a record as a model reads it: (channels, sides...) in [-1, 1], or labels.

    Args:
        values: (channels, sides...), or (sides...) of one channel; what is not finite is unknown.

    Raises:
        UnreadError: it has another number of axes or channels.
    """
    shaped = _shaped(values, column)
    if column.labels:
        return np.stack([_nearest(channel, column.size) for channel in shaped]).astype(np.float32)
    if len(column.size) == 1:
        scaled = np.stack([_scaled(channel[: column.size[0]].astype(np.float64), column) for channel in shaped])
        return np.pad(scaled, ((0, 0), (0, column.size[0] - scaled.shape[1])))
    return np.stack([_scaled(resized(_known(channel), column.size), column) for channel in shaped])


def is_resized(values: NDArray[Any], column: Record) -> bool:
    """Return whether an image has another size than the study's."""
    return len(column.size) > 1 and tuple(values.shape[-len(column.size) :]) != column.size


def _shaped(values: NDArray[Any], column: Record) -> NDArray[Any]:
    """Return (channels, sides...) of the study's channels: grey stands for three colours, and colours become grey."""
    axes = len(column.size)
    if values.ndim == axes + 2 and values.shape[1] == 1:
        values = values[:, 0]  # a volume of one slice is a picture
    if values.ndim == axes:
        values = values[None]
    if values.ndim != axes + 1 or not values.size:
        raise UnreadError(Why.SHAPE)
    channels = len(values)
    if channels == 3 and column.channels == 1 and axes > 1:
        return np.asarray(_RED * values[0] + _GREEN * values[1] + _BLUE * values[2])[None]
    if channels == 1 and column.channels == 3 and axes > 1:
        return np.repeat(values, 3, axis=0)
    if channels != column.channels:
        raise UnreadError(Why.SHAPE)
    return values


def _known(channel: NDArray[Any]) -> NDArray[Any]:
    """Return values with the lowest known one in the place of those that are not finite."""
    finite = np.isfinite(channel)
    if finite.all():
        return channel
    return np.where(finite, channel, channel[finite].min() if finite.any() else 0)


def _scaled(values: Floats, column: Record) -> NDArray[np.float32]:
    """Return values with the window as [-1, 1]; unknown ones, and those of a record of one value, are 0."""
    low, high = column.low, column.high
    known = np.isfinite(values)
    if low is None or high is None:
        low, high = np.percentile(values[known], OWN).tolist() if known.any() else (0.0, 0.0)
    if not low < high:
        return np.zeros(values.shape, np.float32)
    scaled = np.clip((np.where(known, values, 0.0) - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0)
    scaled = np.where(known, np.rint(scaled * GRID) / GRID, 0.0)
    return scaled.astype(np.float32)


def resized(values: NDArray[Any], size: tuple[int, ...]) -> Floats:
    """Return an image of another size, float64; a volume is gone through slice by slice.

    Args:
        values: (rows, columns) or (slices, rows, columns).
    """
    if len(size) == 2:
        rows, columns = (_weights(*sides) for sides in zip(values.shape, size, strict=True))
        return rows @ values.astype(np.float64) @ columns.T
    whole, weights = np.zeros(size), _weights(len(values), size[0])
    for plane, of_plane in zip(values, weights.T, strict=True):
        reached = np.flatnonzero(of_plane)
        if len(reached):
            whole[reached] += of_plane[reached, None, None] * resized(plane, size[1:])
    return whole


@lru_cache(64)
def _weights(before: int, after: int) -> Floats:
    """Return (after, before): what each value before adds to each one after; each one's weights sum to 1."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale - 0.5
    distances = np.abs(np.arange(before) - np.clip(centres, 0, before - 1)[:, None])
    weights = np.maximum(0.0, 1.0 - distances / max(scale, 1.0))
    normed: Floats = weights / weights.sum(axis=1, keepdims=True)
    return normed


def _nearest(values: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    places = [
        np.minimum(((np.arange(after) + 0.5) * before / after).astype(np.int64), before - 1)
        for before, after in zip(values.shape, size, strict=True)
    ]
    return np.asarray(values[np.ix_(*places)])
