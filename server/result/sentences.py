"""The sentence above each chart, computed from the run.

>>> from server.result.read import read
>>> run = read('{"study": "heart", "study_sha256": "", "outcome": "INCOMPLETE", "rounds_completed": 0}')
>>> verdict(run)
'The study stopped before its first round ended; there is no model to judge.'
>>> rounds(run)
'The run did not record who contributed.'
"""

from collections.abc import Iterator, Mapping, Sequence

from configs.records.estimate import Judgement
from configs.records.models import ComparedModel
from configs.records.result import Bin
from server.result.finished import Points, Run
from server.result.flaws import flaws, used
from server.result.wording import (
    MINUS,
    capital,
    enumerated,
    epsilon,
    every,
    figure,
    headline_of,
    hospitals,
    listed,
    main_interval,
    main_unit,
    number_word,
    objective_of_run,
    plural,
    share,
    size,
    some,
)

SETTLED = 0.01
FEW = 3  # hospitals that a sentence can name
ENOUGH = 10  # patients in a bin that is worth a sentence
NAMES = ("Brier", "Dice", "Poisson")  # of people, in the labels of metrics


def verdict(run: Run) -> str:
    """Return the whole report in one sentence, or two where the study did not end."""
    if run.complete:
        return _result(run)
    if not run.rounds_completed:
        return "The study stopped before its first round ended; there is no model to judge."
    stopped = f"The study stopped after {run.rounds_completed} of {run.rounds_planned} rounds"
    return f"{stopped}: these figures describe an unfinished model, not a result."


def _result(run: Run) -> str:
    together = run.model(run.shared)
    if run.unmeasured:
        judgements = [result.verdict() for result in run.releases.values() if isinstance(result, Judgement)]
        return " ".join([f"{_trained(run)}.", *(judgements or ["How good it is was not measured: no metric left."])])
    if run.untested:
        return f"{_trained(run)}; how good it is was not measured: the study keeps no test patients."
    if together is None:
        return f"{_trained(run)}. How good it is was not measured yet: archipel simulate --resume does that."
    if together.main is None:
        where = "so few test patients for so much noise" if run.noisy else "these test patients"
        return f"{_trained(run)}; its quality is undefined on {where}."
    label = headline_of(run).label
    if not label.isupper():
        first = label.split()[0]
        lowered = label if first in NAMES else label[:1].lower() + label[1:]
        label = f"an {label} of" if first.isupper() else f"a {lowered} of"
    alone = len(run.contributors) == 1
    who = f"{capital(contributors(run))} reaches" if alone else f"Together, {contributors(run)} reach"
    reached = "; ".join([f"{who} {label} {main_interval(run, together.main)}", *_comparisons(run)])
    return " ".join([f"{reached}.{_at_home(run)}{_worse(run)}", *flaws(run)[:1]])


def _at_home(run: Run) -> str:
    """Return the figure with the numbers that each hospital has of its own, where the shared model lacks them."""
    model = used(run)
    if not run.personal or model is None or model.main is None or model == run.model(run.shared):
        return ""
    return f" With the numbers that each hospital keeps for itself it is {main_interval(run, model.main)}."


def _worse(run: Run) -> str:
    """Return whether the model, as hospitals use it, is worse than what needs no model."""
    model = used(run)
    if model is None or model.main is None:
        return ""
    kind, measure = objective_of_run(run), headline_of(run)
    if kind is not None and model.guess is not None and measure.is_worse(model.guess, model.main.value):
        guess = f"{figure(model.guess, bounded=False)} {main_unit(run)}".strip()
        return f" That is worse than predicting {kind.guess_in_words} ({guess})."
    if measure.chance is None:
        return ""
    if model.main.low == model.main.high == measure.chance:
        return " It predicts the same for every patient."
    return " That is worse than chance." if measure.is_worse(measure.chance, model.main.value) else ""


def contributors(run: Run) -> str:
    """Return words for how many hospitals are part of the result, and of how many where some are not."""
    return some(len(run.contributors), len(run.sites))


def _trained(run: Run) -> str:
    if len(run.contributors) == 1:
        return f"{capital(contributors(run))} trained a model"
    return f"Together, {contributors(run)} trained one model"


