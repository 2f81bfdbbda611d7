"""The share of patients with the outcome, as a study of statistics released it: `--outcomes-from RUN`.

The share is of all hospitals together and carries their noise. Nothing else of the run is read.
"""

from pathlib import Path

from configs.errors import RunError
from configs.records.result import StatisticsResult
from configs.schema import Study
from server.result.read import load_result

LEAST = 0.01  # of a share that worlds are made with, and of its complement


def released_share(run: Path, study: Study) -> float:
    """Return the share of patients with the study's outcome that the hospitals of a run of statistics released.

    Raises:
        RunError: no such run; it counted another target; the noise hides the share, or it is too near 0 or 1.
    """
    result = load_result(run)
    counted = result.statistics if isinstance(result, StatisticsResult) else None
    if counted is None:
        raise RunError(f"{run}: expected a run of task.type: statistics with released counts, found another; give one")
    outcome, target = study.task.classes[1], result.task.get("target")
    if target != study.task.target or counted.outcome not in study.task.classes:
        raise RunError(
            f"{run}: expected counts of {study.task.target} with its outcome {outcome}, found those of {target}; give "
            "a run of statistics about this study's target"
        )
    estimate = counted.together.outcome
    if estimate is None:
        raise RunError(f"{run}: expected a share of outcomes, found that the noise hides it; say it by --outcomes")
    share = estimate.value if counted.outcome == outcome else 1.0 - estimate.value
    if not LEAST <= share <= 1.0 - LEAST:
        raise RunError(
            f"{run}: expected a share of outcomes from {LEAST:g} to {1 - LEAST:g}, found {share:.3f} with its noise; "
            "say it by --outcomes"
        )
    return share
