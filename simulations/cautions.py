"""What every plan says of spare releases, and what a researcher is warned of; nothing heavy is imported."""

import math
from collections.abc import Mapping

from client.timing import children_s
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


def slow_children(study: Study, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Return a warning where a kit's children need longer for a round than it waits, as `kit_run: forked` has them.

    Args:
        sizes: the training patients of each hospital, by public numbers.
    """
    seconds = {site: children_s(study, patients) for site, patients in sizes.items()}
    slowest = max(seconds, key=seconds.__getitem__, default=None)
    timeout_s = study.training.round_timeout_s
    if study.kit is None or slowest is None or seconds[slowest] <= timeout_s:
        return ()
    return (
        f"warning: kit.patient_s {study.kit.patient_s:g}: a round takes {math.ceil(seconds[slowest]):,} s at {slowest} "
        f"under kit_run: forked, as each patient has a time of that length, and training.round_timeout_s is "
        f"{timeout_s:g}; lower kit.patient_s (archipel kit test measures it) or training.local.batch_size, or raise "
        "training.round_timeout_s above that",
    )
