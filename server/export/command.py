"""`archipel export`: the final model of a run with its preprocessing, as ONNX or safetensors, and model.json beside it.

Each file is written whole or not at all. A run that is INCOMPLETE is refused, or exported with a mark in the file.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from configs import wire
from configs.errors import RunError
from configs.files import write_atomically
from configs.load import load_study
from configs.records import fields
from configs.records.exported import Exported, ExportedColumn
from configs.records.result import TrainingResult
from configs.schema import Feature, Study
from server.result import sentences
from server.result.read import load as load_run
from server.result.read import load_result
from strategies.exchange.tensors import as_bytes
from strategies.learning import inputs_of, learning_of
from strategies.models.registry import personal_parameters, study_parameters

FORMATS = ("onnx", "safetensors")
ABOUT = "archipel"  # the name under which a file holds what model.json says
MARK = "INCOMPLETE: not the model that the study planned; do not use it as one"
_SCALING = {
    "public": "by public ranges, to [-1, 1]",
    "centred": "by public ranges, to [-1, 1]; a category's inputs about their mean over its values",
    "site": "by each hospital's own training patients: mean and standard deviation, which are not in this file",
}
Arrays = Mapping[str, NDArray[np.float32]]


def export(run: Path, form: str, out: Path, *, anyway: bool = False) -> Path:
    """Write a run's final model and model.json into a folder, and return the model's file.

    Args:
        form: one of FORMATS.
        anyway: though the run is INCOMPLETE; the file says so.

    Raises:
        RunError: it is no run with a model, it is INCOMPLETE, or the form cannot hold it. OSError: it cannot be
            written.
    """
    study, arrays, digest = _read(run)
    about = replace(_about(run, study, anyway=anyway), model_sha256=digest, format=form, file=f"model.{form}")
    text = json.dumps(fields.plain(about), ensure_ascii=False)
    if form == "onnx":
        from server.export.graph import recorded  # with PyTorch's kinds of model
        from server.export.onnx_file import to_bytes

        data = to_bytes(*recorded(study, arrays), study.name, {ABOUT: text})
    else:
        data = as_bytes(arrays, {ABOUT: text})
    _make(out)
    path = out / about.file
    write_atomically(path, data)
    beside = json.dumps(fields.plain(replace(about, sha256=hashlib.sha256(data).hexdigest())), indent=1)
    write_atomically(out / "model.json", (beside + "\n").encode())
    return path


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise RunError(f"--out {out}: expected a folder, found a file; give another") from None


def _read(run: Path) -> tuple[Study, Arrays, str]:
    """Return a run's study, its final model, and the digest of that model's file.

    Raises:
        RunError: it has none, or it is not the study's.
    """
    path = run / "study.yaml"
    if not path.is_file():
        raise RunError(f"{run}: expected the folder of a finished run, found no study.yaml in it")
    study = load_study(path)
    parameters = study_parameters(study)
    if not parameters:
        raise RunError(f"{study.name}: expected a study that trains a model, found one of statistics")
    try:
        data = (run / "model.safetensors").read_bytes()
        arrays = load(data)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        what = getattr(error, "strerror", None) or type(error).__name__
        raise RunError(f"{run / 'model.safetensors'}: the run's model cannot be read ({what})") from None
    if {name: (array.shape, str(array.dtype)) for name, array in arrays.items()} != dict(parameters):
        raise RunError(f"{run / 'model.safetensors'}: expected the arrays of the study's model, found others")
    return study, {name: arrays[name] for name in parameters}, hashlib.sha256(data).hexdigest()


def _about(run: Path, study: Study, *, anyway: bool) -> Exported:
    """Return what is said of a run's model.

    Raises:
        RunError: the run is not of this study, or INCOMPLETE.
    """
    result = load_result(run)
    assert isinstance(result, TrainingResult)
    if result.study_sha256 != study.sha256:
        raise RunError(f"{run}: expected the study of its metrics.json, found another; one of the two was changed")
    complete = result.outcome == wire.COMPLETE
    if not complete and not anyway:
        raise RunError(
            f"{run}: expected a COMPLETE run, found {result.outcome} after {result.rounds_completed} of "
            f"{result.rounds_planned} rounds: {result.why}; to export it with a mark in the file, add --anyway"
        )
    return Exported(
        file="",
        format="",
        study=study.name,
        study_sha256=study.sha256,
        purpose=study.purpose,
        task=study.task.type,
        model=study.model.name,
        features=tuple(map(_column, study.predictors)),
        inputs=inputs_of(study),
        personal=tuple(personal_parameters(study)),
        scaling=_SCALING[study.scaling],
        prediction=learning_of(study).objective.predicted,
        outcome=result.outcome,
        why="" if complete else result.why,
        rounds=result.rounds_completed,
        rounds_planned=result.rounds_planned,
        mark="" if complete else MARK,
        privacy=sentences.privacy(load_run(run)),
        model_sha256="",
        archipel=metadata.version("archipel"),
    )


def _column(feature: Feature) -> ExportedColumn:
    bounds = () if feature.minimum is None or feature.maximum is None else (feature.minimum, feature.maximum)
    return ExportedColumn(
        name=feature.name,
        type=feature.type,
        unit=feature.unit or "",
        range=bounds,
        values=feature.values,
        missing=feature.missing,
        knots=feature.knots,
        inputs=feature.inputs,
    )
