"""The checkpoint of each round.

Tensors are written first and the manifest last, so that a manifest means a whole checkpoint. A checkpoint holds
everything that the next round depends on: the shared model, the strategy's optimizer state, the running sum of averaged
iterates. The manifest names the study, the round, the tensor file and its SHA-256.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     store = Checkpoints(Path(folder), "ab" * 32)
...     store.save(Checkpoint(1, {"bias": np.ones(1, np.float32)}, {}, {}))
...     store.load().round
1
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from configs.errors import CheckpointError
from configs.files import write_atomically
from configs.schema import canonical_json
from configs.shown import DIGITS
from configs.wire import ARITHMETIC
from server.superlink.spool import FILED_BYTES, zeros
from strategies.exchange.arrays import Arrays
from strategies.exchange.halves import both
from strategies.exchange.tensors import safetensors
from strategies.federated.mean import Sums

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

    filed_bytes = FILED_BYTES

    def __init__(self, folder: Path, study_sha256: str, *, durable: bool = True) -> None:
        self.folder, self._study, self._durable = folder, study_sha256, durable

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one, then drop the older ones.

        Raises:
            OSError: the disk is full; the checkpoint before is intact.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        parts: tuple[Mapping[str, NDArray[Any]], ...] = (checkpoint.model, checkpoint.optimizer, checkpoint.average)
        groups = zip(_GROUPS, parts, strict=True)
        tensors = {f"{group}:{name}": np.asarray(a, order="C") for group, part in groups for name, a in part.items()}
        file = self._file(checkpoint.round)
        digest = write_tensors(file, tensors, durable=self._durable)
        manifest = {
            "study_sha256": self._study,
            "round": checkpoint.round,
            "averaged": checkpoint.averaged,
            "arithmetic": ARITHMETIC,
            "file": file.name,
            "sha256": digest,
        }
        text = canonical_json(manifest).encode("ascii")
        write_atomically(self.folder / MANIFEST, text, durable=self._durable)
        for other in set(self.folder.glob("round-*.safetensors")) - {file, self._file(checkpoint.round - 1)}:
            other.unlink()

    def load(self, *, any_arithmetic: bool = False) -> Checkpoint | None:
        """Return the newest whole checkpoint, None where no round was completed yet.

        Args:
            any_arithmetic: read it whatever trained it, where nothing will go on from it.

        Raises:
            CheckpointError: unreadable, truncated, altered, of another study or another arithmetic.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        try:
            manifest = json.loads(path.read_bytes())
            study, number, averaged = manifest["study_sha256"], int(manifest["round"]), int(manifest["averaged"])
            arithmetic = int(manifest.get("arithmetic", 1))
            file, digest = self.folder / Path(manifest["file"]).name, manifest["sha256"]
            with file.open("rb") as stream:
                present = hashlib.file_digest(stream, "sha256").hexdigest()
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: expected a checkpoint's manifest and its file, found them unreadable "
                f"({type(error).__name__}); restore the folder from a backup, or start a new run"
            ) from None
        if study != self._study:
            raise CheckpointError(
                f"{path}: expected study {self._study[:DIGITS]}, found {str(study)[:DIGITS]}; the study changed since "
                "the run began: a changed study is a new run"
            )
        if arithmetic != ARITHMETIC and not any_arithmetic:
            raise CheckpointError(of_another_arithmetic(path, arithmetic))
        if present != digest:
            raise CheckpointError(
                f"{file}: expected SHA-256 {str(digest)[:12]}, found other content (truncated or changed); "
                "restore it from a backup, or start a new run"
            )
        return self._read(file, number, averaged)

    def zeros(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Return room for sums that will be in checkpoints: large ones lie on the disk that these need anyway."""
        return zeros(shape, self.folder, self.filed_bytes)

    def _file(self, number: int) -> Path:
        return self.folder / f"round-{number:06d}.safetensors"

    @staticmethod
    def _read(file: Path, number: int, averaged: int) -> Checkpoint:
        try:
            tensors = load_file(file)
        except (SafetensorError, ValueError, KeyError, OSError) as error:
            raise CheckpointError(f"{file}: not a safetensors file ({type(error).__name__}); start a new run") from None
        groups: dict[str, dict[str, NDArray[Any]]] = {group: {} for group in _GROUPS}
        for key, array in tensors.items():
            group, _, name = key.partition(":")
            groups.setdefault(group, {})[name] = array
        return Checkpoint(number, groups["model"], groups["optimizer"], groups["average"], averaged)


def of_another_arithmetic(path: Path, arithmetic: int) -> str:
    """Say that a run was begun under another arithmetic, and what to do."""
    return (
        f"{path}: expected a run of arithmetic {ARITHMETIC}, found one begun with arithmetic {arithmetic}: rounds of "
        "the two do not make one model; finish the run with the release that began it, or start a new run"
    )


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], *, durable: bool = True) -> str:
    """Replace a safetensors file in one step, piece by piece, without a copy of the tensors; its SHA-256.

    The bytes are those of the library's own `save`, which holds all tensors a second time.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """

    def write(part: Path) -> None:
        with part.open("wb") as file:
            for piece in safetensors(tensors):
                file.write(piece)

    def digest() -> str:
        hasher = hashlib.sha256()
        for piece in safetensors(tensors):
            hasher.update(piece)
        return hasher.hexdigest()

    steps: list[Callable[[], str | None]] = [digest, lambda: write_atomically(path, write, durable=durable)]
    sha256, _ = both(lambda step: step(), steps, sum(array.nbytes for array in tensors.values()))
    return str(sha256)
