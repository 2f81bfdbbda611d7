"""One training of one setting, judged on validation patients: those of the training part that the training leaves out.

Test patients of the study's own seed are on neither side, whatever the seed of the trial: that decides who validates,
the batches and the noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from client.patients import Split, load_validation
from configs.errors import DataError
from configs.schema import Study
from simulations.memory import train
from strategies.data.base import concatenate
from strategies.learning import learning_of
from strategies.tasks.metrics import estimates

Figures = Mapping[str, float | None]  # metric -> its value on all validation patients, None where undefined
Parts = Mapping[str, Split]  # hospital -> learned from and validation patients


@dataclass(frozen=True)
class Trial:
    """A training: the setting's study, the study as its data are read, the seed, and the share for validation."""

    study: Study
    data: Study
    seed: int
    validation: float

    @classmethod
    def of(cls, study: Study, own: Study, seed: int, validation: float) -> "Trial":
        """Return a trial; settings that differ only in how they train read the same data."""
        data = replace(study, training=own.training, privacy=own.privacy, model=own.model)
        return cls(study, data, seed, validation)


@lru_cache(maxsize=4)
def parts_of(data: Study, seed: int, validation: float) -> Parts:
    """Return each hospital's training patients in two parts.

    Raises:
        DataError: with the problems of every hospital at once.
    """
    parts, problems = {}, []
    for site, source in data.simulation:
        try:
            parts[site] = load_validation(source, data, site, share=validation, seed=seed)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return parts


def figures(trial: Trial, parts: Parts | None = None) -> Figures:
    """Train, and return every metric of the task on all validation patients together.

    Args:
        parts: read from the study's sources unless given.

    Raises:
        ArchipelError: the data or the plan do not allow the training.
    """
    if parts is None:
        parts = parts_of(trial.data, trial.seed, trial.validation)
    model = train(trained(trial), {site: people.train for site, people in parts.items()}).model
    task, judges = learning_of(trial.study), concatenate([people.test for people in parts.values()])
    if not judges.rows:
        return {metric.name: None for metric in task.objective.metrics}
    y, predicted = task.objective.in_unit(judges.outcomes), task.predictions(model, judges)
    values = estimates(task.objective.metrics, y, [predicted], judges.owners, resamples=0)
    return {name: value.value if value else None for name, value in values.items()}


def trained(trial: Trial) -> Study:
    """Return the study that is trained: with the trial's seed, fewer announced patients, and no further release."""
    study = trial.study
    cohort = tuple(replace(m, patients=max(1, round(m.patients * (1 - trial.validation)))) for m in study.cohort)
    evaluation = replace(study.evaluation, release=None)
    return replace(study, seed=trial.seed, cohort=cohort, evaluation=evaluation, releases=())
