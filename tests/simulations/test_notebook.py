"""The notebook of the Python interface runs, and its tables and drawings are what they say."""

import asyncio
import doctest
from pathlib import Path
from typing import Any

import nbformat
import pandas
import pytest
from nbclient import NotebookClient

from configs.errors import ArchipelError, RunError
from simulations import api

NOTEBOOK = Path(api.__file__).with_name("notebook.ipynb")
PRESETS = NOTEBOOK.parents[1] / "configs" / "presets"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The notebook with its outputs, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    asyncio.run(client.async_execute())
    return folder, notebook


def outputs(notebook: Any, text: str) -> dict[str, Any]:
    """What the cell with this text showed, by kind."""
    (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and text in cell.source)
    shown: dict[str, Any] = cell.outputs[-1]["data"]
    return shown


def test_the_notebook_runs_and_shows_tables_and_drawings(executed: tuple[Path, Any]) -> None:
    folder, notebook = executed
    assert "<table>" in outputs(notebook, "planned = api.plan")["text/html"]
    assert "rehearsal: COMPLETE" in outputs(notebook, "api.simulate")["text/html"]
    assert outputs(notebook, "sorted(charts)")["image/svg+xml"].startswith("<svg xmlns=")
    assert len(list((folder / "runs").glob("2*"))) == 2


def test_results_are_what_a_data_frame_takes(executed: tuple[Path, Any]) -> None:
    folder, _ = executed
    runs = [api.run(path) for path in sorted((folder / "runs").glob("2*"))]
    first = runs[0]
    frame = pandas.DataFrame(first.metrics.columns)
    assert frame.equals(pandas.DataFrame(first.metrics.records))
    assert set(frame["model"]) == {"federated"}
    auroc = frame[frame["metric"] == "auroc"].iloc[0]
    assert auroc["low"] <= auroc["value"] <= auroc["high"]
    assert first.complete
    assert first.hospitals.columns["hospital"] == ["cleveland"]
    assert "epsilon" in first.privacy
    together = api.compare(runs)
    assert set(together.runs.columns["seed"]) == {0, 1}
    (paired,) = together.paired.records
    assert (paired["seeds"], paired["model"]) == (2, "federated")


def test_the_readme_says_what_python_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("configs", "simulations"):
        (tmp_path / room).symlink_to(NOTEBOOK.parents[1] / room)
    monkeypatch.chdir(tmp_path)
    answered = doctest.testfile(str(NOTEBOOK.with_name("README.md")), module_relative=False)
    assert answered.failed == 0
    assert answered.attempted >= 5


def test_whatever_is_wrong_is_an_error_in_words(tmp_path: Path) -> None:
    study = api.load(PRESETS / "rehearsal.yaml")
    wrong: list[Any] = [0, [], [1, 1], [-1], ["1"]]
    for seeds in wrong:
        with pytest.raises(ArchipelError, match="seeds: expected 1 to 1000 different numbers"):
            api.simulate(study, tmp_path, seeds=seeds)
    with pytest.raises(RunError, match="expected at least one run"):
        api.compare([])
    with pytest.raises(RunError, match="cannot be read"):
        api.compare([tmp_path])
    with pytest.raises(RunError, match="expected a study that trains a model"):
        api.plan(api.load(PRESETS / "heart_statistics.yaml"))
    assert list(tmp_path.iterdir()) == []
