"""One private step against plain autograd, patient by patient, on every engine; its noise against its promised size."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from client.trainer import Trainer
from configs.schema import Local, Model, Task
from strategies.data.table import TablePatients
from strategies.learning import Learning, learning
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.alone import Alone
from strategies.privacy.engines.base import NoisySum
from strategies.privacy.engines.book_keeping import BookKeeping
from strategies.privacy.engines.closed_form import ClosedForm
from strategies.privacy.engines.opacus import OpacusEngine
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit
from tests.builders import patients, random_arrays, same_bits

SILENT = 1e-9  # a noise multiplier too small to be seen
ENGINES: dict[str, type[NoisySum]] = {
    "closed form": ClosedForm,
    "book-keeping": BookKeeping,
    "alone": Alone,
    "opacus": OpacusEngine,
}
TASKS = {
    "logistic": learning(Task("binary", "y"), Model("logistic"), inputs=3),
    "mlp": learning(Task("binary", "y"), Model("mlp", (5, 4)), inputs=3),
    "multiclass": learning(Task("multiclass", "y", ("a", "b", "c")), Model("logistic"), inputs=3),
    "regression": learning(Task("regression", "y", minimum=0.0, maximum=1.0), Model("linear"), inputs=3),
}


def plan_of(clip: float, noise: float = SILENT, expected: float = 1.0) -> PrivacyPlan:
    return PrivacyPlan(
        clip, noise, sampling_rate=1.0, steps_per_round=1, rounds=1, delta=1e-5, expected_patients=expected
    )


class Steps:
    """A model with an engine around it, whose private gradient can be asked for."""

    def __init__(
        self,
        task: Learning,
        plan: PrivacyPlan,
        engine: type[NoisySum] = ClosedForm,
        *,
        model_seed: int = 0,
        noise_seed: int = 0,
        rows_at_once: int | None = None,
    ) -> None:
        self.model = FlatModel(task)
        self.model.load(random_arrays(task.parameters, model_seed))
        chance = torch.Generator().manual_seed(noise_seed)
        self.engine = engine(
            self.model,
            plan,
            lambda size, deviation: torch.normal(0.0, deviation, (size,), generator=chance),
            rows_at_once=rows_at_once,
        )

    def gradient(self, batch: TablePatients) -> torch.Tensor:
        return self.engine.noisy_gradient(*tensors(batch), patients_in_batch=batch.count).clone()

    def clipped_sum(self, batch: TablePatients) -> torch.Tensor:
        return self.engine.clipped_sum(*tensors(batch), patients_in_batch=batch.count)


def tensors(batch: TablePatients) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.from_numpy(batch.x), torch.from_numpy(batch.y), torch.from_numpy(batch.patients)


def cohort_for(task: Learning, count: int, rows_each: int | list[int] = 1, *, scale: float = 1.0) -> TablePatients:
    classes = None if task.objective.name == "regression" else max(2, len(task.objective.task.classes))
    return patients(count, inputs=task.architecture.inputs, rows_each=rows_each, classes=classes, scale=scale)


def by_hand(task: Learning, batch: TablePatients, clip: float, model_seed: int = 0) -> torch.Tensor:
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


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("clip", [0.05, 1.0, 1000.0])
@pytest.mark.parametrize("rows_each", [1, [2, 1, 4, 1, 3, 1, 2]], ids=["one row each", "several rows"])
def test_the_sum_is_that_of_each_patients_clipped_gradient(
    engine: type[NoisySum], task: Learning, clip: float, rows_each: int | list[int]
) -> None:
    batch = cohort_for(task, 7, rows_each, scale=3.0)
    torch.testing.assert_close(
        Steps(task, plan_of(clip), engine).gradient(batch),
        by_hand(task, batch, clip),
        rtol=1e-4,
        atol=max(1e-5, 5e-8 * clip),  # what a release is made of is rounded to steps of a portion of the clip
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
    often = TablePatients(once.x.repeat(50, 0), once.y.repeat(50), np.zeros(50, np.int64), np.array([0, 50]))
    steps = Steps(TASKS["logistic"], plan_of(clip=0.1))
    torch.testing.assert_close(steps.gradient(often), steps.gradient(once), rtol=1e-4, atol=1e-6)


def test_as_many_rows_as_patients_are_still_clipped_by_patient() -> None:
    """Patient 0 has both rows, patient 1 none: no table may hold that, and were it to, nobody weighs double."""
    rows = cohort_for(TASKS["logistic"], 1, 2, scale=10.0)
    odd = TablePatients(rows.x[[0, 0]], rows.y[[0, 0]], np.zeros(2, np.int64), np.array([0, 2, 2]))
    assert float(Steps(TASKS["logistic"], plan_of(clip=0.1)).gradient(odd).norm()) <= 0.1 * (1 + 1e-4)


def test_small_gradients_are_not_stretched_to_the_clip() -> None:
    batch = cohort_for(TASKS["logistic"], 1)
    steps = Steps(TASKS["logistic"], plan_of(clip=1000.0))
    assert float(steps.gradient(batch).norm()) < 3.0


def test_the_divisor_is_the_plans_public_number_whatever_the_batch() -> None:
    task, batch = TASKS["logistic"], cohort_for(TASKS["logistic"], 3)
    found = Steps(task, plan_of(clip=1.0, expected=40.0)).gradient(batch)
    torch.testing.assert_close(found, by_hand(task, batch, 1.0) / 40.0, rtol=1e-4, atol=1e-7)


WIDE = learning(Task("binary", "y"), Model("logistic"), inputs=20_000)


def noise_of(batch: TablePatients, *, noise: float, clip: float, expected: float, seed: int = 0) -> torch.Tensor:
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
    start, people = random_arrays(task.parameters), cohort_for(task, 10, 2)
    return trainer.fit(Fit(start, people, local, 6, Randomness.seeded(0, "lille", 1), plan))


def test_after_a_private_fit_plain_training_gives_the_bits_of_a_model_that_was_never_private() -> None:
    trainer = Trainer(TASKS["mlp"])
    fit(trainer, plan_of(1.0, noise=1.0))
    assert same_bits(fit(trainer, None), fit(Trainer(TASKS["mlp"]), None))


def test_a_second_private_fit_gives_the_bits_of_a_first_one() -> None:
    trainer = Trainer(TASKS["mlp"])
    fit(trainer, plan_of(0.1, noise=3.0))
    assert same_bits(fit(trainer, plan_of(1.0, noise=1.0)), fit(Trainer(TASKS["mlp"]), plan_of(1.0, noise=1.0)))


def test_closing_takes_every_hook_and_every_patients_gradient_away() -> None:
    steps = Steps(TASKS["mlp"], plan_of(1.0), OpacusEngine)
    steps.gradient(cohort_for(TASKS["mlp"], 3))
    assert isinstance(steps.model.module, nn.Sequential)
    layers = list(steps.model.module)
    assert any(layer._forward_hooks for layer in layers)
    steps.engine.close()
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in layers)
    parameters: list[Any] = list(steps.model.module.parameters())  # with what Opacus adds
    assert all(p.grad_sample is None and p.summed_grad is None for p in parameters)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("rows_at_once", [1, 3, 8])
@pytest.mark.parametrize("rows_each", [1, [9, 1, 2, 30, 1, 1]], ids=["one row each", "several rows"])
def test_a_large_batch_in_small_portions_gives_the_same_sum(
    engine: type[NoisySum], rows_at_once: int, rows_each: int | list[int]
) -> None:
    task, clip = TASKS["mlp"], 0.5
    batch = cohort_for(task, 6, rows_each, scale=3.0)
    whole = Steps(task, plan_of(clip), engine).clipped_sum(batch)
    portions = Steps(task, plan_of(clip), engine, rows_at_once=rows_at_once).clipped_sum(batch)
    assert float((whole - portions).norm()) <= 1e-5 * clip


def test_a_patient_with_ten_thousand_rows_weighs_the_clip() -> None:
    batch = cohort_for(TASKS["mlp"], 3, [2, 10_000, 1])
    found = Steps(TASKS["mlp"], plan_of(0.1)).clipped_sum(batch)
    torch.testing.assert_close(found, by_hand(TASKS["mlp"], batch, 0.1), rtol=1e-3, atol=1e-5)


def test_a_patient_without_rows_between_others_is_no_one() -> None:
    x, y = torch.ones(4, 3), torch.ones(4)
    for rows_at_once in (None, 1):
        steps = Steps(TASKS["logistic"], plan_of(0.1), rows_at_once=rows_at_once)
        odd = steps.engine.clipped_sum(x, y, torch.tensor([1, 1, 3, 3]), patients_in_batch=6)
        even = steps.engine.clipped_sum(x, y, torch.tensor([0, 0, 1, 1]), patients_in_batch=2)
        torch.testing.assert_close(odd, even)


@pytest.mark.parametrize("engine", [ClosedForm, BookKeeping])
def test_rows_that_cancel_are_clipped_by_what_is_left_of_them(engine: type[NoisySum]) -> None:
    """Two rows of opposite gradients of about 1e4 leave a small sum, which Gram matrices in float32 cannot see."""
    task = learning(Task("regression", "y", minimum=0.0, maximum=1.0), Model("mlp", (64, 64)), inputs=64)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 64)).astype(np.float32).repeat(2, 0) * 30
    steps = Steps(task, plan_of(1.0), engine)
    outputs = float(steps.model.module(torch.from_numpy(x)).detach()[0, 0])
    y = np.array([outputs - 500.0, outputs + 500.0], np.float32)
    batch = TablePatients(x, y, np.zeros(2, np.int64), np.array([0, 2]))
    assert float(steps.clipped_sum(batch).norm()) <= 1.0 + 1e-5


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("rows_each", [1, [2, 1, 3, 1]], ids=["one row each", "several rows"])
@pytest.mark.parametrize("rows_at_once", [None, 2])
def test_a_patient_whose_gradient_is_not_finite_adds_nothing(
    engine: type[NoisySum], bad: float, rows_each: int | list[int], rows_at_once: int | None
) -> None:
    """An error would tell, without noise, that such a patient is there."""
    batch = cohort_for(TASKS["mlp"], 4, rows_each)
    others = batch.subset(np.array([0, 1, 3]))
    batch.x[batch.starts[2]] = bad
    found, expected = (
        Steps(TASKS["mlp"], plan_of(1.0), engine, rows_at_once=rows_at_once).clipped_sum(b) for b in (batch, others)
    )
    assert float((found - expected).norm()) <= (1e-6 if bad != 3e38 else 1.0 + 1e-6)
    alone = batch.subset(np.array([2]))
    assert bool(Steps(TASKS["mlp"], plan_of(1.0), engine, rows_at_once=rows_at_once).gradient(alone).isfinite().all())


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_what_training_noises_is_the_clipped_sum_itself(engine: type[NoisySum]) -> None:
    batch = cohort_for(TASKS["mlp"], 5)
    steps = Steps(TASKS["mlp"], plan_of(1.0, noise=2.0, expected=8.0), engine, noise_seed=3)
    noise = torch.normal(0.0, 2.0, (len(steps.model.flat),), generator=torch.Generator().manual_seed(3))
    released = steps.gradient(batch).double() * 8.0
    assert float((released - steps.clipped_sum(batch) - noise).abs().max()) <= 2.0 * 2**-12 + 1e-6


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize(("noise", "clip"), [(1.0, 1.0), (6.2, 0.35), (1e-6, 1e-3)])
def test_every_release_is_a_whole_number_of_the_same_steps(engine: type[NoisySum], noise: float, clip: float) -> None:
    """Else the last bits of a number near zero show whether a patient's number was cancelled there, or nobody's."""
    steps = Steps(TASKS["mlp"], plan_of(clip, noise), engine)
    step = 2.0 ** (np.floor(np.log2(noise * clip)) - 11)
    whole = steps.gradient(cohort_for(TASKS["mlp"], 5)).double() / step
    assert torch.equal(whole, whole.round())
    assert step < noise * clip / 1024


def test_a_linear_stack_gets_the_closed_form_and_the_reference_where_it_is_asked_for() -> None:
    def made(name: str) -> object:
        return private_engine(FlatModel(TASKS["mlp"]), plan_of(1.0), lambda size, _: torch.zeros(size), name)

    assert isinstance(made("auto"), ClosedForm)
    assert isinstance(made("opacus"), OpacusEngine)


def test_the_closed_form_does_not_import_opacus() -> None:
    code = "import sys, client.trainer, strategies.privacy.engines.select; sys.exit('opacus' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