def away(run: Run) -> list[str]:
    """Say of each hospital that is no part of the result why, of many hospitals with one reason in one sentence."""
    by_reason: dict[str, list[str]] = {}
    for site, why in run.away.items():
        by_reason.setdefault(why or "why was not recorded", []).append(site)
    what = "released nothing" if not run.trains else "is no part of the result"
    several = "released nothing" if not run.trains else "are no part of the result"
    return [
        f"{enumerated(sites)} {what if len(sites) == 1 else several}: {why.rstrip('.')}."
        for why, sites in by_reason.items()
    ]


def _comparisons(run: Run) -> Iterator[str]:
    bounded = headline_of(run).is_bounded
    alone, pooled = run.model(ComparedModel.LOCAL_ONLY), run.model(ComparedModel.POOLED)
    if alone and alone.main and len(run.sites) > 1:
        yield f"alone, they average {figure(alone.main.value, bounded=bounded)} on the same patients"
    elif pooled and pooled.main and len(run.sites) > 1:
        yield f"with all data in one place, {figure(pooled.main.value, bounded=bounded)}"
    cost = privacy_cost(run)
    if cost is not None:
        yield f"privacy costs {_amount(run, cost)}{_cost_interval(run, cost)}"


def privacy_cost(run: Run) -> float | None:
    """Return how much worse the main metric is with privacy than without; negative where it is better."""
    plain, protected = run.model(ComparedModel.WITHOUT_PRIVACY), run.model(ComparedModel.FEDERATED)
    if not (run.private and plain and plain.main and protected and protected.main):
        return None
    loss = plain.main.value - protected.main.value
    return -loss if headline_of(run).lower_is_better else loss


def _cost_interval(run: Run, cost: float) -> str:
    """Return the paired interval of what privacy costs, where the run has it and the cost is said as a number."""
    plain = run.model(ComparedModel.WITHOUT_PRIVACY)
    paired = plain.difference.whole if plain and plain.difference else None
    if paired is None or cost <= 0 or not headline_of(run).is_bounded:
        return ""
    low, high = sorted((paired.low, paired.high) if headline_of(run).lower_is_better else (-paired.low, -paired.high))
    return f" ({figure(low).replace('-', MINUS)} to {figure(high).replace('-', MINUS)})"


def _amount(run: Run, cost: float) -> str:
    if cost <= 0:
        return "nothing that can be measured here"
    if not headline_of(run).is_bounded:
        return f"{cost:.2g} {main_unit(run)}".strip()
    return "less than 0.01" if cost < 0.005 else figure(cost)


def convergence(run: Run) -> str:
    """Return a sentence on the round from which the shared model was as good as it became."""
    points = run.convergence.get(run.shared, ())
    if not points:
        return "The run recorded no curve."
    first, last = points[0], points[-1]
    bounded = headline_of(run).is_bounded
    tolerance = SETTLED if bounded else SETTLED * abs(last[1])
    settled = _settled(points, tolerance)
    end = figure(last[1], bounded=bounded)
    if len(points) == 1:
        return f"One round was measured: {end}."
    if settled == last[0]:
        began = figure(first[1], bounded=bounded)
        return f"The model was still changing in its last round: it began at {began}, ended at {end}."
    since = "its first round" if settled == first[0] else f"round {settled} of {run.rounds_planned}"
    return f"From {since} on, the shared model stays within {'0.01' if bounded else '1 %'} of its last figure, {end}."


def _settled(points: Points, tolerance: float) -> int:
    """Return the first round from which on the curve stays near its end."""
    settled = points[-1][0]
    for number, value in reversed(points):
        if abs(value - points[-1][1]) > tolerance:
            break
        settled = number
    return settled


def calibration(run: Run) -> str:
    """Return a sentence on whether predicted probabilities can be read as shares of patients."""
    model = run.model(run.shared)
    bins = [group for group in model.calibration if group.count] if model else []
    if not bins:
        return "The run recorded no calibration."
    patients = sum(group.count for group in bins)
    gap = sum(group.count * abs(group.predicted - group.observed) for group in bins) / patients
    worst = max((b for b in bins if b.count >= min(ENOUGH, patients)), key=_gap, default=max(bins, key=_gap))
    return (
        f"Predicted and observed shares differ by {100 * gap:.0f} percentage points on average; "
        f"most where the model says {share(worst.predicted)}: there {share(worst.observed)} "
        f"of {'about ' * bool(run.noisy)}{plural(worst.count, 'patient')} had the outcome."
    )


