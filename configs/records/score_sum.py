"""The release `score_sum`: its keys in a study, and the mean score that follows from it in metrics.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from configs.keys.declare import key
from configs.keys.values import Around
from configs.records.estimate import Estimate
from configs.records.fields import LATER, OMIT
from configs.records.inference import COST, COST_ABOUT
from configs.schema.releases import ReleaseKeys
from configs.schema.task import TASKS
from configs.sections import Section


@dataclass(frozen=True, slots=True)
class ScoreSumKeys:
    """Noisy sums of test patients' scores from 0 to 1, such as Dice: how good the final model is."""

    epsilon: float = key(COST, COST_ABOUT)

    def check(self, section: Section, around: Around) -> None:
        """Note a task that gives patients no score."""
        scored = [kind.name for kind in TASKS if getattr(kind, "scored", "")]
        if around["task"].type not in scored:
            names = " or ".join(scored)
            section.note("epsilon", f"expected task.type: {names} beside this release, found another; remove it")
        if around["evaluation"].split_column is None and around["evaluation"].test_fraction == 0.0:
            section.note("epsilon", "expected test patients, found test_fraction 0; raise it, or remove this release")


@dataclass(frozen=True)
class MeanScore:
    """What hospitals released of their test patients' scores, and the mean that follows."""

    score: Annotated[str, "What each patient's score is, in words."]
    together: Annotated[
        Estimate | None,
        "The mean score of all test patients, its 95 % interval of sampling and noise; null where noise drowns it.",
        LATER,
    ]
    sites: Annotated[Mapping[str, Estimate | None], "Hospital: the same of its own test patients.", LATER]
    patients: Annotated[Estimate, "How many test patients there are, with the 95 % interval of the noise."]
    noise_multiplier: Annotated[float | None, "Standard deviation of the noise in each sum, in patients."]
    exact: Annotated[float | None, "The mean without noise, in a simulation alone.", OMIT] = None

    def verdict(self) -> str:
        """Return the mean with its interval, in a sentence."""
        if self.together is None:
            return f"The noise drowns the mean {self.score}: too few test patients at this epsilon."
        exact = "" if self.exact is None else f"; without noise it is {self.exact:.2f}"
        mean = f"{self.together.value:.2f} ({self.together.low:.2f} to {self.together.high:.2f})"
        return f"The mean {self.score} of the test patients is {mean}{exact}."


SCORE_SUM_KEYS = ReleaseKeys("score_sum", ScoreSumKeys, MeanScore)
