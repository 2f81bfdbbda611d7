"""The section `left`: what left each hospital, field by field."""

from collections.abc import Iterable

from server.charts import rounds_chart
from server.charts.markup import Html, el, join
from server.report.parts import Section, drawing, each, table
from server.result import sentences
from server.result.finished import Run
from server.result.wording import NONE, count, size


def _left_about(run: Run) -> str:
    kind = (
        "These are the messages that a deployed study would send: here, one machine played every hospital."
        if run.simulated
        else ""
    )
    return f"A message may hold the fields that are listed, and nothing else. {kind}".strip()


def _left(run: Run) -> Iterable[Html | None]:
    drawn = rounds_chart.bytes_sent(run)
    bars = drawing("Bytes sent by each hospital", "In the whole study, with the number of messages.", drawn)
    return [
        each("Bytes sent by each hospital", bars, len(run.sites)) if drawn else None,
        _left_table(run) if run.left else None,
        el("p", el("b", "What did not leave: "), _stayed(), class_="note") if run.left else None,
    ]


def _left_table(run: Run) -> Html:
    rows = [
        [
            kind.what,
            join([el("code", name) for name in kind.fields]) if kind.fields else NONE,
            count(kind.messages),
            NONE if kind.bytes is None else size(kind.bytes),
        ]
        for kind in run.left
    ]
    return table(["Message", "Exactly these fields", "Messages", "Size"], rows, "What left, field by field", 2)


def _stayed() -> str:
    return (
        "whatever the table does not list. Patients' records, identifiers, dates and measured values stay at the "
        "hospital, and only these fields may pass its one way out."
    )


SECTION = Section("left", "What left", "What left each hospital?", sentences.left, _left_about, _left, place=85)
