"""The plan of a study from public numbers: each hospital's noise, its cost, its benefit.

Whether a hospital helps is judged by the noise of the whole: with n training patients, its mean gradient over a round
of s steps has a noise of sigma * clip / (q n sqrt(s)), and the weighted mean of all hospitals the root of the sum of
squares. A hospital that makes that larger than leaving it out would costs the whole more than its patients add.
"""

import math
import time
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from client.connectors import read_table
from client.trainer import Trainer
from configs.errors import ConfigError
from configs.schema import Local, Study
from simulations.cautions import slow_children, spare_notes, warnings_of
from strategies.data.table import TablePatients
from strategies.exchange.arrays import payload_bytes, to_record
from strategies.federated.mean import site_weights
from strategies.learning import Learning, inputs_of, learning_of
from strategies.privacy.modes.base import covered
from strategies.privacy.modes.registry import mode_of, plans_of
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit
from strategies.releases.registry import RELEASES
from strategies.releases.score_histogram import states_of

CURVE_ROWS = 6

FEW_RECORDS = 2  # that are timed where a model reads images or series


@dataclass(frozen=True)
class SitePlan:
    """One hospital's row. Noise and epsilon are None without privacy."""

    site: str
    patients: int
    batch: float
    sampling_rate: float
    steps: int
    noise_multiplier: float | None
    epsilon: float | None
    verdict: str


