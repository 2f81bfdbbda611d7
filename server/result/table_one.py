"""Table 1: who the patients are, all together and over the hospitals.

It is of the noisy counts of a study of statistics where the run is linked with one, else of a simulation's exact ones.
A number's mean and standard deviation are those of its bins' middles, so they are near the exact ones and not equal.

>>> mean_and_deviation((0.5, 0.5), (0.0, 1.0))
(0.5, 0.5)
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.records.described import CountedColumn
from configs.records.estimate import Estimate
from configs.records.result import PatientCounts
from server.result.finished import Run
from server.result.spread import Spread
from server.result.wording import NONE, figure, share

WHOLE = "all together"


@dataclass(frozen=True)
class Line:
    """One line: a column, what is said of it, the figure of all patients, and of each hospital that has it."""

    column: str
    what: str
    whole: str
    sites: Mapping[str, float]
    is_share: bool

    def cells(self) -> list[str]:
        """Return the line for a table: the spread over the hospitals beside the whole."""
        form = share if self.is_share else lambda value: figure(value, bounded=False)
        spread = Spread.of(self.sites.values()) if len(self.sites) > 1 else None
        ends = [form(spread.least), form(spread.median), form(spread.greatest)] if spread else [NONE] * 3
        return [self.column, self.what, self.whole, *ends]


@dataclass(frozen=True)
class TableOne:
    """The lines, and what is known of the counts behind them."""

    lines: tuple[Line, ...]
    patients: int
    hospitals: int
    noise: float = 0.0
    source: str = ""


def table_one(run: Run) -> TableOne | None:
    """Return the table, None where neither patients nor their statistics are known."""
    if run.counted is not None:
        return _released(run)
    return _exact(run) if run.patients is not None else None


def _exact(run: Run) -> TableOne | None:
    described = run.patients
    assert described is not None
    sites = {site: _shares_of(described.columns, counts) for site, counts in described.counts.items()}
    summed = tuple(map(sum, zip(*described.counts.values(), strict=True)))
    if not summed or not described.columns:
        return None
    patients = sum(summed[: len(described.columns[0].labels)])
    whole = {name: tuple(map(_certain, shares)) for name, shares in _shares_of(described.columns, summed).items()}
    lines = [line for column in described.columns for line in _lines(column, whole, sites)]
    return TableOne(tuple(lines), patients, len(sites))


def _shares_of(columns: Sequence[CountedColumn], counts: Sequence[int]) -> dict[str, tuple[float | None, ...]]:
    """Return each column's shares of the patients, None of nobody."""
    start, shares = 0, {}
    for column in columns:
        part = counts[start : start + len(column.labels)]
        start += len(column.labels)
        shares[column.name] = tuple(count / sum(part) if sum(part) else None for count in part)
    return shares


def _certain(value: float | None) -> Estimate | None:
    return None if value is None else Estimate(value, value, value)


def _released(run: Run) -> TableOne:
    assert run.counted is not None
    released = run.counted.released
    sites = {site: _values(released.columns, counts) for site, counts in released.sites.items()}
    whole = {column.name: released.together.columns[column.name].shares for column in released.columns}
    lines = tuple(line for column in released.columns for line in _lines(column, whole, sites))
    patients = max(0, round(released.together.patients.value))
    return TableOne(lines, patients, len(sites), released.noise, run.counted.study_sha256)


def _values(columns: Sequence[CountedColumn], counts: PatientCounts) -> dict[str, tuple[float | None, ...]]:
    return {c.name: tuple(s.value if s else None for s in counts.columns[c.name].shares) for c in columns}


def _lines(
    column: CountedColumn,
    whole: Mapping[str, tuple[Estimate | None, ...]],
    sites: Mapping[str, Mapping[str, tuple[float | None, ...]]],
) -> list[Line]:
    """Return a line for each value of a category, or one for a number; and one for the unknown, if there are any."""
    shares = whole[column.name]
    shown = list(enumerate(column.labels[:-1])) if not column.edges else []
    if (last := shares[-1]) is None or last.value > 0:
        shown.append((len(column.labels) - 1, column.labels[-1]))
    lines = [] if not column.edges else [_number(column, shares, sites)]
    for place, label in shown:
        values = {site: v for site, of in sites.items() if (v := of[column.name][place]) is not None}
        lines.append(Line(column.name, label, _share(shares[place]), values, is_share=True))
    return lines


def _share(estimate: Estimate | None) -> str:
    if estimate is None:
        return "hidden"
    if estimate.low == estimate.high:
        return share(estimate.value)
    return f"{share(estimate.value)} ({100 * estimate.low:.0f} to {share(estimate.high)})"


def _number(
    column: CountedColumn,
    shares: Sequence[Estimate | None],
    sites: Mapping[str, Mapping[str, tuple[float | None, ...]]],
) -> Line:
    middles = [(low + high) / 2 for low, high in itertools.pairwise(column.edges)]
    unit = f", {column.unit}" if column.unit else ""
    moments = mean_and_deviation([s.value if s else None for s in shares[:-1]], middles)
    whole = "hidden"
    if moments is not None:
        whole = f"{figure(moments[0], bounded=False)} ({figure(moments[1], bounded=False)})"
    means = {site: mean_and_deviation(of[column.name][:-1], middles) for site, of in sites.items()}
    return Line(
        column.name,
        f"mean (SD), about{unit}",
        whole,
        {site: mean[0] for site, mean in means.items() if mean},
        is_share=False,
    )


def mean_and_deviation(shares: Sequence[float | None], middles: Sequence[float]) -> tuple[float, float] | None:
    """Return mean and standard deviation of patients in bins; None where a share is hidden or there is nobody."""
    known = [value for value in shares if value is not None]
    total = sum(known)
    if len(known) < len(shares) or total <= 0:
        return None
    mean = sum(value * middle for value, middle in zip(known, middles, strict=True)) / total
    variance = sum(value * (middle - mean) ** 2 for value, middle in zip(known, middles, strict=True)) / total
    return mean, math.sqrt(variance)
