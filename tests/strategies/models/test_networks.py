"""Small networks for images and series: what they declare, what they read, and that a volume by halves is the same."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.schema import GRU, Conv1d, ResNet, Task, UNet
from strategies.learning import Learning, learning
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.alone import Alone
from strategies.privacy.engines.base import NoisySum
from strategies.privacy.engines.book_keeping import BookKeeping
from strategies.privacy.engines.opacus import OpacusEngine
from strategies.privacy.engines.select import load_engine
from tests.strategies.privacy.compared import CLOSE, plan_of

NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "resnet": (ResNet("resnet", width=8), (2, 20, 24)),
    "unet of images": (UNet("unet", width=4, depth=2), (1, 13, 10)),
    "unet of volumes": (UNet("unet", width=4, depth=2), (2, 9, 8, 7)),
    "conv1d": (Conv1d("conv1d", width=8), (3, 30)),
    "gru": (GRU("gru", width=8), (3, 12)),
}
BINARY = Task("binary", "y")


def network(name: str) -> Learning:
    section, shape = NETWORKS[name]
    return learning(BINARY, section, 0, shape)


def records(name: str, rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, *NETWORKS[name][1], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_builds_what_it_declares_and_begins_alike_under_one_seed(name: str) -> None:
    task = network(name)
    task.build()  # raises where another parameter, or a buffer, was built
    first, again, other = task.initial(1), task.initial(1), task.initial(2)
    assert {key: array.shape for key, array in first.items()} == {k: shape for k, (shape, _) in task.parameters.items()}
    assert all((first[key] == again[key]).all() for key in first)
    assert any((first[key] != other[key]).any() for key in first)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_it_puts_out_a_row_or_a_map_for_each_record_whatever_its_sides(name: str, rows: int) -> None:
    task, x = network(name), records(name, rows)
    outputs = task.architecture.evaluate(task.initial(0), x.numpy())
    sides = x.shape[2:] if name.startswith("unet") else ()
    assert outputs.shape == (rows, 1, *sides)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_record_has_the_same_outputs_alone_and_beside_others(name: str) -> None:
    task, x = network(name), records(name, 3)
    arrays = task.initial(0)
    together = task.architecture.evaluate(arrays, x.numpy())
    for i in range(3):
        np.testing.assert_allclose(task.architecture.evaluate(arrays, x[i : i + 1].numpy())[0], together[i], atol=1e-5)


@pytest.mark.parametrize("slices", [1, 2, 3, 8])
def test_a_lone_volume_by_halves_has_the_gradients_of_one_convolution(slices: int) -> None:
    built: Any = network("unet of volumes").build()
    by_halves = built.down[0][0]
    plain = nn.Conv3d(2, 4, 3, padding=1, bias=False)
    plain.weight.data.copy_(by_halves.weight)
    x = torch.randn(1, 2, slices, 5, 4)
    sent = torch.randn(1, 4, slices, 5, 4)
    gradients: list[Any] = []
    for layer in (by_halves, plain):
        read = x.clone().requires_grad_()
        (layer(read) * sent).sum().backward()
        gradients += [read.grad, layer.weight.grad]
    for ours, expected in zip(gradients[:2], gradients[2:], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("side", "engine"), [(64, "book-keeping"), (128, "alone")])
def test_large_images_take_one_patient_at_a_time_and_small_ones_a_batch(side: int, engine: str) -> None:
    section: Any = ResNet("resnet")
    assert learning(BINARY, section, 0, (1, side, side)).engine == engine


class _Summed:
    """A map's loss: the mean square of each record's outputs, less its outcome."""

    def __init__(self, task: Learning) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.flatten(1) - y[:, None]).square().mean(1)


@pytest.mark.parametrize("name", NETWORKS)
def test_its_clipped_sums_are_those_of_every_engine_that_can_read_it(name: str) -> None:
    task, x = _Summed(network(name)), records(name, 4)
    y, owners = torch.arange(4).float() % 2, torch.tensor([0, 1, 1, 2])
    engines: list[type[NoisySum]] = [Alone]
    engines += [OpacusEngine, BookKeeping] if name in ("resnet", "conv1d", "unet of images") else []
    assert load_engine(task.engine) is (BookKeeping if name in ("conv1d", "resnet") else Alone)  # small images
    sums = []
    for make in engines:
        model = FlatModel(task)
        model.load(task.initial(0))
        engine = make(model, plan_of(0.1), lambda size, _: torch.zeros(size))
        sums.append(engine.clipped_sum(x, y, owners, patients_in_batch=3).clone())
        engine.close()
    for other in sums[1:]:
        assert float((sums[0] - other).norm()) <= CLOSE
    assert float(sums[0].norm()) > 0.1
