"""Pure functions on named arrays: what a coordinator does with the hospitals' models beside Flower's strategies.

>>> mean_of({"bias": np.array([2.0])}, count=4)["bias"].tolist()
[0.5]
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from configs.schema import Study
from strategies.arrays import Arrays

Sums = dict[str, NDArray[np.float64]]


def site_weights(study: Study, sites: Sequence[str]) -> dict[str, float]:
    """Each hospital's weight: its announced number of patients, or 1; never a count of the data, that would leak."""
    if study.training.weights == "uniform":
        return dict.fromkeys(sites, 1.0)
    return {site: float(study.announced_patients(site) or 1) for site in sites}


def add(sums: Sums, arrays: Arrays) -> Sums:
    """Running sums in float64, for the average of iterates (Polyak and Juditsky 1992)."""
    return {name: sums.get(name, 0.0) + array.astype(np.float64) for name, array in arrays.items()}


def mean_of(sums: Mapping[str, NDArray[np.float64]], count: int) -> Arrays:
    """The average as float32."""
    return {name: (total / count).astype(np.float32) for name, total in sums.items()}
