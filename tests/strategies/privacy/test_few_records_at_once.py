"""Private sums over records that are not all in memory: asked for a few at a time, the same sum."""

import numpy as np
import pytest
import torch

from configs.schema import Model, Task
from configs.schema.networks import Conv1d
from strategies.data.table import TablePatients
from strategies.learning import learning
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.book_keeping import BookKeeping
from strategies.privacy.plan import PrivacyPlan
from tests import builders

PLAN = PrivacyPlan(
    clip_norm=0.5, noise_multiplier=1e-11, sampling_rate=1.0, steps_per_round=1, rounds=1, delta=1e-5,
    expected_patients=9.0,
)  # fmt: skip


def people() -> TablePatients:
    """Nine patients with one to three series each."""
    made = builders.patients(9, inputs=40, rows_each=[1, 3, 2] * 3)
    return TablePatients(made.x.reshape(-1, 2, 20), made.y, made.patients, made.starts)


def gradient(patients: TablePatients) -> torch.Tensor:
    model: Model = Conv1d("conv1d", width=4)  # type: ignore[assignment]
    task = learning(Task("binary", "disease"), model, 0, (2, 20))
    flat = FlatModel(task)
    flat.load(task.initial(0))
    engine = BookKeeping(flat, PLAN, lambda size, _: torch.zeros(size))
    return engine.noisy_gradient_of(patients, np.array([4, 1, 0, 7, 8])).clone()


@pytest.mark.parametrize("at_once", [1, 4])
def test_the_clipped_sum_is_the_same(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, asked = gradient(people()), list[int]()
    take = TablePatients.take
    monkeypatch.setattr(TablePatients, "at_once", property(lambda _: at_once))
    monkeypatch.setattr(TablePatients, "take", lambda each, rows: asked.append(len(rows)) or take(each, rows))
    assert torch.allclose(gradient(people()), whole, atol=1e-6)
    assert max(asked) == max(at_once, 3)  # a patient's rows stay together
    assert whole.abs().max() > 1e-3
