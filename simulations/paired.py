"""Runs of one study with different seeds, as one table: means, and differences paired seed by seed.

A seed decides the test patients, the batches and the noise, so a difference within a seed is of one split. Intervals
are Student's t over the seeds. They speak of such splits of the same patients: other patients would differ by more.

>>> print(interval([0.01, 0.02, 0.03]))
+0.020 (-0.005 to +0.045)
>>> interval([0.01]) is None
True
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from configs.errors import ArchipelError
from configs.load import load_study
from configs.records.models import TABULATED, ComparedModel
from configs.records.result import TrainingResult
from configs.schema.privacy import is_budgeted
from server.result.read import load_result
from server.result.wording import metric_named

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean of so many values, with its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


@dataclass(frozen=True)
class Repeated:
    """One study with its results by seed, two or more."""

    name: str
    results: Mapping[int, TrainingResult]

    @property
    def figure(self) -> str:
        """Return the metric that is compared."""
        return next(iter(self.results.values())).primary_metric or "auroc"

    @property
    def subject(self) -> ComparedModel:
        """Return the shared model that the study is about: the private one, if there is privacy."""
        mode = str(next(iter(self.results.values())).privacy.get("mode"))
        return ComparedModel.FEDERATED if is_budgeted(mode) else ComparedModel.WITHOUT_PRIVACY

    def values(self, key: ComparedModel) -> dict[int, float]:
        """Return a model's figure on all test patients by seed, where it is defined."""
        models = {seed: result.models.get(key) for seed, result in self.results.items()}
        estimates = {seed: model.metrics.get(self.figure) for seed, model in models.items() if model}
        return {seed: estimate.value for seed, estimate in estimates.items() if estimate}

    def less(self, key: ComparedModel) -> list[float]:
        """Return the study's figure less another model's, seed by seed."""
        subject, other = self.values(self.subject), self.values(key)
        return [subject[seed] - other[seed] for seed in subject if seed in other]


def interval(values: Sequence[float]) -> Interval | None:
    """Return the mean with its interval, None of fewer than two values."""
    if len(values) < 2:
        return None
    mean, count = statistics.fmean(values), len(values)
    reach = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * statistics.stdev(values) / math.sqrt(count)
    return Interval(mean, mean - reach, mean + reach, count)


def repeated(runs: Sequence[Path]) -> Iterator[Repeated]:
    """Yield each study that was run with two seeds or more; of two runs with one seed, the first counts.

    Runs that trained nothing, did not end COMPLETE, or whose study cannot be read, are left out.
    """
    studies: dict[str, Repeated] = {}
    for run in runs:
        result = load_result(run)
        if not isinstance(result, TrainingResult) or result.outcome != "COMPLETE":
            continue
        try:
            study = load_study(run / "study.yaml")
        except ArchipelError:
            continue
        group = studies.setdefault(replace(study, seed=0).sha256, Repeated(study.name, {}))
        studies[replace(study, seed=0).sha256] = replace(group, results={study.seed: result, **group.results})
    yield from (group for group in studies.values() if len(group.results) > 1)


def print_seeds(runs: Sequence[Path]) -> int:
    """Print where each run is and what they say together; return 1 where one is incomplete."""
    outcomes = {run: load_result(run).outcome for run in runs}
    for run, outcome in outcomes.items():
        print(f"{outcome}  {run / 'report.html'}")
    print_paired(runs)
    return 0 if set(outcomes.values()) == {"COMPLETE"} else 1


def print_paired(runs: Sequence[Path]) -> None:
    """Print one table for each study that was run with two seeds or more."""
    console = Console(width=None if Console().is_terminal else 140, markup=False, emoji=False)
    for study in repeated(runs):
        seeds = ", ".join(map(str, sorted(study.results)))
        subject = study.subject.column
        figure = metric_named(study.figure).label
        title = f"{study.name}: {figure} on all test patients, {len(study.results)} seeds ({seeds})"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("model")
        for column in ("mean", "from - to", f"{subject}, less it"):
            table.add_column(column, justify="right")
        for key in TABULATED:
            if values := list(study.values(key).values()):
                table.add_row(key.column, *_cells(values, interval(study.less(key)), is_own=key is study.subject))
        console.print(table)
        about = "differences are paired seed by seed; 95 % intervals over these splits of the same patients"
        console.print(about, style="dim", highlight=False)


def _cells(values: Sequence[float], less: Interval | None, *, is_own: bool) -> tuple[str, str, str]:
    spread = f"{min(values):.3f} - {max(values):.3f}"
    return f"{statistics.fmean(values):.3f}", spread, "" if is_own or less is None else str(less)
