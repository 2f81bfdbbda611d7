"""What hospitals released of a study of statistics, as the coordinator read it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from configs import wire
from configs.records.result import ReleasedStatistics
from configs.schema import Study
from strategies.exchange.messages import read
from strategies.releases.registry import STATISTICS

Counts = NDArray[np.float32]


@dataclass(frozen=True)
class Counted:
    """What hospitals released, and why others released nothing."""

    vectors: Mapping[str, Counts]  # hospital -> (cells,)
    missing: Mapping[str, str]


def read_counts(reply: Message, site: str, study: Study) -> Counts:
    """Read one hospital's counts.

    Raises:
        WireError: the reply is not of its form, or cannot come from an honest hospital.
    """
    arrays = read(STATISTICS.reply, reply.content, STATISTICS.arrays(study)).arrays
    STATISTICS.judge(study, {}, lambda _: {}).require(site, arrays)
    return arrays[wire.COUNTS]


def report(study: Study, counted: Counted) -> ReleasedStatistics:
    """Return the `statistics` of metrics.json: each hospital's figures and those of all that released theirs."""
    released = {site: {wire.COUNTS: vector} for site, vector in counted.vectors.items()}
    return replace(STATISTICS.combine(study, released), missing=counted.missing)
