"""Each of the strategies against its published arithmetic, written once more in plain NumPy (double precision)."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from configs import wire
from configs.federated import FEDERATED
from configs.schema import Study
from strategies.exchange.arrays import Arrays, from_record, to_record
from strategies.federated.hospitals import Hospitals
from strategies.federated.mean import site_weights
from strategies.federated.registry import STRATEGIES, strategy_of
from tests.builders import become_a_server, flat, plain, same_bits, study

SPECS = {"0.weight": ((3, 4), "float32"), "0.bias": ((3,), "float32")}
COHORT = {"brest": 60, "lille": 100, "lyon": 80, "metz": 30, "nice": 45}
NODES = {"lille": 11, "brest": 19, "nice": 12, "lyon": 17, "metz": 15}  # neither order is the other's
STEPS, RATE = 4, 0.5
Vector = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _sender() -> None:
    become_a_server()


def study_with(name: str, **options: float) -> Study:
    local = {"steps": STEPS, "batch_size": "full", "learning_rate": RATE}
    return study(cohort=COHORT, training={"strategy": {"name": name} | options, "quorum": 3, "local": local})


def strategy_for(chosen: Study) -> Hospitals:
    return strategy_of(chosen, NODES, site_weights(chosen, list(NODES)))


def named(vector: Vector) -> Arrays:
    return {"0.weight": vector[:12].reshape(3, 4).astype(np.float32), "0.bias": vector[12:].astype(np.float32)}


def starting_point() -> Arrays:
    return named(np.random.default_rng(99).normal(size=15))


def trained_at(site: str, number: int) -> Vector:
    """What a hospital returns in a round: made up, and one hospital is far from the others."""
    rng = np.random.default_rng([number, *site.encode()])
    drawn = rng.normal(size=15) + (30.0 if site == "metz" else 0.0)
    return drawn.astype(np.float32).astype(np.float64)


def one_round(
    strategy: Hospitals, number: int, model: Arrays, order: Callable[[list[Message]], list[Message]] = list
) -> Arrays:
    """The exchange that server/app.py conducts, with made-up replies."""
    config = ConfigRecord({"study_sha256": "ab", "round": number})
    sent = list(strategy.configure_train(number, to_record(model), config, None))  # type: ignore[arg-type]
    site_of = {node: site for site, node in NODES.items()}
    replies = [
        Message(
            RecordDict({wire.ARRAYS: to_record(named(trained_at(site_of[m.metadata.dst_node_id], number)))}), reply_to=m
        )
        for m in sent
    ]
    aggregated, _ = strategy.aggregate_train(number, order(replies))
    assert aggregated is not None
    return from_record(aggregated, SPECS)


def rounds_of(strategy: Hospitals, model: Arrays, numbers: range, **options: Any) -> list[Arrays]:
    models = []
    for number in numbers:
        model = one_round(strategy, number, model, **options)
        models.append(model)
    return models


# The references. Each takes the models of the rounds so far in and gives the next model: (x, replies, memory) -> x.
SITES = sorted(COHORT)
WEIGHTS = np.array([COHORT[site] for site in SITES]) / sum(COHORT.values())


def weighted_mean(x: Vector, replies: Vector, memory: dict[str, Vector]) -> Vector:
    return WEIGHTS @ replies


def momentum(x: Vector, replies: Vector, memory: dict[str, Vector], *, rate: float = 0.7, beta: float = 0.8) -> Vector:
    """Hsu et al. 2019, section 4.1: v <- beta v + delta; x <- x - rate v."""
    memory["v"] = beta * memory.get("v", 0.0) + (x - WEIGHTS @ replies)
    return x - rate * memory["v"]


def adaptive(
    x: Vector, replies: Vector, memory: dict[str, Vector], second: Callable[[Vector, Vector], Vector], b1: float
) -> Vector:
    """Reddi et al. 2021, algorithm 2, with v starting at zero."""
    delta = WEIGHTS @ replies - x
    memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * delta
    memory["v"] = second(memory.get("v", np.zeros_like(x)), delta**2)
    return x + 0.05 * memory["m"] / (np.sqrt(memory["v"]) + 0.01)


def adam(x: Vector, replies: Vector, memory: dict[str, Vector]) -> Vector:
    return adaptive(x, replies, memory, lambda v, d2: 0.95 * v + 0.05 * d2, 0.8)


def yogi(x: Vector, replies: Vector, memory: dict[str, Vector]) -> Vector:
    return adaptive(x, replies, memory, lambda v, d2: v - 0.05 * d2 * np.sign(v - d2), 0.8)


def adagrad(x: Vector, replies: Vector, memory: dict[str, Vector]) -> Vector:
    return adaptive(x, replies, memory, lambda v, d2: v + d2, 0.6)


def median(x: Vector, replies: Vector, memory: dict[str, Vector]) -> Vector:
    middle: Vector = np.sort(replies, axis=0)[2]  # of five
    return middle


def trimmed_mean(x: Vector, replies: Vector, memory: dict[str, Vector]) -> Vector:
    mean: Vector = np.sort(replies, axis=0)[1:4].mean(axis=0)  # a quarter of five, rounded down, from each end
    return mean


def krum(x: Vector, replies: Vector, memory: dict[str, Vector]) -> Vector:
    """Blanchard et al. 2017: the least sum of squared distances to the n - f - 2 = 2 nearest others."""
    scores = []
    for i, own in enumerate(replies):
        distances = sorted(float(((own - other) ** 2).sum()) for j, other in enumerate(replies) if j != i)
        scores.append(sum(distances[:2]))
    chosen: Vector = replies[int(np.argmin(scores))]
    return chosen


_ADAPTIVE = {"server_learning_rate": 0.05, "tau": 0.01}
CASES: dict[str, tuple[dict[str, float], Callable[..., Vector]]] = {
    "fedavg": ({}, weighted_mean),
    "fedprox": ({"proximal_mu": 0.3}, weighted_mean),  # its pull is the hospital's business
    "fedavgm": ({"server_learning_rate": 0.7, "server_momentum": 0.8}, momentum),
    "fedadam": (_ADAPTIVE | {"beta_1": 0.8, "beta_2": 0.95}, adam),
    "fedyogi": (_ADAPTIVE | {"beta_1": 0.8, "beta_2": 0.95}, yogi),
    "fedadagrad": (_ADAPTIVE | {"beta_1": 0.6}, adagrad),
    "median": ({}, median),
    "trimmed_mean": ({"trim_fraction": 0.25}, trimmed_mean),
    "krum": ({"malicious_sites": 1}, krum),
    "scaffold": ({}, weighted_mean),  # what it corrects is the hospital's step: test_scaffold.py
}
every_strategy = pytest.mark.parametrize("name", CASES)


def test_every_strategy_that_a_study_may_name_exists_and_is_tested() -> None:
    assert set(STRATEGIES.names) == set(FEDERATED.names) == set(CASES)


@pytest.mark.parametrize("name", STRATEGIES.names)
def test_every_strategy_can_be_built_with_the_defaults_of_the_study(name: str) -> None:
    assert isinstance(strategy_for(study_with(name)), STRATEGIES[name].coordinator)


@every_strategy
def test_three_rounds_follow_the_published_arithmetic(name: str) -> None:
    options, reference = CASES[name]
    found = rounds_of(strategy_for(study_with(name, **options)), starting_point(), range(1, 4))
    x, memory = flat(starting_point()), dict[str, Vector]()
    for number, model in enumerate(found, 1):
        x = reference(x, np.stack([trained_at(site, number) for site in SITES]), memory)
        np.testing.assert_allclose(flat(model), x, rtol=2e-5, atol=2e-5, err_msg=f"round {number}")


@every_strategy
def test_the_order_of_replies_changes_no_bit(name: str) -> None:
    ways: list[Callable[[list[Message]], list[Message]]] = [
        list,
        lambda replies: replies[::-1],
        lambda replies: replies[2:] + replies[:2],
    ]
    ends = [rounds_of(strategy_for(study_with(name)), starting_point(), range(1, 4), order=way)[-1] for way in ways]
    assert same_bits(ends[0], ends[1])
    assert same_bits(ends[0], ends[2])


@every_strategy
def test_the_order_of_arrays_within_a_reply_changes_no_bit(name: str) -> None:
    def first_reversed(replies: list[Message]) -> list[Message]:
        record = replies[0].content[wire.ARRAYS]
        replies[0].content[wire.ARRAYS] = ArrayRecord(dict(reversed(list(record.items()))))
        return replies

    honest, odd = (strategy_for(study_with(name)) for _ in range(2))
    expected = rounds_of(honest, starting_point(), range(1, 4))[-1]
    assert same_bits(rounds_of(odd, starting_point(), range(1, 4), order=first_reversed)[-1], expected)


@every_strategy
def test_after_restore_the_rounds_go_on_bit_for_bit(name: str) -> None:
    chosen = study_with(name)
    first = strategy_for(chosen)
    undisturbed = rounds_of(first, starting_point(), range(1, 6))
    before = strategy_for(chosen)
    interrupted = rounds_of(before, starting_point(), range(1, 3))[-1]
    state = {key: array.copy() for key, array in before.optimizer_state().items()}
    after = strategy_for(chosen)
    after.restore(to_record(interrupted), state)
    assert same_bits(rounds_of(after, interrupted, range(3, 6))[-1], undisturbed[-1])


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_the_optimizer_state_matters_to_what_follows(name: str) -> None:
    chosen = study_with(name, **CASES[name][0])
    before = strategy_for(chosen)
    model = rounds_of(before, starting_point(), range(1, 3))[-1]
    forgetful = strategy_for(chosen)
    forgetful.restore(to_record(model), {})
    assert before.optimizer_state()
    assert not same_bits(one_round(forgetful, 3, model), one_round(before, 3, model))


@every_strategy
def test_the_result_is_float32_of_the_models_shapes(name: str) -> None:
    model = one_round(strategy_for(study_with(name)), 1, starting_point())
    assert {key: (array.shape, str(array.dtype)) for key, array in model.items()} == SPECS


@every_strategy
def test_each_hospital_gets_one_message_with_the_model_and_nothing_of_flowers(name: str) -> None:
    config = ConfigRecord({"study_sha256": "ab", "round": 1})
    messages = list(strategy_for(study_with(name)).configure_train(1, to_record(starting_point()), config, None))  # type: ignore[arg-type]
    assert [m.metadata.dst_node_id for m in messages] == [19, 11, 17, 15, 12]  # by name
    for message in messages:
        assert set(message.content) == {"arrays", "config"}
        assert dict(message.content["config"]) == {"study_sha256": "ab", "round": 1}


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "krum"])
def test_one_hospital_far_away_does_not_move_a_robust_strategy(name: str) -> None:
    options = CASES[name][0]
    near = np.stack([trained_at(site, 1) for site in SITES if site != "metz"])
    model = flat(one_round(strategy_for(study_with(name, **options)), 1, starting_point()))
    assert (model >= near.min(axis=0) - 1e-6).all()
    assert (model <= near.max(axis=0) + 1e-6).all()


def test_weights_are_the_studys_whatever_a_reply_says() -> None:
    chosen = study_with("fedavg")
    uniform = replace(chosen, training=replace(chosen.training, weights="uniform"))
    found = flat(one_round(strategy_for(uniform), 1, starting_point()))
    np.testing.assert_allclose(found, np.mean([trained_at(site, 1) for site in SITES], axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[:6])
def test_hospitals_that_did_not_answer_have_no_part_in_the_weights(order: tuple[int, ...]) -> None:
    strategy = strategy_for(study_with("fedavg"))

    def three_of_five(replies: list[Message]) -> list[Message]:
        return [replies[i] for i in order]  # brest, lille, lyon

    found = flat(one_round(strategy, 1, starting_point(), three_of_five))
    expected = sum(COHORT[site] * trained_at(site, 1) for site in ("brest", "lille", "lyon")) / 240
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_round_without_replies_makes_no_model() -> None:
    strategy = strategy_for(study_with("fedavg"))
    list(strategy.configure_train(1, to_record(starting_point()), ConfigRecord(), None))  # type: ignore[arg-type]
    assert strategy.aggregate_train(1, [])[0] is None


def test_krum_finds_the_nearest_model_also_where_all_are_close_and_large() -> None:
    """Squared distances taken as |a|^2 + |b|^2 - 2ab lose every digit here."""
    chosen = plain(cohort=COHORT, training={"strategy": {"name": "krum", "malicious_sites": 1}, "quorum": 3})
    strategy = strategy_for(chosen)
    offsets = {"brest": 0.0, "lille": 0.01, "lyon": 0.012, "metz": 0.05, "nice": 0.1}
    sent = list(strategy.configure_train(1, to_record(starting_point()), ConfigRecord(), None))  # type: ignore[arg-type]
    site_of = {node: site for site, node in NODES.items()}
    replies = []
    for m in sent:
        model = named(np.full(15, 100.0) + offsets[site_of[m.metadata.dst_node_id]])
        replies.append(Message(RecordDict({wire.ARRAYS: to_record(model)}), reply_to=m))
    aggregated, _ = strategy.aggregate_train(1, replies)
    assert isinstance(aggregated, ArrayRecord)
    assert from_record(aggregated, SPECS)["0.bias"][0] == np.float32(100.01)
