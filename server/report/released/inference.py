"""The renderer of the release `inference`: ratios with intervals that include the noise."""

from collections.abc import Iterable
from functools import partial

from configs.records.estimate import Estimate
from configs.records.inference import INFERENCE_KEYS, Ratios
from server.charts import svg
from server.charts.figure import Figure, ends_of
from server.charts.markup import Html, el
from server.charts.ratios_chart import ratios
from server.report.parts import drawing, table
from server.report.released.base import Renderer
from server.result.finished import Run
from server.result.markdown import grid, md
from server.result.wording import capital, enumerated, figure_of, hospitals

FAR = 0.5  # log odds: a final model that is further from its estimate is worth a word


class InferenceRenderer(Renderer):
    """Show each ratio with both of its intervals."""

    name = INFERENCE_KEYS.name
    title = "What does each column do, and how surely?"

    def reading(self, _run: Run, result: Ratios) -> str:
        """Return which columns surely have an effect, or why nothing can be said."""
        if result.undefined:
            return f"{capital(result.measure)}s are undefined: {result.undefined}."
        sure = list(dict.fromkeys(row.column for row in result.rows if _excludes_one(row.estimate)))
        if not sure:
            return f"No {result.measure} is surely other than 1."
        return f"The {result.measure}s of {enumerated(sure)} are surely other than 1."

    def about(self, _run: Run, result: Ratios) -> str:
        """Return what the two intervals are about."""
        few = hospitals(len(result.sites))
        return (
            f"What a regression on the training patients of {few} would say, worked out from noisy sums at the final "
            "model. The first interval is for patients like these, its width sampling and noise together; the second "
            "is the noise alone: where the converged regression on these very patients lies, had they been pooled."
        )

    def body(self, _run: Run, result: Ratios) -> Iterable[Html | None]:
        """Yield the drawing and the table of ratios."""
        if not result.undefined:
            about = f"The dot is the {result.measure} of patients like these, its whisker the 95 % interval."
            yield drawing(f"{capital(result.measure)}s by column", about, svg.both(partial(ratios, result)))
            title = f"{capital(result.measure)}s with 95 % intervals"
            yield table(_headings(result), _rows(result), title, 2)
        yield el("p", note, class_="note") if (note := _note(result)) else None

    def figures(self, _run: Run, result: Ratios) -> Iterable[Figure]:
        """Yield the drawing and its numbers for a paper."""
        if result.undefined:
            return
        ends = ("", " low", " high")
        headings = ("column", "step", *(f"{result.measure}{end}" for end in ends), *(f"pooled{end}" for end in ends))
        rows = tuple((r.column, r.contrast, *ends_of(r.estimate), *ends_of(r.pooled)) for r in result.rows)
        yield Figure("ratios", f"{capital(result.measure)}s by column", headings, rows, ratios(result, svg.WIDE))

    def card(self, run: Run, result: Ratios) -> Iterable[str]:
        """Yield the reading, and the table."""
        yield md(self.reading(run, result))
        if not result.undefined:
            yield md(self.about(run, result))
            yield grid([md(text) for text in _headings(result)], [[md(c) for c in row] for row in _rows(result)])


def _headings(result: Ratios) -> list[str]:
    return ["Column", "Step", f"{capital(result.measure)}, patients like these", "These patients pooled (noise alone)"]


def _rows(result: Ratios) -> list[list[str]]:
    return [[row.column, row.contrast, _with_ends(row.estimate), _with_ends(row.pooled)] for row in result.rows]


def _with_ends(estimate: Estimate | None) -> str:
    if estimate is None:
        return "undefined"
    return f"{figure_of(estimate.value)} ({figure_of(estimate.low)} to {figure_of(estimate.high)})"


def _excludes_one(estimate: Estimate | None) -> bool:
    return estimate is not None and not estimate.low <= 1.0 <= estimate.high


def _note(result: Ratios) -> str:
    notes = []
    if result.curved:
        notes.append(f"No single figure for {enumerated(result.curved)}, whose effect is a curve.")
    if result.moved is not None and result.moved > FAR and not result.undefined:
        notes.append(
            f"The final model is {result.moved:.1f} in log odds from this estimate: the training had not arrived, and "
            "the intervals hold somewhat less than they say."
        )
    return " ".join(notes)
