"""FedYogi: Yogi at the coordinator (Reddi et al. 2021, arXiv 2003.00295).

Its steps go along the mean update of the hospitals.
"""

from flwr.serverapp import strategy as flower

from configs.federated import FEDERATED
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Hospitals


class FedYogi(Hospitals, flower.FedYogi):
    """Flower's Yogi."""


FEDYOGI = Strategy(FEDERATED["fedyogi"], FedYogi)
