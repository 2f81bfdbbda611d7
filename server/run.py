"""The metrics.json of a run, of a simulation on a laptop or of a consortium.

What needs patients (how good a model is, how many there were) is added by the simulator, which has them. Between
machines those entries are null, but for what hospitals released with noise where the study asks for it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from configs import journal as journals
from configs.errors import RunError
from configs.files import write_atomically
from configs.records import result as results
from configs.records.fields import plain
from configs.records.result import (
    CountedSite,
    Left,
    ModelResult,
    ModelSize,
    Noisy,
    Result,
    SpentPoint,
    StatisticsResult,
    TrainedSite,
    TrainingResult,
    TunedOn,
)
from configs.records.run_journal import Begin, Received, Round
from configs.schema import Study
from configs.wire import ARITHMETIC, HISTOGRAM
from server.checkpoint import of_another_arithmetic
from server.outcome import Outcome, Released
from server.recorded import Recorded, versions
from server.rounds import Rounds
from strategies.effects import effects
from strategies.federated.mean import site_weights
from strategies.models.registry import count_of, personal_parameters, study_parameters
from strategies.privacy.modes.registry import mode_of, statistics_plan
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.registry import RELEASES, SCORE_HISTOGRAM, STATISTICS, main_release
from strategies.tasks.registry import objective_of

EPSILON_POINTS = 10


def begin(journal: journals.Journal, study: Study, engine: str, noise: str = "") -> None:
    """Write the record with which each leg of a run begins."""
    journal.write(
        Begin(
            study_sha256=study.sha256,
            engine=engine,
            seed=study.seed,
            versions=versions(),
            arithmetic=ARITHMETIC,
            noise=noise,
        )
    )


def require_arithmetic(run: Path) -> None:
    """Check that the earlier attempts in a run's journal used the arithmetic of this release.

    Raises:
        RunError: it was another. JournalError: the journal was changed.
    """
    path = run / "journal.jsonl"
    for record in journals.read(path) if path.exists() else ():
        if (leg := record.of(Begin)) and leg.arithmetic != ARITHMETIC:
            raise RunError(of_another_arithmetic(run, leg.arithmetic))


def training_result(
    study: Study,
    run: Path,
    recorded: Recorded,
    outcome: Outcome,
    *,
    engine: str,
    noise: str,
    plans: Mapping[str, PrivacyPlan],
) -> TrainingResult:
    """Return the metrics.json of a study that trains, without what needs patients, and without its times."""
    further = {asked.name: outcome.released[asked.name] for asked in study.releases if asked.name in outcome.released}
    return TrainingResult(
        **_entries_of_any(study, recorded, outcome.rounds, engine=engine, noise=noise, plans=plans),
        model_sha256=sha256(run / "model.safetensors"),
        model=ModelSize(study.model.name, count_of(study_parameters(study)), count_of(personal_parameters(study))),
        strategy=study.training.strategy.name,
        primary_metric=None,
        sites=(),
        models={},
        released=None,
        convergence={},
        epsilon_by_round={},
        started="",
        tuned=TunedOn(**asdict(study.tuned)) if study.tuned else None,
        effects=effects(study, outcome.model),
        releases={
            name: RELEASES[name].combine(study, released.arrays, outcome.model)
            for name, released in further.items()
            if released.arrays
        },
        releases_missing={name: released.missing for name, released in further.items() if released.missing},
    )


def statistics_result(
    study: Study, recorded: Recorded, outcome: Outcome, *, engine: str, noise: str, spent: Mapping[str, float]
) -> StatisticsResult:
    """Return the metrics.json of a study that trains nothing, without its times.

    Args:
        spent: epsilon of each hospital, as its ledger has it or as it said.
    """
    counted, plan = outcome.released.get(STATISTICS.name), statistics_plan(study)
    sites = study.sites or sorted({site for entry in recorded.rounds for site in entry.contributed})
    return StatisticsResult(
        **_entries_of_any(study, recorded, outcome.rounds, engine=engine, noise=noise, plans={}),
        sites=tuple(
            CountedSite(
                site=site,
                patients_announced=study.announced_patients(site),
                epsilon=spent.get(site),
                delta=plan.delta,
                noise_multiplier=plan.noise_multiplier,
                sampling_rate=plan.sampling_rate,
                steps=plan.steps,
                **recorded.traffic(site),
            )
            for site in sites
        ),
        models={},
        statistics=replace(STATISTICS.combine(study, counted.arrays, {}), missing=counted.missing) if counted else None,
        started="",
    )


def write_result(run: Path, result: Result) -> None:
    """Write metrics.json into a run's folder."""
    text = json.dumps(plain(result), indent=1, allow_nan=False) + "\n"
    write_atomically(run / "metrics.json", text.encode())


