"""Krum: the model nearest to its neighbours (Blanchard et al. 2017, arXiv 1703.02757)."""

from collections.abc import Iterable, Mapping

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import strategy as flower
from numpy.typing import NDArray

from configs.federated import FEDERATED
from strategies.exchange.messages import arrays_in
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Hospitals


class _ExactKrum(flower.Krum):
    """Krum by distances in double precision: of near models Flower's |a|^2 + |b|^2 - 2ab in single keeps no digit."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand on the one reply with the least sum of squared distances to its n - f - 2 nearest."""
        candidates = list(replies)
        if candidates:
            models = np.stack([_flat(reply) for reply in candidates])  # (hospitals, parameters)
            distances = np.sort([((models - model) ** 2).sum(axis=1) for model in models], axis=1)
            neighbours = max(1, len(candidates) - self.num_malicious_nodes - 2)
            candidates = [candidates[distances[:, 1 : 1 + neighbours].sum(axis=1).argmin()]]
        return super().aggregate_train(server_round, candidates)


def _flat(reply: Message) -> NDArray[np.float64]:
    arrays = arrays_in(reply.content).values()
    return np.concatenate([array.numpy().ravel() for array in arrays], dtype=np.float64)


class Krum(Hospitals, _ExactKrum):
    """The coordinator's half."""

    def flower_options(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return the number of hospitals as the integer that it is."""
        return {name: int(value) for name, value in super().flower_options(options).items()}


KRUM = Strategy(FEDERATED["krum"], Krum)
