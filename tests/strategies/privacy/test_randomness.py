"""The noise is Gaussian and the sample Poisson, on a million draws; seeded chance repeats, the system's does not.

On seeded streams the outcome is the same on every run. On the system's a healthy build fails a test less than once in
a billion runs.
"""

import hashlib
import math

import numpy as np
import pytest
import torch
from scipy import stats

from configs.errors import PrivacyError
from strategies.privacy import randomness
from strategies.privacy.cipher import CipherStream
from strategies.privacy.randomness import Randomness

MILLION = 1_000_000
RARE = 1e-10  # chance of a false alarm of one comparison
FAR = float(stats.norm.isf(RARE / 2))  # in standard errors: 6.5


def draws(randomness: Randomness) -> tuple[bytes, bytes, bytes]:
    """Some of each stream."""
    return (
        randomness.sampling.random(50).tobytes(),
        randomness.gaussian(50, 1.0).numpy().tobytes(),
        randomness.poisson(500, 0.5).tobytes(),
    )


def test_the_same_seed_site_and_round_repeat_every_stream() -> None:
    assert draws(Randomness.seeded(3, "lille", 7)) == draws(Randomness.seeded(3, "lille", 7))


@pytest.mark.parametrize(
    "other",
    [(4, "lille", 7), (3, "lyon", 7), (3, "lille", 8), (3, "lille-7", 7)],
    ids=["seed", "site", "round", "name"],
)
def test_another_seed_site_or_round_changes_every_stream(other: tuple[int, str, int]) -> None:
    here, there = draws(Randomness.seeded(3, "lille", 7)), draws(Randomness.seeded(*other))
    assert all(a != b for a, b in zip(here, there, strict=True))


def test_seeds_and_sites_that_read_alike_when_run_together_differ() -> None:
    assert draws(Randomness.seeded(1, "1", 11)) != draws(Randomness.seeded(11, "1", 1))


def test_the_systems_chance_does_not_repeat() -> None:
    here, there = draws(Randomness.system()), draws(Randomness.system())
    assert all(a != b for a, b in zip(here, there, strict=True))


def test_the_sample_says_nothing_about_the_noise() -> None:
    randomness = Randomness.seeded(0, "lille", 1)
    randomness.poisson(1000, 0.5)
    assert torch.equal(randomness.gaussian(9, 1.0), Randomness.seeded(0, "lille", 1).gaussian(9, 1.0))


def test_each_says_whether_it_was_seeded() -> None:
    assert Randomness.seeded(0, "lille", 1).is_seeded
    assert not Randomness.system().is_seeded


def test_seeded_noise_is_the_same_in_every_version() -> None:
    """All but the last bits, on any machine: what simulations of this version print, they print for good."""
    drawn = Randomness.seeded(0, "lille", 1).gaussian(4, 1.0)
    torch.testing.assert_close(drawn, torch.tensor(KNOWN, dtype=torch.float64), rtol=1e-12, atol=1e-14)


KNOWN = [-0.12944602285444784, 0.8160696933379186, 0.46078290259306837, -0.8517456345722636]


def textbook_sums(words: np.ndarray) -> list[float]:
    """Thirteen sums from the sixteen words of eight Box-Muller pairs, each number by the textbook, one at a time."""
    cosines, sines = [], []
    for radius, angle in words.T.tolist():
        length = math.sqrt(-2 * math.log((abs(radius) + 0.5) / 2**63))
        cosines.append(length * math.cos(2 * math.pi * angle / 2**64))
        sines.append(length * math.sin(2 * math.pi * angle / 2**64))
    gaussians = cosines + sines  # Gaussian j enters sum i with the sign of (-1)^(bits that i and j share)
    return [sum(g * (-1) ** (i & j).bit_count() for j, g in enumerate(gaussians)) / 4 for i in range(3, 16)]


def test_the_noise_is_a_quarter_of_the_sum_of_sixteen_gaussians_of_the_streams_words() -> None:
    """The first lot, 832 numbers from 1024 words: half of these make radii, the others angles."""
    stream = CipherStream(hashlib.sha256(b"noise/0/lille/1").digest())
    words = stream.words(1024).view(np.int64).reshape(2, 8, 64)
    expected = np.array([textbook_sums(words[:, :, k]) for k in range(64)]).T.reshape(-1)
    drawn = Randomness.seeded(0, "lille", 1).gaussian(832, 1.0)
    np.testing.assert_allclose(drawn.numpy(), expected, rtol=1e-12, atol=1e-14)


def test_sums_of_the_same_numbers_are_orthogonal_and_leave_three_of_them_open() -> None:
    signs = randomness._added_with_signs(np.eye(16), np.empty((16, 16)))
    assert (16 * np.eye(16) == signs @ signs.T).all()
    assert (np.abs(signs) == 1).all()
    assert Randomness.seeded(0, "lille", 1)._noise.take(10**6).size == 13 * 64


def test_seeded_noise_has_the_same_bits_on_every_processor() -> None:
    """No function of the build's own has a part in it: each number is made of correctly rounded operations."""
    drawn = Randomness.seeded(0, "lille", 1).gaussian(20_000, 1.0).numpy()
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == BITS


