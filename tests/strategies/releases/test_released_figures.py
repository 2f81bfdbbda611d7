"""Noisy histograms of scores: what is counted, what noise is on it, what follows from it, and what is no such thing."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.errors import WireError
from configs.schema import Model, Task
from strategies.learning import learning
from strategies.privacy.randomness import Randomness
from strategies.releases.figures import Figures, figures
from strategies.releases.noisy_counts import cell_variance, noised
from strategies.releases.score_histogram import counts, report, require_plausible
from strategies.tasks.binary import Binary
from strategies.tasks.metrics import Floats

SIGMA = 3.7307  # epsilon 1 at delta 1e-5


def population(rng: np.random.Generator, patients: int) -> tuple[Floats, Floats]:
    """Outcomes, and scores of a model that is some good."""
    y = (rng.random(patients) < 0.4).astype(np.float64)
    return y, 1 / (1 + np.exp(-1.5 * (y - 0.5) - 1.2 * rng.normal(size=patients)))


def metric(name: str, y: Floats, score: Floats) -> float:
    """By the product's exact metrics, from every patient's own score."""
    (measure,) = Binary.metrics_of([name])
    return float(measure.compute(y, np.stack([1 - score, score], 1), np.ones((1, len(y))))[0])


def exact(y: Floats, score: Floats, bins: int = 20) -> Floats:
    return counts(score, y, starts=np.arange(len(y) + 1), bins=bins)


def released(rng: np.random.Generator, *, sites: int, patients: int, sigma: float = SIGMA) -> Figures:
    """Of fresh patients at several hospitals, with noise that does not come from the code under test."""
    total = np.zeros((2, 20))
    for _ in range(sites):
        total += exact(*population(rng, patients)) + np.rint(rng.normal(scale=sigma, size=(2, 20)))
    return figures(total, cell_variance=sites * cell_variance(sigma))


# What is counted


@pytest.mark.parametrize("rows_each", [1, 3])
def test_one_patient_more_changes_one_cell_by_one(rows_each: int) -> None:
    rng = np.random.default_rng(0)
    rows = 40 * rows_each
    y, score, starts = rng.integers(0, 2, rows).astype(float), rng.random(rows), np.arange(0, rows + 1, rows_each)
    everybody = counts(score, y, starts=starts, bins=10)
    assert everybody.sum() == 40
    without_first = counts(score[rows_each:], y[rows_each:], starts=starts[1:] - rows_each, bins=10)
    changed = np.abs(everybody - without_first)
    assert (changed.sum(), changed.max()) == (1, 1)


@pytest.mark.parametrize("hidden", [(), (16,)], ids=["logistic", "mlp"])
@pytest.mark.parametrize("inputs", [5, 13, 30])
def test_whoever_leaves_moves_nobody_elses_score(hidden: tuple[int, ...], inputs: int) -> None:
    """Equal patients on the border of two cells, under weights that make a last bit decide: all would move at once."""
    task = learning(Task("binary", "y"), Model("mlp", hidden) if hidden else Model("logistic"), inputs)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        row = rng.uniform(-1, 1, inputs).astype(np.float32)
        model = {name: np.zeros(shape, np.float32) for name, (shape, _) in task.parameters.items()}
        for name in (name for name in model if name.endswith("weight")):
            model[name][:] = rng.standard_normal(model[name].shape) * (1e12 if name == "0.weight" else 1)
        last = list(model)[-1]
        many = 100 + seed
        x = row[None].repeat(many, 0)
        with np.errstate(all="ignore"):  # sums of 1e12 in float32: some kernels raise flags in unused lanes
            inner = x @ model["0.weight"].T
            outputs = np.maximum(inner, 0) @ model["2.weight"].T if hidden else inner
        for border in np.unique(outputs):
            model[last][:] = -border
            cells = [exact(np.zeros(n), task.predict(model, x[:n])[:, 1], bins=10) for n in (many, many - 1)]
            assert float(np.linalg.norm(cells[0] - cells[1])) == 1.0


def test_several_rows_are_one_patient_of_their_mean_score_and_first_outcome() -> None:
    found = counts(np.array([0.1, 0.9, 0.9]), np.array([1.0, 0.0, 0.0]), starts=np.array([0, 3]), bins=10)
    assert found[1, 6] == found.sum() == 1


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1.0, 0.0, 7.0])
def test_whatever_a_model_says_a_patient_is_in_one_cell(score: float) -> None:
    found = counts(np.array([score, 0.5]), np.array([1.0, 0.0]), starts=np.arange(3), bins=4)
    assert found.sum(axis=1).tolist() == [1, 1]


def test_nobody_is_a_histogram_too() -> None:
    assert counts(np.empty(0), np.empty(0), starts=np.zeros(1, np.int64), bins=3).tolist() == [[0] * 3] * 2


# The noise


def test_the_noise_has_the_size_that_was_asked_for_and_leaves_whole_numbers() -> None:
    chance, empty = Randomness.seeded(0, "lille", 0), np.zeros((2, 50))
    drawn = np.stack([noised(empty, SIGMA, chance) for _ in range(2000)])  # 200,000 values
    assert drawn.dtype == np.float32
    assert (drawn == np.rint(drawn)).all()
    assert drawn.mean() == pytest.approx(0.0, abs=4 * SIGMA / math.sqrt(drawn.size))
    assert drawn.std() == pytest.approx(math.sqrt(SIGMA**2 + 1 / 12), rel=0.01)  # the rounding adds a twelfth


# What follows from it


@pytest.mark.parametrize(("sites", "patients", "sigma"), [(3, 200, SIGMA), (5, 60, 0.5), (1, 400, 7.0)])
def test_the_intervals_hold_the_truth_as_often_as_they_say(sites: int, patients: int, sigma: float) -> None:
    rng = np.random.default_rng([sites, patients])
    y, score = population(rng, 200_000)
    found = [released(rng, sites=sites, patients=patients, sigma=sigma) for _ in range(100)]
    for name in ("auroc", "brier"):
        truth = metric(name, y, score)
        held = [f.low <= truth <= f.high for f in (getattr(one, name) for one in found) if f is not None]
        assert len(held) >= 90
        assert sum(held) >= 0.9 * len(held)


def test_the_noise_makes_the_intervals_wider() -> None:
    rng = np.random.default_rng(1)
    quiet, loud = (released(rng, sites=3, patients=300, sigma=sigma).auroc for sigma in (0.3, 6.0))
    assert quiet is not None
    assert loud is not None
    assert loud.high - loud.low > 2 * (quiet.high - quiet.low)


def test_without_noise_the_figures_are_those_of_the_patients() -> None:
    y, score = population(np.random.default_rng(2), 5000)
    found = figures(exact(y, score, bins=100), cell_variance=1e-9)
    assert found.auroc is not None
    assert found.brier is not None
    assert found.auroc.value == pytest.approx(metric("auroc", y, score), abs=0.002)
    assert found.brier.value == pytest.approx(metric("brier", y, score), abs=0.002)


def test_of_each_calibration_bin_the_interval_holds_the_share() -> None:
    y, score = population(np.random.default_rng(3), 4000)
    noisy = exact(y, score) + np.rint(np.random.default_rng(4).normal(scale=SIGMA, size=(2, 20)))
    held = []
    for entry in figures(noisy, cell_variance=cell_variance(SIGMA)).calibration:
        assert entry.low is not None
        assert entry.high is not None
        inside = (score >= entry.low) & (score < entry.high)
        held.append(entry.observed_low <= y[inside].mean() <= entry.observed_high)
    assert len(held) >= 8
    assert sum(held) >= len(held) - 1


@pytest.mark.parametrize(
    ("having", "without", "sigma"), [(0, 100, 0.3), (100, 0, 0.3), (1, 100, 0.01), (60, 60, 30.0), (0, 0, SIGMA)]
)
def test_a_figure_that_the_counts_do_not_support_is_undefined(having: int, without: int, sigma: float) -> None:
    histogram = np.zeros((2, 20))
    histogram[0, 5], histogram[1, 15] = without, having
    found = figures(histogram, cell_variance=cell_variance(sigma) if sigma > 0.1 else 1e-6)
    assert found == Figures(None, None)


@pytest.mark.parametrize("cell", [-50.0, 0.0, 50.0])
def test_counts_below_zero_give_figures_between_zero_and_one(cell: float) -> None:
    histogram = np.full((2, 5), 100.0)
    histogram[1, 0] = histogram[0, 4] = cell
    found = figures(histogram, cell_variance=400.0)
    for figure in (found.auroc, found.brier):
        assert figure is not None
        assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_a_hospital_with_too_few_patients_is_null_beside_the_others() -> None:
    rng = np.random.default_rng(5)
    histograms = {"lille": exact(*population(rng, 400)), "brest": exact(*population(rng, 9))}
    found = report(histograms, SIGMA, ("accuracy", "brier"))
    lille, brier = found.per_site["lille"], found.metrics["brier"]
    assert found.per_site["brest"] is None
    assert lille is not None
    assert found.auroc is not None
    assert lille.low < found.auroc.value < lille.high
    assert found.metrics["accuracy"] is None
    assert brier is not None
    assert brier.low > 0


def test_of_several_hospitals_the_noise_adds_up() -> None:
    rng = np.random.default_rng(7)
    histograms = {f"hospital-{n}": exact(*population(rng, 200)) for n in range(4)}
    total = np.sum(list(histograms.values()), axis=0)
    expected = figures(total, cell_variance=4 * cell_variance(SIGMA)).auroc
    assert expected is not None
    assert report(histograms, SIGMA, ()).auroc == expected


# What is no such histogram


def honest() -> NDArray[np.float32]:
    return np.asarray(exact(*population(np.random.default_rng(6), 90)), np.float32)


@pytest.mark.parametrize(
    "cell", [math.nan, math.inf, -math.inf, 1e30, 1e7, -1e30, -60.0, 0.5, 300.0], ids=lambda cell: f"{cell:g}"
)
def test_a_cell_that_cannot_be_is_refused_without_being_told(cell: float) -> None:
    spoilt = honest()
    spoilt[1, 3] = cell
    with pytest.raises(WireError, match="evaluate reply: expected") as told:
        require_plausible(spoilt, SIGMA, 100)
    assert f"{cell:g}" not in str(told.value)


def test_more_patients_in_all_than_were_announced_are_refused() -> None:
    with pytest.raises(WireError, match="no more patients"):
        require_plausible(np.full((2, 20), 20, np.float32), SIGMA, 100)


def test_honest_noise_is_never_refused() -> None:
    chance, true = Randomness.seeded(1, "lille", 0), honest().astype(np.float64)
    for _ in range(500):
        require_plausible(noised(true, SIGMA, chance), SIGMA, 100)
