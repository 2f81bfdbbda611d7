"""The files of a finished run for people.

report.html is to look at; model_card.md is kept beside the model; tripod.md is for who writes a paper on it. All are
made of the run's metrics.json and of nothing else, so they can be written again at any time. They change nothing and
compute no new result; what they are made of is in server/result/, server/charts/, server/report/ and server/card/.

>>> import json
>>> from tempfile import TemporaryDirectory
>>> metrics = {"study": "heart-disease", "study_sha256": "4f1c", "outcome": "INCOMPLETE", "rounds_completed": 0}
>>> with TemporaryDirectory() as folder:
...     run = Path(folder)
...     _ = (run / "metrics.json").write_text(json.dumps(metrics))
...     write_report(run).name, write_model_card(run).name
('report.html', 'model_card.md')
"""

from pathlib import Path

from configs.errors import RunError
from configs.files import write_atomically
from server.card import model_card, tripod
from server.report import page
from server.result.read import load


def write_report(run: Path) -> Path:
    """Write `report.html` into a run's folder: one file, which loads nothing and holds no script.

    Raises:
        RunError: metrics.json is missing or malformed. The old report, if there is one, stays.
    """
    return _write(run / "report.html", page.render(load(run)))


def write_model_card(run: Path) -> Path:
    """Write `model_card.md` into a run's folder, after Mitchell et al. 2019.

    Raises:
        RunError: metrics.json is missing or malformed, or the run trained no model. An old card stays.
    """
    finished = load(run)
    if not finished.trains:
        raise RunError(f"{run}: expected a run that trained a model, found one of statistics: there is no model card")
    return _write(run / "model_card.md", model_card.render(finished))


def write_tripod(run: Path) -> Path:
    """Write `tripod.md` into a run's folder: the checklist for a paper, after Collins et al. 2024.

    Raises:
        RunError: metrics.json is missing or malformed. An old checklist stays.
    """
    return _write(run / "tripod.md", tripod.render(load(run)))


def write_papers(run: Path) -> Path:
    """Write `report.html`; where a model was trained, also `model_card.md` and `tripod.md`; the report's path.

    Raises:
        RunError: metrics.json is missing or malformed. What there was before stays.
    """
    if load(run).trains:
        write_model_card(run)
        write_tripod(run)
    return write_report(run)


def _write(path: Path, text: str) -> Path:
    write_atomically(path, text.encode())
    return path
