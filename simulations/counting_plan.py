"""The plan of a study of statistics: what noise is added, and what is seen through it.

It reads no data: the noise follows from the study alone, what is seen from the announced sizes. Nothing heavy is
imported.
"""

import math
from dataclasses import dataclass

import numpy as np

from client.connectors import read_table
from configs.errors import ConfigError
from configs.schema import Study
from simulations.cautions import spare_notes, warnings_of
from strategies.data.columns import Histogram, cells_of, layout_of
from strategies.privacy.accounting import SampledGaussian, epsilon
from strategies.privacy.modes.registry import plans_of
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.column_figures import Floats, hidden_below, seen_with, statistics
from strategies.releases.noisy_counts import cell_variance
from strategies.releases.statistics import standard_deviation

ALL = "all together"


@dataclass(frozen=True)
class SiteView:
    """The figures of one hospital that can be seen through its noise.

    `hidden`: a count of fewer patients is not told from none. `total`, `share`: half the 95 % interval of the number of
    patients, and of the share with the outcome where half have it; None where there is no such share, or the noise
    hides it.
    """

    site: str
    patients: int
    hidden: float
    total: float
    share: float | None
    verdict: str


@dataclass(frozen=True)
class StatisticsPlan:
    """The output of `archipel plan` for a study that trains nothing. `noise`: of each count, in patients."""

    study: str
    noise: float
    noise_multiplier: float
    epsilon: float
    sites: tuple[SiteView, ...]
    notes: tuple[str, ...]
    has_rate: bool = True  # whether the target has two values, so that there is a share with the outcome


def plan_statistics(study: Study) -> StatisticsPlan:
    """Return what noise is added, and at which hospitals anything is seen through it.

    Raises:
        PrivacyError: no noise reaches the budget. ConfigError: no public size and no simulation to count.
    """
    sizes, counted = _sizes(study)
    plan = next(iter(plans_of(study, sizes).values()))
    noise = standard_deviation(plan)
    views = [_view(study, site, patients, plan, 1) for site, patients in sizes.items()]
    if len(views) > 1:
        views.append(_view(study, ALL, sum(sizes.values()), plan, len(views)))
    notes = (*_notes(study, plan, counted=counted), *spare_notes(study, {study.name: plan}), *warnings_of(study))
    has_rate = len(study.task.classes) == 2
    return StatisticsPlan(study.name, noise, plan.noise_multiplier, plan.epsilon(), tuple(views), notes, has_rate)


def _sizes(study: Study) -> tuple[dict[str, int], bool]:
    """Return the number of patients of each hospital: announced, or counted in a simulation's own copies."""
    if study.cohort:
        return {member.site: member.patients for member in study.cohort}, False
    if not study.simulation:
        raise ConfigError("study", ["cohort: expected each hospital's announced patients, found nothing; add it"])
    return {site: len(read_table(source, study).keys) for site, source in study.simulation}, True


def _view(study: Study, site: str, patients: int, plan: PrivacyPlan, hospitals: int) -> SiteView:
    layout = layout_of(study)
    variance = hospitals * cell_variance(standard_deviation(plan))
    figures = statistics(_expected(layout, patients), layout, variance=variance)
    hidden = hidden_below(standard_deviation(plan), hospitals)
    share = None if figures.outcome is None else (figures.outcome.high - figures.outcome.low) / 2
    total = figures.patients.high - figures.patients.value
    return SiteView(site, patients, hidden, total, share, _verdict(study, plan, patients, hidden, hospitals))


def _expected(layout: tuple[Histogram, ...], patients: int) -> Floats:
    """Return counts without noise, of patients spread evenly and without unknown values."""
    parts = [np.append(np.full(h.cells - 1, patients / (h.cells - 1)), 0.0) for h in layout]
    return np.concatenate(parts)


def _verdict(study: Study, plan: PrivacyPlan, patients: int, hidden: float, hospitals: int) -> str:
    bins = max(histogram.cells - 1 for histogram in layout_of(study))
    if hidden >= patients:
        # The noise with which a count of all patients is just told from none, and what such a release costs.
        deviation = seen_with(patients, hospitals)
        cost = math.ceil(100 * epsilon([SampledGaussian(deviation / plan.clip_norm, 1.0, 1)], plan.delta)) / 100
        return f"too small to be seen: the noise hides more than all its patients; seen from epsilon {cost:g} on"
    if hidden >= patients / bins:
        return f"seen in outline: a count of fewer than {math.ceil(hidden)} patients may be noise"
    return f"seen: only counts of fewer than {math.ceil(hidden)} patients may be noise"


def _notes(study: Study, plan: PrivacyPlan, *, counted: bool) -> list[str]:
    columns, cells = len(study.counted), cells_of(study)
    notes = [
        f"each hospital: {cells} counts of {columns} columns, {4 * cells:,} bytes, once; a patient is in one count of "
        f"each column,",
        f"so one more or less moves them by {plan.clip_norm:.2f} (L2, the root of {columns}); noise multiplier "
        f"{plan.noise_multiplier:g}, so noise of {standard_deviation(plan):.1f} patients in each count",
        f"guarantee: epsilon {study.privacy.epsilon:g} at delta {study.privacy.delta:g} per patient, add or remove "
        "one, at each hospital, for everything that is released",
    ]
    if counted:
        notes.append("no cohort is announced: sizes were counted in the simulation's own data; announce them to deploy")
    return notes
