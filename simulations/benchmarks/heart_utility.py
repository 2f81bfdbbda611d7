"""The cost of federating and of privacy on the four heart disease hospitals.

AUROC, means over splits, paired.

    python -m simulations.benchmarks.heart_utility                    under a minute; one JSON line a row
    python -m simulations.benchmarks.heart_utility --noise-seeds 5    two minutes: five draws of the noise on each split
    python -m simulations.benchmarks.heart_utility --select           a minute: how the preset's settings were chosen

A split is a study seed: it decides the test patients and the noise. AUROC is over all hospitals' test patients
together; Switzerland's own is never printed: one patient without the disease among 46 leaves it undefined on most
splits.

`pooled` is a strong baseline: all data in one place, at the optimum, with the ridge strength whose mean
AUROC on validation patients is best. `pooled_same_settings` trains with heart_disease_none.yaml's settings instead;
`local_only` is the mean over the hospitals of a model trained there alone, `best_local` the best of these hospitals (as
its test patients say: a flattered baseline); `federated_without_privacy` is heart_disease_none.yaml,
`..._same_settings` the private preset with nothing protected; `federated` is heart_disease.yaml at several epsilons,
`epsilon_spent` being the largest that a hospital's ledger composes to. `above_best_local` is what federating gives to
the hospital that needs it least.

A difference is paired split by split, against the row's `reference`. Its 95 % interval (Student's t) and the standard
error speak of the mean over such splits of these 740 patients. The splits share patients, so neither says how another
740 would do; that uncertainty is larger: one split's AUROC alone has a bootstrap interval of about .04 to either side.

Settings are chosen on validation patients: a quarter of a split's training patients, by the same keyed hash; the model
that is judged there was trained on the rest. Test patients are never touched. The rule (`choose`): among the points
whose AUROC is within .001 of the best, the lowest log loss. The AUROCs differ by less than their standard errors, so
the choice is one of several equals, and calibration decides: on other splits (`--first-seed 1000`) the rule takes a
neighbour, clip norm .6. The grid, the rule, and 20 rounds with the last half averaged came from earlier looks at such
splits of these patients, which may have shown test patients: the preset was not chosen blindly. What that could be
worth is seen in the row `nested`, where each split chooses anew, and on other splits: `--first-seed 1000`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from client.patients import Split, load_validation
from configs.errors import ArchipelError
from configs.schema import CohortMember, Study
from simulations.benchmarks.heart import alone, preset, score, train
from simulations.converged import converged
from simulations.hospitals import load_all
from strategies.data.base import concatenate
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import learning_of
from strategies.privacy.modes.none import without_privacy

EPSILONS = (8.0, 3.0, 1.0, 0.5)
WITHOUT_PRIVACY_TARGET = 0.005  # below pooled, at most
PRIVACY_TARGETS = {3.0: 0.015, 1.0: 0.025}  # epsilon -> below no privacy, at most
RIDGES = (0.1, 1.0, 10.0, 100.0)
VALIDATION = 0.25  # of a split's training patients
CLIP_NORMS, LEARNING_RATES = (0.2, 0.35, 0.6), (1.0, 2.0, 4.0)
TOLERANCE = 0.001  # AUROC that is given up for a better log loss
NOISE_SEED = 1_000_000  # between the study seeds of two draws of the noise on one split

Row = dict[str, Any]
Point = tuple[float, float]  # clip norm, learning rate
System = tuple[str, float | None]  # name, epsilon asked for
POOLED: System = ("pooled", None)
NO_PRIVACY: System = ("federated_without_privacy", None)
LOCAL_ONLY: System = ("local_only", None)
CLIPPING: System = ("clipping_alone", None)
_LOCAL = "local "  # and the hospital's name


@dataclass
class Scores:
    """AUROC by split of each system, and the largest epsilon that it spent."""

    auroc: dict[System, list[float]] = field(default_factory=dict)
    spent: dict[System, float] = field(default_factory=dict)

    def add(self, system: System, auroc: float, spent: float | None = None) -> None:
        """Add one more split."""
        self.auroc.setdefault(system, []).append(auroc)
        if spent is not None:
            self.spent[system] = max(spent, self.spent.get(system, 0.0))

    def row(self, system: System, reference: System | None = None, allowed: float | None = None) -> Row:
        """Return the system's mean, and how far it lies from the reference, `allowed` below it at most."""
        values = np.array(self.auroc[system])
        row: Row = {"system": system[0], "epsilon": system[1], "splits": len(values)}
        row |= {"auroc": _round(values.mean()), "standard_error": _round(_standard_error(values))}
        if system in self.spent:
            row["epsilon_spent"] = _round(self.spent[system])
        if reference is None:
            return row
        row |= {"reference": reference[0], **self.difference(system, reference), "target": None, "meets_target": None}
        if allowed is not None:
            row |= {"target": -allowed, "meets_target": row["difference"] >= -allowed}
        return row

    def best_local(self) -> System:
        """Return the hospital with the best own model on average over these splits' test patients."""
        local = [system for system in self.auroc if system[0].startswith(_LOCAL)]
        return max(local, key=lambda system: float(np.mean(self.auroc[system])))

    def difference(self, system: System, reference: System) -> dict[str, float]:
        """Return the mean of the paired differences, with its 95 % interval (Student's t)."""
        values = np.array(self.auroc[system]) - np.array(self.auroc[reference])
        reach = float(stats.t.ppf(0.975, len(values) - 1)) * _standard_error(values)
        low, mean, high = (_round(values.mean() + shift) for shift in (-reach, 0.0, reach))
        return {"difference": mean, "difference_low": low, "difference_high": high}


