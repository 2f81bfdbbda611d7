"""The report's sentences for a study of statistics.

They give counts and shares with intervals, and a sentence for each chart.
"""

from configs.records.estimate import Estimate
from configs.records.result import PatientCounts, ReleasedStatistics
from server.result.finished import Run
from server.result.wording import (
    NONE,
    capital,
    hospitals,
    listed,
    number_word,
    share,
)
from strategies.releases.column_figures import hidden_below

Rows = dict[str, PatientCounts]  # hospital, or all together
ALL = "all together"
HIDDEN = "hidden by the noise"


def verdict(run: Run) -> str:
    """Return the whole report in one sentence."""
    released = run.statistics
    if released is None:
        return "The study ended without enough hospitals; there are no statistics to show."
    who = capital(hospitals(len(released.sites)))
    counted = f"{who} count about {count_range(released.together.patients)} patients"
    return f"{counted}{_of_them(run, released, released.together.outcome)}."


def _of_them(run: Run, statistics: ReleasedStatistics, outcome: Estimate | None) -> str:
    if not statistics.outcome:
        return ""
    name = outcome_name(run, statistics)
    return f"; how many have {name}, the noise hides" if outcome is None else f"; {share_range(outcome)} have {name}"


def outcome_name(run: Run, statistics: ReleasedStatistics) -> str:
    """Return the outcome that shares are given of, as the study has it."""
    return f"{run.target} = {statistics.outcome}"


def key_figures(run: Run) -> list[tuple[str, str, str]]:
    """Return the headline: how many patients, and how many of them have the outcome."""
    statistics = run.statistics
    if statistics is None:
        return [("Hospitals", f"{len(run.sites):,}", ""), ("Statistics", NONE, "none were released")]
    patients = statistics.together.patients
    first = ("Patients, about", f"{patients.value:,.0f}", f"{_range(patients)}, 95 % interval")
    if not statistics.outcome:
        return [first, ("Columns", f"{len(statistics.columns):,}", f"at {hospitals(len(statistics.sites))}")]
    outcome, name = statistics.together.outcome, outcome_name(run, statistics)
    if outcome is None:
        return [first, (name, NONE, HIDDEN)]
    spread = f"{_shares(outcome)}, 95 % interval"
    return [first, (name, share(outcome.value), spread)]


def count_range(estimate: Estimate) -> str:
    """Return a number of patients with its interval."""
    return f"{estimate.value:,.0f} ({_range(estimate)})"


def _range(estimate: Estimate) -> str:
    return f"{estimate.low:,.0f} to {estimate.high:,.0f}"


def share_range(estimate: Estimate | None) -> str:
    """Return a share with its interval, or that the noise hides it."""
    return HIDDEN if estimate is None else f"{share(estimate.value)} ({_shares(estimate)})"


def _shares(estimate: Estimate) -> str:
    return f"{100 * estimate.low:.0f} to {share(estimate.high)}"


def share_cell(estimate: Estimate | None) -> str:
    """Return a share for a table, where there is little room."""
    return "hidden" if estimate is None else share_range(estimate)


def rows_of(run: Run) -> Rows:
    """Return all together, then the hospitals from the most patients to the fewest."""
    statistics = run.statistics
    if statistics is None:
        return {}
    sites = sorted(statistics.sites.items(), key=lambda item: (-item[1].patients.value, item[0]))
    return {ALL: statistics.together, **dict(sites)} if len(sites) > 1 else dict(sites)


def patients(run: Run) -> str:
    """Return a sentence on the hospitals that are too small to be shown."""
    released = run.statistics
    if released is None:
        return "No statistics were released to the study."
    announced = {site.name: site.patients_announced for site in run.sites}
    limit = hidden_below(released.noise)  # as the plan has it, so that both say the same of a hospital
    hidden = [name for name, f in released.sites.items() if (announced.get(name) or f.patients.value) <= limit]
    if not hidden:
        where = "the hospital" if len(released.sites) == 1 else "every hospital"
        return f"At {where}, patients are seen through the noise."
    return f"Too small to be seen through so much noise: {listed(hidden, of=len(released.sites))}."


def is_hidden(figures: PatientCounts) -> bool:
    """Say whether there is no share to draw."""
    return all(share is None for counts in figures.columns.values() for share in counts.shares)


def spread(run: Run) -> str:
    """Say in which columns hospitals surely differ."""
    statistics = run.statistics
    if statistics is None:
        return "There is nothing to show."
    apart = statistics.differing
    if len(statistics.sites) < 2:
        return f"{capital(number_word(len(statistics.columns)))} columns, each with the patients of whom it is unknown."
    if not apart:
        return "No two hospitals surely differ in any column: what differs may be noise."
    names = f"{len(apart):,} of {len(statistics.columns):,} columns" if len(apart) > 3 else listed(apart)
    return f"Hospitals surely differ in {names}; elsewhere what differs may be noise."


def unknown(run: Run) -> str:
    """Say of which column most is unknown."""
    statistics = run.statistics
    shares = (
        {}
        if statistics is None
        else {c.name: statistics.together.columns[c.name].shares[-1] for c in statistics.columns}
    )
    public = {name: share for name, share in shares.items() if share is not None}
    if not public:
        return "The noise hides how much is unknown."
    name = max(public, key=lambda name: public[name].value)
    return f"Most is unknown of {name}: {share_range(public[name])} of all patients."
