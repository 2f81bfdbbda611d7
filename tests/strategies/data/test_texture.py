"""The encoder `texture`: numbers of public range that say what stripes are where, of each picture by itself."""

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.schema import Image
from strategies.data.encoders.texture import CELLS, DIRECTIONS, TEXTURE, WAVELENGTHS

SCAN = Image("scan", "image", reader="png", size=(36, 36), encoder="texture")


def stripes(wavelength: float, angle: float) -> NDArray[np.float32]:
    y, x = np.mgrid[:36, :36]
    return np.asarray(np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / wavelength), np.float32)[None]


@pytest.mark.parametrize(
    "image",
    [np.zeros((1, 36, 36)), np.ones((1, 36, 36)), np.indices((36, 36)).sum(axis=0)[None] % 2 * 2.0 - 1],
)
def test_every_number_is_in_its_public_range(image: NDArray[np.float64]) -> None:
    numbers = TEXTURE.encode(image.astype(np.float32), SCAN)
    assert numbers.shape == (SCAN.encoded,) == (189,)
    assert np.isfinite(numbers).all()
    assert np.abs(numbers).max() <= 1.0


@pytest.mark.parametrize("scale", range(len(WAVELENGTHS)))
@pytest.mark.parametrize("direction", [0, 2])
def test_the_filter_of_a_wavelength_and_a_direction_answers_most_to_such_stripes(scale: int, direction: int) -> None:
    image = stripes(WAVELENGTHS[scale], direction * np.pi / DIRECTIONS)
    energies = TEXTURE.encode(image, SCAN)[:162].reshape(len(WAVELENGTHS), DIRECTIONS, CELLS, CELLS)
    assert divmod(int(energies.mean(axis=(2, 3)).argmax()), DIRECTIONS) == (scale, direction)


def test_stripes_in_one_corner_are_told_from_others() -> None:
    image = np.zeros((1, 36, 36), np.float32)
    image[0, :12, 24:] = stripes(6.0, 0.0)[0, :12, 24:]
    energies = TEXTURE.encode(image, SCAN)[54:63].reshape(CELLS, CELLS)
    assert divmod(int(energies.argmax()), CELLS) == (0, 2)


def test_each_channel_has_its_numbers_and_a_volume_the_mean_of_its_slices() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (2, 36, 36)).astype(np.float32)
    both, first = TEXTURE.encode(image, SCAN), TEXTURE.encode(image[:1], SCAN)
    assert np.array_equal(both[:189], first)
    volume = TEXTURE.encode(np.stack([image[0], image[1]])[None], SCAN)
    assert volume == pytest.approx((both[:189] + both[189:]) / 2, abs=2e-4)
