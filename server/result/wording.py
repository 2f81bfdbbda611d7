"""Words of the report: numbers, names, sizes, the meaning of metrics and guarantees.

>>> hospitals(4), hospitals(1), size(26_980), share(0.052)
('four hospitals', 'one hospital', '27.0 kB', '5 %')
>>> interval(Estimate(0.8654, 0.821, 0.902))
'0.87 (0.82 to 0.90)'
"""

import math
from collections.abc import Sequence

from configs.records.estimate import Estimate
from configs.records.models import ComparedModel
from configs.records.result import Guarantee
from server.result.finished import Run, Site
from strategies.tasks.base import Objective
from strategies.tasks.metrics import Metric
from strategies.tasks.registry import OBJECTIVES

SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
UNTESTED = "undefined: the study keeps no test patients"
UNDEFINED_NOISY = "not released, or undefined: too few test patients for so much noise"
MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"  # in a table, where nothing is known
UNPROTECTED = (ComparedModel.LOCAL_ONLY, ComparedModel.POOLED, ComparedModel.PERSONALISED)  # shown without privacy
CERTAIN = 13.8  # exp of it is a million: beyond, a factor says nothing to anybody


def objective_of_run(run: Run) -> type[Objective] | None:
    """Return what the run's model was trained for; None where its task type is not registered here."""
    return next((kind for kind in OBJECTIVES if kind.name == run.task_type), None)


def metric_of(run: Run, name: str) -> Metric:
    """Return a metric of the run's task type, or of any other type; of an unknown name a plain one."""
    return metric_named(name, objective_of_run(run))


def metric_named(name: str, *first: type[Objective] | None) -> Metric:
    """Return a metric of these task types, or of any other type; of an unknown name a plain one."""
    kinds = [*(kind for kind in first if kind), *OBJECTIVES]
    metrics = [metric for kind in kinds for metric in kind.metrics if metric.name == name]
    label = capital(name.replace("_", " ")) or "Score"
    return metrics[0] if metrics else Metric(name, label, "", is_bounded=False)


def headline_of(run: Run) -> Metric:
    """Return the run's main metric."""
    return metric_of(run, run.metric)


def has_calibration(run: Run) -> bool:
    """Return whether the run's model gives one probability; it may where the run names no task type."""
    kind, model = objective_of_run(run), run.model(run.shared)
    drawn = model is not None and bool(model.calibration)
    return not run.task_type or drawn or (kind is not None and kind.outcome is not None)


def model_name(run: Run, key: str) -> str:
    """Return the model as the legend calls it; without privacy there is one shared model, simply `together`."""
    return "together" if not run.private and key == run.shared else ComparedModel(key).words


def series(run: Run) -> list[str]:
    """Return the models that a chart shows, the comparison with the hospitals alone first."""
    keys = [key for key in ComparedModel if run.model(key) is not None]
    return [key for key in keys if run.private or key == run.shared or key in UNPROTECTED]


def shared_first(run: Run) -> list[str]:
    """Return the models that a table shows, the one that the study is about first: a phone shows no more."""
    keys = series(run)
    return sorted(keys, key=lambda key: key != run.shared)


def figure(value: float, *, bounded: bool = True) -> str:
    """Return a figure as prose has it.

    >>> figure(0.8549), figure(12.345, bounded=False), figure(1234.6, bounded=False), figure(-0.001)
    ('0.85', '12.3', '1235', '0.00')
    """
    if bounded:
        return f"{value:.2f}".replace("-0.00", "0.00")
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) > 1e-9 else 2
    return f"{value:.{min(digits, 9)}f}" if abs(value) < 1e7 else f"{value:.3g}"


def signed(value: float, *, bounded: bool = True) -> str:
    """Return a difference, with a true minus sign.

    >>> signed(0.094), signed(-0.02) == "\N{MINUS SIGN}0.02"
    ('+0.09', True)
    """
    return f"{'+' if value > 0 else MINUS}{figure(abs(value), bounded=bounded)}"


def figure_of(value: float | None) -> str:
    """Return a ratio or a difference with two decimals, or three digits where these say too little or too much.

    >>> figure_of(1.7), figure_of(0.0213), figure_of(1234.5)
    ('1.70', '0.0213', '1.23e+03')
    """
    if value is None:
        return "undefined"
    return f"{value:.2f}" if 0.1 <= abs(value) < 100 or value == 0 else f"{value:.3g}"


def interval(estimate: Estimate | None, *, bounded: bool = True, unit: str = "") -> str:
    """Return a figure with its 95 % interval, or the word for none."""
    if estimate is None:
        return "undefined"
    text = f"{figure(estimate.value, bounded=bounded)}{f' {unit}' if unit else ''}"
    return f"{text} ({figure(estimate.low, bounded=bounded)} to {figure(estimate.high, bounded=bounded)})"


def main_interval(run: Run, estimate: Estimate | None) -> str:
    """Return the study's main metric with its interval and unit."""
    return interval(estimate, bounded=headline_of(run).is_bounded, unit=main_unit(run))


def main_unit(run: Run) -> str:
    """Return the unit of the main metric: the target's for an error, none for a rate."""
    return run.target_unit if headline_of(run).in_unit else ""


def undefined(run: Run) -> str:
    """Return words for why a hospital has no figure."""
    if run.noisy:
        return UNDEFINED_NOISY
    if run.untested:
        return UNTESTED
    return f"undefined: {headline_of(run).needs}"


