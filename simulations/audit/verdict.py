"""The verdicts of an audit: checks with p-values, and parts.

They keep the chance that a healthy run is accused below a bound. Every statistical check fails below one level, chosen
so that all of them together accuse a healthy run less than once in five thousand (Bonferroni). Exact checks have p = 1
or 0.

>>> part = Part.of("sampler", "Who is in a step", "rate 0.2", "as booked", [Check("rate", 0.4), Check("steps", 0.0)])
>>> part.verdict, [check.name for check in part.failed]
('FAILED', ['steps'])
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from scipy import stats

from configs.records.audit import AuditedPlan, AuditResult, CheckResult, PartResult, Unit
from strategies.privacy.plan import PrivacyPlan

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
        """Return whether a healthy run may well look so. A p-value that is no number has failed."""
        return self.p >= LEVEL


def exact(name: str, words: str = "", *, holds: bool) -> Check:
    """Return the check of a question without chance."""
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
        """Return a part with the verdict that follows from its checks.

        `cannot_say` is the reason why a pass would mean nothing.
        """
        failed = [check for check in checks if not check.passed]
        verdict: Verdict = "FAILED" if failed else "cannot say" if cannot_say else "passed"
        reasons = "; ".join(f"{check.name}: {check.words or 'not as booked'}" for check in failed)
        return cls(key, title, verdict, figure, reasons or cannot_say or words, tuple(checks), drawing or {})

    @property
    def failed(self) -> list[Check]:
        """Return the checks that failed."""
        return [check for check in self.checks if not check.passed]

    @property
    def record(self) -> PartResult:
        """Return it as audit.json has it."""
        return PartResult(
            part=self.key,
            title=self.title,
            verdict=self.verdict,
            figure=self.figure,
            words=self.words,
            checks=tuple(CheckResult(name=c.name, p=c.p, words=c.words, passed=c.passed) for c in self.checks),
            drawing=self.drawing,
        )


@dataclass(frozen=True)
class Audit:
    """What an audit found. `seed` None: chance came from the operating system."""

    study: str
    study_sha256: str
    seed: int | None
    parts: tuple[Part, ...]
    plans: dict[str, PrivacyPlan] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """Return FAILED if a part failed; passed if one at least did and none failed."""
        verdicts = {part.verdict for part in self.parts}
        return "FAILED" if "FAILED" in verdicts else "passed" if "passed" in verdicts else "cannot say"

    @property
    def record(self) -> AuditResult:
        """Return it as audit.json has it."""
        return AuditResult(
            study=self.study,
            study_sha256=self.study_sha256,
            verdict=self.verdict,
            chance="operating system" if self.seed is None else f"seed {self.seed}",
            false_alarms_at_most=FALSE_ALARMS,
            seconds=round(self.seconds, 1),
            guarantee=Unit(),
            plans={site: _plan_record(plan) for site, plan in self.plans.items()},
            parts=tuple(part.record for part in self.parts),
        )


def _plan_record(plan: PrivacyPlan) -> AuditedPlan:
    return AuditedPlan(
        noise_multiplier=plan.noise_multiplier,
        sampling_rate=plan.sampling_rate,
        steps=plan.steps,
        epsilon=plan.epsilon(),
        delta=plan.delta,
    )


def noise_values_needed(smallest_loss: float) -> int:
    """Return how many independent noise values show that the noise is smaller by this share, at LEVEL and MISSED.

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
