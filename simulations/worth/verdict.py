"""The verdict in one sentence: worth it, not worth it, or undecided, with the reason."""

from simulations.worth.answer import AtEpsilon, Recommended
from simulations.worth.question import MIN_REPETITIONS, Question
from simulations.worth.worlds import Interval

MATERIAL = 0.005  # AUROC by which staying alone must be better to be advised


def verdict_of(
    question: Question,
    epsilon: float,
    repetitions: int,
    row: AtEpsilon | None,
    above: Interval | None,
    recommended: Recommended | None = None,
) -> str:
    """Return the verdict.

    Args:
        row: the study at its own epsilon. above: what its model has over the largest hospital's own, which needs no
            privacy as it never leaves; None for one hospital. recommended: whose verdict it is, where it is better.
    """
    if repetitions < MIN_REPETITIONS or row is None:
        return (
            f"cannot say: {repetitions} made-up worlds were finished, {MIN_REPETITIONS} are needed; give more --seconds"
        )
    if recommended is not None and recommended.better:
        better = recommended
        judgement = _judged(question, epsilon, better.auroc, better.loss, better.above_largest_alone)
        head, _, why = judgement.partition(": ")
        return f"{head} with the recommended settings: {why}; with the study's own it costs {row.loss}"
    judgement = _judged(question, epsilon, row.auroc, row.loss, above)
    return f"{judgement}; of it the noise costs {row.noise}, the rest is clipping"


def _judged(question: Question, epsilon: float, auroc: Interval, loss: Interval, above: Interval | None) -> str:
    assert loss.low is not None
    assert auroc.low is not None
    assert auroc.high is not None
    cost = f"privacy at epsilon {epsilon:g} costs {loss} of AUROC"
    if question.auroc is not None and auroc.high < question.auroc:
        return (
            f"not worth it: AUROC {auroc} is expected at epsilon {epsilon:g}, below {question.auroc:g}; privacy costs "
            f"{loss}"
        )
    if question.auroc is None and loss.low > question.within:
        return f"not worth it: {cost}, more than {question.within:g}"
    if above is not None and above.high is not None and above.high < -MATERIAL:
        return (
            "not worth it: the largest hospital alone, which sends nothing and needs no noise, is better; "
            f"from there the federation gains {above}; {cost}"
        )
    if not question.surely(auroc, loss):
        if question.auroc is None:
            return f"cannot say: {cost}, about {question.within:g} (give more --repetitions)"
        return f"cannot say: AUROC {auroc} lies about {question.auroc:g} (give more --repetitions); {cost}"
    wish = f"no more than {question.within:g}" if question.auroc is None else f"and AUROC {auroc} is reached"
    return f"worth it: {cost}, {wish}"
