"""Hospitals that are fitted as one batch: each has the very bits that it has alone, whoever else is there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.trainer import Trainer
from configs.schema import Local, Model, Task
from simulations.together import LARGEST_MODEL, Together
from strategies.federated.local_rule import LocalRule
from strategies.learning import Learning, learning
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Noise, Randomness, samples
from strategies.releases.base import Fit
from tests.builders import patients, random_arrays, same_bits

TASKS = {
    "binary": Task("binary", "y"),
    "multiclass": Task("multiclass", "y", ("a", "b", "c")),
    "regression": Task("regression", "y", minimum=0.0, maximum=1.0),
}
OPTIMIZERS: dict[str, dict[str, object]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "weight decay": {"weight_decay": 0.1},
    "adam": {"optimizer": "adam"},
    "adam with weight decay": {"optimizer": "adam", "weight_decay": 0.1},
}


def learning_of(kind: str, hidden: tuple[int, ...], inputs: int) -> Learning:
    name = "mlp" if hidden else "linear" if kind == "regression" else "logistic"
    return learning(TASKS[kind], Model(name, hidden), inputs)


def plan_of(count: int, rate: float, noise: float, steps: int) -> PrivacyPlan:
    return PrivacyPlan(0.7, noise, rate, steps, rounds=1, delta=1e-5, expected_patients=max(1.0, count * rate))


def fits_of(
    task: Learning,
    counts: list[int],
    local: Local,
    steps: int,
    *,
    rates: list[float] | None = None,
    mu: float = 0.0,
    scale: float = 0.4,
    rows_each: int = 1,
) -> list[Fit]:
    """Hospitals of these many patients; those with a rate are private. Every one has its own model to begin with."""
    classes = None if task.objective.name == "regression" else max(2, task.architecture.outputs)
    return [
        Fit(
            random_arrays(task.parameters, i, scale),
            patients(count, inputs=task.architecture.inputs, seed=i, classes=classes, rows_each=rows_each),
            local,
            steps,
            Randomness.seeded(3, f"site-{i}", 2),
            plan_of(count, rates[i % len(rates)], 0.5 + i, steps) if rates else None,
            LocalRule(pull=mu),
        )
        for i, count in enumerate(counts)
    ]


def require_bits(task: Learning, make: object) -> int:
    """Compare every hospital's model with the one that it has alone; how many were fitted with others."""
    fits = make()  # type: ignore[operator]
    together, alone = Together(task).fit(fits), [Trainer(task).fit(fit) for fit in make()]  # type: ignore[operator]
    assert len(together) == len(alone)
    for i, (one, other) in enumerate(zip(together, alone, strict=True)):
        assert one is None or same_bits(one, other), i
    return sum(one is not None for one in together)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("hidden", [(), (6,), (64, 32)], ids=str)
@pytest.mark.parametrize("rates", [None, [0.3, 0.5]], ids=["plain", "private"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_hospital_has_the_bits_that_it_has_alone(
    kind: str, hidden: tuple[int, ...], rates: list[float] | None, optimizer: str
) -> None:
    task, local = learning_of(kind, hidden, 5), Local(8, 0.1, **OPTIMIZERS[optimizer])  # type: ignore[arg-type]
    counts = [21, 24, 19, 40, 8, 3, 21, 1]
    for mu in (0.0, 1.5):
        assert require_bits(task, lambda mu=mu: fits_of(task, counts, local, 4, rates=rates, mu=mu)) >= 6


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(TASKS)),
    st.lists(st.sampled_from([1, 7, 65, 130]), max_size=2),
    st.lists(st.sampled_from([1, 2, 31, 32, 33, 63, 64, 65, 129, 513, 700]), min_size=2, max_size=6),
    st.sampled_from([None, 1, 32, 50, 600]),
    st.one_of(st.none(), st.lists(st.sampled_from([0.01, 0.3, 0.9, 1.0]), min_size=1, max_size=3)),
    st.sampled_from([1e-40, 1e-6, 1.0, 1e4, 1e30]),
)
def test_sizes_and_magnitudes_change_no_bit(
    kind: str,
    hidden: list[int],
    counts: list[int],
    batch_size: int | None,
    rates: list[float] | None,
    scale: float,
) -> None:
    task = learning_of(kind, tuple(hidden), 9)
    require_bits(task, lambda: fits_of(task, counts, Local(batch_size, 0.05), 3, rates=rates, scale=scale))


@pytest.mark.parametrize("counts", [[600, 620, 640, 1100], [513, 512, 520, 514]], ids=str)
@pytest.mark.parametrize("rates", [None, [1.0, 0.95]], ids=["plain", "private"])
def test_batches_of_several_portions_have_the_same_bits(counts: list[int], rates: list[float] | None) -> None:
    task = learning_of("binary", (6,), 4)
    assert require_bits(task, lambda: fits_of(task, counts, Local(None, 0.1), 2, rates=rates)) >= 2


