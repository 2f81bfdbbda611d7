"""SCAFFOLD with stateless hospitals: the drift of local steps is corrected (Karimireddy et al. 2020, arXiv 1910.06378).

Each local step moves along gradient - own control + mean control (algorithm 1, option II). A hospital's control is its
mean gradient of a round, which follows from the model that was sent and the one that came back: so the coordinator
computes all controls and sends each hospital its correction, and nothing but the model leaves. Under differential
privacy controls are functions of noised models alone, and the correction is added after the noise: no epsilon is spent
(Noble et al. 2022, arXiv 2111.09278, have the hospitals compute them). The mean is weighted as the models are, so that
the model which the federation settles at is that of the weighted objective.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from numpy.typing import NDArray

from configs import schema
from configs.federated import CORRECTION, FEDERATED
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import arrays_in
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Mean
from strategies.federated.local_rule import LocalRule
from strategies.federated.mean import site_weights


class Scaffold(Mean, flower.FedAvg):
    """The coordinator's half: a weighted mean, and each hospital's control."""

    def __init__(self, study: schema.Study, nodes: Mapping[str, int], weights: Mapping[str, float]) -> None:
        super().__init__(study, nodes, weights)
        every = site_weights(study, study.training_sites)
        self._shares = {site: np.float32(weight / sum(every.values())) for site, weight in every.items()}
        self._controls: dict[str, Arrays] = {}  # hospital -> its mean gradient when it last took part, by parameter
        self._mean: Arrays = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Keep the model that is sent: the controls follow from how far hospitals move from it."""
        self._hold(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def sent(self, site: str) -> Arrays:
        """Return mean control - own control, zeros at first."""
        own = self._controls.get(site)
        return {
            CORRECTION + name: np.array(mean, np.float32) if own is None else mean - own[name]
            for name, mean in self._mean.items()
        }

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the mean, and renew the controls: own - mean + (start - model) / (steps * learning rate)."""
        answered = list(replies)
        renewed = {site: self._control(site, reply) for reply in answered for site in [self._site(reply)]}
        self._controls = dict(sorted({**self._controls, **renewed}.items()))  # sums of floats depend on the order
        return super().aggregate_train(server_round, answered)

    def optimizer_state(self) -> Arrays:
        """Return every control, `hospital/parameter` -> array."""
        return {f"{site}/{name}": a for site, control in self._controls.items() for name, a in control.items()}

    def restore(self, arrays: ArrayRecord, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue with a checkpoint's controls."""
        self._controls = {}
        for key, array in state.items():
            site, _, name = key.partition("/")
            self._controls.setdefault(site, {})[name] = np.asarray(array, np.float32)
        self._hold(arrays)

    def _hold(self, arrays: ArrayRecord) -> None:
        self._start = {name: array.numpy() for name, array in arrays.items()}
        self._mean = {name: np.zeros_like(array) for name, array in self._start.items()}
        for site, control in self._controls.items():
            for name, total in self._mean.items():
                total += self._shares[site] * control[name]

    def _site(self, reply: Message) -> str:
        return self._site_of[reply.metadata.src_node_id]

    def _control(self, site: str, reply: Message) -> Arrays:
        local = self.study.training.local
        steps = local.steps_per_round(self.study.announced_train_patients(site) or 1)
        correction, model = self.sent(site), arrays_in(reply.content)
        way = np.float32(steps * local.learning_rate)
        return {
            name: np.asarray((start - model[name].numpy()) / way - correction[CORRECTION + name], np.float32)
            for name, start in self._start.items()
        }


def _corrected(chosen: schema.Strategy, sent: Arrays) -> LocalRule:
    del chosen
    return LocalRule(drift={name.removeprefix(CORRECTION): array for name, array in sent.items()} or None)


SCAFFOLD = Strategy(FEDERATED["scaffold"], Scaffold, _corrected)
