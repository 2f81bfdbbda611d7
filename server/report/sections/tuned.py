"""The section `tuned`: that the settings were chosen on real patients, which no epsilon covers."""

from collections.abc import Iterable

from server.charts.markup import Html, el
from server.report.parts import Section
from server.result.finished import Run
from server.result.markdown import md
from server.result.wording import plural

WARNING = "settings were chosen on real patients; no epsilon covers this"


def _alerts(run: Run) -> Iterable[str]:
    if run.tuned:
        yield f"{WARNING[0].upper()}{WARNING[1:]}."


def _reading(run: Run) -> str:
    tuned = run.tuned
    if tuned is None:
        return ""
    tried, seeds = plural(tuned.settings, "setting"), plural(tuned.seeds, "split")
    tried, seeds = plural(tuned.settings, "setting"), plural(tuned.seeds, "split")
    verb, share = "was" if tuned.settings == 1 else "were", f"{100 * tuned.validation:.3g} %"
    return f"{tried} {verb} tried on {seeds}, with {share} of the training patients as judges."


def _body(_run: Run) -> Iterable[Html | None]:
    return [el("p", _ABOUT, class_="note")]


def _card(run: Run) -> Iterable[str]:
    if run.tuned:
        yield md(f"{_reading(run)} {_ABOUT}")


_ABOUT = (
    "Trainings that judged the settings ran on the researcher's own copies, and their figures decided what is written "
    "in the study. That choice depends on patients and is outside the guarantee. Test patients were not read for it."
)
SECTION = Section(
    "tuned",
    "Settings",
    "Where do the settings come from?",
    _reading,
    lambda _run: f"{WARNING[0].upper()}{WARNING[1:]}.",
    _body,
    place=32,
    shows=lambda run: run.tuned is not None,
    alerts=_alerts,
    card=_card,
)
