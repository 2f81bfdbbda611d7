"""The section `rounds`: who took part in each round, and why others did not."""

from collections.abc import Iterable, Sequence

from server.charts import rounds_chart
from server.charts.markup import Html, el
from server.charts.svg import rect
from server.report.parts import Section, drawing, each, table
from server.result import sentences
from server.result.finished import Run
from server.result.wording import plural

MOST_REASONS = 20


def _state_legend(states: Iterable[str]) -> Html:
    shown = [(state, name) for state, name in rounds_chart.STATES.items() if state in states]
    return el("ul", *(el("li", _state_sample(state), name) for state, name in shown), class_="legend")


def _state_sample(state: str) -> Html:
    sign = rounds_chart.cross(13, 8, 3.5) if state == "none" else None
    return el("svg", rect(4, 1, 18, 14, f"cell {state}"), sign, viewBox="0 0 26 16", aria_hidden="true")


def _rounds_about(_run: Run) -> str:
    return "A round counts only if enough hospitals contribute; below that the study stops and says so."


def _rounds(run: Run) -> Iterable[Html | None]:
    drawn = rounds_chart.attendance(run)
    if drawn is None:
        return []
    contributed = {r.round: r.contributed.keys() for r in run.rounds}
    letters = {"A": "all", "S": "some", "N": "none", "F": "future"}
    states = {letters[c] for s in run.sites for c in rounds_chart.states(s.name, contributed, run.rounds_planned, 1)}
    states |= {"some"} if run.rounds_planned > 60 and "none" in states else set()
    about = f"{run.rounds_completed:,} of {plural(run.rounds_planned, 'round')} completed."
    chart = drawing("Contributions by round", about, _state_legend(states), drawn)
    return [each("Contributions by round", chart, len(run.sites)), _reasons(run)]


def _reasons(run: Run) -> Html | None:
    """Return a list of why hospitals were missing, as the coordinator wrote it down."""
    missed: dict[tuple[str, str], list[int]] = {}
    for r in run.rounds:
        for site in sorted({s.name for s in run.sites} - r.contributed.keys()):
            why = r.missing.get(site) or run.absent.get(site) or "not recorded"
            missed.setdefault((site, why), []).append(r.round)
    rows = [[site, spans(numbers), why] for (site, why), numbers in missed.items()]
    if not rows:
        return None
    more = f"; the first {MOST_REASONS} of {len(rows):,}" if len(rows) > MOST_REASONS else ""
    return table(["Hospital", "Rounds", "Reason"], rows[:MOST_REASONS], f"Who was missing, and why{more}")


def spans(numbers: Sequence[int], most: int = 6) -> str:
    """Return rounds in a table: stretches of them, and how many more there are.

    >>> spans([1, 2, 3, 7, 9, 10]), spans([1, 3, 5, 7], most=2)
    ('1 to 3, 7, 9 to 10', '1, 3 and 2 more')
    """
    stretches: list[list[int]] = []
    for number in numbers:
        if stretches and number == stretches[-1][-1] + 1:
            stretches[-1].append(number)
        else:
            stretches.append([number])
    shown = [f"{s[0]:,}" if len(s) == 1 else f"{s[0]:,} to {s[-1]:,}" for s in stretches[:most]]
    more = sum(len(stretch) for stretch in stretches[most:])
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


SECTION = Section(
    "rounds", "Rounds", "Who took part in each round?", sentences.rounds, _rounds_about, _rounds, place=90
)
