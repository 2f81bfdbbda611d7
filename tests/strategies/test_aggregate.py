"""Weights from public sizes, and the average of iterates."""

import numpy as np
from builders import plain, study

from strategies.aggregate import add, mean_of, site_weights


def test_public_weights_are_the_announced_numbers_of_patients() -> None:
    assert site_weights(study(), ["brest", "lille", "lyon"]) == {"brest": 60.0, "lille": 100.0, "lyon": 80.0}


def test_uniform_weights_are_one() -> None:
    assert site_weights(study(training={"weights": "uniform"}), ["brest", "lyon"]) == {"brest": 1.0, "lyon": 1.0}


def test_without_an_announcement_every_hospital_weighs_the_same() -> None:
    assert site_weights(plain(cohort=None, training={"quorum": 1}), ["a", "b"]) == {"a": 1.0, "b": 1.0}


def test_the_average_of_iterates_is_summed_in_double_precision_and_ends_as_float32() -> None:
    sums = {}
    for value in [1e8] + [1.0] * 1000:
        sums = add(sums, {"w": np.array([value], np.float32)})
    mean = mean_of(sums, 1001)["w"]
    assert mean.dtype == np.float32
    assert mean[0] == np.float32((1e8 + 1000) / 1001)  # float32 sums would have lost every one of the thousand
