"""Leave one hospital out: for each, a model of all the others, judged on every patient of the one that was left out.

It answers what the shared model would be worth at a hospital that takes no part. Each model is trained as the study
says, privacy included, by its own code and in memory; the quorum is that of those who are left. It runs on the
researcher's own copies, and nothing of it would leave a hospital.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from client.patients import Split
from configs.errors import ConfigError
from configs.records.result import LeftOut
from configs.schema import Study
from simulations.display import Display
from simulations.evaluate import evaluate
from simulations.kept import Kept
from simulations.memory import train
from strategies.data.base import concatenate
from strategies.exchange.arrays import Arrays
from strategies.learning import learning_of

FOLDER = "left_out"  # of a run, while it is under way


def require_several(study: Study) -> None:
    """Check that there is a hospital left to train where one is left out.

    Raises:
        ConfigError: there is none, or nothing is trained.
    """
    if not study.model.name or study.procedure != "training":
        raise ConfigError("--leave-one-out", [f"expected a study that trains a model, found {study.task.type}"])
    if (trainers := len(study.training_sites)) < 2:
        raise ConfigError("--leave-one-out", [f"expected two hospitals or more, found {trainers}"])


def without(study: Study, site: str) -> Study:
    """Return the study of all hospitals but one, which asks for its model alone."""
    left = {name for name in study.training_sites if name != site}
    return replace(
        study,
        evaluation=replace(study.evaluation, release=None, test_only=()),
        releases=(),
        cohort=tuple(member for member in study.cohort if member.site in left),
        simulation=tuple(entry for entry in study.simulation if entry[0] in left),
        training=replace(study.training, quorum=min(study.training.quorum, len(left))),
    )


def leave_one_out(study: Study, patients: Mapping[str, Split], display: Display, run: Path) -> dict[str, LeftOut]:
    """Return how good the others' model is at each hospital; models are kept in the run until its figures are whole.

    Raises:
        RunError: a training ends early.
    """
    kept, figures = Kept(run / FOLDER, study.sha256), {}
    with display.phase("all hospitals but one", len(study.training_sites)) as phase:
        for site in study.training_sites:
            everybody = concatenate([patients[site].train, patients[site].test])
            model = _model(study, site, patients, kept)
            result = evaluate(study, learning_of(study), model, {site: everybody}).result
            gap = result.outcome.calibrated.in_the_large if result.outcome else None
            figures[site] = LeftOut(everybody.count, result.metrics, gap)
            phase.advance(site)
    return figures


def _model(study: Study, site: str, patients: Mapping[str, Split], kept: Kept) -> Arrays:
    if (stored := kept.load(site)) is not None:
        return stored[0][""]
    others = without(study, site)
    model = train(others, {name: patients[name].train for name in others.sites}).model
    kept.keep(site, {"": model})
    return model
