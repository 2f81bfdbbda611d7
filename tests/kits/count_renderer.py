"""How report and card show the toy count of column_count.py. Not part of the product.

A file of its own: a hospital's worker may not read the coordinator's code, which draws.
"""

from collections.abc import Iterable
from typing import Any

from server.charts.markup import Html
from server.report.parts import table
from server.report.released.base import Renderer
from server.report.released.registry import RENDERERS
from server.result.finished import Run


class CountRenderer(Renderer):
    """Shows the count: a sentence for report and card, a table of the hospitals."""

    name = "column count"
    title = "How many have the value?"

    def reading(self, _run: Run, result: Any) -> str:
        """Return the count with its interval."""
        count = result.together
        return f"About {count.value:,.0f} patients have the value ({count.low:,.0f} to {count.high:,.0f})."

    def body(self, _run: Run, result: Any) -> Iterable[Html | None]:
        """Yield a table of the hospitals' counts."""
        yield table(["Hospital", "Count"], [(site, f"{n:,.0f}") for site, n in result.sites.items()], "Counts", 1)


RENDERER = CountRenderer()


def install() -> None:
    """Register the renderer under its release's name."""
    RENDERERS.register(RENDERER)
