"""The section `tuned`: that the settings were chosen on real patients, which no epsilon covers."""

from collections.abc import Iterable

from configs.records.result import TunedOn
from server.charts.markup import Html, el
from server.report.parts import Section
from server.result.finished import Run
from server.result.markdown import md
from server.result.wording import capital, plural

WARNING = f"{capital(TunedOn.warning)}."


def _alerts(run: Run) -> Iterable[str]:
    if run.tuned:
        yield WARNING


def _reading(run: Run) -> str:
    tuned = run.tuned
    if tuned is None:
        return ""
    tried, seeds = plural(tuned.settings, "setting"), plural(tuned.seeds, "split")
    tried, seeds = plural(tuned.settings, "setting"), plural(tuned.seeds, "split")
    verb, share = "was" if tuned.settings == 1 else "were", f"{100 * tuned.validation:.3g} %"
    return f"{tried} {verb} tried on {seeds}, with {share} of the training patients as judges."


def _body(run: Run) -> Iterable[Html | None]:
    return [el("p", f"{_ABOUT} {_untouched(run)}", class_="note")]


def _untouched(run: Run) -> str:
    """Return whether the run's test patients took part in the choice: another seed has others."""
    if run.tuned and run.tuned.seed == run.seed:
        return "Test patients were not read for it."
    return "This run has another seed, so its test patients took part in that choice: its figures are flattered."


def _card(run: Run) -> Iterable[str]:
    if run.tuned:
        yield md(f"{_reading(run)} {_ABOUT} {_untouched(run)}")


_ABOUT = (
    "Trainings that judged the settings ran on the researcher's own copies, and their figures decided what is written "
    "in the study. That choice depends on patients and is outside the guarantee."
)
SECTION = Section(
    "tuned",
    "Settings",
    "Where do the settings come from?",
    _reading,
    lambda _run: WARNING,
    _body,
    place=32,
    shows=lambda run: run.tuned is not None,
    alerts=_alerts,
    card=_card,
)
