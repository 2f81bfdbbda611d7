"""A toy section of the report: how many words the study's purpose has. Not part of the product."""

from collections.abc import Iterable

from server.charts.markup import Html, el
from server.report.parts import Section
from server.report.sections.registry import SECTIONS
from server.result.finished import Run


def reading(run: Run) -> str:
    """Return how long the purpose is."""
    return f"The purpose has {len(run.purpose.split())} words."


def body(run: Run) -> Iterable[Html | None]:
    """Yield the purpose once more."""
    yield el("p", run.purpose, class_="note")


PURPOSE = Section(
    "purpose",
    "Purpose",
    "What is it for?",
    reading,
    lambda _run: "",
    body,
    place=45,
    shows=lambda run: bool(run.purpose),
    alerts=lambda run: ["A purpose of one word."] if len(run.purpose.split()) == 1 else [],
    card=lambda run: [reading(run)],
)


def install() -> None:
    """Let reports have it."""
    SECTIONS.register(PURPOSE)
