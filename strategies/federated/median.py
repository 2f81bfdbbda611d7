"""The coordinate-wise median of the models (Yin et al. 2018, arXiv 1803.01498).

Weights play no part.
"""

from flwr.serverapp import strategy as flower

from configs.federated import FEDERATED
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Hospitals


class Median(Hospitals, flower.FedMedian):
    """Flower's median."""


MEDIAN = Strategy(FEDERATED["median"], Median)
