"""What an audit finds: checks with p-values, parts with verdicts, and how often a healthy run is wrongly accused.

Every statistical check fails below one level, chosen so that all of them together accuse a healthy run less than once
in five thousand (Bonferroni). Exact checks have p = 1 or 0.

>>> part = Part.of("sampler", "Who is in a step", "rate 0.2", "as booked", [Check("rate", 0.4), Check("steps", 0.0)])
>>> part.verdict, [check.name for check in part.failed]
('FAILED', ['steps'])
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from scipy import stats

FALSE_ALARMS = 2e-4  # of a whole audit, at most
STATISTICAL_CHECKS = 100  # at most, in one audit (a test counts them)
LEVEL = FALSE_ALARMS / STATISTICAL_CHECKS
MISSED = 1e-3  # how often a fault of the size that an audit is planned for may be missed

Verdict = Literal["passed", "FAILED", "cannot say"]


@dataclass(frozen=True, slots=True)
class Check:
    """One question. `p` is how often a healthy run looks at least so bad; `words` say what was found."""

    name: str
    p: float
    words: str = ""

    @property
    def passed(self) -> bool:
        """Whether a healthy run may well look so. A p-value that is no number has failed."""
        return self.p >= LEVEL


def exact(name: str, holds: bool, words: str = "") -> Check:
    """Return a question without chance."""
    return Check(name, 1.0 if holds else 0.0, words)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the audit: its verdict, its figure in a few words, and what that means."""

    key: str
    title: str
    verdict: Verdict
    figure: str
    words: str
    checks: tuple[Check, ...]
    drawing: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        key: str,
        title: str,
        figure: str,
        words: str,
        checks: Sequence[Check],
        drawing: Mapping[str, Any] | None = None,
        cannot_say: str = "",
    ) -> "Part":
        """Return a part whose verdict follows from its checks.

        `cannot_say` is the reason why a pass would mean nothing.
        """
        failed = [check for check in checks if not check.passed]
        verdict: Verdict = "FAILED" if failed else "cannot say" if cannot_say else "passed"
        reasons = "; ".join(f"{check.name}: {check.words or 'not as booked'}" for check in failed)
        return cls(key, title, verdict, figure, reasons or cannot_say or words, tuple(checks), drawing or {})

    @property
    def failed(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if not check.passed]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for audit.json."""
        checks = [asdict(check) | {"passed": check.passed} for check in self.checks]
        return {
            "part": self.key,
            "title": self.title,
            "verdict": self.verdict,
            "figure": self.figure,
            "words": self.words,
            "checks": checks,
            "drawing": dict(self.drawing),
        }


def noise_values_needed(smallest_loss: float) -> int:
    """How many independent noise values show that the noise is smaller by this share, at LEVEL and MISSED.

    The mean of N squares has standard deviation sqrt(2 / N); a loss of 1 % takes 2 % of the variance.

    >>> 250_000 < noise_values_needed(0.01) < 350_000
    True
    """
    change = 1.0 - (1.0 - smallest_loss) ** 2
    return math.ceil(2.0 * (_reach() / change) ** 2)


def smallest_loss(noise_values: int) -> float:
    """Return the other way round: the smallest loss of noise that so many values show.

    >>> round(smallest_loss(noise_values_needed(0.01)), 4)
    0.01
    """
    change = min(1.0, math.sqrt(2.0 / noise_values) * _reach())
    return 1.0 - math.sqrt(1.0 - change)


def _reach() -> float:
    """Return the standard deviations between a healthy run's mean and the mean that is nearly always noticed."""
    return float(stats.norm.isf(LEVEL / 2) + stats.norm.isf(MISSED))


def two_sided(below: float, above: float) -> float:
    """Return the p-value of a figure that may be off to either side."""
    return min(1.0, 2.0 * min(below, above))
