"""What a hospital makes of a kept model on its own patients; written and read on its own machine alone.

>>> Recalibration(study="ab", model_sha256="cd", method="logistic", slope=0.8, events=60, others=90).intercept
0.0
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from configs.records.estimate import Estimate
from configs.records.fields import OMIT
from configs.records.outcome import OutcomeFigures
from configs.records.result import Bin


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """personal/DIGEST/recalibration.json: how the model's probabilities become those of this hospital."""

    study: Annotated[str, "The study's digest."]
    model_sha256: Annotated[str, "Digest of the model that it is for."]
    method: Annotated[str, "logistic (intercept and slope of the log odds) or isotonic."]
    intercept: Annotated[float, "Of the log odds.", OMIT] = 0.0
    slope: Annotated[float, "Of the log odds.", OMIT] = 1.0
    scores: Annotated[tuple[float, ...], "Of an isotonic one: the model's probabilities, ascending.", OMIT] = ()
    shares: Annotated[tuple[float, ...], "What each of these becomes; linear in between.", OMIT] = ()
    events: Annotated[int, "Training patients with the outcome."]
    others: Annotated[int, "Training patients without it."]


@dataclass(frozen=True, kw_only=True)
class LocalFigures:
    """What `archipel-site evaluate` prints: how good a model is on this hospital's own test patients."""

    study: Annotated[str, "The study's digest."]
    name: Annotated[str, "The study's name."]
    model_sha256: Annotated[str, "Digest of the model."]
    mark: Annotated[str, "A warning that goes with the model.", OMIT] = ""
    patients: Annotated[int, "Test patients."]
    metrics: Annotated[Mapping[str, Estimate | None], "Metric: its value with a 95 % interval; null where undefined."]
    calibration: Annotated[tuple[Bin, ...] | None, "Predicted and observed shares, by predicted probability."]
    outcome: Annotated[OutcomeFigures | None, "Calibration and thresholds of a task with an outcome."]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What the process that reads patients hands to `archipel-site predict`."""

    model_sha256: Annotated[str, "Digest of the model."]
    mark: Annotated[str, "A warning that goes with the model.", OMIT] = ""
    rows: Annotated[int, "Rows with scores."]
    csv: Annotated[str, "The scores as a CSV file."]
    oddities: Annotated[tuple[str, ...], "What was odd about the rows: counts and lines, no value.", OMIT] = ()
    recalibration: Annotated[Recalibration | None, "What the scores went through; null for none."]
