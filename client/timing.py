"""The time at which an answer about patients leaves.

Public numbers decide it, so that it tells nothing of the number of patients. An answer that took `elapsed` seconds
leaves at the first of q, 2q, 4q ... after its start. q follows from the study and its announced sizes alone: about as
long as the work takes on a usual processor. So all that the time could tell is how often q was doubled, which one
patient more or less does not change but where the work ends at the very edge.

>>> leaves_after_s(0.011, quantum=0.02), leaves_after_s(0.05, quantum=0.02), leaves_after_s(0.0, quantum=0.02)
(0.02, 0.08, 0.02)

Where a study's kit runs in children of its own, a step has a public number of slots (client/children/slots.py).

>>> slots_for(100), slots_for(100, count=140), slots_for(0.0)
(132, 264, 2)
"""

import math
import time

from configs.schema import Study
from strategies.releases.registry import MODEL_UPDATE, kind_bytes, main_release
from strategies.tasks.registry import objective_of

LEAST_S = 0.02  # what booking, two processes and the journal take
OPERATIONS_PER_S = 2e9  # of a training, of one core
BYTES_PER_S = 5e8  # of a model that is copied and checked
_PASSES = 6  # operations for each parameter and patient: forward, backward and the clipping


_SPREAD = 3.0  # standard deviations of the patients of a step for whom there are slots
_AROUND = 1.05  # the time of a step with children, in that of its slots


def slots_for(expected: float, count: int = 0) -> int:
    """Return the number of slots of a step, from the number of patients that is expected by public numbers.

    Args:
        expected: sampling rate times announced patients.
        count: how many there are.
    """
    slots = math.ceil(expected + _SPREAD * math.sqrt(expected)) + 2
    while slots < count:
        slots *= 2
    return slots


def quantum_s(study: Study, site: str, kit_run: str = "together") -> float:
    """Return q for the answers of a hospital, from the study and the hospital's announced size.

    Args:
        kit_run: how the hospital runs a study's kit (site.yaml).
    """
    parameters = kind_bytes(main_release(study), study) / 4
    patients = study.announced_train_patients(site) or 1
    steps = study.training.local.steps_per_round(patients) if MODEL_UPDATE.is_asked(study) else 1
    batch = min(patients, study.training.local.batch_size or patients)
    rows = batch * (objective_of(study).rows_each if MODEL_UPDATE.is_asked(study) else 1)
    work = _PASSES * steps * rows * parameters / OPERATIONS_PER_S + 4 * parameters / BYTES_PER_S
    if study.kit is not None and kit_run == "forked":
        work += _AROUND * children_s(study, patients)
    return LEAST_S + work


def children_s(study: Study, patients: int) -> float:
    """Return the seconds of all slots of a round at a hospital whose study's kit runs in children; 0 without a kit.

    Args:
        patients: who train there, by public numbers.
    """
    if study.kit is None:
        return 0.0
    local = study.training.local
    steps = local.steps_per_round(patients) if MODEL_UPDATE.is_asked(study) else 1
    return steps * slots_for(min(patients, local.batch_size or patients)) * study.kit.patient_s


def leaves_after_s(elapsed: float, *, quantum: float) -> float:
    """Return the first of q, 2q, 4q ... that is not before `elapsed`, in seconds."""
    leaves = quantum
    while leaves < elapsed:
        leaves *= 2
    return leaves


def wait_until_public(started: float, quantum: float) -> None:
    """Sleep until the answer may leave. `started` is of time.monotonic()."""
    elapsed = time.monotonic() - started
    time.sleep(leaves_after_s(elapsed, quantum=quantum) - elapsed)
