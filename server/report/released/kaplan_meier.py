"""The renderer of the release `kaplan_meier`: observed risks over time, all hospitals together and each."""

from collections.abc import Iterable

from configs.records.estimate import Estimate
from configs.records.kaplan_meier import KAPLAN_MEIER_KEYS, ObservedRisk, ObservedRisks
from server.charts.markup import Html
from server.report.parts import folded, table
from server.report.released.base import Renderer
from server.result.finished import Run


class KaplanMeierRenderer(Renderer):
    """Shows the last risk that noise leaves in a sentence, and every one in tables."""

    name = KAPLAN_MEIER_KEYS.name
    title = "How many patients had the event by when?"

    def reading(self, run: Run, result: ObservedRisks) -> str:
        """Return the last known risk of the first cause."""
        known = [each for each in result.together if each.risk and each.cause == result.together[0].cause]
        if not known:
            return "The noise drowns every risk: too few patients at this epsilon."
        last = known[-1]
        assert last.risk is not None
        return f"By {_time(run, last.time)} it had come in {_share(last.risk)} of the training patients."

    def about(self, _run: Run, result: ObservedRisks) -> str:
        """Return how it was made."""
        return (
            "Each hospital counted its training patients once by the interval in which their time ended, and how, and "
            f"added noise of {result.noise_multiplier or 0:.1f} patients to each count. Patients lost from sight count "
            "up to then (Kaplan and Meier; of several causes Aalen and Johansen). Intervals of 95 % hold sampling and "
            "noise; a curve ends where noise would drown it."
        )

    def body(self, run: Run, result: ObservedRisks) -> Iterable[Html | None]:
        """Yield a table of all hospitals together, and one of each."""
        yield _table(run, result.together, "All hospitals together")
        for site, risks in result.sites.items():
            yield folded(site, _table(run, risks, f"Observed risks in {site}"))


def _table(run: Run, risks: Iterable[ObservedRisk], title: str) -> Html:
    rows = [(each.cause, _time(run, each.time), _share(each.risk)) for each in risks]
    return table(["Event", "By", "Risk, 95 % interval"], rows, title, 2)


def _time(run: Run, time: float) -> str:
    return f"{time:g} {run.target_unit}".strip()


def _share(risk: Estimate | None) -> str:
    return "undefined" if risk is None else f"{risk.value:.1%} ({risk.low:.1%} to {risk.high:.1%})"
