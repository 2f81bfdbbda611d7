"""What the hospital's policy says of a study: allow, or deny with a reason. Pure: no disk, no clock, no network.

>>> from configs.deployment import Policy
>>> decide(Request(private=False, has_dataset=True, spent=0.0, after=0.0), Policy())
Deny(reason='it trains without differential privacy; the policy does not allow that (allow_privacy_none)')
"""

from dataclasses import dataclass

from configs.deployment import Policy

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Request:
    """What a study asks of a data set. Epsilons are per patient, at the policy's delta, over all studies.

    `spent` is what the data set has spent; `after` what it would have spent once this study is over.
    """

    private: bool
    has_dataset: bool
    spent: float
    after: float
    message_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Allow:
    """The study may run, once a person has approved it."""


@dataclass(frozen=True, slots=True)
class Deny:
    """The study may not run, whoever approves it."""

    reason: str


def decide(request: Request, policy: Policy) -> Allow | Deny:
    """Judge one study."""
    if not request.has_dataset:
        return Deny("site.yaml names no data set for it (datasets)")
    if not request.private and not policy.allow_privacy_none:
        return Deny("it trains without differential privacy; the policy does not allow that (allow_privacy_none)")
    if request.private and request.after > policy.max_epsilon + _ROUNDING:
        left = max(0.0, policy.max_epsilon - request.spent)
        return Deny(
            f"it needs epsilon {request.after - request.spent:.2f}, {left:.2f} is left of the data set's "
            f"{policy.max_epsilon:g} (max_epsilon, at delta {policy.delta:g})"
        )
    if request.message_bytes > policy.max_message_mb * 1_000_000:
        return Deny(
            f"its messages have {request.message_bytes / 1e6:.0f} MB, the policy allows {policy.max_message_mb} "
            "(max_message_mb)"
        )
    return Allow()
