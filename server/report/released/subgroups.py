"""The renderer of the release `subgroups`: the shared model judged group by group."""

from collections.abc import Iterable, Sequence

from configs.records.estimate import Estimate
from configs.records.outcome import AtThreshold
from configs.records.subgroups import SUBGROUPS_KEYS, Subgroup, Subgroups
from server.charts.markup import Html, el
from server.report.parts import folded, table
from server.report.released.base import Renderer
from server.result.finished import Run
from server.result.markdown import grid, md
from server.result.wording import count, enumerated, hospitals, interval, signed

_NOTE = (
    "Undefined is a figure that the noise would drown: the group has too few test patients at this epsilon. Scores are "
    "counted in bins, and a threshold has figures only at an edge of them."
)


class SubgroupsRenderer(Renderer):
    """Show AUROC, calibration in the large and the first threshold's figures of every group."""

    name = SUBGROUPS_KEYS.name
    title = "Is it as good for every group?"
    of_groups = True

    def reading(self, _run: Run, result: Subgroups) -> str:
        """Return in which groups the model is surely worse or off, or that none is seen."""
        if not any(group.auroc or group.calibrated.in_the_large for group in result.groups):
            return "No group has figures: noise would drown them."
        off = [_name(group) for group in result.groups if _is_off(group)]
        columns = dict.fromkeys(group.column for group in result.groups)
        apart = [column for column in columns if _differs(column, result.groups)]
        parts = [
            f"AUROC surely differs between the groups of {enumerated(apart)}." if apart else "",
            f"Probabilities are surely off for {enumerated(off)}." if off else "",
        ]
        return " ".join(filter(None, parts)) or "No difference between groups is larger than its interval."

    def about(self, _run: Run, result: Subgroups) -> str:
        """Return what the figures are of."""
        return (
            f"The shared model on test patients of {hospitals(len(result.sites))}, group by group, from noisy counts. "
            "Intervals of 95 % include the noise. Calibration in the large is the mean prediction less the observed "
            "share."
        )

    def body(self, _run: Run, result: Subgroups) -> Iterable[Html | None]:
        """Yield the table of groups, and of a simulation the same without noise."""
        yield table(_headings(result), [_row(group) for group in result.groups], "Every group", 5)
        if result.exact:
            exact = table(_headings(result), [_row(group) for group in result.exact], "The same without noise", 5)
            yield folded("What the simulation knows: the same without noise", exact)
        yield el("p", _NOTE, class_="note")

    def card(self, run: Run, result: Subgroups) -> Iterable[str]:
        """Yield the reading and the table."""
        yield md(self.reading(run, result))
        yield grid(_headings(result), [[md(cell) for cell in _row(group)] for group in result.groups])
        yield md(_NOTE)


def _headings(result: Subgroups) -> list[str]:
    first = next((group.thresholds[0].threshold for group in result.groups if group.thresholds), 0.5)
    at = f"at {first:g}"
    return ["Group", "Test patients", "AUROC", "Calibration in the large", f"Sensitivity {at}", f"Specificity {at}"]


def _row(group: Subgroup) -> list[str]:
    first: Sequence[AtThreshold] = group.thresholds[:1]
    off = group.calibrated.in_the_large
    return [
        _name(group),
        count(max(0, round(group.patients.value))),
        interval(group.auroc),
        "undefined" if off is None else f"{signed(off.value)} ({signed(off.low)} to {signed(off.high)})",
        interval(first[0].sensitivity if first else None),
        interval(first[0].specificity if first else None),
    ]


def _name(group: Subgroup) -> str:
    return f"{group.column} {group.group}"


def _is_off(group: Subgroup) -> bool:
    off = group.calibrated.in_the_large
    return off is not None and not off.low <= 0.0 <= off.high


def _differs(column: str, groups: Sequence[Subgroup]) -> bool:
    """Return whether two groups of a column have AUROCs whose intervals do not meet."""
    ends: list[Estimate] = [group.auroc for group in groups if group.column == column and group.auroc]
    return any(one.high < other.low for one in ends for other in ends)
