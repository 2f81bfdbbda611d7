"""The models that a federation is compared with, all without privacy.

Alone and pooled are fitted to convergence (simulations/converged.py), whatever the study's rounds and rates; together
without privacy is the study itself, with nothing protected.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from types import MappingProxyType
from typing import Any

from client.patients import Split
from configs.journal import Journal
from configs.records.models import ComparedModel
from configs.records.result import ModelResult, Point
from configs.schema import Study
from server.app import make_app
from server.checkpoint import Checkpoints
from server.outcome import Observer, Outcome
from simulations.anchors import anchors_of
from simulations.converged import converged
from simulations.curve import Curve
from simulations.display import Display, Phase
from simulations.engines import run_engine
from simulations.evaluate import compared, evaluate, evaluate_at_home, evaluate_local, evaluate_predictions
from simulations.hospitals import Hospitals
from simulations.kept import Kept
from strategies.data.base import TrainablePatients, concatenate
from strategies.exchange.arrays import Arrays
from strategies.learning import learning_of
from strategies.privacy.modes.none import without_privacy

log = logging.getLogger("archipel.data")


def server_app(
    study: Study,
    checkpoints: Checkpoints | None,
    journal: Journal | None,
    observer: Observer,
    done: Callable[[Outcome], None],
) -> Any:
    """Return the app of a study; its result goes to `done`."""
    return make_app(study, checkpoints=checkpoints, journal=journal, observer=observer, done=done)


def baselines(
    study: Study,
    patients: dict[str, Split],
    display: Display,
    curves: dict[str, list[Point]],
    kept: Kept | None = None,
) -> dict[str, Any]:
    """Train the study without privacy; fit a model at each hospital alone, and one to all training patients.

    Args:
        kept: where those that are done are found again after an interruption.
    """
    plain = without_privacy(study)
    train = {site: p.train for site, p in patients.items()}

    def together() -> dict[str, Arrays]:
        curve = Curve(plain, patients, curves, ComparedModel.WITHOUT_PRIVACY)
        with display.phase(ComparedModel.WITHOUT_PRIVACY.words, plain.training.rounds) as phase:
            return {"": _train_plainly(plain, train, lambda record, model: phase.advance(curve(record, model)))}

    def alone() -> dict[str, Arrays]:
        with display.phase(ComparedModel.LOCAL_ONLY.words, len(study.training_sites)) as phase:
            return {site: _converged(study, train[site], phase, site) for site in study.training_sites}

    def pooled() -> dict[str, Arrays]:
        with display.phase(ComparedModel.POOLED.words, 1) as phase:
            return {"": _converged(study, concatenate([train[site] for site in study.training_sites]), phase)}

    makers = {ComparedModel.WITHOUT_PRIVACY: together} if study.privacy.keys.budgeted else {}
    if study.input_shape is None:  # a model of records would decode all of them in each of thousands of steps
        makers |= {ComparedModel.LOCAL_ONLY: alone, ComparedModel.POOLED: pooled}
    else:
        log.warning("each hospital alone and pooled are left out: fitted to convergence, they take records too long")
    models = {key: _kept_or_made(key, make, curves, kept) for key, make in makers.items()}
    return {key: by_site if key == ComparedModel.LOCAL_ONLY else by_site[""] for key, by_site in models.items()}


def _kept_or_made(
    key: str, make: Callable[[], dict[str, Arrays]], curves: dict[str, list[Point]], kept: Kept | None
) -> dict[str, Arrays]:
    """Return one baseline's models by hospital; made, and kept, where an earlier leg of the run did not."""
    if kept is None:
        return make()
    if (stored := kept.load(key)) is not None:
        models, curve = stored
        if curve:
            curves[key] = curve
        return models
    models = make()
    kept.keep(key, models, curves.get(key, ()))
    return models


def _converged(study: Study, people: TrainablePatients, phase: Phase, site: str = "") -> Arrays:
    model = converged(learning_of(study), people, seed=study.seed)
    phase.advance(site)
    return model


def _train_plainly(study: Study, train: dict[str, TrainablePatients], observer: Observer) -> Arrays:
    """Train without privacy, by the same apps, in this process."""
    make = partial(server_app, study, None, None, observer)
    with closing(Hospitals(study, train.__getitem__)) as hospitals:
        return run_engine("inprocess", hospitals, make).model


def score(
    study: Study,
    federated: Arrays,
    models: dict[str, Any],
    patients: dict[str, Split],
    at_home: Mapping[str, Arrays] = MappingProxyType({}),
) -> dict[str, ModelResult | None]:
    """Judge each model on the test patients, all together and at each hospital; the `models` of metrics.json.

    Args:
        at_home: each hospital's own version of the federated model, where there are such.
    """
    task, test = learning_of(study), {site: p.test for site, p in patients.items()}
    shared = evaluate(study, task, federated, test)
    scores: dict[str, ModelResult | None] = {ComparedModel.FEDERATED: shared.result}
    for key in (ComparedModel.WITHOUT_PRIVACY, ComparedModel.POOLED):
        scores[key] = compared(shared, evaluate(study, task, models[key], test)) if key in models else None
    if not study.privacy.keys.budgeted:
        scores[ComparedModel.WITHOUT_PRIVACY] = shared.result
    local = models.get(ComparedModel.LOCAL_ONLY)
    alone = compared(shared, evaluate_local(study, task, local, test)) if local else None
    scores[ComparedModel.LOCAL_ONLY] = alone
    if at_home:
        scores[ComparedModel.PERSONALISED] = compared(shared, evaluate_at_home(study, task, at_home, test))
    for anchor in anchors_of(study.task.type) if models else ():
        predict = anchor.fitted(study, concatenate([people.train for people in patients.values()]))
        scores[anchor.key] = compared(shared, evaluate_predictions(study, task, predict, test))
    return scores
