"""Private gradients of convolutions, norms, embeddings, attention against Opacus's; layers that cannot be private."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from configs.errors import PrivacyError
from simulations.benchmarks.models import Block, Network, Transformer, resnet18
from strategies.privacy.engines import terms
from strategies.privacy.engines.base import NoisySum
from strategies.privacy.engines.book_keeping import BookKeeping
from strategies.privacy.engines.opacus import OpacusEngine
from strategies.privacy.engines.select import private_engine
from strategies.privacy.engines.separable import require_separable
from strategies.privacy.plan import PrivacyPlan
from tests.strategies.privacy.compared import (
    assert_equals_opacus,
    attention,
    clips,
    convnets,
    images,
    made_ready,
    make_plain,
    moves,
    owners,
    sums_of,
    tokens,
)


@pytest.mark.parametrize("rows", [6, 40])  # few patches together, and many
@pytest.mark.parametrize("width", [2, 40])  # built gradients, and Gram matrices
@pytest.mark.parametrize("several_rows", [False, True])
def test_convolutions_that_are_not_square_equal_opacus(rows: int, width: int, several_rows: bool) -> None:
    def make() -> nn.Module:
        convolution = nn.Conv2d(width, width, (3, 2), stride=(2, 1), padding=(2, 0), dilation=(1, 3))
        return nn.Sequential(nn.Conv2d(2, width, 1), convolution, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))

    ready = made_ready(make, images(1, size=6))
    assert_equals_opacus(ready, images(rows, size=6), [i // (1 + several_rows) for i in range(rows)], clip=0.5)


@settings(max_examples=25, deadline=None)
@given(convnets(), owners, clips, moves)
def test_convolutions_and_group_norms_equal_opacus(
    make: Callable[[], nn.Module], patients: list[int], clip: float, move: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terms, "_MOVE", move)
        in_place = any(isinstance(layer, nn.ReLU) and layer.inplace for layer in make().modules())
        if in_place:  # which Opacus cannot do
            plain = make_plain(make)
            found, expected = (sums_of(m, images(len(patients)), patients, clip) for m in (make, plain))
            torch.testing.assert_close(found, expected)
            make = plain
        assert_equals_opacus(make, images(len(patients)), patients, clip)


@settings(max_examples=15, deadline=None)
@given(attention(), owners, clips, moves)
def test_embeddings_layer_norms_and_attention_equal_opacus(
    make: Callable[[], nn.Module], patients: list[int], clip: float, move: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terms, "_MOVE", move)
        assert_equals_opacus(make, tokens(len(patients)), patients, clip)


def resnet_sum(engine: type[NoisySum], dtype: torch.dtype) -> Tensor:
    """Three small images of two patients, clipped to 1 from norms of over 100; the parameters are the same numbers."""

    def make() -> nn.Module:
        torch.set_default_dtype(torch.float32)
        module = resnet18()
        torch.set_default_dtype(dtype)
        return module.to(dtype)

    x = images(3, channels=3, size=32).to(dtype)
    torch.set_default_dtype(dtype)
    try:
        return sums_of(make, x, [0, 1, 1], 1.0, engine).double()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def exact_resnet_sum() -> Tensor:
    """Opacus's, in float64."""
    return resnet_sum(OpacusEngine, torch.float64)


def test_a_resnet_equals_opacus(exact_resnet_sum: Tensor) -> None:
    assert float((resnet_sum(BookKeeping, torch.float64) - exact_resnet_sum).norm()) <= 1e-12


def test_a_resnet_in_single_precision_is_within_its_rounding(exact_resnet_sum: Tensor) -> None:
    """Opacus's own is not: in single precision it is 1.4e-5 away from itself, 9e-5 with images of 64 pixels."""
    assert float((resnet_sum(BookKeeping, torch.float32) - exact_resnet_sum).norm()) <= 1e-5


class Shift(nn.Module):
    """A layer that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(16))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.cos()


class Tied(nn.Module):
    """One linear layer, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.layer(self.layer(x.flatten(1)).tanh()))
        return result


UNUSUAL: dict[str, Callable[[], nn.Module]] = {
    "a layer of one's own": lambda: nn.Sequential(nn.Flatten(), Shift(), nn.Linear(16, 3)),
    "a layer used twice": Tied,
    "grouped convolution": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, groups=1), nn.Conv2d(4, 4, 2, groups=2), nn.Flatten()
    ),
    "same padding": lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten(), nn.Linear(32, 3)),
    "no bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)),
    "instance norm": lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.InstanceNorm2d(2, affine=True), nn.Flatten()),
    "one-dimensional convolution": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 3, 4, stride=2), nn.Flatten()),
    "layer norm over all": lambda: nn.Sequential(nn.LayerNorm((1, 4, 4)), nn.Flatten(), nn.Linear(16, 3)),
}


@pytest.mark.parametrize("make", UNUSUAL.values(), ids=UNUSUAL)
@pytest.mark.parametrize("clip", [0.05, 1000.0])
def test_unusual_layers_equal_opacus(make: Callable[[], nn.Module], clip: float) -> None:
    assert_equals_opacus(make, images(5, 1, 4), [0, 1, 1, 2, 0], clip)


