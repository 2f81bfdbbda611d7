"""One private step against plain autograd, patient by patient, and its noise against its promised size."""

import numpy as np
import pytest
import torch
from builders import patients, random_arrays, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from client.trainer import Trainer
from configs.schema import Local, Model, Task
from strategies.privacy.gradients import OpacusEngine
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.tasks.gradients import FlatModel
from strategies.tasks.table import Encoded
from strategies.tasks.tabular import TabularTask, tabular_task

SILENT = 1e-9  # a noise multiplier too small to be seen
TASKS = {
    "logistic": tabular_task(Task("binary", "y"), Model("logistic"), inputs=3),
    "mlp": tabular_task(Task("binary", "y"), Model("mlp", (5, 4)), inputs=3),
    "multiclass": tabular_task(Task("multiclass", "y", ("a", "b", "c")), Model("logistic"), inputs=3),
    "regression": tabular_task(Task("regression", "y", minimum=0.0, maximum=1.0), Model("linear"), inputs=3),
}


def plan_of(clip: float, noise: float = SILENT, expected: float = 1.0) -> PrivacyPlan:
    return PrivacyPlan(
        clip, noise, sampling_rate=1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=expected
    )


class Steps:
    """A model with an engine around it, whose private gradient can be asked for."""

    def __init__(self, task: TabularTask, plan: PrivacyPlan, *, model_seed: int = 0, noise_seed: int = 0) -> None:
        self.model = FlatModel(task)
        self.model.load(random_arrays(task.parameters, model_seed))
        self.parameters = list(self.model.module.parameters())
        generator = torch.Generator().manual_seed(noise_seed)
        self.engine = OpacusEngine(self.model, torch.optim.SGD(self.parameters, lr=1.0), plan, generator)

    def gradient(self, batch: Encoded) -> torch.Tensor:
        x, y, who = torch.from_numpy(batch.x), torch.from_numpy(batch.y), torch.from_numpy(batch.patients)
        self.engine.noisy_gradient(x, y, who, patients_in_batch=batch.count)
        return torch.cat([p.grad.flatten() for p in self.parameters])


def cohort_for(task: TabularTask, count: int, rows_each: int | list[int] = 1, *, scale: float = 1.0) -> Encoded:
    classes = None if task.task.type == "regression" else max(2, len(task.task.classes))
    return patients(count, inputs=task.inputs, rows_each=rows_each, classes=classes, scale=scale)


def by_hand(task: TabularTask, batch: Encoded, clip: float, model_seed: int = 0) -> torch.Tensor:
    """Each patient alone: gradient of the summed loss of the patient's rows by plain autograd, clipped, added up."""
    model = task.build()
    model.load_state_dict({n: torch.from_numpy(a) for n, a in random_arrays(task.parameters, model_seed).items()})
    total = torch.zeros(sum(p.numel() for p in model.parameters()))
    for p in range(batch.count):
        rows = slice(batch.starts[p], batch.starts[p + 1])
        loss = task.loss(model(torch.from_numpy(batch.x[rows])), torch.from_numpy(batch.y[rows])).sum()
        own = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        total += own * min(1.0, clip / max(float(own.norm()), 1e-12))
    return total


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("clip", [0.05, 1.0, 1000.0])
@pytest.mark.parametrize("rows_each", [1, [2, 1, 4, 1, 3, 1, 2]], ids=["one row each", "several rows"])
def test_the_sum_is_that_of_each_patients_clipped_gradient(
    task: TabularTask, clip: float, rows_each: int | list[int]
) -> None:
    batch = cohort_for(task, 7, rows_each, scale=3.0)
    torch.testing.assert_close(
        Steps(task, plan_of(clip)).gradient(batch), by_hand(task, batch, clip), rtol=1e-4, atol=1e-5
    )


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 8), st.floats(0.01, 10.0), st.floats(0.1, 1e4), st.integers(0, 99))
def test_one_patient_more_moves_the_sum_by_at_most_the_clip(
    others: int, rows: int, clip: float, scale: float, seed: int
) -> None:
    task = TASKS["mlp"]
    everybody = cohort_for(task, others + 1, [1] * others + [rows], scale=scale)
    without = everybody.subset(np.arange(others))
    steps = Steps(task, plan_of(clip), model_seed=seed)
    moved = steps.gradient(everybody) - steps.gradient(without)
    assert float(moved.norm()) <= clip * (1 + 1e-4)


def test_rows_of_one_patient_are_summed_before_one_clip() -> None:
    steps = Steps(TASKS["logistic"], plan_of(clip=0.1))
    assert float(steps.gradient(cohort_for(TASKS["logistic"], 1, 9, scale=10.0)).norm()) == pytest.approx(0.1, rel=1e-3)


def test_a_patient_whose_rows_are_duplicated_weighs_no_more_than_the_clip() -> None:
    once = cohort_for(TASKS["logistic"], 1, scale=10.0)
    often = Encoded(once.x.repeat(50, 0), once.y.repeat(50), np.zeros(50, np.int64), np.array([0, 50]))
    steps = Steps(TASKS["logistic"], plan_of(clip=0.1))
    torch.testing.assert_close(steps.gradient(often), steps.gradient(once), rtol=1e-4, atol=1e-6)


