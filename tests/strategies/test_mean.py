"""Weights from public sizes, and the average of iterates."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from strategies.exchange.arrays import to_record
from strategies.federated.mean import Sums, add, mean_of, site_weights, weighted_mean
from tests.builders import plain, study


def test_public_weights_are_the_announced_numbers_of_patients() -> None:
    assert site_weights(study(), ["brest", "lille", "lyon"]) == {"brest": 60.0, "lille": 100.0, "lyon": 80.0}


def test_uniform_weights_are_one() -> None:
    assert site_weights(study(training={"weights": "uniform"}), ["brest", "lyon"]) == {"brest": 1.0, "lyon": 1.0}


def test_without_an_announcement_every_hospital_weighs_the_same() -> None:
    assert site_weights(plain(cohort=None, training={"quorum": 1}), ["a", "b"]) == {"a": 1.0, "b": 1.0}


def test_the_average_of_iterates_is_summed_in_double_precision_and_ends_as_float32() -> None:
    sums: Sums = {}
    for value in [1e8] + [1.0] * 1000:
        sums = add(sums, {"w": np.array([value], np.float32)})
    mean = mean_of(sums, 1001)["w"]
    assert mean.dtype == np.float32
    assert mean[0] == np.float32((1e8 + 1000) / 1001)  # float32 sums would have lost every one of the thousand


@pytest.mark.parametrize(
    "shapes", [((3,),), ((64, 13), (64,), (1, 64), (1,)), ((), (2, 0), (5,)), ((300, 200), (7,)), ((1601, 1500), (7,))]
)
@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_weighted_mean_is_flowers_byte_for_byte_in_any_order_of_names(
    shapes: tuple[tuple[int, ...], ...], count: int
) -> None:
    rng = np.random.default_rng(count)
    records, weights = [], [float(rng.integers(1, 500)) for _ in range(count)]
    for i in range(count):
        made = [(f"a{k}", rng.normal(size=shape).astype(np.float32)) for k, shape in enumerate(shapes)]
        records.append(to_record(dict(made if i % 2 == 0 else made[::-1])))
    ours = weighted_mean(records, weights)
    sent = [
        RecordDict({"arrays": _of_bytes(record), "m": MetricRecord({"w": weight})})
        for record, weight in zip(records, weights, strict=True)
    ]
    theirs = aggregate_arrayrecords(sent, "w")
    assert list(ours) == list(theirs)
    assert {name: (a.data, a.shape, a.dtype) for name, a in ours.items()} == {
        name: (a.data, a.shape, a.dtype) for name, a in theirs.items()
    }


def _of_bytes(record: ArrayRecord) -> ArrayRecord:
    return ArrayRecord({name: Array(a.dtype, a.shape, a.stype, bytes(a.data)) for name, a in record.items()})