def _entries_of_any(
    study: Study,
    recorded: Recorded,
    rounds: Rounds,
    *,
    engine: str,
    noise: str,
    plans: Mapping[str, PrivacyPlan],
) -> dict[str, Any]:
    """Return the fields of `Result`."""
    document = study.to_dict()
    return {
        "study": study.name,
        "study_sha256": study.sha256,
        "engine": engine,
        "seed": study.seed,
        "outcome": rounds.outcome,
        "why": rounds.why,
        "rounds_completed": rounds.done,
        "seconds": 0.0,
        "purpose": study.purpose,
        "task": document["task"],
        "training": document["training"],
        "rounds_planned": study.training.rounds,
        "versions": versions(),
        "arithmetic": ARITHMETIC,
        "privacy": _privacy(study, noise, plans),
        "features": document["features"],
        "rounds": tuple(recorded.rounds),
        "made_anew": tuple(recorded.made_anew),
        "absent": recorded.absences(study.training_sites, rounds.done),
        "left": _left(study, recorded),
    }


def trained_site(
    study: Study, site: str, plan: PrivacyPlan | None, steps: int | None, recorded: Recorded
) -> TrainedSite:
    """Return what is public about a hospital's part: its plan, its weight, and what it sent."""
    if not study.trains_at(site):
        return _testing_site(site, plan, recorded)
    return TrainedSite(
        site=site,
        delta=plan.delta if plan else None,
        noise_multiplier=plan.noise_multiplier if plan else None,
        sampling_rate=plan.sampling_rate if plan else None,
        steps=plan.steps if plan else steps,
        weight=site_weights(study, [site])[site],
        patients_train=None,
        patients_test=None,
        epsilon=None,
        values_clipped={},
        bytes_sent=recorded.traffic(site)["bytes_sent"],
        messages_sent=recorded.traffic(site)["messages_sent"],
    )


def _testing_site(site: str, plan: PrivacyPlan | None, recorded: Recorded) -> TrainedSite:
    """Return the part of a hospital that trains nothing."""
    return TrainedSite(
        site=site,
        delta=plan.delta if plan else None,
        noise_multiplier=None,
        sampling_rate=None,
        steps=0,
        weight=None,
        patients_train=None,
        patients_test=None,
        epsilon=None,
        values_clipped={},
        bytes_sent=recorded.traffic(site)["bytes_sent"],
        messages_sent=recorded.traffic(site)["messages_sent"],
        tests_only=True,
    )


def released_model(study: Study, released: Released | None, sites: Sequence[str]) -> ModelResult | None:
    """Return the shared model's figures as hospitals released them: with noise, null where one released none."""
    if released is None or not released.arrays:
        return None
    figures = SCORE_HISTOGRAM.combine(study, released.arrays, {})
    release, event = study.evaluation.release, mode_of(study).evaluation(study)
    assert figures is not None
    noisy = Noisy(
        epsilon=release.epsilon if release else None,
        bins=release.bins if release else None,
        noise_multiplier=event.noise_multiplier if event else None,
        sites=tuple(sorted(released.arrays)),
        missing=released.missing,
    )
    return replace(figures, per_site={site: figures.per_site.get(site) for site in sites}, noisy=noisy)


def primary_metric(study: Study) -> str | None:
    """Return the metric that a run is headed by: one that the released histograms give, where hospitals release any."""
    if study.evaluation.release:
        return objective_of(study).figures[0]
    return study.evaluation.metrics[0] if study.evaluation.metrics else None


