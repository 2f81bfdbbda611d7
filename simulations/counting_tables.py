"""Terminal tables of a study of statistics: its plan and its released figures."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from configs.records.estimate import Estimate
from configs.records.fields import read
from configs.records.result import ReleasedStatistics, Result, StatisticsResult, TaskInWords
from configs.schema import PER_PATIENT
from simulations.counting_plan import ALL, StatisticsPlan

HIDDEN = "hidden"


def print_plan(plan: StatisticsPlan, *, as_json: bool = False) -> None:
    """Print the noise, and what is seen through it at each hospital."""
    if as_json:
        print(json.dumps(asdict(plan), indent=1, allow_nan=False))
        return
    console = _console()
    title = f"{plan.study}: plan, before any data is read; noise of {plan.noise:.1f} patients in each count"
    columns = ("hospital", "patients", "hides fewer than", "patients known within", "outcome within")
    table = _table(title, columns)
    for view in plan.sites:
        if view.site == ALL:
            table.add_section()
        hidden = HIDDEN if plan.has_rate else "-"
        share = hidden if view.share is None else f"± {100 * view.share:.0f} %"
        table.add_row(view.site, f"{view.patients}", f"{math.ceil(view.hidden)}", f"± {view.total:.0f}", share)
    console.print(table)
    for view in plan.sites:
        console.print(f"{view.site}: {view.verdict}", highlight=False)
    console.print()
    for line in plan.notes:
        console.print(line, highlight=False, soft_wrap=True)


def absent_of(metrics: Result) -> Mapping[str, str]:
    """Return the hospitals of the study that contributed nothing to the result, and why."""
    statistics = metrics.statistics if isinstance(metrics, StatisticsResult) else None
    return metrics.absent or (statistics.missing if statistics else {})


def print_statistics(metrics: StatisticsResult) -> None:
    """Print patients, outcome and unknown values of each hospital and of all, with intervals."""
    console, statistics = _console(), metrics.statistics
    if statistics is None:
        console.print(f"{metrics.outcome}: no statistics; {metrics.why}", highlight=False)
        return
    rows = {**statistics.sites, ALL: statistics.together}
    rate = [_outcome(metrics, statistics)] if statistics.outcome else []
    title = f"{metrics.study}: noise of {statistics.noise:.1f} patients in each count, 95 % interval"
    table = _table(title, ("hospital", "patients", *rate, "epsilon"))
    spent = {site.site: site.epsilon for site in metrics.sites}
    for name, figures in rows.items():
        if name == ALL:
            table.add_section()
        epsilon = "-" if (spending := spent.get(name)) is None else f"{spending:.2f}"
        table.add_row(name, _count(figures.patients), *([_share(figures.outcome)] if rate else []), epsilon)
    console.print(table)
    unknown = _table("share of patients of whom it is unknown", ("column", *rows))
    for column in statistics.columns:
        cells = (_share(figures.columns[column.name].shares[-1]) for figures in rows.values())
        unknown.add_row(column.name, *cells)
    console.print(unknown)
    console.print(f"epsilon: {PER_PATIENT}, at each hospital", style="dim", highlight=False)
    console.print("95 % each: of twenty intervals one misses.", style="dim", highlight=False)
    if any(column.shares[-1] is None for figures in rows.values() for column in figures.columns.values()):
        console.print(f"{HIDDEN}: the noise does not say for sure that there are two patients.", style="dim")
    for site, why in absent_of(metrics).items():
        console.print(f"{site} released nothing: {why}", highlight=False)
    console.print(f"\n{metrics.outcome}, {metrics.seconds or 0.0:.1f} s")


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _count(estimate: Estimate) -> str:
    return f"{estimate.value:.0f} ({estimate.low:.0f}-{estimate.high:.0f})"


def _share(estimate: Estimate | None) -> str:
    if estimate is None:
        return HIDDEN
    return f"{100 * estimate.value:.0f} % ({100 * estimate.low:.0f}-{100 * estimate.high:.0f})"


def _outcome(metrics: StatisticsResult, statistics: ReleasedStatistics) -> str:
    return f"{read(TaskInWords, metrics.task, 'task').target} = {statistics.outcome}"


def _of_all(metrics: StatisticsResult, statistics: ReleasedStatistics) -> str:
    return f"{_outcome(metrics, statistics)}: {_share(statistics.together.outcome)}" if statistics.outcome else "-"


COUNTED: dict[str, Callable[[Any], str]] = {  # of all hospitals together, where runs stand side by side
    "noise in each count": lambda m: f"{m.statistics.noise:.1f}",
    "patients": lambda m: _count(m.statistics.together.patients),
    "share with outcome": lambda m: _of_all(m, m.statistics),
}


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 140, markup=False, emoji=False)
