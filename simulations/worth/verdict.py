"""The verdict in one sentence: worth it, not worth it, or undecided, with the reason.

A search for better settings that was cut off might still have found some. So it never ends in "not worth it": the
verdict then says what is known so far, and how many seconds would finish it.
"""

from dataclasses import dataclass

from simulations.worth.answer import AtEpsilon, Probabilities, Recommended
from simulations.worth.question import MIN_REPETITIONS, Question
from simulations.worth.synthetic import CALIBRATED
from simulations.worth.worlds import Interval

MATERIAL = 0.005  # AUROC by which staying alone must be better to be advised
EVERYBODY = 0.995  # a share of patients called ill that is everybody
NOT, UNSURE, YES = "not worth it", "cannot say", "worth it"


@dataclass(frozen=True, slots=True)
class Quality:
    """The figures of settings that a verdict judges.

    Args:
        above: what the model has over the largest hospital's own, which needs no privacy as it never leaves; None for
            one hospital.
    """

    auroc: Interval
    loss: Interval
    above: Interval | None
    probabilities: Probabilities | None = None


def verdict_of(
    question: Question,
    epsilon: float,
    repetitions: int,
    row: AtEpsilon | None,
    above: Interval | None,
    recommended: Recommended | None = None,
    cut_off: str = "",
) -> str:
    """Return the verdict.

    Args:
        row: the study at its own epsilon. above: as of `Quality`. recommended: whose verdict it is, where it is better.
        cut_off: how far the search for better settings came and what would finish it; empty where it ended by itself.
    """
    if repetitions < MIN_REPETITIONS or row is None:
        missing = f"{repetitions} made-up worlds were finished, {MIN_REPETITIONS} are needed"
        return f"{UNSURE}: {missing}; {cut_off or 'give more --seconds'}"
    where, end = "", f"; of it the noise costs {row.noise}, the rest is clipping"
    judged = Quality(row.auroc, row.loss, above, row.probabilities)
    if recommended is not None and recommended.better:
        better = recommended
        judged = Quality(better.auroc, better.loss, better.above_largest_alone, better.probabilities)
        where, end = " with the recommended settings", f"; with the study's own it costs {row.loss}"
    head, why = _judged(question, epsilon, judged)
    if cut_off and head != YES:
        so_far = where or " with the study's own settings"
        return f"{UNSURE} yet: {cut_off}; so far{so_far}, {why}{end}"
    return f"{head}{where}: {why}{end}"


def _judged(question: Question, epsilon: float, judged: Quality) -> tuple[str, str]:
    """Return the verdict in a few words, and the reason."""
    auroc, loss, above = judged.auroc, judged.loss, judged.above
    assert loss.low is not None
    assert auroc.low is not None
    assert auroc.high is not None
    cost = f"privacy at epsilon {epsilon:g} costs {loss} of AUROC"
    if question.auroc is not None and auroc.high < question.auroc:
        expected = f"AUROC {auroc} is expected at epsilon {epsilon:g}, below {question.auroc:g}"
        return NOT, f"{expected}; privacy costs {loss}"
    if question.auroc is None and loss.low > question.within:
        return NOT, f"{cost}, more than {question.within:g}"
    if above is not None and above.high is not None and above.high < -MATERIAL:
        alone = "the largest hospital alone, which sends nothing and needs no noise, is better"
        return NOT, f"{alone}; from there the federation gains {above}; {cost}"
    if flaw := flaw_of(judged.probabilities):
        return flaw[0], f"{flaw[1]}; {cost}"
    if not question.surely(auroc, loss):
        if question.auroc is None:
            return UNSURE, f"{cost}, about {question.within:g} (give more --repetitions)"
        return UNSURE, f"AUROC {auroc} lies about {question.auroc:g} (give more --repetitions); {cost}"
    wish = f"no more than {question.within:g}" if question.auroc is None else f"and AUROC {auroc} is reached"
    return YES, f"{cost}, {wish}"


def flaw_of(probabilities: Probabilities | None) -> tuple[str, str] | None:
    """Return what keeps probabilities from being of use whatever the AUROC, with the verdict that follows."""
    if probabilities is None:
        return None
    if probabilities.called >= EVERYBODY:
        return NOT, f"the model calls {probabilities.called:.1%} of patients ill, whoever they are"
    off = probabilities.off
    if off.mean <= CALIBRATED:
        return None
    text = f"the mean predicted probability is off by {off} (calibration-in-the-large)"
    if off.low is not None and off.low > CALIBRATED:
        return NOT, f"{text}, more than {CALIBRATED:g}"
    return UNSURE, f"{text}, about {CALIBRATED:g} (give more --repetitions)"