def covered(run: Run) -> str:
    """Return what the guarantee is about, and what is not."""
    if run.noisy:
        cost = "" if run.noisy.epsilon is None else f", which cost epsilon {epsilon(run.noisy.epsilon)} of it"
        return f"The guarantee covers what training sends and the noisy histograms behind these figures{cost}."
    sent = "The guarantee covers what training sends"
    if (histogram_epsilon := run.privacy.evaluation_epsilon) is not None:
        sent += f" and the noisy histogram that the study asks for (epsilon {epsilon(histogram_epsilon)} by itself)"
    if run.unmeasured or run.untested:
        return f"{sent}."
    owner = ": who simulates has the data" if run.simulated else ""
    return f"{sent}. The figures here come from test patients and carry no noise{owner}."


def number_word(count: int) -> str:
    """Return a number as text, small ones in letters."""
    return SMALL[count] if 0 <= count < len(SMALL) else f"{count:,}"


def plural(count: int, noun: str) -> str:
    """Return a number in figures with its noun.

    >>> plural(1, "patient"), plural(1200, "patient")
    ('1 patient', '1,200 patients')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def hospitals(count: int) -> str:
    """Return a number of hospitals in letters."""
    return f"{number_word(count)} hospital{'' if count == 1 else 's'}"


def some(count: int, of: int) -> str:
    """Return some hospitals of a study, or simply their number where it is all of them.

    >>> some(2, 3), some(3, 3), some(1, 2), some(1, 1)
    ('two of three hospitals', 'three hospitals', 'one of two hospitals', 'one hospital')
    """
    return hospitals(count) if count == of else f"{number_word(count)} of {hospitals(of)}"


def every(count: int) -> str:
    """Return words for all hospitals of a study, at the beginning of a sentence.

    >>> every(1), every(2), every(5)
    ('The hospital', 'Both hospitals', 'All five hospitals')
    """
    return {1: "The hospital", 2: "Both hospitals"}.get(count, f"All {hospitals(count)}")


def listed(names: Sequence[str], of: int = 0, most: int = 3) -> str:
    """Return names as part of a sentence; their number where they are many, and "all" where they are all.

    >>> listed(["a", "b", "c"]), listed(["a"] * 5), listed(["a"] * 5, of=5)
    ('a, b and c', 'five hospitals', 'all five hospitals')
    """
    if len(names) > most:
        return f"{'all ' if len(names) == of else ''}{hospitals(len(names))}"
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def enumerated(names: Sequence[str], most: int = 10) -> str:
    """Return names as part of a sentence, and how many more there are.

    >>> enumerated(["a", "b"]), enumerated(["a", "b", "c", "d"], most=2)
    ('a and b', 'a, b and 2 more')
    """
    shown = [*names[:most], *([f"{len(names) - most:,} more"] if len(names) > most else [])]
    return " and ".join(part for part in (", ".join(shown[:-1]), *shown[-1:]) if part)


def size(count: float) -> str:
    """Return a number of bytes as text, in decimal units."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def share(value: float) -> str:
    """Return a share in per cent."""
    return f"{100 * value:.0f} %"


def duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> duration(4.46), duration(200), duration(90_000)
    ('4.5 s', '3 min 20 s', '25 h')
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds / 3600:,.0f} h"


def capital(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def cut(text: str, most: int) -> str:
    """Return the text, shortened in the middle where a chart has no room: names often differ at their ends.

    >>> cut("centre-hospitalier-universitaire-de-lille", 21)
    'centre-hos…e-de-lille'
    """
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2) :]}"


def count(value: int | None) -> str:
    """Return a whole number, or a dash."""
    return NONE if value is None else f"{value:,}"


def short(value: float | None) -> str:
    """Return a value with three digits, or a dash."""
    return NONE if value is None else f"{value:.3g}"


def epsilon(value: float | None) -> str:
    """Return epsilon with two decimals, an accountant's accuracy."""
    return NONE if value is None else f"{value:,.2f}" if abs(value) < 1e6 else f"{value:.3g}"


def small(value: float | None) -> str:
    """Return a small probability in the form of the study file."""
    return NONE if value is None else f"{value:g}"


def one_in(value: float) -> str:
    """Return a small probability as odds.

    >>> one_in(1e-5)
    '1 in 100,000'
    """
    return f"1 in {1 / value:,.0f}" if value > 1e-15 else "nil"


def guarantee(privacy: Guarantee) -> str:
    """Return the guarantee, precisely."""
    pair = f"(epsilon = {small(privacy.epsilon)}, delta = {small(privacy.delta)})"
    return f"{pair} per {privacy.unit}, {privacy.adjacency}, {privacy.where}, for the whole study"


def guarantee_in_plain_words(privacy: Guarantee) -> str:
    """Return what the two numbers bound (Dwork and Roth 2014, definition 2.4)."""
    if privacy.epsilon is None:
        return "The study states no epsilon."
    factor = (
        f"{math.exp(privacy.epsilon):,.2g}"
        if privacy.epsilon < 4.6
        else f"{math.exp(min(privacy.epsilon, CERTAIN)):,.0f}"
    )
    factor = "more than a million" if privacy.epsilon > CERTAIN else factor
    rest = f", apart from a probability of {one_in(privacy.delta)}" if privacy.delta else ""
    learned = privacy.where if privacy.limits else "from what the hospital sends"
    limits = f" {privacy.limits}." if privacy.limits else ""
    return (
        f"Add or take away any one {privacy.unit}: the chance of whatever could be learned {learned} "
        f"changes at most by a factor of {factor}{rest}.{limits}"
    )


PLAN = ("Hospital", "Training patients", "Noise multiplier", "Sampling rate", "Steps", "Epsilon spent", "Delta")


def plan_of(site: Site) -> list[str]:
    """Return a hospital's cells below PLAN, but for its name."""
    return [
        count(site.patients_train),
        short(site.noise_multiplier),
        short(site.sampling_rate),
        count(site.steps),
        epsilon(site.epsilon),
        small(site.delta),
    ]
