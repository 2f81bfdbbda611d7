"""Sentences that compare the shared model with each hospital's own.

A difference counts only beyond its interval: that of paired resamples of the same patients where the run has it, else
where each of the two figures lies outside the other's interval.
"""

from configs.records.estimate import Estimate
from configs.records.models import ComparedModel
from server.result.finished import Model, Run
from server.result.wording import headline_of, listed, main_interval, signed

BETTER, WORSE, SAME, UNDEFINED = "better", "worse", "same", "undefined"


def quality(run: Run) -> str:
    """Return which hospitals gain and which lose by the shared model."""
    shared, alone = run.model(run.shared), run.model(ComparedModel.LOCAL_ONLY)
    if shared is None:
        return "The run recorded no figures of its model."
    if alone is None or len(run.sites) < 2:
        return f"The shared model reaches {main_interval(run, shared.main)} over all test patients."
    kinds = against_alone(run, shared, alone)
    parts = [f"{word} at {listed(kinds[word], of=len(run.sites))}" for word in (BETTER, WORSE) if kinds[word]]
    sentences = [f"Next to a hospital's own model, the shared one is {' and '.join(parts)}"] if parts else []
    if kinds[SAME]:
        where = listed(kinds[SAME], of=len(run.sites))
        sentences.append(f"at {where} there is no difference that these patients could show")
    if kinds[UNDEFINED]:
        sentences.append(f"undefined at {listed(kinds[UNDEFINED], of=len(run.sites))}")
    text = "; ".join(sentences)
    return f"{text[:1].upper()}{text[1:]}."


def against_alone(run: Run, shared: Model, alone: Model) -> dict[str, list[str]]:
    """Return the hospitals by how the shared model scores against their own."""
    kinds: dict[str, list[str]] = {BETTER: [], WORSE: [], SAME: [], UNDEFINED: []}
    meant = headline_of(run)
    for site in run.sites:
        local, common = alone.per_site.get(site.name), shared.per_site.get(site.name)
        if local is None or common is None:
            kinds[UNDEFINED].append(site.name)
        else:
            gain = _gain(alone, site.name, local, common)
            kind = SAME if gain is None else BETTER if (gain > 0) != meant.lower_is_better else WORSE
            grown = "" if gain is None else f" ({signed(gain, bounded=meant.is_bounded)})"
            kinds[kind].append(f"{site.name}{grown}")
    return kinds


def _gain(alone: Model, site: str, local: Estimate, common: Estimate) -> float | None:
    """Return the difference, None where it is within its interval."""
    paired = alone.difference.per_site.get(site) if alone.difference else None
    if paired is not None:
        return None if paired.low <= 0 <= paired.high else paired.value
    inside = local.low <= common.value <= local.high or common.low <= local.value <= common.high
    return None if inside else common.value - local.value
