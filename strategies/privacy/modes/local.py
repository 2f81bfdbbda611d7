"""Local differential privacy: each hospital clips and noises every step of its own training.

The plan follows from the study and the number of training patients that the hospital announced in public. So it is
known before anybody looks at data, and one patient more or less changes neither noise, nor rate, nor steps. A training
at a hospital that announced no number has no plan: a number counted in its data would show in what it sends.
"""

import math
from dataclasses import replace

from configs.errors import PrivacyError
from configs.schema import Study
from configs.schema.privacy import LOCAL_KEYS
from strategies.privacy.accounting import SampledGaussian
from strategies.privacy.modes.base import Guarantee, PrivacyMode, covered
from strategies.privacy.plan import Budget, PrivacyPlan, calibrate, least_noise
from strategies.tasks.registry import is_learned


class Local(PrivacyMode):
    """The private engines train; what leaves is protected against everybody, the coordinator included."""

    keys = LOCAL_KEYS

    def plan(self, study: Study, site: str, patients: int = 1, *, figures: bool = True) -> PrivacyPlan:
        """Return `plan_for` of the hospital."""
        return plan_for(study, site, patients, figures=figures)

    def plan_of_size(self, study: Study, patients: int, site: str) -> PrivacyPlan:
        """Return the plan of a hospital of so many training patients.

        Raises:
            PrivacyError: the batch is larger than the hospital, or no noise reaches the budget.
        """
        return _plan_of_size(study, patients, site)

    def require_plannable(self, study: Study, site: str) -> None:
        """Check that the hospital announced a size, where the study trains."""
        if is_learned(study):
            public_train_patients(study, site)

    def evaluation(self, study: Study) -> SampledGaussian | None:
        """Return `evaluation_event` of the study."""
        return evaluation_event(study)

    def training_plan(self, plan: PrivacyPlan | None) -> PrivacyPlan | None:
        """Return the plan itself: what is accounted is what each step adds."""
        return plan

    def guarantee(self, study: Study) -> Guarantee:
        """Return the guarantee of everything that leaves a hospital."""
        del study
        against = "whoever sees what leaves the hospital, the coordinator included"
        return Guarantee(self.keys.unit, self.keys.adjacency, "at each hospital", against)

    def review(self, study: Study) -> str:
        """Return the guarantee, what is clipped, and what a lost release leads to."""
        privacy = study.privacy
        if not is_learned(study):
            return (
                f"differential privacy in this hospital: epsilon {privacy.epsilon:g} at delta {privacy.delta:g} "
                f"{self.keys.about}, for everything that leaves; asked again, this hospital sends the same "
                f"counts{_spare(study)}"
            )
        return (
            f"differential privacy in this hospital: epsilon {privacy.epsilon:g} at delta {privacy.delta:g} "
            f"{self.keys.about}, for the whole {covered(study)}; what one patient "
            "adds to a step of the training (its gradient) is cut to a length of at most "
            f"{privacy.clip_norm:g} (clip norm), then noise is added{_spare(study)}{_by_the_reference(study)}"
        )


LOCAL = Local()


def _spare(study: Study) -> str:
    # What happens to a release that is lost on its way is part of what a hospital agrees to.
    if not (spare := study.privacy.spare):
        return ""
    times = "once" if spare == 1 else f"{spare} times"
    return f"; a release that is lost can be made anew with other noise, {times} at most, within this epsilon"


def _by_the_reference(study: Study) -> str:
    if study.training.local.engine != "opacus":
        return ""
    return (
        ". BUT by Opacus's engine (training.local.engine), which is for comparison: under parameters that a dishonest "
        "coordinator chose, its rounding lets one patient weigh more than that. Ask for a study without this line"
    )


def plan_for(study: Study, site: str, patients: int = 1, *, figures: bool = True) -> PrivacyPlan:
    """Return the plan of one hospital. Of statistics it is one step with everybody: a patient is in a cell per column.

    Args:
        patients: of statistics alone, where the study announces no number: what delta is held against.
        figures: whether the site lets the figures leave that the study may ask for.

    Raises:
        PrivacyError: the hospital announced no size, the batch is larger than that, or no noise reaches the budget.
    """
    public = public_train_patients(study, site) if is_learned(study) else study.announced_train_patients(site)
    return _plan_of_size(study, public or patients, site, figures=figures)


def public_train_patients(study: Study, site: str) -> int:
    """Return the training patients that a hospital announced, which decide noise, rate and steps of a private training.

    Raises:
        PrivacyError: it announced none: it is not in the cohort.
    """
    patients = study.announced_train_patients(site)
    if patients is None:
        raise PrivacyError(
            f"cohort: expected {site} with its announced patients, found none: noise, sampling rate and steps of a "
            f"private training follow from that public number, never from a count; add {site}: PATIENTS, a round number"
        )
    return patients


def _plan_of_size(study: Study, patients: int, site: str, *, figures: bool = True) -> PrivacyPlan:
    local, privacy = study.training.local, study.privacy
    if local.batch_size is not None and local.batch_size > patients:
        raise PrivacyError(
            f"{site}: training.local.batch_size: expected at most the {patients} training patients announced, "
            f"got {local.batch_size}; lower it, or write full"
        )
    plan = calibrate(
        Budget(privacy.epsilon, privacy.delta),
        clip_norm=privacy.clip_norm or statistics_norm(study),
        sampling_rate=local.sampling_rate(patients),
        steps_per_round=local.steps_per_round(patients),
        rounds=study.training.rounds,
        patients=patients,
        spare=privacy.spare,
    )
    evaluation, trains = evaluation_event(study) if figures else None, study.trains_at(site)
    others = tuple((release.name, _once(study, release.keys.epsilon)) for release in study.releases if trains)
    return replace(plan, evaluation=evaluation, others=others, trains=trains)


def statistics_norm(study: Study) -> float:
    """Return the most that one patient moves a study's statistics (L2): 1 in one cell of each column's histogram.

    >>> from configs.load import study_from
    >>> document = {"name": "x", "purpose": "y", "patient_id": None}
    >>> document |= {"task": {"type": "statistics", "target": "disease"}}
    >>> document |= {"features": {name: {"type": "number", "range": [0, 1]} for name in ("age", "chol", "oldpeak")}}
    >>> document |= {"cohort": {"lille": 60}, "privacy": {"mode": "local", "epsilon": 0.5, "delta": 1e-5}}
    >>> statistics_norm(study_from(document))
    2.0
    """
    return math.sqrt(len(study.counted))


def evaluation_event(study: Study) -> SampledGaussian | None:
    """Return the noisy histogram that a study asks for: a step with everybody in it; None where it asks for none.

    Its noise multiplier is the least that keeps this one release, and every spare one if all were needed here, within
    its own epsilon at the study's delta. One patient more or less changes one cell of the histogram by 1, so that is
    the sensitivity (L2).
    """
    release = study.evaluation.release
    return None if release is None else _once(study, release.epsilon)


def _once(study: Study, epsilon: float) -> SampledGaussian:
    budget = Budget(epsilon, study.privacy.delta)
    return SampledGaussian(least_noise(budget, 1.0, 1 + study.privacy.spare), 1.0, 1)
