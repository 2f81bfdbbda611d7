"""A toy strategy with a hospital's half and arrays of its own: SCAFFOLD, with the control variates kept in the middle.

Each local step moves along gradient - own control + mean control (Karimireddy et al. 2020, arXiv 1910.06378, option
II of algorithm 1). A hospital's control follows from the model that it released, so the coordinator computes it, and
nothing but the model leaves. Not part of the product.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from numpy.typing import NDArray

from configs import schema
from configs.federated import FederatedKeys, Specs
from configs.keys.declare import Key
from configs.keys.values import Number
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import arrays_in
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Mean
from strategies.federated.local_rule import LocalRule
from strategies.federated.registry import register

SENT = "correction/"


def corrections(parameters: Specs) -> Specs:
    """Declare one array for each of the model's parameters."""
    return {SENT + name: spec for name, spec in parameters.items()}


class DriftCorrection(Mean, flower.FedAvg):
    """The coordinator's half: a weighted mean, and each hospital's control variate."""

    def __init__(self, study: schema.Study, nodes: Mapping[str, int], weights: Mapping[str, float]) -> None:
        super().__init__(study, nodes, weights)
        self._controls: dict[str, Arrays] = {}  # hospital -> its mean gradient when it last took part, by parameter

    def flower_options(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return none: the option is the hospitals'."""
        del options
        return {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Keep the model that is sent: the controls follow from how far hospitals move from it."""
        self._start = {name: array.numpy() for name, array in arrays.items()}
        return super().configure_train(server_round, arrays, config, grid)

    def sent(self, site: str) -> Arrays:
        """Return mean control - own control, zeros at first."""
        own = self._controls.get(site, {})
        sites = len(self.study.sites)
        corrections: Arrays = {}
        for name, array in self._start.items():
            mean = sum((control[name] for control in self._controls.values()), np.zeros_like(array)) / sites
            corrections[SENT + name] = np.asarray(mean - own.get(name, 0.0), np.float32)
        return corrections

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the mean, and renew the controls: own - mean + (start - model) / (steps * learning rate)."""
        answered = list(replies)
        local = self.study.training.local
        renewed: dict[str, dict[str, NDArray[Any]]] = {}
        for reply in answered:
            site = self._site_of[reply.metadata.src_node_id]
            steps = local.steps_per_round(self.study.announced_train_patients(site) or 1)
            correction, model = self.sent(site), arrays_in(reply.content)
            renewed[site] = {
                name: (start - model[name].numpy()) / np.float32(steps * local.learning_rate) - correction[SENT + name]
                for name, start in self._start.items()
            }
        self._controls = dict(sorted({**self._controls, **renewed}.items()))  # sums of floats depend on the order
        return super().aggregate_train(server_round, answered)

    def optimizer_state(self) -> Arrays:
        """Return every control, `hospital/parameter` -> array."""
        return {f"{site}/{name}": a for site, control in self._controls.items() for name, a in control.items()}

    def restore(self, arrays: ArrayRecord, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue with a checkpoint's controls."""
        del arrays
        controls: dict[str, Arrays] = {}
        for key, array in state.items():
            site, _, name = key.partition("/")
            controls.setdefault(site, {})[name] = array
        self._controls = controls


def corrected(chosen: schema.Strategy, sent: Arrays) -> LocalRule:
    """Return the hospital's half: add a share of the correction to each step's gradient."""
    strength = np.float32(chosen.option("strength"))
    return LocalRule(drift={name.removeprefix(SENT): strength * array for name, array in sent.items()} or None)


STRENGTH = Key("strength", Number("a share from 0 to 1", 0.0, 1.0), default=1.0)
DRIFT_CORRECTION = Strategy(
    FederatedKeys(
        "drift_correction", (Key("strength", Number("a share from 0 to 1", 0.0, 1.0), default=1.0),), corrections
    ),
    DriftCorrection,
    corrected,
)


def install() -> None:
    """Register the strategy, so that studies may name it."""
    register(DRIFT_CORRECTION)
