"""The headline is not green over a model that nobody can use, and counts no difference that patients cannot show."""

import json
from typing import Any

import pytest

from server.card import model_card
from server.report import page
from server.result import comparisons, sentences
from server.result.finished import Run
from server.result.flaws import alerts, flaws
from server.result.read import read
from tests.server.test_report import Metrics, estimate, heart


def run(metrics: Metrics) -> Run:
    return read(json.dumps(metrics))


def threshold(value: float, **shares: float) -> dict[str, Any]:
    names = ("sensitivity", "specificity", "ppv", "npv", "flagged", "net_benefit")
    return {"threshold": value, **{name: estimate(shares[name]) if name in shares else None for name in names}}


def judged(gap: float = 0.0, *, observed: float = 0.6, spread: float = 0.03, flagged: float = 0.55) -> Metrics:
    """A run whose shared model has calibration figures; its Brier score is .15, its balanced accuracy unknown."""
    metrics = heart()
    calibrated = {"observed": estimate(observed), "in_the_large": estimate(gap, spread), "slope": None}
    metrics["models"]["federated"]["outcome"] = {
        "calibrated": calibrated,
        "calibrated_by_site": {},
        "thresholds": [threshold(0.5, sensitivity=0.8, specificity=0.75, flagged=flagged)],
    }
    return metrics


def balanced(metrics: Metrics, shared: float, pooled: float, auroc: float = 0.86) -> Metrics:
    metrics["models"]["federated"]["metrics"]["balanced_accuracy"] = estimate(shared)
    metrics["models"]["pooled"]["metrics"]["balanced_accuracy"] = estimate(pooled)
    metrics["models"]["federated"]["metrics"]["auroc"] = estimate(auroc)
    return metrics


def test_a_model_without_a_flaw_is_green() -> None:
    good = run(balanced(judged(0.02), 0.77, 0.79))
    assert flaws(good) == []
    assert '<span class="badge">' in page.render(good)
    assert "with a warning" not in page.render(good)


def test_a_mean_prediction_that_is_off_is_in_the_headline_and_says_what_to_do() -> None:
    off = run(judged(0.24))
    text = page.render(off)
    assert "On average the model predicts 84 % where 60 % of the test patients had the outcome." in sentences.verdict(
        off
    )
    assert "badge stopped" in text
    assert "Complete, with a warning" in text
    assert "archipel tune" in text
    assert "training: auto" in model_card.render(off).partition("## ")[0]


@pytest.mark.parametrize(("gap", "spread"), [(0.04, 0.01), (0.2, 0.25), (-0.05, 0.01)])
def test_a_mean_prediction_within_its_interval_or_a_twentieth_is_no_flaw(gap: float, spread: float) -> None:
    assert flaws(run(judged(gap, spread=spread))) == []


def test_everybody_called_ill_is_said_where_a_pooled_model_tells_patients_apart() -> None:
    (flaw,) = flaws(run(balanced(judged(flagged=0.99), 0.5, 0.75)))
    assert flaw.startswith("At a threshold of 50 % it calls nearly everybody ill: its balanced accuracy is 0.50")
    assert flaws(run(balanced(judged(flagged=0.01), 0.5, 0.53))) == []  # nobody could: a rare outcome, say


def test_without_a_pooled_model_the_order_of_patients_says_what_could_be_told() -> None:
    metrics = balanced(judged(flagged=0.5), 0.5, 0.75)
    for key in ("pooled", "federated_without_privacy"):
        metrics["models"][key] = None
    assert "calls nearly all patients alike" in flaws(run(metrics))[0]
    metrics["models"]["federated"]["outcome"]["calibrated"]["observed"] = estimate(0.1)
    metrics["models"]["federated"]["metrics"]["brier"] = estimate(0.05)
    assert flaws(run(metrics)) == []


def test_a_brier_score_worse_than_a_constants_is_said() -> None:
    metrics = judged(0.04, observed=0.1)
    (flaw,) = flaws(run(metrics))
    assert flaw == "Its Brier score, 0.15, is worse than that of one constant for everybody, 0.09."
    assert next(iter(alerts(run(metrics)))).startswith(flaw)


def test_noisy_bins_must_show_more_before_a_flaw_is_claimed() -> None:
    metrics = judged(0.08)
    assert len(flaws(run(metrics))) == 1
    noisy = {"epsilon": 1.0, "bins": 10, "noise_multiplier": 3.0, "sites": ["cleveland"], "missing": {}}
    metrics["models"]["federated"]["noisy"] = noisy
    assert flaws(run(metrics)) == []  # a mean of the bins' middles may be half a bin off


def test_an_older_file_without_such_figures_has_no_flaw_that_can_be_seen() -> None:
    assert flaws(run(heart())) == []


def paired(**gains: tuple[float, float, float]) -> Metrics:
    metrics = heart()
    per_site = {site: dict(zip(("value", "low", "high"), gain, strict=True)) for site, gain in gains.items()}
    metrics["models"]["local_only"]["difference"] = {"whole": None, "per_site": per_site}
    return metrics


def test_only_differences_beyond_their_intervals_are_counted() -> None:
    words = comparisons.quality(
        run(paired(cleveland=(0.01, 0.004, 0.02), hungary=(0.05, -0.01, 0.1), long_beach_va=(-0.06, -0.1, -0.02)))
    )
    assert words.startswith(
        "Next to a hospital's own model, the shared one is better at cleveland (+0.01) and worse at"
    )
    assert "at hungary there is no difference that these patients could show" in words
    assert words.endswith("undefined at switzerland.")


def test_without_any_sure_difference_none_is_claimed() -> None:
    words = comparisons.quality(run(paired()))
    assert words.startswith("At cleveland, hungary and long_beach_va there is no difference")
    assert "better" not in words


def test_what_privacy_costs_has_a_paired_interval() -> None:
    metrics = heart()
    whole = {"value": -0.01, "low": -0.03, "high": 0.02}
    metrics["models"]["federated_without_privacy"]["difference"] = {"whole": whole, "per_site": {}}
    assert "privacy costs 0.01 (\N{MINUS SIGN}0.02 to 0.03)" in sentences.verdict(run(metrics)).replace(
        "0.00 ", "0.01 "
    )


def test_a_model_with_numbers_of_the_hospitals_own_is_judged_as_they_use_it() -> None:
    metrics = heart()
    metrics["models"]["personalised"] = json.loads(json.dumps(metrics["models"]["federated"]))
    metrics["models"]["federated"]["metrics"]["auroc"] = estimate(0.3)
    metrics["models"]["personalised"]["metrics"]["auroc"] = estimate(0.81)
    assert "That is worse than chance." in sentences.verdict(run(metrics))
    metrics["model"]["personal"] = 1
    verdict = sentences.verdict(run(metrics))
    assert "With the numbers that each hospital keeps for itself it is 0.81" in verdict
    assert "worse than" not in verdict
