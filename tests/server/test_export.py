"""A model that is exported: the same scores in another runtime, and no export that says less than it is."""

import hashlib
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open

from client.connectors.checks import table_of
from client.connectors.columns import Cells
from client.connectors.notes import Notes
from configs.errors import RunError
from configs.load import load_study
from configs.records import fields
from configs.records.exported import Exported
from configs.schema import Study
from configs.strict_yaml import dump_yaml, read_yaml
from server.export.command import MARK
from server.export.graph import recorded
from server.export.onnx_file import to_bytes
from server.export.recording import Graph
from simulations import cli
from strategies.data.registry import data_of
from strategies.learning import learning_of
from strategies.models.linear_stack import LinearStack
from tests import builders

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "rehearsal.yaml"
FEATURES: dict[str, Any] = {
    "age": {"type": "number", "range": [20, 90], "unit": "years"},
    "chol": {"type": "number", "range": [100, 400], "missing": ["0", "-9"], "curve": 5},
    "year": {"type": "number", "range": [2019, 2024], "missing": ["?"]},
    "cp": {"type": "category", "values": ["typical", "atypical", "none"], "missing": ["?"]},
    "sex": {"type": "category", "values": ["0", "1"]},
}
MLP = {"name": "mlp", "hidden": [7, 5]}
TASKS: dict[str, dict[str, Any]] = {
    "binary": {"task": {"type": "binary", "target": "disease"}},
    "centred": {"task": {"type": "binary", "target": "disease"}, "scaling": "centred"},
    "binary mlp": {"task": {"type": "binary", "target": "disease"}, "model": MLP},
    "multiclass": {"task": {"type": "multiclass", "target": "stage", "classes": ["I", "II", "III"]}},
    "regression": {
        "task": {"type": "regression", "target": "pressure", "range": [80, 220]},
        "model": {"name": "linear"},
    },
    "regression mlp": {"task": {"type": "regression", "target": "pressure", "range": [80, 220]}, "model": MLP},
    "survival": {
        "task": {"type": "survival", "time": "days", "event": "died", "intervals": [0, 90, 365, 1000]},
        "privacy": {"mode": "none"},
    },
    "several causes": {
        "task": {"type": "survival", "time": "days", "event": "died", "intervals": [0, 90, 365], "causes": ["1", "2"]},
        "model": MLP,
    },
    "counts": {
        "task": {
            "type": "counts",
            "target": "visits",
            "range": [0, 40],
            "exposure": "at risk",
            "exposure_range": [1, 9],
        },
        "model": {"name": "linear"},
    },
}
OUTCOME = {"disease": "1", "stage": "II", "pressure": "120", "days": "100", "died": "1", "visits": "3"}


def study_of(kind: str) -> Study:
    return builders.study(name="exported", features=FEATURES, cohort={"lille": 100}, **TASKS[kind])


def cells() -> st.SearchStrategy[dict[str, str]]:
    number = st.one_of(
        st.floats(-1e4, 1e4).map(repr), st.floats(15, 450).map(lambda v: f"{v:.3f}"), st.sampled_from(["", "0", "-9"])
    )
    word = st.sampled_from(["typical", "atypical", "none", "?", "", "never listed", "0", "1"])
    return st.fixed_dictionaries({"age": number, "chol": number, "year": number, "cp": word, "sex": word})


def ours(study: Study, arrays: Mapping[str, NDArray[np.float32]], rows: list[dict[str, str]]) -> NDArray[np.float64]:
    """Our own scores, by the way of every patient: cells, table, patients, predictions; in the rows' order."""
    columns = {name: Cells([row[name] for row in rows]) for name in FEATURES}
    targets = {c.name: Cells([OUTCOME.get(c.name, "1")] * len(rows)) for c in study.task.columns}
    patients, order = data_of(study).read(table_of({**columns, **targets}, study, Notes()), study)
    scores = learning_of(study).predictions(arrays, patients)
    back = np.empty_like(scores)
    back[order] = scores
    return back


def raw(study: Study, rows: list[dict[str, str]]) -> dict[str, NDArray[Any]]:
    """The same rows as another program hands them over: numbers, NaN where there is none, and words."""

    def number(cell: str) -> float:
        try:
            return float(cell)
        except ValueError:
            return math.nan

    feed: dict[str, NDArray[Any]] = {}
    for feature in study.features:
        of_column = [row[feature.name] for row in rows]
        numeric = feature.type == "number"
        feed[feature.name] = np.array([number(c) for c in of_column]) if numeric else np.array(of_column, object)
    return feed


