"""A checkpoint each round: tensors first, the manifest last, so that a manifest means a whole checkpoint.

A checkpoint holds everything that the next round depends on: the shared model, the strategy's optimizer state, the
running sum of averaged iterates. The manifest names the study, the round, the tensor file and its SHA-256.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     store = Checkpoints(Path(folder), "ab" * 32)
...     store.save(Checkpoint(1, {"bias": np.ones(1, np.float32)}, {}, {}))
...     store.load().round
1
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from configs.errors import CheckpointError
from configs.schema import canonical_json
from server.files import write_atomically
from strategies.aggregate import Sums
from strategies.arrays import Arrays

MANIFEST = "manifest.json"
_GROUPS = ("model", "optimizer", "average")


@dataclass(frozen=True)
class Checkpoint:
    """The state after a round. `average` sums the iterates so far that will be averaged, in float64."""

    round: int
    model: Arrays
    optimizer: Mapping[str, NDArray[Any]]
    average: Sums
    averaged: int = 0


class Checkpoints:
    """The checkpoints of one run, in one folder; the last two stay."""

    def __init__(self, folder: Path, study_sha256: str, *, durable: bool = True) -> None:
        self.folder, self._study, self._durable = folder, study_sha256, durable

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one, then drop the older ones.

        Raises:
            OSError: the disk is full; the checkpoint before is intact.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        held: tuple[Mapping[str, NDArray[Any]], ...] = (checkpoint.model, checkpoint.optimizer, checkpoint.average)
        groups = zip(_GROUPS, held, strict=True)
        tensors = {f"{group}:{name}": np.asarray(a, order="C") for group, part in groups for name, a in part.items()}
        content = save(tensors)
        file = self._file(checkpoint.round)
        write_atomically(file, content, durable=self._durable)
        manifest = {
            "study_sha256": self._study,
            "round": checkpoint.round,
            "averaged": checkpoint.averaged,
            "file": file.name,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        text = canonical_json(manifest).encode("ascii")
        write_atomically(self.folder / MANIFEST, text, durable=self._durable)
        for other in set(self.folder.glob("round-*.safetensors")) - {file, self._file(checkpoint.round - 1)}:
            other.unlink()

    def load(self) -> Checkpoint | None:
        """The newest whole checkpoint, None where no round was completed yet.

        Raises:
            CheckpointError: unreadable, truncated, altered, or of another study.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        try:
            manifest = json.loads(path.read_bytes())
            study, number, averaged = manifest["study_sha256"], int(manifest["round"]), int(manifest["averaged"])
            file, digest = self.folder / Path(manifest["file"]).name, manifest["sha256"]
            content = file.read_bytes()
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: expected a checkpoint's manifest and its file, found them unreadable "
                f"({type(error).__name__}); restore the folder from a backup, or start a new run"
            ) from None
        if study != self._study:
            raise CheckpointError(
                f"{path}: expected study {self._study[:12]}, found {str(study)[:12]}; the study changed since the run "
                "began: a changed study is a new run"
            )
        if hashlib.sha256(content).hexdigest() != digest:
            raise CheckpointError(
                f"{file}: expected SHA-256 {str(digest)[:12]}, found other content (truncated or changed); "
                "restore it from a backup, or start a new run"
            )
        return self._read(file, content, number, averaged)

    def _file(self, number: int) -> Path:
        return self.folder / f"round-{number:06d}.safetensors"

    @staticmethod
    def _read(file: Path, content: bytes, number: int, averaged: int) -> Checkpoint:
        try:
            tensors = load(content)
        except (SafetensorError, ValueError, KeyError) as error:
            raise CheckpointError(f"{file}: not a safetensors file ({type(error).__name__}); start a new run") from None
        groups: dict[str, dict[str, NDArray[Any]]] = {group: {} for group in _GROUPS}
        for key, array in tensors.items():
            group, _, name = key.partition(":")
            groups.setdefault(group, {})[name] = array
        return Checkpoint(number, groups["model"], groups["optimizer"], groups["average"], averaged)
