"""A toy strategy with a hospital's half and arrays of its own: each local step leans to where all moved before.

The coordinator sends, beside the model, the mean gradient of the round before, which is how far the shared model moved
(Xu et al. 2021, arXiv 2106.10874, in its simplest form). It follows from models that were released. Not part of the
product.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from numpy.typing import NDArray

from configs import schema
from configs.federated import FederatedKeys, Specs
from configs.keys.declare import Key
from configs.keys.values import Number
from strategies.exchange.arrays import Arrays
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Mean
from strategies.federated.local_rule import LocalRule
from strategies.federated.registry import register

SENT = "direction/"


def directions(parameters: Specs) -> Specs:
    """Declare one array for each of the model's parameters."""
    return {SENT + name: spec for name, spec in parameters.items()}


class SharedDirection(Mean, flower.FedAvg):
    """The coordinator's half: a weighted mean, and the model that was sent before."""

    _before: Arrays | None = None  # the model of the round before
    _start: Arrays | None = None  # the model of this round

    def flower_options(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return none: the option is the hospitals'."""
        del options
        return {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Keep the model that is sent, and the one before."""
        self._before, self._start = self._start, {name: array.numpy() for name, array in arrays.items()}
        return super().configure_train(server_round, arrays, config, grid)

    def sent(self, site: str) -> Arrays:
        """Return how far the shared model moved in the round before, against the direction of its move."""
        del site
        assert self._start is not None
        before = self._before or self._start
        return {SENT + name: np.asarray(before[name] - array, np.float32) for name, array in self._start.items()}

    def optimizer_state(self) -> Arrays:
        """Return the model that was sent last, `start/parameter` -> array."""
        return {f"start/{name}": array for name, array in (self._start or {}).items()}

    def restore(self, arrays: ArrayRecord, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue with a checkpoint's arrays."""
        del arrays
        self._start = {key.partition("/")[2]: array for key, array in state.items()} or None


def leaning(chosen: schema.Strategy, sent: Arrays) -> LocalRule:
    """Return the hospital's half: add a share of the direction to each step's gradient."""
    strength = np.float32(chosen.option("strength"))
    return LocalRule(drift={name.removeprefix(SENT): strength * array for name, array in sent.items()} or None)


STRENGTH = Key("strength", Number("a share from 0 to 1", 0.0, 1.0), default=0.5)
SHARED_DIRECTION = Strategy(FederatedKeys("shared_direction", (STRENGTH,), directions), SharedDirection, leaning)


def install() -> None:
    """Register the strategy, so that studies may name it."""
    register(SHARED_DIRECTION)