def test_as_many_rows_as_patients_are_still_clipped_by_patient() -> None:
    """Patient 0 has both rows, patient 1 none: no table may hold that, and were it to, nobody weighs double."""
    rows = cohort_for(TASKS["logistic"], 1, 2, scale=10.0)
    odd = Encoded(rows.x[[0, 0]], rows.y[[0, 0]], np.zeros(2, np.int64), np.array([0, 2, 2]))
    assert float(Steps(TASKS["logistic"], plan_of(clip=0.1)).gradient(odd).norm()) <= 0.1 * (1 + 1e-4)


def test_small_gradients_are_not_stretched_to_the_clip() -> None:
    batch = cohort_for(TASKS["logistic"], 1)
    steps = Steps(TASKS["logistic"], plan_of(clip=1000.0))
    assert float(steps.gradient(batch).norm()) < 3.0


def test_the_divisor_is_the_plans_public_number_whatever_the_batch() -> None:
    task, batch = TASKS["logistic"], cohort_for(TASKS["logistic"], 3)
    found = Steps(task, plan_of(clip=1.0, expected=40.0)).gradient(batch)
    torch.testing.assert_close(found, by_hand(task, batch, 1.0) / 40.0, rtol=1e-4, atol=1e-7)


WIDE = tabular_task(Task("binary", "y"), Model("logistic"), inputs=20_000)


def noise_of(batch: Encoded, *, noise: float, clip: float, expected: float, seed: int = 0) -> torch.Tensor:
    """What is left of a noisy gradient after the silent one is taken away; 20,001 draws."""
    noisy = Steps(WIDE, plan_of(clip, noise, expected), noise_seed=seed).gradient(batch)
    return noisy - Steps(WIDE, plan_of(clip, SILENT, expected)).gradient(batch)


@pytest.mark.parametrize(("noise", "clip", "expected"), [(1.0, 1.0, 1.0), (6.2, 0.35, 200.0), (0.7, 5.0, 32.0)])
@pytest.mark.parametrize("count", [0, 3], ids=["empty batch", "three patients"])
def test_the_noise_has_the_promised_standard_deviation(noise: float, clip: float, expected: float, count: int) -> None:
    drawn = noise_of(cohort_for(WIDE, count), noise=noise, clip=clip, expected=expected)
    promised = noise * clip / expected
    assert float(drawn.std()) == pytest.approx(promised, rel=0.02)  # four standard errors
    assert abs(float(drawn.mean())) < 4 * promised / len(drawn) ** 0.5


def test_the_noise_is_normal() -> None:
    drawn = noise_of(cohort_for(WIDE, 0), noise=1.0, clip=1.0, expected=1.0)
    shares = [float((drawn.abs() > limit).float().mean()) for limit in (1.0, 2.0, 3.0)]
    assert shares == pytest.approx([0.3173, 0.0455, 0.0027], abs=0.012)


def test_an_empty_batch_is_noise_alone() -> None:
    steps = Steps(TASKS["mlp"], plan_of(clip=1.0))
    assert float(steps.gradient(cohort_for(TASKS["mlp"], 0)).abs().max()) < 1e-7


def test_an_empty_batch_draws_as_much_noise_as_a_full_one() -> None:
    after_empty, after_full = (Steps(TASKS["mlp"], plan_of(1.0, noise=1.0)) for _ in range(2))
    after_empty.gradient(cohort_for(TASKS["mlp"], 0))
    after_full.gradient(cohort_for(TASKS["mlp"], 4))
    batch = cohort_for(TASKS["mlp"], 2)
    assert torch.equal(after_empty.gradient(batch), after_full.gradient(batch))


def test_every_step_has_noise_of_its_own() -> None:
    steps, nobody = Steps(WIDE, plan_of(1.0, noise=1.0)), cohort_for(WIDE, 0)
    first, second = steps.gradient(nobody), steps.gradient(nobody)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.03


def test_the_same_noise_seed_gives_the_same_bits() -> None:
    batch = cohort_for(TASKS["mlp"], 4)
    a, b = (Steps(TASKS["mlp"], plan_of(1.0, noise=1.0), noise_seed=5).gradient(batch) for _ in range(2))
    assert torch.equal(a, b)


def fit(trainer: Trainer, plan: PrivacyPlan | None) -> dict[str, np.ndarray]:
    task = TASKS["mlp"]
    local = Local(batch_size=4, learning_rate=0.3, epochs=2, optimizer="adam")
    return trainer.fit(
        random_arrays(task.parameters),
        cohort_for(task, 10, 2),
        local,
        steps=6,
        randomness=Randomness.seeded(0, "lille", 1),
        plan=plan,
    )


def test_after_a_private_fit_plain_training_gives_the_bits_of_a_model_that_was_never_private() -> None:
    trainer = Trainer(TASKS["mlp"])
    fit(trainer, plan_of(1.0, noise=1.0))
    assert same_bits(fit(trainer, None), fit(Trainer(TASKS["mlp"]), None))


def test_a_second_private_fit_gives_the_bits_of_a_first_one() -> None:
    trainer = Trainer(TASKS["mlp"])
    fit(trainer, plan_of(0.1, noise=3.0))
    assert same_bits(fit(trainer, plan_of(1.0, noise=1.0)), fit(Trainer(TASKS["mlp"]), plan_of(1.0, noise=1.0)))


def test_closing_takes_every_hook_and_every_patients_gradient_away() -> None:
    steps = Steps(TASKS["mlp"], plan_of(1.0))
    steps.gradient(cohort_for(TASKS["mlp"], 3))
    layers = list(steps.model.module)
    assert any(layer._forward_hooks for layer in layers)
    steps.engine.close()
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in layers)
    assert all(p.grad_sample is None and p.summed_grad is None for p in steps.parameters)
