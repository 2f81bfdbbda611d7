"""What this release writes of a run has the keys, in the order, and the kinds of values that release 0.1.0 wrote.

Keys that came later may stand among them: whoever reads the former ones finds them as they were.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.journal import read
from configs.load import load_study
from configs.wire import COUNTS, HISTOGRAM
from server.conductor import write_down
from server.outcome import Outcome, Released
from server.rounds import Rounds
from simulations import cli
from strategies.learning import learning_of
from strategies.releases.registry import SCORE_HISTOGRAM, STATISTICS

WRITTEN = Path(__file__).resolve().parents[1] / "configs" / "written"


def form(value: Any) -> Any:
    """Return a value's keys in their order, and the kinds of what lies below them, of lists each kind once."""
    if isinstance(value, dict):
        return [(key, form(entry)) for key, entry in value.items()]
    return sorted({str(form(entry)) for entry in value}) if isinstance(value, list) else type(value).__name__


def leaves(value: Any) -> list[Any]:
    """Return what lies below all keys."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if parts is None else [leaf for part in parts for leaf in leaves(part)]


def former_part(written: Any, former: Any) -> Any:
    """Return of what was written what the former release wrote too, in the order in which it was written."""
    if isinstance(written, dict) and isinstance(former, dict):
        return {key: former_part(entry, former[key]) for key, entry in written.items() if key in former}
    if isinstance(written, list) and isinstance(former, list) and former:
        return [former_part(entry, former[min(place, len(former) - 1)]) for place, entry in enumerate(written)]
    return written


def document(folder: Path) -> Any:
    """Return metrics.json with the study's own sections in one order, as they are those of the study file."""
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    return metrics | {key: json.loads(json.dumps(metrics[key], sort_keys=True)) for key in ("task", "training")}


def kinds(folder: Path) -> list[tuple[str, list[str]]]:
    """Return the kinds of a journal's records with their facts."""
    return [(record.kind, sorted(record.facts)) for record in read(folder / "journal.jsonl")]


@pytest.mark.parametrize("run", ["simulated_private", "simulated_plain", "simulated_statistics"])
def test_a_simulation_writes_the_same_keys(run: str, tmp_path: Path) -> None:
    assert cli.main(["simulate", str(WRITTEN / run / "study.yaml"), "--out", str(tmp_path)]) == 0
    former = document(WRITTEN / run)
    assert form(former_part(document(tmp_path / "latest"), former)) == form(former)
    assert kinds(tmp_path / "latest") == kinds(WRITTEN / run)


@pytest.mark.parametrize("run", ["deployed_private", "deployed_plain", "deployed_statistics"])
def test_a_coordinator_writes_the_same_keys_and_values(run: str, tmp_path: Path) -> None:
    """Its journal, study and releases are those of the former run: all but the model's digest and the times follow."""
    former, study = document(WRITTEN / run), load_study(WRITTEN / run / "study.yaml")
    (tmp_path / "journal.jsonl").write_bytes((WRITTEN / run / "journal.jsonl").read_bytes())
    done = former["rounds_completed"]
    outcome = Outcome(Rounds(study.training.rounds, study.training.quorum, done, "COMPLETE"), {})
    if "statistics" in former:
        vectors = {site: {COUNTS: np.array(c, np.float32)} for site, c in former["statistics"]["released"].items()}
        outcome.released = {STATISTICS.name: Released(vectors, {})}
    else:
        outcome.model = learning_of(study).initial(study.seed)
    if released := former.get("released"):
        histograms = {site: {HISTOGRAM: np.array(h, np.float32)} for site, h in released["histograms"].items()}
        outcome.released = {SCORE_HISTOGRAM.name: Released(histograms, released["missing"])}
    write_down(tmp_path, study, outcome, former["seconds"])
    written = former_part(document(tmp_path), former)
    unknown = {key: former[key] for key in ("model_sha256", "versions") if key in former}
    assert form(written | unknown) == form(former)
    for value, before in zip(leaves(written | unknown), leaves(former), strict=True):
        # Ends of intervals are looked for on a grid, which is another one now.
        assert value == (pytest.approx(before, abs=3e-4) if isinstance(before, float) else before)