BITS = "9144a3cbbacc8131c9e7dcf9f1327b94c3298ca928c9d47ffe45963d2244cbac"


def test_the_noise_does_not_depend_on_how_it_is_asked_for() -> None:
    here, there = (Randomness.seeded(0, "lille", 1) for _ in range(2))
    parts = [here.gaussian(size, 1.0) for size in (1, 0, 254, 2, 3009, 7, 20_000)]
    assert torch.equal(torch.cat(parts), there.gaussian(sum(map(len, parts)), 1.0))


def test_the_noise_does_not_depend_on_the_number_of_threads() -> None:
    threads, drawn = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            drawn.append(Randomness.seeded(0, "lille", 1).gaussian(40_000, 1.0))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*drawn)


@pytest.fixture(scope="module", params=["seeded", "system"])
def noise(request: pytest.FixtureRequest) -> np.ndarray:
    """(1000, 1000): a thousand steps of a model of a thousand parameters, sigma 1."""
    randomness = Randomness.seeded(0, "lille", 1) if request.param == "seeded" else Randomness.system()
    return np.stack([randomness.gaussian(1000, 1.0).numpy() for _ in range(1000)]).astype(float)


def test_the_noises_mean_is_zero(noise: np.ndarray) -> None:
    assert abs(noise.mean()) < FAR / math.sqrt(MILLION)


def test_the_noises_variance_is_what_was_asked(noise: np.ndarray) -> None:
    assert abs(noise.var() - 1) < FAR * math.sqrt(2 / MILLION)  # 0.9 %: catches half a per cent too little noise


def test_the_noise_is_normal(noise: np.ndarray) -> None:
    assert stats.kstest(noise.reshape(-1), "norm").pvalue > RARE


def test_the_noises_tails_are_a_normals(noise: np.ndarray) -> None:
    for limit in (2.0, 3.0, 4.0):
        share = 2 * float(stats.norm.sf(limit))
        assert abs((np.abs(noise) > limit).sum() - MILLION * share) < FAR * math.sqrt(MILLION * share) + 20
    assert 4.2 < np.abs(noise).max() < 7.5


@pytest.mark.parametrize("limit", [4.0, 5.0])
def test_the_far_tails_are_a_normals(limit: float) -> None:
    draws = 20 * MILLION  # 1267 and 11.5 beyond 4 and 5 standard deviations
    randomness = Randomness.seeded(0, "lille", 1)
    beyond = sum(int((randomness.gaussian(MILLION, 1.0).abs() > limit).sum()) for _ in range(20))
    assert stats.binomtest(beyond, draws, 2 * float(stats.norm.sf(limit))).pvalue > 1e-3


@pytest.mark.parametrize("lag", range(1024, 13_312, 1024))  # sums of the same sixteen numbers, in a lot of 13,312
@pytest.mark.parametrize("power", [1, 2], ids=["values", "squares"])
def test_sums_of_the_same_numbers_do_not_tell_each_other(lag: int, power: int) -> None:
    drawn = Randomness.seeded(0, "lille", 1).gaussian(12_480 + 75 * 13_312, 1.0).numpy()[12_480:].reshape(75, 13_312)
    centred = drawn**power - (power - 1)
    products = centred[:, lag:] * centred[:, :-lag]
    assert abs(products.sum()) < 1.3 * FAR * math.sqrt(products.size) * power


@pytest.mark.parametrize("axis", [0, 1], ids=["steps", "coordinates"])
@pytest.mark.parametrize("lag", [1, 2, 128, 500])
@pytest.mark.parametrize("power", [1, 2], ids=["values", "squares"])
def test_the_noise_of_one_does_not_tell_anothers(noise: np.ndarray, axis: int, lag: int, power: int) -> None:
    centred = noise**power - (power - 1)
    a, b = np.moveaxis(centred, axis, 0)[lag:], np.moveaxis(centred, axis, 0)[:-lag]
    assert abs((a * b).sum()) < 1.3 * FAR * math.sqrt(a.size) * power  # squares have variance 2 and heavier tails


def test_no_value_of_the_noise_comes_twice(noise: np.ndarray) -> None:
    assert len(np.unique(noise)) > MILLION - 10


@pytest.mark.parametrize("deviation", [1e-9, 0.35, 6.2, 1e5])
def test_the_noise_is_scaled_to_the_standard_deviation(deviation: float) -> None:
    one, scaled = (Randomness.seeded(0, "lille", 1).gaussian(999, s) for s in (1.0, deviation))
    torch.testing.assert_close(scaled, one * deviation, rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 40_001])
def test_the_noise_is_a_vector_of_the_size_asked_for(size: int) -> None:
    drawn = Randomness.seeded(0, "lille", 1).gaussian(size, 1.0)
    assert drawn.shape == (size,)
    assert drawn.dtype == torch.float64


@pytest.mark.parametrize("deviation", [0.0, -1.0, math.nan, math.inf])
def test_noise_that_would_be_none_is_refused(deviation: float) -> None:
    with pytest.raises(PrivacyError, match="positive, finite standard deviation"):
        Randomness.seeded(0, "lille", 1).gaussian(3, deviation)


