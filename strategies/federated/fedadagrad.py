"""FedAdagrad: Adagrad at the coordinator (Reddi et al. 2021, arXiv 2003.00295).

Its steps go along the mean update of the hospitals.
"""

from collections.abc import Mapping

from flwr.serverapp import strategy as flower

from configs.federated import FEDERATED
from configs.schema import Study
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Hospitals


class FedAdagrad(Hospitals, flower.FedAdagrad):
    """Flower's Adagrad; `beta_1` is its momentum, which Flower's constructor leaves out."""

    def __init__(self, study: Study, nodes: Mapping[str, int], weights: Mapping[str, float]) -> None:
        super().__init__(study, nodes, weights)
        self.beta_1 = study.training.strategy.option("beta_1")

    def flower_options(self, options: Mapping[str, float]) -> dict[str, float]:
        """Leave out what Flower's constructor does not take."""
        return super().flower_options({name: value for name, value in options.items() if name != "beta_1"})


FEDADAGRAD = Strategy(FEDERATED["fedadagrad"], FedAdagrad)
