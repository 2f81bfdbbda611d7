"""Flaws that make a model's good discrimination useless: they are said before any figure.

Three of a model that gives the probability of one outcome: on average it predicts another share than was observed; it
calls everybody, or nobody, ill where a pooled model tells patients apart; its Brier score is worse than a constant's.
"""

from collections.abc import Iterator

from configs.records.estimate import Estimate
from configs.records.models import ComparedModel
from configs.records.outcome import AtThreshold
from server.result.finished import Model, Run
from server.result.wording import figure, share

OFF = 0.05  # of the mean prediction: less is no flaw, however sure
GONE = 0.55  # balanced accuracy: a coin reaches one half
REMEDY = "Do not use its probabilities: train again with “training: auto”, or look for settings with “archipel tune”."


def flaws(run: Run) -> list[str]:
    """Return each flaw of the shared model in a sentence; nothing where none can be seen."""
    model = used(run)
    if model is None or model.outcome is None:
        return []
    return [flaw for flaw in (_off(model), _same_for_all(run, model), _worse_than_a_constant(model)) if flaw]


def used(run: Run) -> Model | None:
    """Return the model as the study's hospitals use it: with the numbers that each has of its own."""
    return (run.model(ComparedModel.PERSONALISED) if run.personal else None) or run.model(run.shared)


def alerts(run: Run) -> Iterator[str]:
    """Yield the flaws and what to do, as one alert."""
    if sentences := flaws(run):
        yield " ".join([*sentences, REMEDY])


def _off(model: Model) -> str:
    """Return whether the mean prediction is off by more than its interval, and by more than OFF."""
    assert model.outcome is not None
    gap, observed = model.outcome.calibrated.in_the_large, model.outcome.calibrated.observed
    if gap is None or observed is None or gap.low <= 0 <= gap.high or abs(gap.value) <= OFF + _of_bins(model):
        return ""
    said = share(observed.value + gap.value)
    return f"On average the model predicts {said} where {share(observed.value)} of the test patients had the outcome."


def _of_bins(model: Model) -> float:
    """Return by how much a mean of bins' middles may differ from that of the predictions: half a bin."""
    return 0.5 / model.noisy.bins if model.noisy and model.noisy.bins else 0.0


def _same_for_all(run: Run, model: Model) -> str:
    """Return whether the model tells patients no longer apart at one half, where another model does."""
    accuracy = balanced(model)
    if accuracy is None or accuracy > GONE or not _could_tell(run, model):
        return ""
    entry = _at_one_half(model)
    flagged = entry.flagged.value if entry and entry.flagged else None
    calls = "it calls nearly all patients alike"
    if flagged is not None and (flagged > 0.9 or flagged < 0.1):
        calls = f"it calls {'nearly everybody' if flagged > 0.9 else 'nearly nobody'} ill"
    return f"At a threshold of 50 % {calls}: its balanced accuracy is {figure(accuracy)}, and 0.50 is chance."


def _could_tell(run: Run, model: Model) -> bool:
    """Return whether these patients can be told apart at one half: another model does, or the order is good."""
    others = [run.model(key) for key in (ComparedModel.POOLED, ComparedModel.WITHOUT_PRIVACY) if key != run.shared]
    accuracies = [accuracy for other in others if other and (accuracy := balanced(other)) is not None]
    if accuracies:
        return max(accuracies) > GONE
    share_ill = model.outcome.calibrated.observed if model.outcome else None
    common = share_ill is not None and 0.25 < share_ill.value < 0.75  # of a rare outcome nobody is above one half
    return common and model.auroc is not None and model.auroc.low > GONE


def balanced(model: Model) -> float | None:
    """Return the balanced accuracy, from noisy shares where hospitals released no other figure."""
    if exact := model.metrics.get("balanced_accuracy"):
        return exact.value
    entry = _at_one_half(model)
    if entry is None or entry.sensitivity is None or entry.specificity is None:
        return None
    return (entry.sensitivity.value + entry.specificity.value) / 2


def _at_one_half(model: Model) -> AtThreshold | None:
    entries = model.outcome.thresholds if model.outcome else ()
    return next((entry for entry in entries if entry.threshold == 0.5), None)


def _worse_than_a_constant(model: Model) -> str:
    """Return whether the Brier score is worse than that of predicting the observed share for everybody."""
    brier, constant = model.metrics.get("brier"), constant_brier(model)
    if brier is None or constant is None or (brier.low if model.noisy else brier.value) <= constant:
        return ""
    return (
        f"Its Brier score, {figure(brier.value)}, is worse than that of one constant for everybody, {figure(constant)}."
    )


def constant_brier(model: Model) -> float | None:
    """Return the Brier score of the observed share as everybody's prediction."""
    observed: Estimate | None = model.outcome.calibrated.observed if model.outcome else None
    return None if observed is None else observed.value * (1 - observed.value)