def _gap(group: Bin) -> float:
    return abs(group.predicted - group.observed)


def privacy(run: Run) -> str:
    """Return what was spent of what was allowed."""
    spent = [site.epsilon for site in run.sites if site.epsilon is not None]
    if not run.private:
        return "No differential privacy: what the hospitals sent may tell facts about single patients."
    if not spent or run.privacy.epsilon is None:
        return "The run recorded no spending of privacy."
    over = overspent(run)
    if over:
        return f"More privacy was spent than the study allows, by {listed(over)}: the stated guarantee does not hold."
    rounds = plural(run.rounds_completed, "round") if run.trains else "their one release"
    spender = "the hospital has spent" if len(run.sites) == 1 else "one hospital has spent"
    who = spender if len(spent) == 1 else "each hospital has spent at most"
    allowed = epsilon(run.privacy.epsilon)
    cost = f"epsilon {epsilon(max(spent))} per {run.privacy.unit}"
    return f"After {rounds}, {who} {cost}, of the {allowed} that the study allows."


def overspent(run: Run) -> list[str]:
    """Return the hospitals that spent more than the study allows; there the stated guarantee does not hold."""
    allowed = run.privacy.epsilon
    if not run.private or allowed is None:
        return []
    return [site.name for site in run.sites if site.epsilon is not None and site.epsilon > allowed * (1 + 1e-6)]


def left(run: Run) -> str:
    """Return a sentence on how many bytes left, and of which kinds of message."""
    sent, messages = run.total("bytes_sent"), run.total("messages_sent")
    if sent is None:
        return "The run did not record what left."
    count = f" in {plural(messages, 'message')}" if messages is not None else ""
    kinds = [kind.what for kind in run.left]
    those = f", of {number_word(len(kinds))} kind{'' if len(kinds) == 1 else 's'}" if kinds else ""
    return f"{_senders(run)} sent {size(sent)}{count}{those}."


def _senders(run: Run) -> str:
    senders, of = sum(bool(site.bytes_sent) for site in run.sites), len(run.sites)
    if senders < of:
        return capital(some(senders, of)) + (" together" if senders > 1 else "")
    return every(of) + (" together" if of > 1 else "")


def rounds(run: Run) -> str:
    """Return a sentence on the hospitals' attendance."""
    if not run.rounds:
        return "The run did not record who contributed."
    names = [site.name for site in run.sites]
    absent = {name: sum(name not in r.contributed for r in run.rounds) for name in names}
    missed = [name for name, count in absent.items() if count]
    if not missed:
        which = "the one round" if len(run.rounds) == 1 else f"all {len(run.rounds):,} rounds"
        return f"{every(len(names))} contributed to {which}."
    present = len(names) - len(missed)
    rest = f"{hospitals(present)} contributed to all" if present else "none contributed to all"
    return f"Of {plural(len(run.rounds), 'round')}, {_missed(missed, absent)}; {rest}.{_fewest(run)}"


def _fewest(run: Run) -> str:
    """Return words for the round with the fewest hospitals, where rounds differ."""
    names = {site.name for site in run.sites}
    sizes = {r.round: len(r.contributed.keys() & names) for r in run.rounds}
    fewest = min(sizes.values())
    if fewest == max(sizes.values()):
        return ""
    first, *more = [number for number, size in sizes.items() if size == fewest]
    others = f" and {plural(len(more), 'other')}" if more else ""
    return f" The fewest, {some(fewest, len(names))}, contributed to round {first:,}{others}."


def _missed(names: Sequence[str], absent: Mapping[str, int]) -> str:
    """Return a few hospitals with how many rounds each missed; of many, the one that missed most."""
    if len(names) <= FEW:
        return listed([f"{name} missed {absent[name]:,}" for name in names])
    most = max(names, key=absent.__getitem__)
    return f"{hospitals(len(names))} missed some, most of all {most} with {absent[most]:,}"
