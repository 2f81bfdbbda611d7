"""FedAvgM: FedAvg with momentum at the coordinator (Hsu et al. 2019, arXiv 1909.06335)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import strategy as flower
from numpy.typing import NDArray

from configs.federated import FEDERATED
from strategies.exchange.arrays import Arrays
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Hospitals


class FedAvgM(Hospitals, flower.FedAvgM):
    """Flower's momentum."""

    def flower_options(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return the options as they are: here Flower's names are the study's."""
        return dict(options)

    def optimizer_state(self) -> Arrays:
        """Return the momentum vector, which Flower keeps as a list without names."""
        return {f"momentum/{i:04d}": np.asarray(array) for i, array in enumerate(self.momentum_vector or [])}

    def restore(self, arrays: ArrayRecord, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a checkpoint; Flower's class takes the arrays from the first round only."""
        self.current_arrays = arrays
        self.momentum_vector = [state[key] for key in sorted(state)] or None


FEDAVGM = Strategy(FEDERATED["fedavgm"], FedAvgM)
