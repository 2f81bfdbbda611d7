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

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from configs.errors import RunError
from configs.files import write_atomically
from configs.records.result import StatisticsResult
from server.card import model_card, tripod
from server.report import page
from server.result.finished import Run
from server.result.read import counted_elsewhere, load, load_result


def write_report(run: Path, statistics: Path | None = None) -> Path:
    """Write `report.html` into a run's folder: one file, which loads nothing and holds no script.

    Raises:
        RunError: metrics.json is missing or malformed. The old report, if there is one, stays.
    """
    return _write(run / "report.html", page.render(linked(run, statistics)))


def write_model_card(run: Path, statistics: Path | None = None) -> Path:
    """Write `model_card.md` into a run's folder, after Mitchell et al. 2019.

    Raises:
        RunError: metrics.json is missing or malformed, or the run trained no model. An old card stays.
    """
    finished = linked(run, statistics)
    if not finished.trains:
        raise RunError(f"{run}: expected a run that trained a model, found one of statistics: there is no model card")
    return _write(run / "model_card.md", model_card.render(finished))


def write_tripod(run: Path, statistics: Path | None = None) -> Path:
    """Write `tripod.md` into a run's folder: the checklist for a paper, after Collins et al. 2024.

    Raises:
        RunError: metrics.json is missing or malformed. An old checklist stays.
    """
    return _write(run / "tripod.md", tripod.render(linked(run, statistics)))


def write_papers(run: Path, statistics: Path | None = None) -> Path:
    """Write `report.html`; where a model was trained, also `model_card.md` and `tripod.md`; the report's path.

    Args:
        statistics: the folder of a run of statistics on the same hospitals, for Table 1. Where it is not given, it is
            the one beside the run that the study's `outcome_share_source` names.

    Raises:
        RunError: metrics.json is missing or malformed, or `statistics` is no run of statistics. What there was before
            stays.
    """
    if linked(run, statistics).trains:
        write_model_card(run, statistics)
        write_tripod(run, statistics)
    return write_report(run, statistics)


def linked(run: Path, statistics: Path | None) -> Run:
    """Return a run with the statistics that its Table 1 is of; `statistics` as `write_papers` takes it.

    Raises:
        RunError: as `write_papers`.
    """
    finished = load(run)
    folder = statistics or _named(run, finished.outcome_share_source)
    return replace(finished, counted=counted_elsewhere(folder)) if folder else finished


def _named(run: Path, source: str) -> Path | None:
    """Return the folder beside a run, of the study of statistics whose digest the source names; None if none is."""
    _, _, digest = source.partition("statistics:")
    if not digest:
        return None
    for path in sorted(run.resolve().parent.glob("*/metrics.json")):
        with suppress(RunError):
            result = load_result(path.parent)
            if isinstance(result, StatisticsResult) and result.statistics and result.study_sha256.startswith(digest):
                return path.parent
    return None


def _write(path: Path, text: str) -> Path:
    write_atomically(path, text.encode())
    return path