def released_histograms(study: Study, released: Released | None) -> results.Released | None:
    """Return the noisy histograms themselves, where hospitals were asked for them."""
    event = mode_of(study).evaluation(study)
    if released is None or event is None:
        return None
    histograms = {
        site: tuple(map(tuple, arrays[HISTOGRAM].tolist())) for site, arrays in sorted(released.arrays.items())
    }
    return results.Released(histograms, released.missing, event.noise_multiplier)


def epsilons(plan: PrivacyPlan, rounds: Sequence[int]) -> tuple[SpentPoint, ...]:
    """Return epsilon after some of the rounds to which a hospital contributed, the last among them."""
    return tuple(
        SpentPoint(rounds[count - 1], plan.epsilon(rounds=count)) for count in _some(range(1, len(rounds) + 1))
    )


def epsilons_reported(run: Path) -> dict[str, tuple[SpentPoint, ...]]:
    """Return epsilon of each hospital after some of the rounds, the last among them, as it had signed it by then.

    Raises:
        JournalError: the journal was changed.
    """
    newest: dict[str, float] = {}
    curves: dict[str, dict[int, float]] = {}
    for record in journals.read(run / "journal.jsonl"):
        entry = record.of(Received, Round)
        if isinstance(entry, Received) and entry.epsilon:
            newest[entry.site] = float(entry.epsilon)
        elif isinstance(entry, Round):
            for site, epsilon in newest.items():
                curves.setdefault(site, {})[entry.round] = epsilon
    return {
        site: tuple(SpentPoint(number, curve[number]) for number in _some(sorted(curve)))
        for site, curve in sorted(curves.items())
    }


def _some(numbers: Sequence[int]) -> list[int]:
    """Return at most EPSILON_POINTS of the points at even distances, the last among them."""
    every = max(1, -(-len(numbers) // EPSILON_POINTS))
    return [number for place, number in enumerate(numbers, 1) if place % every == 0 or place == len(numbers)]


def sha256(path: Path) -> str:
    """Return a file's digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _privacy(study: Study, noise: str, plans: Mapping[str, PrivacyPlan]) -> dict[str, Any]:
    """Return what is guaranteed for the whole study: its training, and its evaluation if it asks for one."""
    guarantee = mode_of(study).guarantee(study)
    if guarantee is None:
        return {"mode": study.privacy.mode}
    section: dict[str, Any] = study.to_dict()["privacy"]
    facts = section | {"unit": guarantee.unit, "adjacency": guarantee.adjacency, "noise": noise}
    if guarantee.limits:
        facts |= {"where": guarantee.where, "limits": guarantee.limits}
    release, others = study.evaluation.release, sum(other.keys.epsilon for other in study.releases)
    if release or others:
        once = (release.epsilon if release else 0.0) + others
        whole = max((plan.whole_epsilon() for plan in plans.values()), default=section["epsilon"] + once)
        facts |= {"epsilon": whole, "training_epsilon": section["epsilon"]}
    if release:
        facts |= {"evaluation_epsilon": release.epsilon}
    return facts


def _left(study: Study, recorded: Recorded) -> tuple[Left, ...]:
    """Return each kind of message that left the hospitals."""
    kind = main_release(study)
    rounds = [entry.contributed for entry in recorded.rounds]
    return (
        Left(
            kind.what,
            tuple(f"{n} {list(shape)} {dtype}" for n, (shape, dtype) in kind.arrays(study).items()),
            messages=sum(map(len, rounds)),
            bytes=sum(sum(contributed.values()) for contributed in rounds),
        ),
        Left(
            "hello",
            ("protocol", "site", "study_sha256"),
            messages=sum(map(len, recorded.hello)),
            bytes=sum(sum(hello.values()) for hello in recorded.hello),
        ),
        *_once_left(study, recorded),
    )


def _once_left(study: Study, recorded: Recorded) -> list[Left]:
    """Return what left after the training, by kinds of release."""
    return [
        Left(
            RELEASES[name].what,
            tuple(f"{n} {list(shape)} {dtype}" for n, (shape, dtype) in RELEASES[name].arrays(study).items()),
            messages=len(sent),
            bytes=sum(sent.values()),
        )
        for name, sent in recorded.once.items()
        if sent
    ]
