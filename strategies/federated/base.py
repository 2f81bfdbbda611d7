"""What a strategy is: a coordinator's half that combines models, and a hospital's half that changes local steps.

The hospital's half is affine on purpose: so the coordinator can bound what an honest hospital sends
(strategies/plausible.py), an audit can retrace a round, and a simulation can fit many hospitals at once. It sees no
patient, so under differential privacy it is added after the noise.

>>> LocalRule(pull=0.5).added(np.ones(2, np.float32), np.zeros(2, np.float32)).tolist()
[0.5, 0.5]
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs import schema
from configs.federated import FederatedKeys
from strategies.exchange.arrays import Arrays
from strategies.federated.hospitals import Hospitals

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LocalRule:
    """What a hospital adds to each step's gradient: pull * (model - start) + drift.

    `drift` has the model's parameters by name, or is None where nothing is added.
    """

    pull: float = 0.0
    drift: Arrays | None = None

    def __bool__(self) -> bool:
        """Return whether anything is added at all."""
        return bool(self.pull) or self.drift is not None

    def added(self, flat: Floats, start: Floats, drift: Floats | None = None) -> Floats:
        """Return what is added to the gradient of the model `flat`, all (..., parameters)."""
        added = (flat - start) * np.float32(self.pull)
        return added if drift is None else added + drift


def no_rule(chosen: schema.Strategy, sent: Arrays) -> LocalRule:
    """Change nothing at the hospital."""
    del chosen, sent
    return NO_RULE


NO_RULE = LocalRule()


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