@pytest.mark.parametrize("rows_at_once", [1, 2, 4])
def test_small_portions_give_the_same_sum(rows_at_once: int) -> None:
    def make() -> nn.Module:
        return Transformer(words=7, width=8, heads=2, layers=1)

    x, patients = tokens(8), [0, 1, 1, 2, 2, 2, 2, 2]
    whole, portions = sums_of(make, x, patients, 0.5), sums_of(make, x, patients, 0.5, rows_at_once=rows_at_once)
    assert float((whole - portions).norm()) <= 1e-5 * 0.5


def test_an_empty_batch_has_a_sum_of_zero() -> None:
    assert not sums_of(lambda: Transformer(words=7, width=8, heads=2, layers=1), tokens(0), [], 1.0).any()


def test_one_patient_never_weighs_more_than_the_clip() -> None:
    x = images(12, 1, 4) * 1e3
    found = sums_of(lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten()), x, [0] * 12, 0.5)
    assert float(found.norm()) <= 0.5 * (1 + 1e-6)


@pytest.mark.parametrize("move", [0.0, 1e9], ids=["built", "by Gram matrices"])
def test_a_patient_of_two_million_parameters_weighs_the_clip(move: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added up one after the other in single precision, so many squares are 2e-3 less than they are."""
    monkeypatch.setattr(terms, "_MOVE", move)

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(2048, 1024), nn.Tanh(), nn.Flatten(), nn.Linear(4096, 2))

    x = torch.randn(1, 4, 2048, generator=torch.Generator().manual_seed(0))
    found = sums_of(make, x[[0, 0]], [0, 1], 0.01, y=torch.zeros(2, dtype=torch.long))
    assert float(found.double().norm()) == pytest.approx(2 * 0.01, rel=5e-6)


def test_a_padding_token_is_never_trained() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Embedding(7, 3, padding_idx=0), nn.Flatten(), nn.Linear(18, 2))

    gradient = sums_of(make, tokens(5), [0, 1, 2, 3, 4], 1.0)
    assert not gradient[:3].any()
    assert gradient[3:21].any()


class Positions(nn.Module):
    """A table of positions that is looked up once for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out((x.flatten(2)[:, 0, :4, None] + self.table(torch.arange(4))).mean(1))
        return result


@pytest.mark.parametrize("rows", [3, 4], ids=["other than the table", "as many as the table"])
def test_a_layer_that_reads_no_rows_is_refused_by_name(rows: int) -> None:
    with pytest.raises(PrivacyError, match=r"layer 'table'.*cannot be told apart by patient"):
        sums_of(Positions, images(rows, 1, 4), list(range(rows)), 1.0)


BAD: dict[str, tuple[nn.Module, str]] = {
    "batch norm": (nn.BatchNorm2d(4), r"1 \(BatchNorm2d\): it normalises.*use nn.GroupNorm"),
    "batch norm without weights": (nn.BatchNorm1d(4, affine=False), r"1 \(BatchNorm1d\)"),
    "statistics": (nn.InstanceNorm2d(4, track_running_stats=True), "track_running_stats=False"),
    "hidden projections": (nn.MultiheadAttention(4, 2), "use opacus.layers.DPMultiheadAttention, or nn.Linear"),
    "inside another": (nn.TransformerEncoderLayer(4, 2), r"1.self_attn \(MultiheadAttention\)"),
    "recurrent": (nn.LSTM(4, 4), r"1 \(LSTM\).*DPLSTM"),
    "rewritten words": (nn.Embedding(4, 4, max_norm=1.0), "max_norm"),
    "counted words": (nn.Embedding(4, 4, scale_grad_by_freq=True), "scale_grad_by_freq"),
}


@pytest.mark.parametrize(("layer", "expected"), BAD.values(), ids=BAD)
def test_a_layer_that_cannot_be_private_is_named_with_the_reason_and_the_way_out(
    layer: nn.Module, expected: str
) -> None:
    with pytest.raises(PrivacyError, match=expected):
        require_separable(nn.Sequential(nn.Linear(4, 4), layer))


@pytest.mark.parametrize("name", ["auto", "opacus"])
def test_no_engine_is_made_for_a_layer_that_mixes_patients(name: str) -> None:
    model = Network(lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))).flat_model()
    plan = PrivacyPlan(1.0, 1.0, 1.0, 1, 1, 1e-5, 1.0)
    with pytest.raises(PrivacyError, match="GroupNorm"):
        private_engine(model, plan, lambda size, _: torch.zeros(size), name)


def test_layers_that_can_be_private_pass() -> None:
    require_separable(nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), Block(4, 2), nn.Embedding(3, 3), Shift()))


def test_closing_takes_every_hook_away() -> None:
    model = Network(lambda: Transformer(words=7, width=4, heads=2, layers=1)).flat_model()
    engine = private_engine(model, PrivacyPlan(1.0, 1.0, 1.0, 1, 1, 1e-5, 1.0), lambda size, _: torch.zeros(size))
    assert any(layer._forward_hooks for layer in model.module.modules())
    engine.close()
    assert not any(layer._forward_hooks for layer in model.module.modules())
