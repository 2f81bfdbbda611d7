"""The coordinator's part of a study of statistics: which counts are accepted, and what metrics.json says of them.

What follows from noisy counts is in strategies/tasks/statistics.py; asking for them, in server/app.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from configs import wire
from configs.schema import Study
from strategies.exchange.messages import read
from strategies.privacy.plan import statistics_plan
from strategies.tasks import statistics
from strategies.tasks.shapes import arrays_of

Counts = NDArray[np.float32]


@dataclass(frozen=True)
class Counted:
    """What hospitals released, and why others released nothing."""

    vectors: Mapping[str, Counts]  # hospital -> (cells,)
    missing: Mapping[str, str]


def read_counts(reply: Message, site: str, study: Study) -> Counts:
    """One hospital's counts.

    Raises:
        WireError: the reply is not of its form, or cannot come from an honest hospital.
    """
    form = "statistics reply"
    vector = read(form, reply.content, arrays_of(form, study)).arrays[wire.COUNTS]
    layout, announced = statistics.layout_of(study), study.announced_patients(site)
    statistics.require_plausible(vector, layout, statistics.standard_deviation(statistics_plan(study)), announced)
    return vector


def report(study: Study, counted: Counted) -> dict[str, Any]:
    """The `statistics` of metrics.json: each hospital's figures and those of all that released theirs."""
    layout, plan = statistics.layout_of(study), statistics_plan(study)
    noise = statistics.standard_deviation(plan)
    variance = statistics.cell_variance(noise)
    found = {
        site: statistics.statistics(vector, layout, variance=variance)
        for site, vector in sorted(counted.vectors.items())
    }
    summed = np.sum([vector.astype(np.float64) for _, vector in sorted(counted.vectors.items())], axis=0)
    together = statistics.statistics(summed, layout, variance=len(found) * variance)
    return {
        "noise": noise,
        "noise_multiplier": plan.noise_multiplier,
        "columns": [_column(histogram) for histogram in layout],
        "outcome": study.task.classes[1] if len(study.task.classes) == 2 else None,
        "sites": {site: one.to_dict() for site, one in found.items()},
        "together": together.to_dict(),
        "differing": statistics.differing([v for _, v in sorted(counted.vectors.items())], layout, variance=variance),
        "missing": dict(counted.missing),
        "released": {site: vector.tolist() for site, vector in sorted(counted.vectors.items())},
    }


def _column(histogram: statistics.Histogram) -> dict[str, Any]:
    column = histogram.column
    return {
        "name": column.name,
        "type": column.type,
        "unit": column.unit,
        "labels": list(histogram.labels),
        "edges": list(histogram.edges),
    }
