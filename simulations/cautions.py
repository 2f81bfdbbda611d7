"""What every plan says of spare releases, and what a researcher is warned of; nothing heavy is imported."""

from collections.abc import Mapping

from configs.schema import PER_PATIENT, Study
from strategies.privacy.modes.registry import mode_of
from strategies.privacy.plan import PrivacyPlan, spare_cost


def spare_notes(study: Study, plans: Mapping[str, PrivacyPlan]) -> tuple[str, ...]:
    """Return what the spare releases are for and what they cost, one line; none where the study asks for none."""
    if not (spare := study.privacy.spare) or not plans:
        return ()
    share, spent = max(map(spare_cost, plans.values())), max(plan.epsilon(plan.rounds) for plan in plans.values())
    releases = "one lost release" if spare == 1 else f"up to {spare} lost releases"
    return (
        f"spare: each hospital can make {releases} anew; for that its noise is {share:.1%} larger at most",
        f"where none is lost, the rounds cost epsilon {spent:.2f} {PER_PATIENT}",
    )


def warnings_of(study: Study) -> tuple[str, ...]:
    """Return what a researcher should change before deploying a study."""
    return (f"warning: {text}",) if (text := mode_of(study).fragility(study)) else ()
