"""The renderer of the release `score_sum`: the mean score of the test patients, together and by hospital."""

from collections.abc import Iterable

from configs.records.estimate import Estimate
from configs.records.score_sum import SCORE_SUM_KEYS, MeanScore
from server.charts.markup import Html
from server.report.parts import table
from server.report.released.base import Renderer
from server.result.finished import Run


class ScoreSumRenderer(Renderer):
    """Shows the mean in a sentence, and each hospital's in a table."""

    name = SCORE_SUM_KEYS.name
    title = "How good is it, by what hospitals released?"

    def reading(self, _run: Run, result: MeanScore) -> str:
        """Return the mean with its interval."""
        return result.verdict()

    def about(self, _run: Run, result: MeanScore) -> str:
        """Return how it was made."""
        return (
            f"Each hospital added up its test patients' {result.score}, and what each lacks to 1, with noise of "
            f"{result.noise_multiplier or 0:.1f} patients in each sum. A patient with several images counts once, by "
            f"their mean. There are about {result.patients.value:,.0f} test patients. Intervals of 95 % hold sampling "
            "and noise; a mean is undefined where the noise would drown it."
        )

    def body(self, _run: Run, result: MeanScore) -> Iterable[Html | None]:
        """Yield a table of the hospitals."""
        rows = [("All together", _interval(result.together))]
        rows += [(site, _interval(each)) for site, each in result.sites.items()]
        yield table(["Hospital", "Mean, 95 % interval"], rows, f"Mean {result.score}", 1)


def _interval(mean: Estimate | None) -> str:
    return "undefined" if mean is None else f"{mean.value:.2f} ({mean.low:.2f} to {mean.high:.2f})"
