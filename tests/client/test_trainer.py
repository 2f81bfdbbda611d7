"""One local fit against PyTorch's own optimizers on the same batches, and the bits it must repeat."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from client.trainer import Trainer
from configs.schema import Local, Model, Task
from strategies.data.table import TablePatients
from strategies.federated.local_rule import LocalRule
from strategies.learning import learning
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.base import Engine, Gaussian
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit
from tests.builders import flat, patients, random_arrays, same_bits

TASK = learning(Task("binary", "y"), Model("mlp", (6,)), inputs=3)
START = random_arrays(TASK.parameters, 4)
PEOPLE = patients(21, inputs=3)
MANY_ROWS = patients(12, inputs=3, rows_each=[1, 3, 2] * 4)
PLAN = PrivacyPlan(
    clip_norm=0.5,
    noise_multiplier=1.0,
    sampling_rate=0.3,
    steps_per_round=7,
    rounds=1,
    delta=1e-5,
    expected_patients=4.0,
)
WIDE = replace(PLAN, clip_norm=50.0, noise_multiplier=1e-11, sampling_rate=1.0)  # neither clip nor noise is felt


def fit(
    local: Local,
    people: TablePatients = PEOPLE,
    *,
    steps: int = 5,
    plan: PrivacyPlan | None = None,
    mu: float = 0.0,
    seed: int = 0,
    trainer: Trainer | None = None,
) -> dict[str, np.ndarray]:
    chance = Randomness.seeded(seed, "lille", 1)
    return (trainer or Trainer(TASK)).fit(Fit(START, people, local, steps, chance, plan, LocalRule(pull=mu)))


def by_torch(
    local: Local, make: type[torch.optim.Optimizer], *, steps: int, mu: float = 0.0, **options: Any
) -> np.ndarray:
    """PyTorch alone, on the documented batches: pass after pass in a new order, the last batch of a pass short."""
    model = TASK.build()
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in START.items()})
    optimizer = make(model.parameters(), lr=local.learning_rate, **options)  # type: ignore[call-arg]
    start = [p.detach().clone() for p in model.parameters()]
    x, y = torch.from_numpy(PEOPLE.x), torch.from_numpy(PEOPLE.y)
    sampling = Randomness.seeded(0, "lille", 1).sampling
    batches: list[np.ndarray] = []
    while len(batches) < steps:
        order = np.arange(21) if local.batch_size is None else sampling.permutation(21)
        size = local.batch_size or 21
        batches += [order[i : i + size] for i in range(0, 21, size)]
    for rows in batches[:steps]:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x[rows])[:, 0], y[rows])
        pull = sum((p - s).square().sum() for p, s in zip(model.parameters(), start, strict=True))
        (loss + mu / 2 * pull).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


OPTIMIZERS = {
    "sgd": ({}, torch.optim.SGD, {}),
    "momentum": ({"momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    "weight decay": ({"weight_decay": 0.1}, torch.optim.SGD, {"weight_decay": 0.1}),
    "adam": ({"optimizer": "adam"}, torch.optim.Adam, {}),
    "adam with weight decay": ({"optimizer": "adam", "weight_decay": 0.1}, torch.optim.Adam, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("batch_size", [None, 8, 1])
@pytest.mark.parametrize(("settings", "make", "options"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_plain_fit_is_what_torch_makes_of_the_same_batches(
    settings: dict[str, object], make: type[torch.optim.Optimizer], options: dict[str, float], batch_size: int | None
) -> None:
    local = Local(batch_size, 0.2, **settings)  # type: ignore[arg-type]
    expected = by_torch(local, make, steps=7, **options)
    np.testing.assert_allclose(flat(fit(local, steps=7)), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 8])
def test_more_rows_than_fit_into_memory_are_asked_for_a_few_at_a_time(
    batch_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = flat(fit(Local(batch_size, 0.2)))
    asked: list[int] = []
    take = TablePatients.take

    def noted(people: TablePatients, rows: Any = None) -> Any:
        asked.append(people.rows if rows is None else len(rows))
        return take(people, rows)

    monkeypatch.setattr(TablePatients, "at_once", property(lambda _: 5))
    monkeypatch.setattr(TablePatients, "take", noted)
    np.testing.assert_allclose(flat(fit(Local(batch_size, 0.2))), expected, rtol=1e-5, atol=1e-7)
    assert max(asked) == 5


@pytest.mark.parametrize("batch_size", [None, 8])
def test_the_proximal_pull_is_the_gradient_of_the_published_term(batch_size: int | None) -> None:
    local = Local(batch_size, 0.2)
    expected = by_torch(local, torch.optim.SGD, steps=6, mu=1.5)
    np.testing.assert_allclose(flat(fit(local, steps=6, mu=1.5)), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("plan", [None, WIDE], ids=["plain", "private"])
def test_a_strong_pull_keeps_the_model_near_the_shared_one(plan: PrivacyPlan | None) -> None:
    local, people = Local(None, 0.05), PEOPLE
    free, pulled = (fit(local, people, steps=7, plan=plan, mu=mu) for mu in (0.0, 10.0))
    distance = [float(np.linalg.norm(flat(model) - flat(START))) for model in (free, pulled)]
    assert 0 < distance[1] < distance[0] / 2


@pytest.mark.parametrize("mu", [0.0, 2.0])
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"optimizer": "adam"}], ids=str)
def test_with_no_noise_and_no_clip_a_private_fit_is_the_plain_one(mu: float, settings: dict[str, object]) -> None:
    local = Local(None, 0.2, **settings)  # type: ignore[arg-type]
    private = fit(local, plan=replace(WIDE, expected_patients=21.0), mu=mu)
    np.testing.assert_allclose(flat(private), flat(fit(local, steps=7, mu=mu)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("people", [PEOPLE, MANY_ROWS], ids=["one row each", "several rows"])
@pytest.mark.parametrize("plan", [None, PLAN], ids=["plain", "private"])
@pytest.mark.parametrize("settings", [{}, {"optimizer": "adam"}, {"momentum": 0.5}], ids=str)
def test_a_seeded_fit_repeats_to_the_last_bit(
    people: TablePatients, plan: PrivacyPlan | None, settings: dict[str, object]
) -> None:
    local = Local(5, 0.2, **settings)  # type: ignore[arg-type]
    first, again = fit(local, people, plan=plan), fit(local, people, plan=plan)
    assert same_bits(first, again)
    assert np.isfinite(flat(first)).all()
    assert not same_bits(first, START)


@pytest.mark.parametrize("plan", [None, PLAN], ids=["plain", "private"])
def test_another_seed_gives_other_bits(plan: PrivacyPlan | None) -> None:
    assert not same_bits(fit(Local(5, 0.2), plan=plan, seed=0), fit(Local(5, 0.2), plan=plan, seed=1))


@pytest.mark.parametrize("plan", [None, PLAN], ids=["plain", "private"])
def test_a_warm_trainer_remembers_nothing(plan: PrivacyPlan | None) -> None:
    local, warm = Local(5, 0.2, optimizer="adam"), Trainer(TASK)
    fit(local, MANY_ROWS, plan=PLAN, seed=9, trainer=warm)
    fit(Local(3, 0.9), PEOPLE, seed=8, trainer=warm)
    assert same_bits(fit(local, plan=plan, trainer=warm), fit(local, plan=plan))


@pytest.mark.parametrize("plan", [None, PLAN], ids=["plain", "private"])
def test_the_shared_model_is_not_changed_in_place(plan: PrivacyPlan | None) -> None:
    before = {name: array.copy() for name, array in START.items()}
    fit(Local(5, 0.2), plan=plan)
    assert same_bits(START, before)


def test_threads_that_were_set_before_do_not_change_a_bit() -> None:
    big = learning(Task("binary", "y"), Model("mlp", (64, 32)), inputs=200)
    people, start = patients(700, inputs=200), random_arrays(big.parameters)
    models = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            trainer, chance = Trainer(big), Randomness.seeded(0, "lille", 1)
            models.append(trainer.fit(Fit(start, people, Local(None, 0.2), 3, chance)))
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert same_bits(models[0], models[1])


@pytest.mark.parametrize("people", [PEOPLE, MANY_ROWS], ids=["one row each", "several rows"])
def test_each_private_step_takes_the_patients_that_chance_chose_with_all_their_rows(people: TablePatients) -> None:
    chance, model = Randomness.seeded(0, "lille", 1), TASK.build()
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in START.items()})
    sizes = []
    for _ in range(PLAN.steps_per_round):
        chosen = chance.poisson(people.count, PLAN.sampling_rate)
        rows = np.isin(people.patients, chosen)
        sizes.append(len(chosen))
        loss = TASK.loss(model(torch.from_numpy(people.x[rows])), torch.from_numpy(people.y[rows])).sum()
        gradients = torch.autograd.grad(loss / PLAN.expected_patients, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.2 * gradient  # type: ignore[misc]
    assert min(sizes) < max(sizes) < people.count
    expected = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
    found = fit(Local(5, 0.2), people, plan=replace(WIDE, sampling_rate=PLAN.sampling_rate))
    np.testing.assert_allclose(flat(found), expected, rtol=1e-3, atol=1e-5)


def test_a_private_fit_on_batches_that_are_mostly_empty_is_noise() -> None:
    rare = replace(PLAN, sampling_rate=1e-9)
    model = fit(Local(5, 0.2), plan=rare)
    assert np.isfinite(flat(model)).all()
    assert not same_bits(model, START)


def test_a_private_fit_takes_the_plans_steps() -> None:
    """With noise alone and plain SGD the distance walked has variance steps * (lr * noise * clip / expected)^2."""
    rare = replace(PLAN, sampling_rate=1e-9, noise_multiplier=4.0)
    for steps in (1, 25):
        plan = replace(rare, steps_per_round=steps)
        walks = [flat(fit(Local(5, 0.2), plan=plan, steps=3, seed=seed)) - flat(START) for seed in range(40)]
        promised = 0.2 * 4.0 * PLAN.clip_norm / PLAN.expected_patients * steps**0.5
        assert float(np.std(walks)) == pytest.approx(promised, rel=0.1)


def test_a_batch_larger_than_the_hospital_is_everybody() -> None:
    assert same_bits(fit(Local(10**6, 0.2)), fit(Local(None, 0.2)))


def test_every_patient_is_in_one_batch_of_a_pass() -> None:
    """With a learning rate this small a pass of unequal batches sums the gradients at the start."""
    local = Local(6, 1e-4, epochs=1)
    one_pass = flat(fit(local, steps=4)) - flat(START)  # 6 + 6 + 6 + 3 of 21
    x, y = torch.from_numpy(PEOPLE.x), torch.from_numpy(PEOPLE.y)
    order = Randomness.seeded(0, "lille", 1).sampling.permutation(21)
    assert sorted(order.tolist()) == list(range(21))
    model = TASK.build()
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in START.items()})
    total = torch.zeros(len(one_pass))
    for rows in np.split(order, [6, 12, 18]):
        loss = TASK.loss(model(x[rows]), y[rows]).mean()
        total += torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    np.testing.assert_allclose(one_pass, -1e-4 * total.numpy(), rtol=0.02, atol=3e-7)


@pytest.mark.parametrize("people", [PEOPLE, MANY_ROWS], ids=["one row each", "several rows"])
def test_the_reference_engine_trains_the_same_model(people: TablePatients) -> None:
    ours, reference = (fit(Local(5, 0.2, engine=name), people, plan=PLAN) for name in ("auto", "opacus"))
    np.testing.assert_allclose(flat(ours), flat(reference), atol=1e-5)


def test_an_audit_may_bring_its_own_engine() -> None:
    seen: list[str] = []

    def watched(model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, name: str) -> Engine:
        seen.append(name)
        return private_engine(model, plan, lambda size, deviation: torch.zeros(size), name)

    silent = fit(Local(5, 0.2), plan=PLAN, trainer=Trainer(TASK, engine=watched))
    assert seen == ["auto"]
    assert not same_bits(silent, fit(Local(5, 0.2), plan=PLAN))


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.0], ids=["mostly nobody", "some", "everybody"])
@pytest.mark.parametrize("people", [PEOPLE, MANY_ROWS], ids=["one row each", "several rows"])
def test_an_engine_that_is_brought_trains_with_the_bits_of_the_usual_one(people: TablePatients, rate: float) -> None:
    """What an audit measures is what trains: the usual fit may skip a conversion, and nothing else."""
    plan = replace(PLAN, sampling_rate=rate)
    brought = fit(Local(5, 0.2), people, plan=plan, trainer=Trainer(TASK, engine=private_engine))
    assert same_bits(brought, fit(Local(5, 0.2), people, plan=plan))
