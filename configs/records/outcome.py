"""Figures of a model that gives the probability of one outcome, as metrics.json has them: an entry of `models`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from configs.records.estimate import Estimate
from configs.records.fields import LATER, Within

SHARE = Within(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class AtThreshold:
    """How patients fare where those of at least a probability are called ill; null where a figure is undefined."""

    threshold: Annotated[float, "Probability from which on a patient is called ill.", SHARE]
    sensitivity: Annotated[Estimate | None, "Share of the patients with the outcome who are called ill."]
    specificity: Annotated[Estimate | None, "Share of the patients without the outcome who are not."]
    ppv: Annotated[Estimate | None, "Share of those called ill who have the outcome."]
    npv: Annotated[Estimate | None, "Share of the others who do not have it."]
    flagged: Annotated[Estimate | None, "Share of all patients who are called ill."]
    net_benefit: Annotated[
        Estimate | None, "Share of true alarms less that of false ones, weighed by the threshold's odds."
    ]


@dataclass(frozen=True)
class NetBenefit:
    """One point of the decision curve (Vickers and Elkin 2006)."""

    threshold: Annotated[float, "Probability from which on a patient is treated.", SHARE]
    model: Annotated[float, "Net benefit of treating by the model, per patient."]
    everybody: Annotated[float, "Net benefit of treating everybody; that of treating nobody is 0."]


@dataclass(frozen=True)
class RocPoint:
    """One point of the ROC curve."""

    threshold: Annotated[float, "Probability from which on a patient is called ill.", SHARE]
    sensitivity: Annotated[float, "Share of the patients with the outcome who are called ill."]
    specificity: Annotated[float, "Share of the patients without the outcome who are not."]


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """How predicted probabilities fit the outcomes of some patients; null where a figure is undefined."""

    observed: Annotated[Estimate | None, "Share of patients with the outcome."]
    in_the_large: Annotated[Estimate | None, "Mean predicted probability less that share."]
    slope: Annotated[Estimate | None, "Slope of the outcome's log odds by the predicted ones; 1 is perfect."]


@dataclass(frozen=True, kw_only=True)
class OutcomeFigures:
    """Calibration, thresholds and curves of one model on test patients."""

    calibrated: Annotated[Calibrated, "All test patients together."]
    calibrated_by_site: Annotated[Mapping[str, Calibrated], "Hospital: its own test patients.", LATER]
    thresholds: Annotated[tuple[AtThreshold, ...], "Figures at each threshold that the study states.", LATER]
    decision: Annotated[tuple[NetBenefit, ...], "The decision curve.", LATER]
    roc: Annotated[tuple[RocPoint, ...], "The ROC curve, thinned.", LATER]


@dataclass(frozen=True)
class Difference:
    """The shared model's primary metric less that of another model, on the same test patients."""

    whole: Annotated[Estimate | None, "All test patients together, with a paired bootstrap interval."]
    per_site: Annotated[Mapping[str, Estimate | None], "Hospital: on its test patients.", LATER]
