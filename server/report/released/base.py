"""The interface of a renderer: how report.html and model_card.md show the result of one further release.

A renderer is registered under its release's name. What it need not say is here: the heading's place, the hospitals that
released nothing, and, for a release without a renderer, a table of the record's fields.

>>> rows({"together": 12, "sites": {"brest": 7.5}, "of": [2]})
[('together', '12'), ('sites, brest', '7.5'), ('of, 1', '2')]
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from configs.records.fields import plain
from server.charts.figure import Figure
from server.charts.markup import Html
from server.report.parts import Section, short_or_folded, table
from server.result.finished import Run
from server.result.markdown import md
from server.result.wording import NONE, capital, enumerated, hospitals

MOST_ROWS = 300


class Renderer:
    """Show a release's result; the defaults show any record as a table of its fields.

    `name` is the release's name, `title` the question above its section. `of_groups` says that the release gives
    figures of groups of patients.
    """

    name: str
    title: str = ""
    of_groups: bool = False

    def __init__(self, name: str = "") -> None:
        """Be the renderer of a release that has none, where a name is given."""
        self.name = name or self.name

    def reading(self, run: Run, _result: Any) -> str:
        """Return one sentence that says what came out, for report and card."""
        sites = len(run.sites) - len(run.releases_missing.get(self.name, {}))
        return f"{capital(hospitals(sites))} released the {self.name}."

    def about(self, _run: Run, _result: Any) -> str:
        """Return what to know to read the section, for people who do not know the release."""
        return "Figures that the study asked of the hospitals beside the training, as they released them."

    def body(self, _run: Run, result: Any) -> Iterable[Html | None]:
        """Yield the section's charts and tables; server/report/parts.py and server/charts draw them."""
        lines = rows(result)
        title = f"What came of the {self.name}"
        title += f"; the first {MOST_ROWS} of {len(lines):,} entries" if len(lines) > MOST_ROWS else ""
        drawn = table(["Entry", "Value"], lines[:MOST_ROWS], title, 1)
        yield short_or_folded("Every entry as a table", drawn, len(lines))

    def figures(self, _run: Run, _result: Any) -> Iterable[Figure]:
        """Return the section's charts as files for a paper."""
        return ()

    def card(self, run: Run, result: Any) -> Iterable[str]:
        """Yield the card's paragraphs, as Markdown: each text of the run passes `md`."""
        yield md(self.reading(run, result))


@dataclass(frozen=True)
class ReleasedResult:
    """A result of a run, with the renderer that shows it."""

    run: Run
    renderer: Renderer

    def section(self) -> Section:
        """Return the report's section."""
        name, show = self.renderer.name, self.renderer
        result = self.run.releases.get(name)
        key = f"release-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}"
        return Section(
            key,
            capital(name.replace("_", " ")),
            show.title or capital(name.replace("_", " ")),
            lambda run: self._nothing if result is None else show.reading(run, result),
            lambda run: "" if result is None else show.about(run, result),
            lambda run: [*([] if result is None else show.body(run, result)), self._missing()],
            place=70,
            card=lambda _run: self.card(),
            figures=lambda run: () if result is None else show.figures(run, result),
        )

    def card(self) -> Iterator[str]:
        """Yield the card's paragraphs."""
        result = self.run.releases.get(self.renderer.name)
        yield from [self._nothing] if result is None else self.renderer.card(self.run, result)
        missing = self.run.releases_missing.get(self.renderer.name, {})
        if result is not None and missing:
            yield md(f"Without {enumerated(sorted(missing))}.")

    @property
    def _nothing(self) -> str:
        return "No hospital released anything."

    def _missing(self) -> Html | None:
        reasons = sorted(self.run.releases_missing.get(self.renderer.name, {}).items())
        return table(["Hospital", "Reason"], reasons, "Who released nothing, and why") if reasons else None


def rows(result: Any) -> list[tuple[str, str]]:
    """Return a record's entries, each with its place in words."""
    return list(_rows(plain(result), ""))


def _rows(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _rows(entry, f"{place}, {key}" if place else str(key).replace("_", " "))
    elif isinstance(value, list) and value:
        for number, entry in enumerate(value, 1):
            yield from _rows(entry, f"{place}, {number}" if place else f"{number}")
    else:
        yield place or "result", _cell(value)


def _cell(value: Any) -> str:
    if value is None or value == []:
        return NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)
