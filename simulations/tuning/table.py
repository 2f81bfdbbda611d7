"""The table of settings: each with its means over seeds, and its difference to the study's own, paired seed by seed."""

import math
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from simulations.paired import Interval, interval
from simulations.tuning.tune import Tuning

SHOWN = 15  # settings, beside the study's own


def print_settings(tuning: Tuning, ranked: Sequence[int]) -> None:
    """Print the best settings, best first, and the study's own among them."""
    console = Console(width=None if Console().is_terminal else 140, markup=False, emoji=False)
    metrics = list(dict.fromkeys((tuning.by, tuning.headline)))
    share = f"{100 * tuning.wish.validation:.3g} %"
    title = f"{tuning.study.name}: settings, judged on {share} of the training patients"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("setting")
    table.add_column("seeds", justify="right")
    for metric in metrics:
        table.add_column(metric.label, justify="right")
    table.add_column("less the study's own", justify="right")
    shown = [i for place, i in enumerate(ranked) if place < SHOWN or i == 0]
    for i in shown:
        name = f"{tuning.candidates[i]}{'  (the study)' if i == 0 else ''}"
        means = [_mean(tuning.values(i, metric)) for metric in metrics]
        less = difference(tuning, i)
        table.add_row(name, f"{len(tuning.values(i, tuning.by))}", *means, "" if i == 0 or less is None else str(less))
    console.print(table)
    if len(shown) < len(tuning.candidates):
        console.print(f"{len(tuning.candidates) - len(shown)} more settings are not shown", style="dim")


def difference(tuning: Tuning, candidate: int) -> Interval | None:
    """Return a setting's figure less that of the study's own settings, seed by seed; None of fewer than two seeds."""
    own, other = tuning.values(0, tuning.by), tuning.values(candidate, tuning.by)
    pairs = [(own[seed], other[seed]) for seed in other if seed in own]
    return interval([value - before for before, value in pairs if value is not None and before is not None])


def verdict(tuning: Tuning, best: int) -> str:
    """Return what was chosen, and whether it is better than the study's own settings beyond chance."""
    if best == 0:
        return "no setting is better than the study's own"
    less = difference(tuning, best)
    certain = less is not None and (less.high < 0 if tuning.by.lower_is_better else less.low > 0)
    beyond = "better than the study's own beyond chance" if certain else "perhaps no better than the study's own"
    return f"chosen: {tuning.candidates[best]}; {beyond}"


def _mean(values: Mapping[int, float | None]) -> str:
    present = [value for value in values.values() if value is not None]
    return f"{math.fsum(present) / len(present):.3f}" if present and len(present) == len(values) else "undefined"
