"""Statistics of patients: what is counted, what one patient moves, what noise is on it, what follows from it."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from configs.errors import WireError
from configs.schema import Study
from strategies.data.cells import places
from strategies.data.columns import Histogram, cells_of, layout_of
from strategies.data.source import Table
from strategies.privacy.modes.registry import statistics_plan
from strategies.privacy.randomness import Randomness
from strategies.releases.column_figures import consistent, differing, not_negative, statistics
from strategies.releases.noisy_counts import cell_variance, noised
from strategies.releases.statistics import counts, require_plausible, standard_deviation
from tests.builders import counting

STUDY = counting()  # age in 5 bins, sex, disease; each with its unknown
LAYOUT = layout_of(STUDY)
SIGMA = 6.0
VARIANCE = cell_variance(SIGMA)
Row = tuple[float, int, int]  # age or NaN, sex or -1, disease or -1
Floats = NDArray[np.float64]


def table(people: Sequence[Sequence[Row]], order: Sequence[int] | None = None) -> Table:
    """A hospital whose patients have these rows."""
    rows = [(row, owner) for owner, own in enumerate(people) for row in own]
    rows = [rows[n] for n in order] if order is not None else rows
    age, sex, disease = (np.array([row[n] for row, _ in rows], float) for n in range(3))
    owners = np.array([owner for _, owner in rows], np.int64)
    keys = tuple(map(str, range(len(people))))
    return Table({"age": age}, {"sex": sex.astype(np.int64)}, {"disease": disease}, owners, keys)


def counted(people: Sequence[Sequence[Row]], study: Study = STUDY) -> Floats:
    return counts(places(table(people), study).cells, layout_of(study))


def cells(vector: Floats, name: str) -> list[float]:
    """The counts of one column."""
    start = 0
    for histogram in LAYOUT:
        if histogram.column.name == name:
            return [float(count) for count in vector[start : start + histogram.cells]]
        start += histogram.cells
    raise KeyError(name)


# What is counted


def test_every_column_and_the_target_have_their_values_or_bins_and_the_unknown() -> None:
    assert [h.column.name for h in LAYOUT] == ["age", "sex", "disease"]
    assert [h.labels for h in LAYOUT] == [
        ("20 to 34", "34 to 48", "48 to 62", "62 to 76", "76 to 90", "unknown"),
        ("female", "male", "unknown"),
        ("0", "1", "unknown"),
    ]
    assert cells_of(STUDY) == sum(h.cells for h in LAYOUT) == 12


def test_a_target_that_is_a_number_is_counted_in_bins_of_its_range() -> None:
    study = counting(task={"type": "statistics", "target": "weight", "range": [40, 120], "bins": 4})
    weights = np.array([39.0, 60.0, 119.0, math.nan])
    ages, sexes = np.full(4, 50.0), np.zeros(4, np.int64)
    read = Table({"age": ages}, {"sex": sexes}, {"weight": weights}, np.arange(4), tuple("abcd"))
    found = counts(places(read, study).cells, layout_of(study))
    assert found[-5:].tolist() == [1, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("age", "cell"), [(20.0, 0), (33.9, 0), (34.0, 1), (90.0, 4), (150.0, 4), (-5.0, 0), (math.nan, 5)]
)
def test_a_number_is_in_the_bin_of_its_range_and_beyond_it_in_the_nearest(age: float, cell: int) -> None:
    found = cells(counted([[(age, 0, 0)]]), "age")
    assert found == [float(n == cell) for n in range(6)]


def test_unknown_values_are_counted_as_such() -> None:
    found = counted([[(math.nan, -1, -1)], [(50.0, 1, 0)]])
    assert [cells(found, name)[-1] for name in ("age", "sex", "disease")] == [1, 1, 1]


def test_a_patient_of_many_rows_is_one_patient_of_the_mean_and_the_most_frequent_value() -> None:
    visits = [(30.0, 0, 0), (60.0, 1, 1), (math.nan, 1, -1), (60.0, -1, 1)]
    found = counted([visits])
    assert cells(found, "age") == [0, 0, 1, 0, 0, 0]  # 50 is in 48 to 62
    assert cells(found, "sex") == [0, 1, 0]
    assert cells(found, "disease") == [0, 1, 0]


def test_nobody_is_counted_as_nobody() -> None:
    assert counted([]).tolist() == [0.0] * 12


# What one patient moves: by brute force, over neighbouring hospitals

rows = st.tuples(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), st.integers(-1, 1), st.integers(-1, 1))
hospitals = st.lists(st.lists(rows, min_size=1, max_size=6), min_size=1, max_size=12)


@given(hospitals, st.data())
def test_no_patient_moves_the_counts_by_more_than_the_norm_that_the_noise_is_scaled_by(
    people: list[list[Row]], data: st.DataObject
) -> None:
    gone = data.draw(st.integers(0, len(people) - 1))
    without = people[:gone] + people[gone + 1 :]
    moved = counted(people) - counted(without)
    assert math.isclose(float(np.linalg.norm(moved)), statistics_plan(STUDY).clip_norm)  # never more, never less
    assert float(np.abs(moved).max()) == 1.0


@given(hospitals, st.randoms())
def test_the_order_of_the_rows_changes_nothing(people: list[list[Row]], random: "itertools.count[int]") -> None:
    whole = [(round(age, 3), sex, disease) for own in people for age, sex, disease in own]
    grouped = iter(whole)
    people = [[next(grouped) for _ in own] for own in people]
    order = list(range(len(whole)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = counts(places(table(people, order), STUDY).cells, LAYOUT)
    assert shuffled[6:].tolist() == counted(people)[6:].tolist()  # the mean of a number may round otherwise
    assert shuffled.sum() == counted(people).sum()


@given(hospitals)
def test_counts_are_whole_and_every_column_counts_everybody_once(people: list[list[Row]]) -> None:
    found = counted(people)
    assert (found == np.rint(found)).all()
    assert [sum(cells(found, name)) for name in ("age", "sex", "disease")] == [len(people)] * 3


# The noise


@pytest.mark.parametrize(("epsilon", "delta"), [(0.01, 1e-5), (0.5, 1e-5), (1.0, 1e-6), (8.0, 1e-5)])
def test_the_release_costs_what_dp_accounting_says_of_its_noise_and_sensitivity(epsilon: float, delta: float) -> None:
    import dp_accounting
    from dp_accounting import pld

    plan = statistics_plan(counting(privacy={"mode": "local", "epsilon": epsilon, "delta": delta}))
    sensitivity = math.sqrt(3)  # age, sex and disease: by brute force above
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.GaussianDpEvent(standard_deviation(plan) / sensitivity))
    assert accountant.get_epsilon(delta) == pytest.approx(epsilon, rel=2e-3, abs=2e-4)
    assert plan.epsilon() <= epsilon


def test_the_noise_has_the_size_that_was_asked_for_and_leaves_whole_numbers() -> None:
    chance, empty = Randomness.seeded(0, "lille", 1), np.zeros(100)
    drawn = np.stack([noised(empty, SIGMA, chance) for _ in range(2000)])  # 200,000 values
    assert drawn.dtype == np.float32
    assert (drawn == np.rint(drawn)).all()
    assert drawn.mean() == pytest.approx(0.0, abs=4 * SIGMA / math.sqrt(drawn.size))
    assert drawn.var() == pytest.approx(VARIANCE, rel=0.02)


# What follows from it


def true_counts(rng: np.random.Generator, people: int) -> Floats:
    """Patients with a disease that is more frequent with age; some values are unknown."""
    age = rng.uniform(20, 90, people)
    disease = (rng.random(people) < age / 120).astype(int)
    age[rng.random(people) < 0.1] = math.nan
    sex = rng.choice([-1, 0, 1], people, p=[0.05, 0.35, 0.6])
    rows = zip(age.tolist(), sex.tolist(), disease.tolist(), strict=True)
    return counted([[row] for row in rows])


def released(rng: np.random.Generator, true: Floats, hospitals: int = 1) -> Floats:
    """With noise that does not come from the code under test; of several hospitals the sum."""
    result: Floats = true + np.rint(rng.normal(scale=SIGMA, size=(hospitals, len(true)))).sum(axis=0)
    return result


@pytest.mark.parametrize(("people", "hospitals"), [(30, 1), (90, 1), (400, 1), (900, 5)])
def test_the_intervals_hold_the_exact_figures_as_often_as_they_say(people: int, hospitals: int) -> None:
    rng = np.random.default_rng([people, hospitals])
    held: dict[str, list[bool]] = {"counts": [], "shares": [], "outcome": [], "patients": []}
    for _ in range(250):
        true = true_counts(rng, people)
        found = statistics(released(rng, true, hospitals), LAYOUT, variance=hospitals * VARIANCE)
        parts = np.split(true, [6, 9])
        for column, part in zip(found.columns, parts, strict=True):
            held["counts"] += [e.low <= count <= e.high for e, count in zip(column.counts, part, strict=True)]
            shares = zip(column.shares, part / people, strict=True)
            held["shares"] += [e.low <= share <= e.high for e, share in shares if e is not None]
        held["patients"].append(found.patients.low <= people <= found.patients.high)
        if found.outcome is not None:
            held["outcome"].append(found.outcome.low <= parts[2][1] / parts[2][:2].sum() <= found.outcome.high)
    for name, answers in held.items():
        assert len(answers) > 200, name
        assert sum(answers) / len(answers) > (0.94 if len(answers) > 2000 else 0.92), name


def test_the_intervals_are_no_longer_than_they_need_be() -> None:
    rng = np.random.default_rng(3)
    true = true_counts(rng, 5000)
    true += 100.0 - true.min()  # no count near 0, where an interval is cut
    inside = []
    for _ in range(300):
        found = statistics(released(rng, true), LAYOUT, variance=VARIANCE)
        known = [estimate for column in found.columns for estimate in column.counts]
        fitted = np.concatenate(consistent(true, LAYOUT, variance=VARIANCE).histograms)
        inside += [e.low <= count <= e.high for e, count in zip(known, fitted, strict=True)]
    assert sum(inside) / len(inside) == pytest.approx(0.95, abs=0.015)


def test_the_consistent_counts_are_the_least_squares_fit_of_one_total() -> None:
    rng = np.random.default_rng(0)
    vector = rng.normal(50, 20, 12)
    # By another route: counts of one total are x = B z, where z are the total and each column's counts but the last.
    basis = np.zeros((12, 1 + 5 + 2 + 2))
    row, free = 0, 1
    for histogram in LAYOUT:
        inner = histogram.cells - 1
        basis[row : row + inner, free : free + inner] = np.eye(inner)
        basis[row + inner, 0], basis[row + inner, free : free + inner] = 1, -1
        row, free = row + histogram.cells, free + inner
    solution = np.linalg.lstsq(basis, vector, rcond=None)[0]
    found = consistent(vector, LAYOUT, variance=4.0)
    assert np.concatenate(found.histograms) == pytest.approx(basis @ solution)
    covariance = 4.0 * basis @ np.linalg.pinv(basis)
    assert found.patients_variance == pytest.approx(4.0 * np.linalg.inv(basis.T @ basis)[0, 0])
    weights = rng.normal(size=6)
    assert found.variance_of(weights) == pytest.approx(weights @ covariance[:6, :6] @ weights)


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=8), st.floats(0.01, 1e4))
def test_shown_counts_are_the_nearest_that_are_not_negative_and_keep_the_total(part: list[float], total: float) -> None:
    vector = np.array(part)
    found = not_negative(vector, total)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(total, rel=1e-6, abs=1e-6)
    # Optimal exactly if what was taken off is the same wherever something is left, and no less elsewhere (KKT).
    taken = vector - found
    left = found > 1e-9
    assert np.ptp(taken[left]) < 1e-6
    assert (taken[~left] <= taken[left].max() + 1e-6).all()


def test_without_noise_the_figures_are_exact() -> None:
    true = counted([[(30.0, 0, 0)]] * 30 + [[(80.0, 1, 1)]] * 60 + [[(math.nan, -1, -1)]] * 10)
    found = statistics(true, LAYOUT, variance=1e-12)
    assert found.patients.value == pytest.approx(100)
    assert found.outcome is not None
    assert found.outcome.value == pytest.approx(2 / 3)
    assert [share.value for share in found.columns[1].shares if share] == pytest.approx([0.3, 0.6, 0.1])


def test_more_noise_makes_the_intervals_wider() -> None:
    true = true_counts(np.random.default_rng(0), 2000)
    quiet, loud = (statistics(true, LAYOUT, variance=variance).columns[0].counts[0] for variance in (1.0, 100.0))
    assert loud.high - loud.low > 9 * (quiet.high - quiet.low)


@pytest.mark.parametrize("people", [0, 3, 10])
def test_of_too_few_patients_there_are_no_shares(people: int) -> None:
    found = statistics(counted([[(50.0, 0, 1)]] * people), LAYOUT, variance=VARIANCE)
    assert found.outcome is None
    assert all(share is None for column in found.columns for share in column.shares)
    assert all(0 <= e.low <= e.value <= e.high for column in found.columns for e in column.counts)


def test_a_vector_far_below_zero_still_gives_counts_from_zero() -> None:
    found = statistics(np.full(12, -30.0), LAYOUT, variance=VARIANCE)
    assert found.patients.value == 0.0
    assert all(0 == e.low <= e.value <= e.high for column in found.columns for e in column.counts)


@pytest.mark.parametrize("below", [0.5, 2.0, 3.0, 6.0, 30.0])
def test_a_count_below_zero_is_not_told_as_if_nobody_were_there(below: float) -> None:
    """At zero an interval ends 1.96 deviations above; further down never at zero, as no noise says so for sure."""
    deviation, people = 20.0, 3000.0
    vector = np.concatenate([np.full(h.cells, people / h.cells) for h in LAYOUT])
    vector[0] = -below * deviation
    vector[1:6] += (people - vector[:6].sum()) / 5  # each column still counts everybody
    found = statistics(vector, LAYOUT, variance=deviation**2).columns[0]
    assert found.counts[0].value == 0.0
    assert 0.02 * deviation < found.counts[0].high < 1.96 * deviation
    share = found.shares[0]
    assert share is not None
    assert share.value == 0.0 < share.high


def test_an_outcome_of_three_values_has_no_rate() -> None:
    study = counting(task={"type": "statistics", "target": "stage", "classes": ["I", "II", "III"]})
    assert statistics(np.full(cells_of(study), 50.0), layout_of(study), variance=1.0).outcome is None


# Which hospitals differ


def test_alike_hospitals_are_seldom_said_to_differ_and_others_are_found() -> None:
    rng = np.random.default_rng(1)
    true = np.concatenate([np.full(5, 60.0), [0.0], [100.0, 200.0, 0.0], [150.0, 150.0, 0.0]])
    other = true.copy()
    other[6:9] = [200.0, 100.0, 0.0]
    wrong = [differing([released(rng, true) for _ in range(4)], LAYOUT, variance=VARIANCE) for _ in range(100)]
    assert sum(bool(found) for found in wrong) <= 8  # 5 at most are expected
    found = [differing([released(rng, true), released(rng, other)], LAYOUT, variance=VARIANCE) for _ in range(50)]
    assert sum(columns == ("sex",) for columns in found) >= 48


def test_one_hospital_differs_from_nobody() -> None:
    assert differing([np.full(12, 50.0)], LAYOUT, variance=VARIANCE) == ()
    assert differing([], LAYOUT, variance=VARIANCE) == ()


# What is no such vector


def honest() -> NDArray[np.float32]:
    return np.asarray(true_counts(np.random.default_rng(6), 90), np.float32)


@pytest.mark.parametrize(
    "cell", [math.nan, math.inf, -math.inf, 1e30, 1e7, -1e30, -90.0, 0.5, 1300.0], ids=lambda cell: f"{cell:g}"
)
def test_a_count_that_cannot_be_is_refused_without_being_told(cell: float) -> None:
    spoilt = honest()
    spoilt[3] = cell
    with pytest.raises(WireError, match="statistics reply: expected") as told:
        require_plausible(spoilt, LAYOUT, SIGMA, 100)
    assert f"{cell:g}" not in str(told.value)


def test_columns_of_different_patients_are_refused() -> None:
    spoilt = honest()
    spoilt[:6] += 40
    with pytest.raises(WireError, match="totals that the noise cannot explain"):
        require_plausible(spoilt, LAYOUT, SIGMA, 300)


def test_many_more_patients_than_were_announced_are_refused() -> None:
    with pytest.raises(WireError, match="no more patients"):
        require_plausible(honest() * 20, LAYOUT, SIGMA, 100)


def test_an_announced_number_may_be_round_and_old() -> None:
    require_plausible(honest(), LAYOUT, 0.3, 10)


def test_honest_noise_is_never_refused() -> None:
    chance, true = Randomness.seeded(1, "lille", 1), honest().astype(np.float64)
    for _ in range(500):
        require_plausible(noised(true, SIGMA, chance), LAYOUT, SIGMA, 90)
        require_plausible(noised(np.zeros(12), SIGMA, chance), LAYOUT, SIGMA, 3)


def test_a_histogram_of_a_number_has_edges_and_one_of_words_has_none() -> None:
    assert [bool(histogram.edges) for histogram in LAYOUT] == [True, False, False]
    assert Histogram(LAYOUT[0].column, 2).edges == (20.0, 55.0, 90.0)
