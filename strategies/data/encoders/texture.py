"""The encoder `texture`: 189 numbers of a picture, by filters that nobody has trained.

18 log-Gabor filters (Field 1987), six directions at three scales, answer to stripes and edges. The mean energy
of each answer in each of 3 x 3 cells makes 162 numbers; the mean, the variance and the skewness of the values
in each cell make 27 more. Of a volume the mean over its slices counts. Linear models of such fixed features keep more
under differential privacy than small networks do (Tramer and Boneh 2021, arXiv 2011.11660).

Each number is brought into [-1, 1] by a quotient, never by what other patients are like, and rounded to a grid of
2^-12, so that processors agree.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from configs.schema import Record
from strategies.data.encoders.base import Encoder

Floats = NDArray[np.float64]
DIRECTIONS, WAVELENGTHS, CELLS = 6, (3.0, 6.0, 12.0), 3  # wavelengths in pixels
WIDTH, SPREAD = 0.55, np.pi / DIRECTIONS  # of a filter: its bandwidth as a ratio, and its angle's deviation
USUAL_ENERGIES, USUAL_VARIANCE = (0.003, 0.007, 0.01), 0.1  # of each scale's answers, and of the values: they become 0
GRID = 4096.0


class TextureEncoder(Encoder):
    """Oriented energies and moments; see above."""

    name = "texture"

    def encode(self, record: NDArray[np.float32], column: Record) -> Floats:
        """Return (channels * 189,): of each channel the energies, filter by filter, then the moments."""
        del column
        return np.concatenate([_of_channel(channel.astype(np.float64)) for channel in record])


def _of_channel(channel: Floats) -> Floats:
    planes = channel if channel.ndim == 3 else channel[None]
    mean: Floats = np.mean([_of_plane(plane) for plane in planes], axis=0)
    return np.rint(mean * GRID) / GRID


def _of_plane(plane: Floats) -> Floats:
    """Return (189,) in [-1, 1] of a picture."""
    answers = np.fft.ifft2(np.fft.fft2(plane) * _filters(*plane.shape))
    energies = _pooled(answers.real**2 + answers.imag**2)
    mean = _pooled(plane[None])
    apart = plane - _spread_out(mean[0], plane.shape)
    variance, third = _pooled(apart[None] ** 2), np.cbrt(_pooled(apart[None] ** 3))
    skewness = third / (np.abs(third) + np.sqrt(variance) + 1e-9)
    parts = (_around(energies, _usual()), mean, _around(variance, USUAL_VARIANCE), skewness)
    return np.concatenate([part.ravel() for part in parts])


def _usual() -> Floats:
    return np.repeat(USUAL_ENERGIES, DIRECTIONS)[:, None, None]


def _around(values: Floats, usual: Floats | float) -> Floats:
    """Return values from 0 on, brought into [-1, 1): the usual one becomes 0."""
    return np.asarray((values - usual) / (values + usual))


@lru_cache(8)
def _filters(rows: int, columns: int) -> Floats:
    """Return (18, rows, columns) gains by frequency, each filter one-sided, so that the answer's modulus is smooth."""
    down, across = np.meshgrid(np.fft.fftfreq(rows), np.fft.fftfreq(columns), indexing="ij")
    radius, angle = np.hypot(down, across), np.arctan2(down, across)
    radius[0, 0] = 1.0
    gains = []
    for wavelength in WAVELENGTHS:
        radial = np.exp(-(np.log(radius * wavelength) ** 2) / (2 * np.log(WIDTH) ** 2))
        radial[0, 0] = 0.0
        for k in range(DIRECTIONS):
            turned = np.angle(np.exp(1j * (angle - k * np.pi / DIRECTIONS)))
            gains.append(radial * np.exp(-(turned**2) / (2 * SPREAD**2)))
    return np.stack(gains)


@lru_cache(8)
def _cells(side: int) -> Floats:
    """Return (CELLS, side): the share of each place in each cell's mean; cells are equal parts of the side."""
    edges = np.linspace(0.0, side, CELLS + 1)
    places = np.arange(side)
    inside = np.minimum(places + 1.0, edges[1:, None]) - np.maximum(places, edges[:-1, None])
    shares: Floats = np.maximum(inside, 0.0) * (CELLS / side)
    return shares


def _pooled(planes: Floats) -> Floats:
    """Return (planes, CELLS, CELLS): the mean of each cell."""
    return np.asarray(_cells(planes.shape[1]) @ planes @ _cells(planes.shape[2]).T)


def _spread_out(means: Floats, shape: tuple[int, ...]) -> Floats:
    """Return each place's mean of the cells that it is in."""
    down, across = (_cells(side).T * (side / CELLS) for side in shape)
    return np.asarray(down @ means @ across.T)


TEXTURE = TextureEncoder()
