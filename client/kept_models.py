"""The ends of studies and their models as they are kept at the hospital, in `models/`.

Nothing heavy is imported until a model is read.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import RecordError, RunError
from configs.records import fields
from configs.records.kept_model import KeptModel
from configs.schema import Study
from configs.shown import DIGITS
from configs.site import SiteConfig
from configs.wire import ArraySpec

if TYPE_CHECKING:
    from strategies.exchange.arrays import Arrays

_DIGEST = re.compile(r"[0-9a-f]{64}")


def kept(config: SiteConfig, sha256: str) -> KeptModel | None:
    """Return how a study ended, None where nothing whole was kept of it."""
    with suppress(OSError, ValueError, RecordError):
        return fields.read(KeptModel, json.loads(record_path(config, sha256).read_bytes()))
    return None


def model_of(config: SiteConfig, study: Study) -> "Arrays":
    """Return the model that was kept of a study.

    Raises:
        RunError: there is none, or its file is not the one that was written.
    """
    from strategies.models.registry import study_parameters

    end, path = kept(config, study.sha256), model_path(config, study.sha256)
    if end is None or not end.has_model:
        how = "its end has not been told to this hospital" if end is None else f"it ended {end.outcome} without one"
        raise RunError(
            f"study {study.sha256[:DIGITS]}: expected a model that was kept in {config.models}, found none: {how}"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: the model cannot be read ({error.strerror})") from None
    if hashlib.sha256(data).hexdigest() != end.model_sha256:
        raise RunError(f"{path}: expected the model that {record_path(config, study.sha256).name} names, found another")
    return read_model(data, study_parameters(study), str(path))


def read_model(data: bytes, expected: Mapping[str, ArraySpec], source: str) -> "Arrays":
    """Return the arrays of a safetensors file, which must be a study's own and finite.

    Raises:
        RunError: they are not, or it is no such file.
    """
    import numpy as np  # with safetensors; a node that keeps a model has no need of this
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, Any] = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"{source}: expected a safetensors file, found none ({type(error).__name__})") from None
    specs = {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
    if specs != dict(expected) or not all(np.isfinite(array).all() for array in arrays.values()):
        raise RunError(f"{source}: expected the finite arrays of the study's model, found others; give another file")
    return {name: arrays[name] for name in expected}


def model_path(config: SiteConfig, sha256: str) -> Path:
    """Return where a study's model is kept."""
    return record_path(config, sha256).with_suffix(".safetensors")


def record_path(config: SiteConfig, sha256: str) -> Path:
    """Return where it is kept how a study ended."""
    assert _DIGEST.fullmatch(sha256)  # it becomes a part of a path
    return config.models / f"{sha256}.json"
