"""No patient moves a released score and information by more than the public bound, and their sums are the model's."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.schema import Study
from strategies.data.table import TABLE, TablePatients
from strategies.learning import learning_of
from strategies.releases.information import SHARE, Frame, frame_of, summed
from tests.builders import random_arrays, study

FEATURES: dict[str, Any] = {
    "age": {"type": "number", "range": [20, 90]},
    "chol": {"type": "number", "range": [100, 400], "missing": [0]},
    "sex": {"type": "category", "values": ["female", "male"]},
    "smoker": {"type": "category", "values": ["no", "yes"], "missing": ["?"]},
    "pain": {"type": "category", "values": ["a", "b", "c", "d"]},
}


@pytest.fixture(scope="module")
def mixed() -> Study:
    return study(features=FEATURES)


def drawn(chosen: Study, rng: np.random.Generator, lengths: NDArray[np.int64]) -> TablePatients:
    """Rows that the public ranges and values allow, often at their ends."""
    rows, columns = int(lengths.sum()), []
    for feature in chosen.features:
        unknown = rng.random(rows) < 0.2 if feature.missing else np.zeros(rows, bool)
        if feature.type == "number":
            values = np.clip(1.5 * rng.uniform(-1, 1, rows), -1, 1)
            columns += [np.where(unknown, 0.0, values), *([unknown.astype(float)] if feature.missing else [])]
        else:
            codes = np.where(unknown, -1, rng.integers(0, len(feature.values), rows))
            columns += [(codes == i).astype(float) for i in range(1, len(feature.values))]
            columns += [(codes == -1).astype(float)] if feature.missing else []
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    x, y = np.stack(columns, 1).astype(np.float32), rng.integers(0, 2, rows).astype(np.float32)
    return TablePatients(x, y, np.repeat(np.arange(len(lengths)), lengths), starts)


def test_the_frame_is_as_long_as_the_farthest_row_and_no_longer(mixed: Study) -> None:
    frame = frame_of(mixed)
    assert frame.length**2 == pytest.approx(1 + 1 + 1 + 0.25 + 0.5 + 2 / 3)
    rows = drawn(mixed, np.random.default_rng(0), np.ones(4000, np.int64)).x - frame.centre
    lengths = (rows**2).sum(axis=1) + 1
    assert lengths.max() == pytest.approx(frame.length**2)


@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0])
@pytest.mark.parametrize("rows_each", [1, 4])
def test_no_patient_moves_the_sum_by_more_than_the_bound(mixed: Study, scale: float, rows_each: int) -> None:
    rng, frame, learning = np.random.default_rng(1), frame_of(mixed), learning_of(mixed)
    largest = 0.0
    for seed in range(6):
        model = random_arrays(learning.parameters, seed, scale)
        people = drawn(mixed, rng, rng.integers(1, rows_each + 1, 30))
        everybody = summed(people, learning, model, frame)
        for left_out in range(30):
            rest = summed(people.subset(np.delete(np.arange(30), left_out)), learning, model, frame)
            largest = max(largest, float(np.linalg.norm(everybody - rest)))
    assert largest <= frame.length * (1 + 1e-12)
    assert largest > 0.5 * frame.length  # the bound is no fancy


def test_one_row_is_never_clipped_and_the_bound_is_reached_within_a_tenth() -> None:
    frame, r = Frame(np.zeros(0), 1.0), np.linspace(0, 1, 10_001)
    norms = np.sqrt(r**2 * (1 + SHARE**2 * (1 - r) ** 2))
    assert norms.max() == pytest.approx(1.0)
    assert norms[(r > 0.6) & (r < 0.64)].max() == pytest.approx(1.0)  # at the golden section too: no larger share fits
    assert frame.size == 2


def test_the_sums_are_the_gradient_and_the_second_derivative_of_the_loss(mixed: Study) -> None:
    import torch

    learning, frame = learning_of(mixed), frame_of(mixed)
    people = drawn(mixed, np.random.default_rng(2), np.ones(50, np.int64))
    model = random_arrays(learning.parameters, 3)
    score, information = frame.apart(summed(people, learning, model, frame))

    x = torch.from_numpy(people.x).double()
    weights, bias = (torch.from_numpy(array).double() for array in model.values())
    centre = torch.from_numpy(frame.centre)
    start = torch.cat([weights[0], bias + weights[0] @ centre])

    def loss(flat: torch.Tensor) -> torch.Tensor:
        outputs = (x - centre) @ flat[:-1] + flat[-1]
        return learning.loss(outputs[:, None], torch.from_numpy(people.y).double()).sum()

    gradient = torch.autograd.functional.jacobian(loss, start)  # type: ignore[no-untyped-call]
    hessian = torch.autograd.functional.hessian(loss, start)  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(score, gradient.numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(information, hessian.numpy(), rtol=1e-6, atol=1e-6)


def test_a_patient_who_is_not_finite_adds_nothing_and_nobody_adds_zeros(mixed: Study) -> None:
    learning, frame = learning_of(mixed), frame_of(mixed)
    people = drawn(mixed, np.random.default_rng(4), np.array([1, 2, 1]))
    x = people.x.copy()
    x[1] = np.nan
    model = random_arrays(learning.parameters)
    broken = summed(replace(people, x=x), learning, model, frame)
    np.testing.assert_allclose(broken, summed(people.subset(np.array([0, 2])), learning, model, frame), atol=1e-12)
    assert not summed(TABLE.nobody(mixed), learning, model, frame).any()


def test_portions_change_nothing(mixed: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    learning, frame = learning_of(mixed), frame_of(mixed)
    people = drawn(mixed, np.random.default_rng(5), np.random.default_rng(6).integers(1, 5, 40))
    whole = summed(people, learning, random_arrays(learning.parameters), frame)
    monkeypatch.setattr("strategies.releases.information._AT_ONCE", 3 * frame.size)
    np.testing.assert_allclose(summed(people, learning, random_arrays(learning.parameters), frame), whole, rtol=1e-9)


def test_a_patient_with_very_many_rows_costs_no_more_memory_than_many_patients() -> None:
    """Memory that ends the worker because of one patient's rows would leave noise alone: it would tell of them."""
    wide = study(features={f"c{number}": {"type": "number", "range": [0, 1]} for number in range(60)})
    learning, frame = learning_of(wide), frame_of(wide)
    one = drawn(wide, np.random.default_rng(7), np.array([2, 10_000, 1]))
    model = random_arrays(learning.parameters)
    tracemalloc.start()
    together = summed(one, learning, model, frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    others = summed(one.subset(np.array([0, 2])), learning, model, frame)
    assert np.linalg.norm(together - others) <= frame.length
