"""Archipel from Python, for notebooks: load, plan, simulate, compare; results as tables and drawings.

Tables are plain: `table.columns` is a dict of lists and `table.records` a list of dicts, which is what
`pandas.DataFrame` takes; drawings are SVG texts. Both show themselves in a notebook. Whatever is wrong with a study,
its data or the machine is an ArchipelError, with what was expected, what was found and what to do.

>>> from pathlib import Path
>>> study = load(Path(__file__).parents[1] / "configs" / "presets" / "rehearsal.yaml")
>>> planned = plan(study)
>>> planned.hospitals.records[0]["hospital"], planned.hospitals.columns["steps"]
('cleveland', [5])
>>> load("no-such-study.yaml")
Traceback (most recent call last):
    ...
configs.errors.ConfigError: no-such-study.yaml: cannot be read: No such file or directory; check the path
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from configs.errors import ArchipelError, RunError
from configs.records.models import TABULATED
from configs.records.result import StatisticsResult, TrainingResult
from configs.schema import Study
from server.charts.figure import Cell, Figure, ends_of
from server.charts.markup import Html, el
from server.figures import drawing_of, figures_of
from server.result import sentences
from server.result.read import load as load_run
from server.result.read import load_result
from simulations.display import Display, Options, PlainDisplay

MAX_SEEDS = 1000


@dataclass(frozen=True)
class Table:
    """Rows with a cell for each heading; None is an empty cell."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def columns(self) -> dict[str, list[Cell]]:
        """Return each column's cells by its heading: pandas.DataFrame(table.columns)."""
        return {heading: [row[place] for row in self.rows] for place, heading in enumerate(self.headings)}

    @property
    def records(self) -> list[dict[str, Cell]]:
        """Return each row's cells by their headings: pandas.DataFrame(table.records)."""
        return [dict(zip(self.headings, row, strict=True)) for row in self.rows]

    def _repr_html_(self) -> str:
        head = el("tr", *(el("th", heading) for heading in self.headings))
        body = (el("tr", *(el("td", _shown(cell)) for cell in row)) for row in self.rows)
        return el("table", el("thead", head), el("tbody", *body))


@dataclass(frozen=True)
class Chart:
    """One drawing of a report, with the numbers that it draws. `svg` is a whole file."""

    name: str
    title: str
    svg: str
    table: Table

    def _repr_svg_(self) -> str:
        return self.svg


@dataclass(frozen=True)
class Plan:
    """What `archipel plan` says: each hospital's noise and cost, and epsilon by rounds, from public numbers alone."""

    study: str
    hospitals: Table
    epsilon_by_rounds: Table
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        lines = (el("p", line) for line in (*self.warnings, *self.notes))
        return el("div", el("h4", f"Plan of {self.study}"), Html(self.hospitals._repr_html_()), *lines)


@dataclass(frozen=True)
class Run:
    """A finished run in its folder.

    `metrics` has a row for each compared model and metric, `hospitals` one for each hospital and model, `charts` the
    drawings of the report by name; a study of statistics has none of these.
    """

    folder: Path
    study: str
    study_sha256: str
    seed: int | None
    outcome: str
    why: str
    verdict: str
    privacy: str
    metrics: Table
    hospitals: Table
    charts: Mapping[str, Chart] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Return whether every planned round had its quorum."""
        return self.outcome == "COMPLETE"

    def _repr_html_(self) -> str:
        title = el("h4", f"{self.study}: {self.outcome}")
        return el("div", title, el("p", self.verdict), el("p", self.privacy), Html(self.metrics._repr_html_()))


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, and of each study with several seeds the models' means and paired differences."""

    runs: Table
    paired: Table

    def _repr_html_(self) -> str:
        paired = [Html(self.paired._repr_html_())] if self.paired.rows else []
        return el("div", Html(self.runs._repr_html_()), *paired)


def load(path: str | Path) -> Study:
    """Return the study in a file; what it leaves open (`training: auto`) is completed from public facts.

    Raises:
        ConfigError: it cannot be read or holds mistakes; all of them are listed.
    """
    from simulations.complete import completed  # it and what follows load much: a notebook needs one after the other

    return completed(Path(path)).study


def plan(study: Study) -> Plan:
    """Return what a study costs and who helps, from public numbers alone; no patient is read.

    Raises:
        PrivacyError: no plan reaches the budget. ConfigError: no public sizes. RunError: it trains nothing.
    """
    from simulations.planning import plan_study
    from strategies.models.registry import study_parameters

    if not study_parameters(study):
        raise RunError(f"{study.name}: expected a study that trains a model, found one of statistics: archipel plan")
    planned = plan_study(study)
    headings = ("hospital", "patients", "batch", "sampling_rate", "steps", "noise_multiplier", "epsilon", "verdict")
    names = ("site", *headings[1:])
    rows = tuple(tuple(getattr(site, name) for name in names) for site in planned.sites)
    curve = tuple((rounds, *epsilons) for rounds, epsilons in planned.curve)
    sites = tuple(site.site for site in planned.sites if site.noise_multiplier is not None)
    return Plan(planned.study, Table(headings, rows), Table(("rounds", *sites), curve), planned.notes, planned.warnings)


