"""The registered privacy modes, by name.

>>> MODES.names
('local', 'none')
"""

from configs.errors import KindError
from configs.kinds import Registry
from configs.schema import Study
from configs.schema.privacy import PRIVACY_MODES
from strategies.privacy.modes.base import PrivacyMode
from strategies.privacy.modes.local import LOCAL
from strategies.privacy.modes.none import NONE
from strategies.privacy.plan import PrivacyPlan

MODES: Registry[PrivacyMode] = Registry(
    "privacy mode", ("keys", "plan", "training_plan", "protect", "combine", "guarantee"), (LOCAL, NONE)
)


def register(mode: PrivacyMode) -> None:
    """Add a mode, so that studies may name it.

    Raises:
        KindError: another one has its name, or it lacks a part: a budget without a plan would be booked nowhere, and a
            hospital's noise that nothing adds would be believed.
    """
    lacks = mode.keys.budgeted and not _brings(mode, "plan")
    if lacks or (mode.keys.noised_here and not (_brings(mode, "training_plan") or _brings(mode, "protect"))):
        part, keys = ("plan", "budgeted") if lacks else ("training_plan or protect", "noised_here")
        raise KindError(f"privacy mode {mode.name!r}: expected its own {part}, as it is {keys}, found none; add it")
    MODES.register(mode)
    PRIVACY_MODES.register(mode.keys)


def _brings(mode: PrivacyMode, part: str) -> bool:
    return getattr(type(mode), part) is not getattr(PrivacyMode, part)


def mode_of(study: Study) -> PrivacyMode:
    """Return the study's mode."""
    return MODES[study.privacy.mode]


def plans_of(study: Study, patients: dict[str, int]) -> dict[str, PrivacyPlan]:
    """Return every hospital's plan, of modes that have one.

    Args:
        patients: hospital -> number of training patients, of studies that announce none.

    Raises:
        PrivacyError: a hospital has none.
    """
    plans = {site: mode_of(study).plan(study, site, count) for site, count in patients.items()}
    return {site: plan for site, plan in plans.items() if plan is not None}


def statistics_plan(study: Study) -> PrivacyPlan:
    """Return the plan of a study of statistics at any hospital: whatever its size, the noise is the same.

    Raises:
        PrivacyError: no noise reaches the budget.
    """
    plan = mode_of(study).plan(study, study.sites[0] if study.sites else "")
    assert plan is not None, "configs lets no study of statistics name such a mode"
    return plan