def scored(seeds: Sequence[int], noise_seeds: int, epsilons: Sequence[float]) -> tuple[Scores, float]:
    """Return every system's scores on every split, and the pooled baseline's ridge strength."""
    scores, ridge = Scores(), best_ridge(seeds)
    for seed in seeds:
        _score_split(scores, seed, ridge, noise_seeds, epsilons)
    return scores, ridge


def rows(seeds: Sequence[int], noise_seeds: int = 1, epsilons: Sequence[float] = EPSILONS) -> Iterator[Row]:
    """Yield every system's row, then the summary. `seeds` are the splits."""
    scores, ridge = scored(seeds, noise_seeds, epsilons)
    best = scores.best_local()

    def federated(system: System, reference: System, allowed: float | None) -> Row:
        return scores.row(system, reference, allowed) | {"above_best_local": scores.difference(system, best)}

    yield scores.row(POOLED) | {"ridge": ridge}
    yield scores.row(("pooled_same_settings", None), POOLED)
    yield scores.row(LOCAL_ONLY, POOLED)
    yield scores.row(best, POOLED) | {"system": "best_local", "site": best[0].removeprefix(_LOCAL)}
    plain = federated(NO_PRIVACY, POOLED, WITHOUT_PRIVACY_TARGET)
    yield plain
    yield federated(("federated_without_privacy_same_settings", None), POOLED, WITHOUT_PRIVACY_TARGET)
    met = {"without_privacy_within_0.005_of_pooled": plain["meets_target"]}
    for epsilon in epsilons:
        allowed = PRIVACY_TARGETS.get(epsilon)
        row = federated(("federated", epsilon), NO_PRIVACY, allowed)
        yield row
        if allowed is not None:
            met[f"epsilon_{epsilon:g}_within_{allowed}_of_no_privacy"] = row["meets_target"]
    summary: Row = {"summary": "heart_utility", "splits": len(seeds), "noise_seeds": noise_seeds}
    yield summary | met | {"meets_every_target": all(met.values())}


