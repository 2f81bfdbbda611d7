"""The section `learning`: the main metric after each round."""

import itertools
import statistics
from collections.abc import Iterable

from configs.records.models import ComparedModel
from server.charts import quality
from server.charts.figure import Figure
from server.charts.markup import Html
from server.report.parts import Section, drawing, legend, models_legend
from server.result import sentences
from server.result.finished import Run
from server.result.wording import capital, headline_of, model_name, series


def _learning_about(run: Run) -> str:
    points = run.convergence.get(run.shared, ())
    if not points:
        return ""
    apart = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(points)]
    every = statistics.mode(apart) if apart else 1
    when = "after every round" if every == 1 else f"every {every:,} rounds, and after the last"
    return f"The shared model is judged {when}, on the test patients of all hospitals."


def _learning(run: Run) -> Iterable[Html | None]:
    drawn = quality.convergence(run)
    if drawn is None:
        return []
    level = ComparedModel.LOCAL_ONLY if run.model(ComparedModel.LOCAL_ONLY) and len(run.sites) > 1 else ""
    keys = [key for key in series(run) if run.convergence.get(key) or key == level]
    about = "The shaded band is the final model's 95 % interval: movement well within it may be chance."
    return [drawing(f"{capital(headline_of(run).label)} by round", about, legend(run, keys), drawn)]


def _figures(run: Run) -> Iterable[Figure]:
    keys = [key for key in series(run) if run.convergence.get(key)]
    if not keys:
        return
    values = {key: dict(run.convergence[key]) for key in keys}
    rounds = sorted({number for curve in values.values() for number in curve})
    rows = tuple((number, *(values[key].get(number) for key in keys)) for number in rounds)
    headings = ("round", *(model_name(run, key) for key in keys))
    title = f"{capital(headline_of(run).label)} by round"
    yield Figure("rounds", title, headings, rows, quality.convergence_file(run), models_legend(run, keys))


SECTION = Section(
    "learning",
    "Learning",
    "How fast did it learn?",
    sentences.convergence,
    _learning_about,
    _learning,
    place=30,
    shows=lambda run: not run.unmeasured and not run.noisy,  # one release, after the last round
    figures=_figures,
)
