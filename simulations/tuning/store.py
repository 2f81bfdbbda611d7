"""Figures of finished trials, one JSON line each: what an interrupted search has done is not done again.

A line counts for the very same study, seed, share and patients only; half a line that a kill left is skipped.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     store = Store(Path(folder) / "trials.jsonl", "patients")
...     store.add("ab", 0, {"auroc": 0.8})
...     Store(store.path, "patients").figures, Store(store.path, "others").figures
({('ab', 0): {'auroc': 0.8}}, {})
"""

import json
from pathlib import Path

from simulations.tuning.trial import Figures


class Store:
    """The figures by a study's digest and a trial's seed, kept in a file. `context` names what they depend on else."""

    def __init__(self, path: Path, context: str) -> None:
        self.path, self._context = path, context
        self.figures: dict[tuple[str, int], Figures] = {}
        if path.exists():
            for line in path.read_text("utf-8", "replace").splitlines():
                self._read(line)

    def add(self, study_sha256: str, seed: int, figures: Figures) -> None:
        """Keep one trial's figures."""
        entry = {"context": self._context, "study": study_sha256, "seed": seed, "figures": dict(figures)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.figures[study_sha256, seed] = figures

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            if entry["context"] == self._context:
                self.figures[entry["study"], entry["seed"]] = entry["figures"]
        except (ValueError, KeyError, TypeError):
            return
