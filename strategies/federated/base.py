"""The interface of a strategy: its coordinator's half and its hospital's half.

The first combines models, the second changes local steps. The hospital's half is strategies/federated/local_rule.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

from configs import schema
from configs.federated import FederatedKeys
from strategies.exchange.arrays import Arrays
from strategies.federated.hospitals import Hospitals
from strategies.federated.local_rule import NO_RULE, LocalRule


def no_rule(chosen: schema.Strategy, sent: Arrays) -> LocalRule:
    """Change nothing at the hospital."""
    del chosen, sent
    return NO_RULE


@dataclass(frozen=True)
class Strategy:
    """One strategy, both halves.

    `keys` declares its options and the arrays that it sends beside the model. `coordinator` is made of the study, the
    hospitals' nodes and their weights. `local_rule` is made of the study's choice and of what was sent to a hospital
    beside the model; where nothing was sent, as when a hospital is audited alone, arrays count as zeros.
    """

    keys: FederatedKeys
    coordinator: type[Hospitals]
    local_rule: Callable[[schema.Strategy, Arrays], LocalRule] = no_rule

    @property
    def name(self) -> str:
        """Return the name by which a study says it."""
        return self.keys.name
