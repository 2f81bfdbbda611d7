"""The researcher's question about a study's worth, with its assumptions.

>>> Question(auroc=0.8).wish
'AUROC 0.8'
"""

from dataclasses import dataclass, field

from configs.errors import ConfigError
from simulations.worth.synthetic import Assumed
from simulations.worth.worlds import Interval

MIN_REPETITIONS = 3  # fewer allow no verdict


@dataclass(frozen=True, slots=True)
class Question:
    """The researcher's question.

    Raises:
        ConfigError: a wish that no study can meet.
    """

    within: float = 0.02
    auroc: float | None = None
    assumed: Assumed = field(default_factory=Assumed)
    repetitions: int = 8
    seconds: float | None = None  # of one core's computing, after which it is cut off; None: as the study is large
    search: bool = True  # also better settings and the cheapest epsilon
    outcomes_of: str = ""  # where the share of outcomes comes from, in words; empty where it is assumed

    def __post_init__(self) -> None:
        problems = []
        if not 0.001 <= self.within <= 0.4:
            problems.append(f"within: expected 0.001 to 0.4 of AUROC, got {self.within:g}")
        if self.repetitions < MIN_REPETITIONS:
            problems.append(
                f"repetitions: expected at least {MIN_REPETITIONS} made-up worlds, as fewer allow no verdict, "
                f"got {self.repetitions}"
            )
        if self.auroc is not None and not 0.5 < self.auroc < self.assumed.signal:
            problems.append(
                f"auroc: expected above 0.5 and below {self.assumed.signal:g}, which a perfect model is assumed to "
                f"reach, got {self.auroc:g}; ask for less, or assume a stronger signal"
            )
        if problems:
            raise ConfigError("worth", problems)

    @property
    def wish(self) -> str:
        """Return the wish in words."""
        return f"a loss of at most {self.within:g}" if self.auroc is None else f"AUROC {self.auroc:g}"

    def surely(self, auroc: Interval, loss: Interval) -> bool:
        """Return whether the whole interval meets the wish."""
        if self.auroc is not None:
            return auroc.low is not None and auroc.low >= self.auroc
        return loss.high is not None and loss.high <= self.within
