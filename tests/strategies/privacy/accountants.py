"""Two accountants written by others."""

import warnings
from collections.abc import Iterable
from functools import lru_cache, reduce
from typing import Any

import dp_accounting
from dp_accounting import pld
from opacus.accountants import PRVAccountant

from strategies.privacy.accounting import SampledGaussian


def by_google(events: Iterable[SampledGaussian], delta: float) -> float:
    """dp-accounting's privacy loss distributions with its own defaults, one composition an event."""
    return float(reduce(lambda a, b: a.compose(b), map(_losses, events)).get_epsilon_for_delta(delta))


@lru_cache(maxsize=16)
def _losses(event: SampledGaussian) -> Any:
    """What its accountant makes of an event, a second of work each time; most studies repeat theirs."""
    one = pld.privacy_loss_distribution.from_gaussian_mechanism(
        standard_deviation=event.noise_multiplier, sampling_prob=event.sampling_rate
    )
    return one.self_compose(event.steps)


def by_googles_accountant(events: Iterable[SampledGaussian], delta: float) -> float:
    """The same by the accountant itself, which makes each distribution anew."""
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for event in events:
        gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(event.sampling_rate, gaussian), event.steps)
    return float(accountant.get_epsilon(delta))


def by_opacus(events: Iterable[SampledGaussian], delta: float) -> float:
    """Opacus's PRV accountant: another method (Gopi et al. 2021) and other code."""
    accountant = PRVAccountant()
    accountant.history = [(e.noise_multiplier, e.sampling_rate, e.steps) for e in events]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of logarithms of zero, and of a range that it tries on the way
        return float(accountant.get_epsilon(delta))