def test_patients_with_several_rows_train_together_without_privacy_and_alone_with_it() -> None:
    task = learning_of("binary", (6,), 4)
    assert require_bits(task, lambda: fits_of(task, [20, 21], Local(8, 0.1), 4, rows_each=3)) == 2
    assert require_bits(task, lambda: fits_of(task, [20, 21], Local(8, 0.1), 4, rows_each=3, rates=[0.5])) == 0


def test_a_hospital_whose_training_diverges_changes_nobody_elses_bits() -> None:
    task = learning_of("regression", (6,), 4)

    def make() -> list[Fit]:
        fits = fits_of(task, [20, 21, 22, 20], Local(None, 0.1), 4)
        wild = {name: array * np.float32(1e30) for name, array in fits[1].start.items()}
        return [
            *fits[:1],
            Fit(wild, *(getattr(fits[1], n) for n in ("patients", "local", "steps", "randomness"))),
            *fits[2:],
        ]

    with np.errstate(all="ignore"):
        together, alone = Together(task).fit(make()), [Trainer(task).fit(fit) for fit in make()]
    for i in (0, 2, 3):
        model = together[i]
        assert model is not None
        assert same_bits(model, alone[i])
    wild = together[1]
    assert wild is not None
    assert not all(np.isfinite(array).all() for array in wild.values())


def test_a_large_model_and_opacus_are_left_to_train_alone() -> None:
    large = learning_of("binary", (LARGEST_MODEL // 10,), 12)
    assert Together(large).fit(fits_of(large, [20, 20], Local(8, 0.1), 1)) == [None, None]
    small = learning_of("binary", (), 4)
    opacus = Local(8, 0.1, engine="opacus")
    assert Together(small).fit(fits_of(small, [20, 20], opacus, 1, rates=[0.5])) == [None, None]


def chances_after(before: list[list[int]]) -> list[Randomness]:
    """Each hospital's chance, after so many numbers were drawn from it at a time."""
    made = [Randomness.seeded(0, f"site-{i}", 1) for i in range(len(before))]
    for chance, sizes in zip(made, before, strict=True):
        for some in sizes:
            chance.gaussian(some, 1.0)
    return made


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4000), max_size=2), min_size=1, max_size=20), st.integers(1, 9000))
def test_noise_that_is_drawn_together_is_each_streams_own(before: list[list[int]], size: int) -> None:
    together = np.empty((len(before), size))
    many = chances_after(before)
    Noise().draw(many, together)
    for own, chance, drawn in zip(chances_after(before), many, together, strict=True):
        assert own.gaussian(size, 1.0).numpy().tobytes() == drawn.tobytes()
        assert own.gaussian(5, 1.0).numpy().tobytes() == chance.gaussian(5, 1.0).numpy().tobytes()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4000), max_size=2), min_size=1, max_size=20), st.integers(1, 9000))
def test_the_last_noise_has_the_same_bits_and_what_follows_is_new(before: list[list[int]], size: int) -> None:
    whole, last = np.empty((2, len(before), size))
    many = chances_after(before)
    Noise().draw(chances_after(before), whole)
    Noise().draw(many, last, last=True)
    assert whole.tobytes() == last.tobytes()
    for chance, drawn in zip(many, last, strict=True):
        assert not np.isin(chance.gaussian(5, 1.0).numpy(), drawn).any()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from([0, 1, 7, 64, 5000]), st.sampled_from([1e-9, 0.1, 0.5, 0.999, 1.0])), max_size=6
        ),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.tuples(st.sampled_from([0, 1, 64, 65]), st.sampled_from([0.3, 0.5, 1.0])), min_size=1, max_size=4),
    st.integers(1, 5),
)
def test_samples_that_are_drawn_together_are_each_hospitals_own(
    before: list[list[tuple[int, float]]], asked: list[tuple[int, float]], steps: int
) -> None:
    def chances_after(before: list[list[tuple[int, float]]]) -> list[Randomness]:
        made = [Randomness.seeded(0, f"site-{i}", 1) for i in range(len(before))]
        for chance, some in zip(made, before, strict=True):
            for patients_there, rate in some:
                chance.poisson(patients_there, rate)
        return made

    mine, alone = chances_after(before), chances_after(before)
    sizes, rates = zip(*(asked[i % len(asked)] for i in range(len(before))), strict=True)
    for _ in range(steps):
        for one, size, rate, drawn in zip(alone, sizes, rates, samples(mine, sizes, rates), strict=True):
            assert one.poisson(size, rate).tolist() == drawn.tolist()
