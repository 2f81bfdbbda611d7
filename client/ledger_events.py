"""Conversion of privacy events to rows of the ledger and back.

>>> event_of(*row_of(SampledGaussian(2.0, 0.1, 5))) == SampledGaussian(2.0, 0.1, 5)
True
"""

from functools import lru_cache

from configs.errors import RunError
from strategies.privacy.accounting import Event, GaussianRelease, LaplaceRelease, SampledGaussian

_SAMPLED, _GAUSSIAN, _LAPLACE = "sampled gaussian", "gaussian", "laplace"


def row_of(event: Event) -> tuple[str, float, float, int]:
    """Return kind, noise multiplier, sampling rate and steps, as they are written down."""
    if isinstance(event, SampledGaussian):
        return _SAMPLED, event.noise_multiplier, event.sampling_rate, event.steps
    return (_GAUSSIAN if isinstance(event, GaussianRelease) else _LAPLACE), event.noise_multiplier, 1.0, event.count


@lru_cache(maxsize=4096)
def event_of(kind: str, noise_multiplier: float, sampling_rate: float, steps: int) -> Event:
    """Return the event that was written down.

    Raises:
        RunError: its kind is unknown: what cannot be counted must not count as nothing.
    """
    if kind == _SAMPLED:
        return SampledGaussian(noise_multiplier, sampling_rate, steps)
    if kind in (_GAUSSIAN, _LAPLACE):
        return (GaussianRelease if kind == _GAUSSIAN else LaplaceRelease)(noise_multiplier, steps)
    raise RunError(
        f"the privacy ledger holds a release of the unknown kind {kind!r}; install the version that wrote it"
    )
