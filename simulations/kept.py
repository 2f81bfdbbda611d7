"""Finished baselines, kept in the run's folder until its figures are whole.

A run that is resumed trains none of them anew. Each is a tensor file and, written last, a manifest with its digest, the
study's, the releases and the learning curve. What is not whole, or of another study or release, counts as not there.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     kept = Kept(Path(folder) / "baselines", "ab" * 32)
...     kept.keep("pooled", {"": {"bias": np.ones(1, np.float32)}})
...     kept.load("pooled")[0], kept.load("local_only"), Kept(Path(folder) / "baselines", "cd" * 32).load("pooled")
({'': {'bias': array([1.], dtype=float32)}}, None, None)
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from configs.errors import RecordError
from configs.files import write_atomically
from configs.records.fields import plain, read
from configs.records.result import Point
from configs.schema import canonical_json
from server.checkpoint import write_tensors
from server.recorded import versions
from server.run import sha256
from strategies.exchange.arrays import Arrays

Curve = Sequence[Point]


@dataclass(frozen=True)
class Kept:
    """The kept baselines of one run."""

    folder: Path
    study_sha256: str

    def keep(self, key: str, models: Mapping[str, Arrays], curve: Curve = ()) -> None:
        """Write one baseline: its models by hospital, and its learning curve."""
        self.folder.mkdir(exist_ok=True)
        tensors = {
            f"{site}:{name}": np.asarray(array, order="C")
            for site, model in models.items()
            for name, array in model.items()
        }
        digest = write_tensors(self._tensors(key), tensors, durable=False)
        manifest = self._facts() | {"sha256": digest, "curve": plain(curve)}
        write_atomically(self._manifest(key), canonical_json(manifest).encode("ascii"), durable=False)

    def load(self, key: str) -> tuple[dict[str, Arrays], list[Point]] | None:
        """Return one baseline's models and its curve, None where there is no whole one of this study."""
        try:
            manifest = json.loads(self._manifest(key).read_bytes())
            facts = {name: manifest[name] for name in self._facts()}
            if facts != self._facts() or sha256(self._tensors(key)) != manifest["sha256"]:
                return None
            tensors, curve = load_file(self._tensors(key)), [read(Point, point) for point in manifest["curve"]]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, RecordError):
            return None
        models: dict[str, Arrays] = {}
        for place, array in tensors.items():
            site, _, name = place.partition(":")
            models.setdefault(site, {})[name] = array
        return models, curve

    def drop(self) -> None:
        """Remove all of them: the figures are whole."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _facts(self) -> dict[str, object]:
        return {"study_sha256": self.study_sha256, "versions": versions()}

    def _tensors(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _manifest(self, key: str) -> Path:
        return self.folder / f"{key}.json"
