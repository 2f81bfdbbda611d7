"""FedAvg: the weighted mean of the hospitals' models (McMahan et al. 2017, arXiv 1602.05629)."""

from flwr.serverapp import strategy as flower

from configs.federated import FEDERATED
from strategies.federated.base import Strategy
from strategies.federated.hospitals import Mean


class FedAvg(Mean, flower.FedAvg):
    """Weighted mean of the hospitals' models."""


FEDAVG = Strategy(FEDERATED["fedavg"], FedAvg)
