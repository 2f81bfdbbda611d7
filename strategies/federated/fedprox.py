"""FedProx: FedAvg with a proximal term (Li et al. 2020, arXiv 1812.06127).

Each local step is pulled towards the shared model.
"""

from flwr.serverapp import strategy as flower

from configs import schema
from configs.federated import FEDERATED
from strategies.exchange.arrays import Arrays
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Mean
from strategies.federated.local_rule import LocalRule


class FedProx(Mean, flower.FedProx):
    """The coordinator's half: a weighted mean."""


def _pulled(chosen: schema.Strategy, sent: Arrays) -> LocalRule:
    # The gradient of mu / 2 * |model - start|^2: section 3.2, equation 2.
    del sent
    return LocalRule(pull=chosen.option("proximal_mu"))


FEDPROX = Strategy(FEDERATED["fedprox"], FedProx, _pulled)