@overload
def simulate(
    study: Study,
    out: str | Path = "runs",
    *,
    seeds: None = None,
    baselines: bool = True,
    workers: int = 1,
    progress: bool = False,
) -> Run: ...


@overload
def simulate(
    study: Study,
    out: str | Path = "runs",
    *,
    seeds: int | Sequence[int],
    baselines: bool = True,
    workers: int = 1,
    progress: bool = False,
) -> tuple[Run, ...]: ...


def simulate(
    study: Study,
    out: str | Path = "runs",
    *,
    seeds: int | Sequence[int] | None = None,
    baselines: bool = True,
    workers: int = 1,
    progress: bool = False,
) -> Run | tuple[Run, ...]:
    """Simulate a study in a new folder under `out`, and return the finished run, or one run for each seed.

    Args:
        seeds: how many from the study's own on, or which.
        baselines: also train alone, pooled and without privacy, for comparison.
        workers: processes.
        progress: print how far it is.

    Raises:
        ArchipelError: the data, the plan or the machine do not allow it.
    """
    from simulations.run import simulate as simulated

    options, display = Options("inprocess", baselines, workers), PlainDisplay() if progress else _Silent()
    chosen = [study.seed] if seeds is None else _seeds(seeds, study.seed)
    runs = tuple(run(simulated(replace(study, seed=seed), Path(out), options, display)) for seed in chosen)
    return runs[0] if seeds is None else runs


def run(folder: str | Path) -> Run:
    """Return a finished run: of a simulation, or of a coordinator's folder.

    Raises:
        RunError: there is none, or its metrics.json is malformed.
    """
    folder = Path(folder).resolve()
    result, finished = load_result(folder), load_run(folder)
    trained = isinstance(result, TrainingResult)
    return Run(
        folder,
        finished.study,
        finished.study_sha256,
        finished.seed,
        finished.outcome,
        finished.why,
        sentences.verdict(finished) if trained else "",
        sentences.privacy(finished),
        _metrics(result),
        _hospitals(result),
        {figure.name: _chart(figure) for figure in figures_of(finished) if figure.drawn} if trained else {},
    )


def compare(runs: Sequence[Run | str | Path]) -> Comparison:
    """Return runs side by side: each one's metrics, and means and paired differences over seeds.

    Raises:
        RunError: one is no finished run, or none was given.
    """
    from simulations.paired import interval, repeated

    given = [entry if isinstance(entry, Run) else run(entry) for entry in runs]
    if not given:
        raise RunError("compare: expected at least one run, found none")
    rows = [(each.folder.name, each.study, each.seed, *row) for each in given for row in each.metrics.rows]
    head = ("run", "study", "seed", *given[0].metrics.headings)
    paired = []
    for study in repeated([each.folder for each in given]):
        for key in TABULATED:
            if values := list(study.values(key).values()):
                less = None if key is study.subject else interval(study.less(key))
                ends = (None, None, None) if less is None else (less.mean, less.low, less.high)
                paired.append((study.name, study.figure, str(key), len(values), sum(values) / len(values), *ends))
    columns = ("study", "metric", "model", "seeds", "mean", "difference", "difference_low", "difference_high")
    return Comparison(Table(head, tuple(rows)), Table(columns, tuple(paired)))


def _seeds(seeds: int | Sequence[int], first: int) -> list[int]:
    chosen = list(range(first, first + seeds)) if isinstance(seeds, int) else list(seeds)
    whole = all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in chosen)
    if not whole or not 0 < len(chosen) <= MAX_SEEDS or len(set(chosen)) < len(chosen):
        raise ArchipelError(f"seeds: expected 1 to {MAX_SEEDS} different numbers, or how many; found {str(seeds)[:40]}")
    return chosen


def _metrics(result: TrainingResult | StatisticsResult) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for model, figures in result.models.items():
        for metric, estimate in figures.metrics.items() if figures else ():
            rows.append((str(model), metric, *ends_of(estimate)))
    return Table(("model", "metric", "value", "low", "high"), tuple(rows))


def _hospitals(result: TrainingResult | StatisticsResult) -> Table:
    """Return the primary metric of each model at each hospital, with its patients and its epsilon."""
    rows: list[tuple[Cell, ...]] = []
    for part in result.sites if isinstance(result, TrainingResult) else ():
        for model, figures in result.models.items():
            if figures is not None and part.site in figures.per_site:
                known = part.patients_train, part.patients_test, part.epsilon
                rows.append((part.site, *known, str(model), *ends_of(figures.per_site[part.site])))
    headings = ("hospital", "patients_train", "patients_test", "epsilon", "model", "value", "low", "high")
    return Table(headings, tuple(rows))


def _chart(figure: Figure) -> Chart:
    return Chart(figure.name, figure.title, drawing_of(figure), Table(figure.headings, figure.rows))


def _shown(cell: Cell) -> str:
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)


class _Silent:
    """A display that shows nothing."""

    @contextmanager
    def phase(self, title: str, total: int) -> "Iterator[_Silent]":
        """Begin a phase."""
        del title, total
        yield self

    def advance(self, note: str = "") -> None:
        """Go on."""


_: Display = _Silent()  # it is one
