"""The decision of the hospital's policy on a study: allow, or deny with a reason.

Pure functions: no disk, no clock, no network.

>>> from configs.schema.privacy import NONE_KEYS
>>> from configs.site import Policy
>>> decide(Request(NONE_KEYS, has_dataset=True), Policy())
Deny(code=113, reason='it trains without differential privacy; the policy does not allow that (allow_privacy_none)')
"""

import math
from dataclasses import dataclass

from configs.errors import PolicyError
from configs.schema import PER_PATIENT
from configs.schema.privacy import ModeKeys
from configs.site import Policy

_ROUNDING = 1e-9
NO_FIGURES = 117


@dataclass(frozen=True, slots=True)
class Request:
    """A study's requirements of a hospital, apart from its data set's budget.

    `patients` is the number that the study announces for this hospital, None where it announces none: what is decided
    here may be told to anybody, so nothing of it is counted in the data.
    """

    mode: ModeKeys
    has_dataset: bool
    message_bytes: int = 0
    patients: int | None = None


@dataclass(frozen=True, slots=True)
class Spending:
    """The spending of a data set, now and once a study is over.

    Epsilons per patient, at the policy's delta, over all studies; both 0 where the study has no privacy mode.
    """

    spent: float
    after: float


@dataclass(frozen=True, slots=True)
class Allow:
    """The study may run, once a person has approved it."""


@dataclass(frozen=True, slots=True)
class Deny:
    """The study may not run, even if it is approved. The code may leave (client/egress.py), the reason stays."""

    code: int
    reason: str


def decide(request: Request, policy: Policy) -> Allow | Deny:
    """Judge one study by all but its cost."""
    if not request.has_dataset:
        return Deny(112, "site.yaml names no data set for it (datasets)")
    if why := request.mode.refusal(allow_privacy_none=policy.allow_privacy_none):
        return Deny(113, why)
    if request.message_bytes > policy.max_message_mb * 1_000_000:
        return Deny(
            115,
            f"its messages have {request.message_bytes / 1e6:.0f} MB, the policy allows {policy.max_message_mb} "
            "(max_message_mb)",
        )
    if (request.patients or 1) < policy.min_patients:
        announced = "no number" if request.patients is None else f"{request.patients}"
        return Deny(
            116,
            f"the study announces {announced} of patients of this hospital (cohort), fewer than {policy.min_patients} "
            "(min_patients)",
        )
    return Allow()


def afford(spending: Spending, policy: Policy) -> Allow | Deny:
    """Judge whether a study's cost is within what is left of its data set's budget."""
    if spending.after == math.inf:
        return Deny(114, "the data set's first study needs so much of its budget that no study chosen later can follow")
    if spending.after > policy.max_epsilon + _ROUNDING:
        remaining = max(0.0, policy.max_epsilon - spending.spent)
        return Deny(
            114,
            f"it needs epsilon {spending.after - spending.spent:.2f}, {remaining:.2f} is left of the data set's "
            f"{policy.max_epsilon:g} (max_epsilon, {PER_PATIENT}, at delta {policy.delta:g})",
        )
    return Allow()


def require_figures(policy: Policy) -> None:
    """Let noisy histograms of scores on test patients leave, if the policy does.

    Raises:
        PolicyError: it does not.
    """
    if policy.metrics != "noisy":
        why = "it asks for a noisy histogram of scores on test patients; the policy lets none leave (metrics: none)"
        raise PolicyError(why, code=NO_FIGURES)
