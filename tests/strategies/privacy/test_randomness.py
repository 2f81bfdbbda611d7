"""Seeded chance repeats, the system's does not, and Poisson sampling is Poisson sampling."""

import numpy as np
import pytest
import torch

from strategies.privacy.randomness import Randomness


def draws(randomness: Randomness) -> tuple[bytes, bytes]:
    """Some of both streams."""
    return randomness.sampling.random(50).tobytes(), torch.randn(50, generator=randomness.noise).numpy().tobytes()


def test_the_same_seed_site_and_round_repeat_both_streams() -> None:
    assert draws(Randomness.seeded(3, "lille", 7)) == draws(Randomness.seeded(3, "lille", 7))


@pytest.mark.parametrize(
    "other",
    [(4, "lille", 7), (3, "lyon", 7), (3, "lille", 8), (3, "lille-7", 7)],
    ids=["seed", "site", "round", "name"],
)
def test_another_seed_site_or_round_changes_both_streams(other: tuple[int, str, int]) -> None:
    here, there = draws(Randomness.seeded(3, "lille", 7)), draws(Randomness.seeded(*other))
    assert here[0] != there[0]
    assert here[1] != there[1]


def test_seeds_and_sites_that_read_alike_when_run_together_differ() -> None:
    assert draws(Randomness.seeded(1, "1", 11)) != draws(Randomness.seeded(11, "1", 1))


def test_the_systems_chance_does_not_repeat() -> None:
    here, there = draws(Randomness.system()), draws(Randomness.system())
    assert here[0] != there[0]
    assert here[1] != there[1]


def test_the_systems_noise_cannot_be_found_by_trying_seeds() -> None:
    """PyTorch keeps 32 bits of a seed, and 2^32 seeds are tried in an hour."""
    noise = Randomness.system().noise
    by_seed = torch.Generator().manual_seed(noise.initial_seed())
    assert not torch.equal(torch.randn(50, generator=noise), torch.randn(50, generator=by_seed))


def test_the_systems_noise_is_standard_normal() -> None:
    drawn = torch.randn(200_000, generator=Randomness.system().noise)
    assert float(drawn.mean()) == pytest.approx(0.0, abs=0.015)
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.015)
    assert float((drawn.abs() > 2).float().mean()) == pytest.approx(0.0455, abs=0.004)


def test_each_says_whether_it_was_seeded() -> None:
    assert Randomness.seeded(0, "lille", 1).is_seeded
    assert not Randomness.system().is_seeded


def chosen(rate: float, patients: int = 400, times: int = 500) -> np.ndarray:
    """(times, patients): who was in each batch."""
    randomness = Randomness.seeded(0, "lille", 1)
    batches = np.zeros((times, patients), bool)
    for batch in batches:
        batch[randomness.poisson(patients, rate)] = True
    return batches


@pytest.mark.parametrize("rate", [0.01, 0.16, 0.9])
def test_every_patient_is_chosen_at_the_rate(rate: float) -> None:
    batches = chosen(rate)
    error = (rate * (1 - rate) / batches.size) ** 0.5
    assert batches.mean() == pytest.approx(rate, abs=4 * error)
    assert np.abs(batches.mean(axis=0) - rate).max() < 5 * (rate * (1 - rate) / len(batches)) ** 0.5


@pytest.mark.parametrize("rate", [0.01, 0.16, 0.9])
def test_the_batch_size_varies_as_independent_choices_make_it(rate: float) -> None:
    sizes = chosen(rate).sum(axis=1)
    assert sizes.var() == pytest.approx(400 * rate * (1 - rate), rel=0.25)  # batches of a fixed size would give 0


def test_batches_do_not_depend_on_each_other() -> None:
    batches = chosen(0.16).astype(float)
    both = (batches[1:] * batches[:-1]).mean()  # a shuffled pass would never repeat a patient: 0
    assert both == pytest.approx(0.16**2, abs=0.002)


def test_neighbours_in_the_table_are_chosen_independently() -> None:
    batches = chosen(0.16).astype(float)
    assert (batches[:, 1:] * batches[:, :-1]).mean() == pytest.approx(0.16**2, abs=0.002)


def test_rate_one_is_everybody() -> None:
    assert Randomness.seeded(0, "lille", 1).poisson(7, 1.0).tolist() == list(range(7))


def test_a_small_rate_may_choose_nobody() -> None:
    assert Randomness.seeded(0, "lille", 1).poisson(5, 1e-9).tolist() == []


def test_the_chosen_are_sorted_and_distinct() -> None:
    positions = Randomness.seeded(0, "lille", 1).poisson(1000, 0.3)
    assert (np.diff(positions) > 0).all()
