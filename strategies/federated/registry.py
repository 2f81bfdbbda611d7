"""The registered strategies, by name.

>>> STRATEGIES.names
('fedavg', 'fedprox', 'fedavgm', 'fedadam', 'fedyogi', 'fedadagrad', 'median', 'trimmed_mean', 'krum', 'scaffold')
"""

from collections.abc import Mapping

from configs.federated import FEDERATED
from configs.kinds import Registry
from configs.schema import Study
from strategies.exchange.arrays import Arrays
from strategies.federated.base import Strategy
from strategies.federated.fedadagrad import FEDADAGRAD
from strategies.federated.fedadam import FEDADAM
from strategies.federated.fedavg import FEDAVG
from strategies.federated.fedavgm import FEDAVGM
from strategies.federated.fedprox import FEDPROX
from strategies.federated.fedyogi import FEDYOGI
from strategies.federated.hospitals import Hospitals
from strategies.federated.krum import KRUM
from strategies.federated.local_rule import LocalRule
from strategies.federated.median import MEDIAN
from strategies.federated.scaffold import SCAFFOLD
from strategies.federated.trimmed_mean import TRIMMED_MEAN

STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    ("keys", "coordinator", "local_rule"),
    (FEDAVG, FEDPROX, FEDAVGM, FEDADAM, FEDYOGI, FEDADAGRAD, MEDIAN, TRIMMED_MEAN, KRUM, SCAFFOLD),
)


def register(strategy: Strategy) -> None:
    """Add a strategy, so that studies may name it.

    Raises:
        KindError: another one has its name, or it lacks a half.
    """
    STRATEGIES.register(strategy)
    FEDERATED.register(strategy.keys)


def strategy_of(study: Study, nodes: Mapping[str, int], weights: Mapping[str, float]) -> Hospitals:
    """Return the coordinator's half of the study's strategy for these hospitals."""
    return STRATEGIES[study.training.strategy.name].coordinator(study, nodes, weights)


def local_rule(study: Study, sent: Arrays) -> LocalRule:
    """Return the hospital's half of the study's strategy, given what it was sent beside the model."""
    chosen = study.training.strategy
    return STRATEGIES[chosen.name].local_rule(chosen, sent)
