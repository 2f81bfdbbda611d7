"""The hospital's half of a strategy: what it adds to the local steps.

It is affine on purpose: so the coordinator can bound what an honest hospital sends (strategies/releases/plausible.py),
an audit can retrace a round, and a simulation can fit many hospitals at once. It sees no patient, so under differential
privacy it is added after the noise.

>>> LocalRule(pull=0.5).added(np.ones(2, np.float32), np.zeros(2, np.float32)).tolist()
[0.5, 0.5]
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LocalRule:
    """The term that a hospital adds to each step's gradient: pull * (model - start) + drift.

    `drift` has the model's parameters by name, or is None where nothing is added.
    """

    pull: float = 0.0
    drift: Mapping[str, Floats] | None = None

    def __bool__(self) -> bool:
        """Return whether anything is added at all."""
        return bool(self.pull) or self.drift is not None

    def sparing(self, own: Mapping[str, Floats]) -> "LocalRule":
        """Return the same rule without a drift of these arrays, which no strategy combines."""
        if self.drift is None:
            return self
        return replace(self, drift={**self.drift, **{name: np.zeros_like(array) for name, array in own.items()}})

    def added(self, flat: Floats, start: Floats, drift: Floats | None = None) -> Floats:
        """Return what is added to the gradient of the model `flat`, all (..., parameters)."""
        added = (flat - start) * np.float32(self.pull)
        return added if drift is None else added + drift


NO_RULE = LocalRule()