def _score_split(scores: Scores, seed: int, ridge: float, noise_seeds: int, epsilons: Sequence[float]) -> None:
    """Score every system on one split."""
    private, none = (replace(preset(name), seed=seed) for name in ("heart_disease", "heart_disease_none"))
    by_site, test = _sides(load_all(private))
    everybody = {"pooled": concatenate(list(by_site.values()))}

    def auroc(model: Arrays) -> float:
        return score(private, model, test, "auroc")

    scores.add(POOLED, auroc(converged(learning_of(private), everybody["pooled"], ridge=ridge)))
    announced = sum(member.patients for member in none.cohort)
    scores.add(("pooled_same_settings", None), auroc(train(alone(none, "pooled", announced), everybody).model))
    alone_auroc = {m.site: auroc(train(alone(none, m.site, m.patients), by_site).model) for m in none.cohort}
    scores.add(LOCAL_ONLY, float(np.mean(list(alone_auroc.values()))))
    for site, value in alone_auroc.items():
        scores.add((_LOCAL + site, None), value)
    scores.add(NO_PRIVACY, auroc(train(none, by_site).model))
    unprotected = train(without_privacy(private), by_site).model
    scores.add(("federated_without_privacy_same_settings", None), auroc(unprotected))
    scores.add(CLIPPING, auroc(train(private, by_site, noise=False).model))
    for epsilon in epsilons:
        whole = replace(private, privacy=replace(private.privacy, epsilon=epsilon, spare=0))  # all of it is spent
        draws = [replace(whole, seed=seed + draw * NOISE_SEED) for draw in range(noise_seeds)]
        runs = [train(study, by_site) for study in draws]
        spent = max(run.epsilon or 0.0 for run in runs)
        scores.add(("federated", epsilon), float(np.mean([auroc(run.model) for run in runs])), spent)


def _sides(patients: Mapping[str, Split]) -> tuple[dict[str, TablePatients], TablePatients]:
    """Return the training patients by hospital, and all others together."""
    return {site: p.train for site, p in patients.items()}, concatenate([p.test for p in patients.values()])


def best_ridge(seeds: Sequence[int]) -> float:
    """Return the ridge strength with the best mean AUROC on the splits' validation patients."""
    study = preset("heart_disease")
    task, aurocs = learning_of(study), []
    for seed in seeds:
        by_site, validation = _sides(validation_split(replace(study, seed=seed)))
        part = concatenate(list(by_site.values()))
        models = [converged(task, part, ridge=ridge) for ridge in RIDGES]
        aurocs.append([score(study, model, validation, "auroc") for model in models])
    return RIDGES[int(np.argmax(np.mean(aurocs, axis=0)))]


def validation_split(study: Study) -> dict[str, Split]:
    """Return each hospital's training patients in two, the second for validation. Test patients are on neither side."""
    return {site: _validation_split(study, site) for site in study.sites}


def _validation_split(study: Study, site: str) -> Split:
    return load_validation(dict(study.simulation)[site], study, site, share=VALIDATION, seed=study.seed)


def selection(seeds: Sequence[int], grid: Sequence[Point] = ()) -> Iterator[Row]:
    """Yield the grid's table at the preset's epsilon, the choice, and what choosing inside each split is worth."""
    study = preset("heart_disease")
    points = list(grid or [(clip, rate) for clip in CLIP_NORMS for rate in LEARNING_RATES])
    table = np.array([_validate(replace(study, seed=seed), points) for seed in seeds])  # (splits, points, 2)
    chosen = points[choose(table.mean(axis=0))]
    for i, point in enumerate(points):
        auroc, log_loss = table[:, i, 0], table[:, i, 1]
        row: Row = _named(point) | {"epsilon": study.privacy.epsilon, "splits": len(seeds)}
        row |= {"validation_auroc": _round(auroc.mean()), "standard_error": _round(_standard_error(auroc))}
        yield row | {"validation_log_loss": _round(log_loss.mean()), "chosen": point == chosen}
    yield from _nested(study, seeds, points, table)
    ours = (study.privacy.clip_norm, study.training.local.learning_rate)
    rule = f"lowest log loss among AUROCs within {TOLERANCE:g} of the best, on validation patients"
    yield {"summary": "selection", "rule": rule, "choice": _named(chosen), "preset": _named(ours)} | {
        "preset_is_the_choice": chosen == ours
    }