@pytest.fixture(scope="module", params=TASKS)
def exported(request: pytest.FixtureRequest) -> tuple[Study, dict[str, NDArray[np.float32]], Any]:
    study = study_of(request.param)
    chance = np.random.default_rng(7)
    shapes = learning_of(study).parameters
    arrays = {name: chance.normal(0, 1.5, shape).astype(np.float32) for name, (shape, _) in shapes.items()}
    graph, prediction = recorded(study, arrays)
    return study, arrays, onnxruntime.InferenceSession(to_bytes(graph, prediction, "exported", {}))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(cells(), min_size=1, max_size=12))
def test_exported_scores_are_ours(exported: Any, rows: list[dict[str, str]]) -> None:
    study, arrays, session = exported
    (theirs,) = session.run(None, raw(study, rows))
    expected = ours(study, arrays, rows)
    assert theirs.shape == expected.shape == (len(rows), len(learning_of(study).objective.predicted))
    assert np.abs(theirs - expected).max() <= 1e-6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a simulation."""
    runs = tmp_path_factory.mktemp("runs")
    assert cli.main(["simulate", str(PRESET), "--no-baselines", "--out", str(runs)]) == 0
    return (runs / "latest").resolve()


def as_incomplete(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics |= {"outcome": "INCOMPLETE", "why": "stopped by the consortium after round 1", "rounds_completed": 1}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def metadata_of(form: str, path: Path) -> Mapping[str, str]:
    if form == "onnx":
        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    with safe_open(path, "numpy") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_an_export_says_what_it_reads_in_the_file_too(run: Path, tmp_path: Path, form: str) -> None:
    assert cli.main(["export", str(run), "--format", form, "--out", str(tmp_path)]) == 0
    beside = fields.read(Exported, json.loads((tmp_path / "model.json").read_text()))
    data = (tmp_path / beside.file).read_bytes()
    assert beside.sha256 == hashlib.sha256(data).hexdigest()
    inside = json.loads(metadata_of(form, tmp_path / beside.file)["archipel"])
    assert fields.read(Exported, inside) == replace(beside, sha256="")
    study = load_study(run / "study.yaml")
    assert (beside.study_sha256, beside.outcome, beside.mark) == (study.sha256, "COMPLETE", "")
    assert "epsilon" in beside.privacy
    assert [column.name for column in beside.features] == [feature.name for feature in study.features]
    assert beside.inputs == study.inputs


def test_an_incomplete_run_is_refused_or_marked(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopped = as_incomplete(run, tmp_path / "stopped")
    command = ["export", str(stopped), "--format", "safetensors", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 2
    assert "add --anyway" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main([*command, "--anyway"]) == 0
    inside = json.loads(metadata_of("safetensors", tmp_path / "out" / "model.safetensors")["archipel"])
    assert (inside["outcome"], inside["mark"]) == ("INCOMPLETE", MARK)


def test_onnx_is_refused_in_words_where_the_package_lacks(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert cli.main(["export", str(run), "--format", "onnx", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'archipel[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_no_linear_stack_and_inputs_of_each_hospital_are_no_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = study_of("binary")
    with pytest.raises(RunError, match="scaling: site"):
        recorded(replace(study, scaling="site"), {})
    monkeypatch.setattr(LinearStack, "linear_layers", None)
    with pytest.raises(RunError, match="expected a model of linear layers"):
        recorded(study, {})


def test_what_no_graph_can_hold_is_refused() -> None:
    values: Any = Graph().input("age", "double")
    steps: list[Callable[[Any], Any]] = [np.tan, np.median, np.asarray, lambda v: v[::2], lambda v: v[:3]]
    for step in steps:
        with pytest.raises(RunError, match="a graph can hold"):
            step(values)


def test_a_run_of_another_study_than_its_figures_say_is_not_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    study = read_yaml(copied / "study.yaml") | {"seed": 1}
    (copied / "study.yaml").write_text(dump_yaml(study))
    assert cli.main(["export", str(copied), "--format", "safetensors", "--out", str(tmp_path / "out")]) == 2
    assert "expected the study of its metrics.json" in capsys.readouterr().err