@pytest.fixture(scope="module", params=["seeded", "system"])
def chance(request: pytest.FixtureRequest) -> Randomness:
    return Randomness.seeded(0, "lille", 1) if request.param == "seeded" else Randomness.system()


def chosen(chance: Randomness, rate: float, patients: int = 1000, times: int = 1000) -> np.ndarray:
    """(times, patients): who was in each batch."""
    batches = np.zeros((times, patients), bool)
    for batch in batches:
        batch[chance.poisson(patients, rate)] = True
    return batches


RATES = [0.01, 0.16, 0.5, 0.9]


@pytest.mark.parametrize("rate", RATES)
def test_every_patient_is_chosen_at_the_rate(chance: Randomness, rate: float) -> None:
    batches = chosen(chance, rate)
    assert stats.binomtest(int(batches.sum()), batches.size, rate).pvalue > RARE
    counts = batches.sum(axis=0)
    assert stats.binom.cdf(counts.min(), len(batches), rate) > RARE / 1000
    assert stats.binom.sf(counts.max() - 1, len(batches), rate) > RARE / 1000


@pytest.mark.parametrize("rate", RATES)
def test_the_batch_size_varies_as_independent_choices_make_it(chance: Randomness, rate: float) -> None:
    sizes = chosen(chance, rate).sum(axis=1)
    ratio = sizes.var(ddof=1) / (1000 * rate * (1 - rate))  # batches of a fixed size would give 0
    assert abs(ratio - 1) < FAR * math.sqrt(2.2 / len(sizes))


@pytest.mark.parametrize("rate", [0.16, 0.5])
@pytest.mark.parametrize("axis", [0, 1], ids=["batches", "neighbours in the table"])
@pytest.mark.parametrize("lag", [1, 7])
def test_one_choice_does_not_tell_another(chance: Randomness, rate: float, axis: int, lag: int) -> None:
    batches = np.moveaxis(chosen(chance, rate), axis, 0) - rate  # a shuffled pass would never repeat a patient
    products = batches[lag:] * batches[:-lag]
    assert abs(products.sum()) < 1.2 * FAR * rate * (1 - rate) * math.sqrt(products.size)


def test_samples_of_one_size_and_rate_are_never_given_for_another() -> None:
    randomness = Randomness.seeded(0, "lille", 1)
    for _ in range(4):
        randomness.poisson(1000, 0.5)
    assert max(randomness.poisson(100, 0.5)) < 100
    assert len(randomness.poisson(100, 0.01)) < 10


def test_rate_one_is_everybody(chance: Randomness) -> None:
    assert chance.poisson(7, 1.0).tolist() == list(range(7))


def test_a_small_rate_may_choose_nobody(chance: Randomness) -> None:
    assert chance.poisson(5, 1e-15).tolist() == []


def test_the_chosen_are_sorted_and_distinct(chance: Randomness) -> None:
    assert (np.diff(chance.poisson(1000, 0.3)) > 0).all()


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, math.nan])
def test_a_rate_that_cannot_be_is_refused(rate: float) -> None:
    with pytest.raises(PrivacyError, match="sampling rate"):
        Randomness.seeded(0, "lille", 1).poisson(5, rate)


class Dealt:
    """A stream that deals given words."""

    key_number = (0, 0)

    def __init__(self, *words: int) -> None:
        self.left = list(words)

    def words(self, count: int) -> np.ndarray:
        dealt, self.left = self.left[:count], self.left[count:]
        return np.array(dealt, np.uint64)

    def fill(self, words: np.ndarray) -> None:
        words[:] = self.words(len(words))


@pytest.mark.parametrize(
    ("rate", "words", "expected"),
    [
        (0.5, [2**31 - 1], [0]),
        (0.5, [2**31], []),
        (2.0**-32, [0], [0]),
        (2.0**-32, [1], []),
        (2.0**-33, [0, 2**63 - 1], [0]),  # the first half word ties: half of the next words decide for, half against
        (2.0**-33, [0, 2**63], []),
        (2.0**-97, [0, 0, 2**63 - 1], [0]),
        (2.0**-97, [0, 0, 2**63], []),
        (1 - 2.0**-53, [2**32 - 1, 2**64 - 2**43 - 1], [0]),
        (1 - 2.0**-53, [2**32 - 1, 2**64 - 2**43], []),
    ],
)
def test_the_rate_is_exact_to_the_last_bit(rate: float, words: list[int], expected: list[int]) -> None:
    randomness = Randomness(Dealt(*words), Dealt(), 0, is_seeded=True)  # type: ignore[arg-type]
    assert randomness.poisson(1, rate).tolist() == expected


@pytest.mark.parametrize("place", [(0, "lille", 1), (7, "lyon", 30)])
def test_an_order_alone_is_the_seeded_one(place: tuple[int, str, int]) -> None:
    seeded, alone = Randomness.seeded(*place), Randomness.ordering(*place)
    assert alone.is_seeded
    for patients in (5, 1, 64):
        assert alone.sampling.permutation(patients).tolist() == seeded.sampling.permutation(patients).tolist()
