"""The parts of a report's sections: headings, tables, figures, legends."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.charts.figure import Figure
from server.charts.markup import Html, el, join
from server.charts.svg import line, mark
from server.result.finished import Run
from server.result.spread import MANY, Spread
from server.result.wording import model_name

FEW = 12  # rows of a table that is shown at once


@dataclass(frozen=True)
class Section:
    """A question, one sentence that answers it, what to know to read the pictures, and the pictures.

    `place` orders the page: the model's quality is at 20 to 45, what else the study asked at 50 to 75, privacy at 80,
    checks at 95. `shows` says of which runs there is such a section. `alerts` are sentences that must not be
    overlooked: they stand at the head of report and card. `card` gives paragraphs of Markdown, which stand in the model
    card under the heading `short`. `figures` are the charts as files for a paper.
    """

    key: str
    short: str
    title: str
    reading: Callable[[Run], str]
    about: Callable[[Run], str]
    body: Callable[[Run], Iterable[Html | None]]
    place: int = 50
    shows: Callable[[Run], bool] = lambda _run: True
    alerts: Callable[[Run], Iterable[str]] = lambda _run: ()
    card: Callable[[Run], Iterable[str]] = lambda _run: ()
    figures: Callable[[Run], Iterable[Figure]] = lambda _run: ()

    @property
    def name(self) -> str:
        """Return the key, by which the section is registered."""
        return self.key

    def render(self, run: Run, number: int) -> Html:
        """Return the section with its number."""
        about = self.about(run)
        lead = [el("p", f"{number}", class_="number"), el("h2", self.title), el("p", about) if about else None]
        answer = el("p", self.reading(run), class_="reading")
        return el("section", el("div", *lead, class_="lead"), el("div", answer, *self.body(run)), id=self.key)


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], title: str, numbers: int = 0, *, whole: bool = False
) -> Html:
    """Return a table that scrolls in its own box. The first columns are words, the last `numbers` are numbers."""
    words = len(headings) - numbers
    head = [el("th", text, scope="col", class_="num" if n >= words else None) for n, text in enumerate(headings)]
    body = []
    for n, row in enumerate(rows):
        name = el("th", row[0], scope="row", class_="name")
        cells = [el("td", text, class_="num" if i >= words else None) for i, text in enumerate(row[1:], 1)]
        body.append(el("tr", name, *cells, class_="whole" if whole and n == 0 else None))
    drawn = el("table", el("caption", title), el("thead", el("tr", *head)), el("tbody", *body))
    return el("div", drawn, class_="scroll", tabindex="0", role="region", aria_label=title)


def drawing(title: str, about: str, *parts: str | None) -> Html:
    """Return a figure with its title and how to read it."""
    return el("figure", el("figcaption", el("strong", title), about), *parts)


def each(title: str, content: Html, count: int) -> Html:
    """Return what shows each hospital by itself; of more than a page can show, on demand."""
    return content if count <= MANY else folded(f"{title}: all {count:,} hospitals", content)


def short_or_folded(summary: str, content: Html, rows: int) -> Html:
    """Return a table, on demand where it has more than a few rows."""
    return content if rows <= FEW else folded(summary, content)


def spread_table(title: str, rows: Sequence[tuple[str, Sequence[float | None], Callable[[float], str]]]) -> Html:
    """Return the spread of figures over many hospitals: name, each hospital's value, and how a value is written."""
    lines = [
        [name, *map(form, (s.least, s.lower, s.median, s.upper, s.greatest)), f"{s.count:,}"]
        for name, values, form in rows
        if (s := Spread.of(values)) is not None
    ]
    headings = ["Hospitals", "Least", "25 %", "Median", "75 %", "Most", "Number"]
    return table(headings, lines, title, 6)


def folded(summary: str, content: Html) -> Html:
    """Return an element that is shown on demand."""
    return el("details", el("summary", summary), content)


def legend(run: Run, keys: Sequence[str]) -> Html:
    """Return shape, colour and name of each model."""
    return el("ul", *(el("li", _sample(key), model_name(run, key)) for key in keys), class_="legend")


def models_legend(run: Run, keys: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the legend of a chart of models as a file has it."""
    return tuple((key, model_name(run, key)) for key in keys)


def legend_of(names: Mapping[str, str]) -> Html:
    """Return the line and the name of each curve; names: class of the line -> name."""
    line_of = {
        key: el("svg", line(1, 8, 25, 8, f"curve {key}"), viewBox="0 0 26 16", aria_hidden="true") for key in names
    }
    return el("ul", *(el("li", line_of[key], name) for key, name in names.items()), class_="legend")


def _sample(key: str) -> Html:
    drawn = join([line(1, 8, 25, 8, f"whisker {key}"), mark(key, 13, 8)])
    return el("svg", drawn, viewBox="0 0 26 16", aria_hidden="true")