@dataclass(frozen=True)
class StudyPlan:
    """The output of `archipel plan`."""

    study: str
    sites: tuple[SitePlan, ...]
    curve: tuple[tuple[int, tuple[float, ...]], ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def plan_study(study: Study) -> StudyPlan:
    """Plan every hospital.

    Raises:
        PrivacyError: no plan reaches the budget. ConfigError: no public size and no simulation to count.
    """
    sizes, counted = _sizes(study)
    plans = plans_of(study, sizes)
    mode = mode_of(study)
    training = {site: plan for site, plan in plans.items() if study.trains_at(site)}
    noise = {site: _noise_of_round(plan) for site, plan in training.items() if mode.training_plan(plan)}
    sites = tuple(_site_plan(study, site, n, plans.get(site), noise) for site, n in sizes.items())
    notes = (*_notes(study, sizes, counted=counted), *spare_notes(study, plans))
    warnings = (*warnings_of(study), *slow_children(study, {site: n for site, n in sizes.items() if site in training}))
    return StudyPlan(study.name, sites, _curve(study, training), notes, warnings)


def _noise_of_round(plan: PrivacyPlan) -> float:
    """Noise of a hospital's mean gradient over the steps of one round, in clip norms."""
    return plan.noise_multiplier / plan.expected_patients / math.sqrt(plan.steps_per_round)


def _sizes(study: Study) -> tuple[dict[str, int], bool]:
    """Return the training patients of each hospital: announced, or counted in a simulation's own copies."""
    announced = {site: study.announced_train_patients(site) for site in study.sites}
    if study.cohort:
        return {site: n for site, n in announced.items() if n is not None}, False
    if not study.simulation:
        raise ConfigError("study", ["cohort: expected each hospital's announced patients, found nothing; add it"])
    train_share = 1 - study.evaluation.test_fraction
    return {s: max(1, round(len(read_table(source, study).keys) * train_share)) for s, source in study.simulation}, True


def _site_plan(study: Study, site: str, patients: int, plan: PrivacyPlan | None, noise: dict[str, float]) -> SitePlan:
    if not study.trains_at(site):
        cost = plan.whole_epsilon() if plan else None
        return SitePlan(
            site, 0, 0.0, 0.0, 0, None, cost, "only tests: trains nothing, all its patients are test patients"
        )
    local = study.training.local
    rate = local.sampling_rate(patients)
    return SitePlan(
        site,
        patients,
        rate * patients,
        rate,
        local.steps_per_round(patients) * study.training.rounds,
        plan.noise_multiplier if plan else None,
        plan.whole_epsilon() if plan else None,
        _verdict(study, site, noise),
    )


def _verdict(study: Study, site: str, noise: dict[str, float]) -> str:
    if not noise:
        return "no noise"
    if len(noise) == 1:
        return "alone: nobody to share the noise with"
    with_it, without = (
        _noise_of_mean(study, noise),
        _noise_of_mean(study, {s: v for s, v in noise.items() if s != site}),
    )
    if with_it > without:
        return f"too small to help: the whole's noise is {with_it / without - 1:.0%} larger with it"
    return f"helps: the whole's noise is {1 - with_it / without:.0%} smaller with it"


def _noise_of_mean(study: Study, noise: dict[str, float]) -> float:
    weights = site_weights(study, list(noise))
    total = sum(weights.values())
    return math.sqrt(sum((weights[site] / total * value) ** 2 for site, value in noise.items()))


def _curve(study: Study, plans: dict[str, PrivacyPlan]) -> tuple[tuple[int, tuple[float, ...]], ...]:
    """Return epsilon after some numbers of rounds, up to twice the study's: what a longer study would cost."""
    if not plans:
        return ()
    rounds = study.training.rounds
    points = sorted({max(1, round(rounds * share)) for share in np.linspace(0, 2, 2 * CURVE_ROWS - 1)[1:]})
    return tuple((n, tuple(plan.epsilon(rounds=n) for plan in plans.values())) for n in points)


def _notes(study: Study, sizes: dict[str, int], *, counted: bool) -> list[str]:
    task = learning_of(study)
    model = to_record(task.initial(study.seed))
    sent, seconds = payload_bytes(model), _seconds_a_round(study, max(sizes.values()))
    notes = [
        f"each round: {sent:,} bytes to and from each hospital; {_in_seconds(seconds)} of training at the largest",
        f"whole study: {study.training.rounds} rounds, {sent * study.training.rounds:,} bytes from each hospital",
    ]
    if guarantee := mode_of(study).guarantee(study):
        privacy = study.privacy
        notes.append(
            f"guarantee: epsilon {privacy.epsilon:g} at delta {privacy.delta:g} {guarantee.words}, "
            f"for the whole {covered(study)}"
        )
        notes += [f"limits: {guarantee.limits}"] if guarantee.limits else []
    if (release := study.evaluation.release) and (event := mode_of(study).evaluation(study)):
        cells = len(states_of(study)) * release.bins
        notes.append(
            f"evaluation: {cells} noisy counts of test patients from each hospital that allows it, noise of "
            f"{event.noise_multiplier:.1f} patients each; epsilon {release.epsilon:g} beside the training's"
        )
    notes += [
        f"{extra.name}: epsilon {extra.keys.epsilon:g} beside the training's; {RELEASES[extra.name].sentence(study)}"
        for extra in study.releases
    ]
    notes += [text for extra in study.releases if (text := RELEASES[extra.name].outlook(study))]
    if not task.architecture.exact:
        notes.append(
            "bits: a deployment repeats its simulation on one machine; on others results agree within rounding"
        )
    if counted:
        notes.append("no cohort is announced: sizes were counted in the simulation's own data; announce them to deploy")
    return notes


def _in_seconds(seconds: float) -> str:
    """Return a duration for people, to the millisecond where it is short.

    >>> _in_seconds(0.0002), _in_seconds(0.195), _in_seconds(84.3)
    ('0.001 s', '0.2 s', '84 s')
    """
    return f"{max(0.001, seconds):.2g} s" if seconds < 10 else f"{seconds:,.0f} s"


def _seconds_a_round(study: Study, patients: int) -> float:
    """Return the training time of one round on made-up patients of the same number: no data is read.

    Where a model reads records, a few of them are timed, and the time is that of as many as a round has.
    """
    task = learning_of(study)
    mode, local = mode_of(study), study.training.local
    plan = mode.training_plan(mode.plan_of_size(study, patients, "the largest hospital"))
    steps = local.steps_per_round(patients)
    if study.input_shape is None:
        return _timed(task, Made(patients, (len(inputs_of(study)),), local, steps, plan))
    if plan is not None:
        plan = replace(plan, sampling_rate=1.0, steps_per_round=1, expected_patients=float(FEW_RECORDS))
    few = Made(FEW_RECORDS, study.input_shape, replace(local, batch_size=None), 1, plan)
    batch = patients if local.batch_size is None else min(local.batch_size, patients)
    return _timed(task, few) * batch / FEW_RECORDS * steps


class Made(NamedTuple):
    """Made-up patients to time a fit with: how many, the shape of a row, and the fit's settings."""

    patients: int
    shape: tuple[int, ...]
    local: Local
    steps: int
    plan: PrivacyPlan | None


def _timed(task: Learning, made: Made) -> float:
    """Return the median seconds of three fits."""
    rng, each = np.random.default_rng(0), task.objective.rows_each
    x = rng.uniform(-1, 1, (each * made.patients, *made.shape)).astype(np.float32)
    owners, starts = np.repeat(np.arange(made.patients), each), each * np.arange(made.patients + 1)
    people = TablePatients(x, task.objective.made_up(each * made.patients), owners, starts)
    trainer, durations = Trainer(task), []
    for number in range(3):
        chance = Randomness.seeded(0, "plan", number)
        started = time.perf_counter()
        trainer.fit(Fit(task.initial(0), people, made.local, made.steps, chance, made.plan))
        durations.append(time.perf_counter() - started)
    return sorted(durations)[1]
