"""How often an audit accuses a healthy study, and how often it notices a fault.

    python -m simulations.benchmarks.audit_power                 some ten minutes; one JSON line a row
    python -m simulations.benchmarks.audit_power --audits 300    fewer audits, a wider bound

The healthy rows: audits of one hospital of the heart study (Long Beach) with a small effort, each with chance of its
own; `rate_at_most` is the upper end of the one-sided 95 % interval (Clopper and Pearson 1934). By its levels an audit
accuses less than two healthy studies in ten thousand; the row shows that no check breaks its level. The other rows:
the same audits of a study with one fault, and how many of them notice it.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from scipy import stats

from configs.errors import ArchipelError
from configs.load import load_study
from configs.schema import CohortMember, EvaluationRelease, Study
from simulations.audit.auditor import PARTS, audit_patients
from simulations.audit.effort import Effort
from simulations.audit.subject import Subject
from simulations.hospitals import load_all
from strategies.data.table import TablePatients
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan

PRESET = Path(__file__).resolve().parents[2] / "configs/presets/heart_disease.yaml"
SITE = "long_beach_va"
EFFORT = Effort(
    smallest_loss=0.15,
    least_steps=60,
    run_steps=40,
    few_steps=40,
    canaries=60,
    neighbours=2,
    starts=1,
    places=1,
    moving_steps=40,
    quiet_steps=10,
    evaluations=40,
)
AUDITS = 3_500
_EACH = 20  # audits of a fault


def of_plan(**factors: float) -> Subject:
    """Return the product's own engine, given another plan than the one that is booked."""

    def make(model: Any, plan: PrivacyPlan, gaussian: Any, name: Any) -> Any:
        changed = {key: factor * getattr(plan, key) for key, factor in factors.items()}
        return private_engine(model, replace(plan, **changed), gaussian, name)

    return Subject(engine=make)


FAULTS: dict[str, Callable[[], Subject]] = {
    "no noise": lambda: of_plan(noise_multiplier=1e-9),
    "half the noise": lambda: of_plan(noise_multiplier=0.5),
    "15 % too little noise": lambda: of_plan(noise_multiplier=0.85),
    "clipped at twice the norm": lambda: of_plan(clip_norm=2.0, noise_multiplier=0.5),
}


def study_of() -> Study:
    """Return the heart study at one hospital, with an evaluation."""
    study = load_study(PRESET)
    member = next(member for member in study.cohort if member.site == SITE)
    return replace(
        study,
        cohort=(CohortMember(SITE, member.patients),),
        training=replace(study.training, quorum=1),
        evaluation=replace(study.evaluation, release=EvaluationRelease(1.0, 6)),
    )


def patients_of() -> TablePatients:
    """Return the hospital's training patients."""
    patients: TablePatients = load_all(load_study(PRESET))[SITE].train
    return patients


def accusations(study: Study, patients: TablePatients, subject: Subject, seeds: Sequence[int]) -> int:
    """Return how many audits, one a seed, find a fault."""
    accused = 0
    for seed in seeds:
        done = audit_patients(study, {SITE: patients}, subject, seed=seed, effort=EFFORT, only=PARTS)
        accused += done.verdict == "FAILED"
    return accused


def at_most(accused: int, audits: int) -> float:
    """Return the upper end of the one-sided 95 % interval of a rate (Clopper and Pearson 1934)."""
    return 1.0 if accused == audits else float(stats.beta.ppf(0.95, accused + 1, audits - accused))


def _healthy(seeds: Sequence[int]) -> int:
    return accusations(study_of(), patients_of(), Subject(), seeds)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the rows."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations.benchmarks.audit_power",
        description="How often an audit accuses a healthy study, and how often it notices a fault.",
    )
    parser.add_argument(
        "--audits", type=int, default=AUDITS, metavar="N", help=f"of the healthy study (default {AUDITS})"
    )
    arguments = parser.parse_args(argv)
    if arguments.audits < 1:
        parser.error(f"--audits: expected 1 or more, got {arguments.audits}")
    try:
        for fault, make in FAULTS.items():
            noticed = accusations(study_of(), patients_of(), make(), range(_EACH))
            print(json.dumps({"study": fault, "audits": _EACH, "noticed": noticed / _EACH}), flush=True)
        workers = os.cpu_count() or 1
        parts = [range(first, arguments.audits, 8 * workers) for first in range(8 * workers)]
        with ProcessPoolExecutor(workers) as pool:
            accused = sum(pool.map(_healthy, [part for part in parts if len(part)]))
    except ArchipelError as error:
        print(error, file=sys.stderr)
        return 2
    row = {"study": "healthy", "audits": arguments.audits, "accused": accused / arguments.audits}
    print(json.dumps(row | {"rate_at_most": round(at_most(accused, arguments.audits), 6)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