def _validate(study: Study, points: Sequence[Point]) -> list[tuple[float, float]]:
    """Return (AUROC, log loss) of each point on the validation patients of one split."""
    by_site, validation = _sides(validation_split(study))
    fewer = tuple(CohortMember(m.site, round(m.patients * (1.0 - VALIDATION))) for m in study.cohort)
    models = [train(_tuned(replace(study, cohort=fewer), point), by_site).model for point in points]
    return [(score(study, m, validation, "auroc"), score(study, m, validation, "log_loss")) for m in models]


def choose(table: NDArray[np.float64]) -> int:
    """Return the rule: (points, 2) of AUROC and log loss -> position of the choice.

    >>> choose(np.array([[0.8852, 0.56], [0.8844, 0.46], [0.8837, 0.44]]))
    1
    """
    good = table[:, 0] >= table[:, 0].max() - TOLERANCE
    return int(np.argmin(np.where(good, table[:, 1], np.inf)))


def _nested(study: Study, seeds: Sequence[int], points: list[Point], table: NDArray[np.float64]) -> Iterator[Row]:
    """Yield the scores of each split's own choice, on that split's test patients, beside the preset's settings."""
    scores, times = Scores(), dict.fromkeys(points, 0)
    fixed, nested = ("preset", study.privacy.epsilon), ("nested", study.privacy.epsilon)
    for seed, row in zip(seeds, table, strict=True):
        seeded = replace(study, seed=seed)
        by_site, test = _sides(load_all(seeded))
        point = points[choose(row)]
        times[point] += 1
        for system, variant in ((fixed, seeded), (nested, _tuned(seeded, point))):
            run = train(variant, by_site)
            scores.add(system, score(seeded, run.model, test, "auroc"), run.epsilon)
    yield scores.row(fixed)
    chosen = [_named(point) | {"splits": count} for point, count in times.items() if count]
    yield scores.row(nested, fixed) | {"chosen": chosen}


def _named(point: Point) -> dict[str, float]:
    return {"clip_norm": point[0], "learning_rate": point[1]}


def _tuned(study: Study, point: Point) -> Study:
    """Return the study with the point's clip norm and learning rate."""
    local = replace(study.training.local, learning_rate=point[1])
    training = replace(study.training, local=local)
    return replace(study, training=training, privacy=replace(study.privacy, clip_norm=point[0]))


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _round(value: Any) -> float:
    return round(float(value), 4) + 0.0  # never -0.0


def add_splits(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which splits, and how often the noise is drawn on each."""
    parser.add_argument(
        "--splits", type=from_number(2), default=20, metavar="N", help="how many study seeds (default 20)"
    )
    parser.add_argument(
        "--first-seed", type=from_number(0), default=0, metavar="SEED", help="the first of them (default 0)"
    )
    parser.add_argument(
        "--noise-seeds",
        type=from_number(1),
        default=1,
        metavar="N",
        help="draws of the noise on each split (default 1)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the rows."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations.benchmarks.heart_utility",
        description="What federating and privacy cost in AUROC on the heart disease study, over many splits.",
    )
    add_splits(parser)
    parser.add_argument("--select", action="store_true", help="instead, show how the preset's settings were chosen")
    arguments = parser.parse_args(argv)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.splits)
    try:
        for row in selection(seeds) if arguments.select else rows(seeds, arguments.noise_seeds):
            print(json.dumps(row), flush=True)
    except ArchipelError as error:
        print(f"heart_utility: {error}", file=sys.stderr)
        return 2
    return 0


def from_number(low: int) -> Callable[[str], int]:
    """Return a command line's whole number, from `low`."""

    def number(text: str) -> int:
        if not low <= (value := int(text)) < NOISE_SEED // 2:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
