"""audit.json: the result of a privacy audit, written by `archipel audit`.

>>> CheckResult(name="rate", p=0.4, words="", passed=True).passed
True
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from configs.records.fields import LATER


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One question of a part."""

    name: Annotated[str, "What was asked."]
    p: Annotated[float, "How often a healthy run looks at least so bad; 1 or 0 for an exact check."]
    words: Annotated[str, "What was found.", LATER]
    passed: Annotated[bool, "Whether a healthy run may well look so."]


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """One part of an audit."""

    part: Annotated[str, "The part's key: residual, sensitivity, sampler, ledger, canaries or counts."]
    title: Annotated[str, "The question that it asks."]
    verdict: Annotated[str, "passed, FAILED, or cannot say."]
    figure: Annotated[str, "Its figure in a few words."]
    words: Annotated[str, "What that means, or what failed."]
    checks: Annotated[tuple[CheckResult, ...], "Its checks."]
    drawing: Annotated[Mapping[str, Any], "Figures of its drawing in audit.html; each part has its own.", LATER]


@dataclass(frozen=True, kw_only=True)
class AuditedPlan:
    """The privacy plan of one hospital that was audited."""

    noise_multiplier: Annotated[float, "Noise multiplier."]
    sampling_rate: Annotated[float, "Sampling rate."]
    steps: Annotated[int, "Steps of the whole study."]
    epsilon: Annotated[float, "Epsilon of the whole study."]
    delta: Annotated[float, "Delta of the whole study."]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What the guarantee is about."""

    unit: Annotated[str, "Whom it is about."] = "patient"
    adjacency: Annotated[str, "Which data sets it does not tell apart."] = "add or remove one"


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """audit.json."""

    study: Annotated[str, "The study's name."]
    study_sha256: Annotated[str, "Digest of the study's canonical form."]
    verdict: Annotated[str, "FAILED if a part failed; passed if one at least did and none failed; else cannot say."]
    chance: Annotated[str, "Where the audit's own chance came from: operating system, or a seed."]
    false_alarms_at_most: Annotated[float, "Share of audits that accuse a healthy run, at most."]
    seconds: Annotated[float, "Duration in seconds."]
    guarantee: Annotated[Unit, "What the guarantee is about."]
    plans: Annotated[Mapping[str, AuditedPlan], "Hospital: its plan."]
    parts: Annotated[tuple[PartResult, ...], "The parts, in order."]
