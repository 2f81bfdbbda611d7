"""The coordinate-wise trimmed mean of the models (Yin et al. 2018, arXiv 1803.01498).

Weights play no part.
"""

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import strategy as flower

from configs.federated import FEDERATED
from strategies.exchange.arrays import to_record
from strategies.exchange.messages import arrays_in
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Hospitals


class TrimmedMean(Hospitals, flower.FedTrimmedAvg):
    """Coordinate-wise mean without the extremes; weights play no part.

    Values are added up by size: Flower's stand as a partition leaves them, which is another on each processor.
    """

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the mean of what is left once the study's share of the least and of the largest is cut."""
        del server_round
        records = [arrays_in(reply.content) for reply in replies]
        if not records:
            return None, None
        cut = int(self.beta * len(records))
        middle = slice(cut, len(records) - cut)
        return to_record(
            {
                name: np.sort(np.stack([record[name].numpy() for record in records]), axis=0)[middle].mean(axis=0)
                for name in self._names
            }
        ), None


TRIMMED_MEAN = Strategy(FEDERATED["trimmed_mean"], TrimmedMean)
