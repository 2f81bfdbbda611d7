"""FedAdam: Adam at the coordinator (Reddi et al. 2021, arXiv 2003.00295).

Its steps go along the mean update of the hospitals.
"""

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import strategy as flower

from configs.federated import FEDERATED
from strategies.exchange.arrays import to_record
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Hospitals


class _PublishedAdam(flower.FedAdam):
    """Adam at the coordinator, as published: Reddi et al.'s algorithm 2 has no bias correction.

    Flower has Kingma and Ba's, by powers whose last bits are the C library's.
    """

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Make one step along the weighted mean, of operations with the same bits on every processor."""
        mean, metrics = super(flower.FedAdam, self).aggregate_train(server_round, replies)
        if mean is None or self.current_arrays is None:
            return mean, metrics
        moved, first, arrays = self._compute_deltat_and_mt(mean)
        second = self.v_t or {name: np.zeros_like(array) for name, array in arrays.items()}
        self.v_t = {
            name: self.beta_2 * moment + (1 - self.beta_2) * (moved[name] * moved[name])
            for name, moment in second.items()
        }
        rate = np.float64(self.eta)
        return to_record(
            {
                name: np.asarray(x + rate * first[name] / (np.sqrt(self.v_t[name]) + self.tau), np.float32)
                for name, x in self.current_arrays.items()
            }
        ), metrics


class FedAdam(Hospitals, _PublishedAdam):
    """The coordinator's half."""


FEDADAM = Strategy(FEDERATED["fedadam"], FedAdam)
