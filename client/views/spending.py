"""Privacy spent and left, by data set and study."""

from collections.abc import Iterator
from dataclasses import dataclass

from client.admission import Admission
from client.folder import SiteFolder
from configs.errors import ConfigError
from strategies.releases.registry import MODEL_UPDATE, SCORE_HISTOGRAM, STATISTICS


@dataclass(frozen=True, slots=True)
class StudySpending:
    """A study's spending of a data set, at the delta of site.yaml. `name` is "?" where its proposal is unknown.

    `others` names releases beside the rounds, the evaluation and the statistics. `lost` counts the releases that were
    begun and lost, `seeded` those with noise from a seed.
    """

    name: str
    digest: str
    epsilon: float
    trains: bool
    rounds: int
    evaluated: bool
    others: tuple[str, ...]
    lost: int
    seeded: int


@dataclass(frozen=True, slots=True)
class DatasetSpending:
    """The spending of all studies together of a data set. Epsilon is per patient, at this delta."""

    dataset: str
    spent: float
    left: float
    max_epsilon: float
    delta: float
    studies: tuple[StudySpending, ...]


def spending(folder: SiteFolder) -> Iterator[DatasetSpending]:
    """Yield what is spent of each data set."""
    if (ledger := folder.ledger) is None:
        return
    policy, proposals = folder.config.policy, {a.sha256: a for a in folder.admissions.all()}
    booked = ledger.studies()
    for dataset in dict.fromkeys(dataset for dataset, *_ in booked):
        spent = ledger.spent(dataset, delta=policy.delta)
        studies = [
            StudySpending(
                name=proposals[study].name if study in proposals else "?",
                digest=study,
                epsilon=ledger.spent(dataset, delta=policy.delta, study=study),
                trains=_trains(proposals.get(study)),
                rounds=rounds,
                evaluated=SCORE_HISTOGRAM.name in (once := ledger.asked_once(dataset, study)),
                others=tuple(name for name in once if name not in (SCORE_HISTOGRAM.name, STATISTICS.name)),
                lost=lost,
                seeded=ledger.seeded(dataset, study),
            )
            for _, study, rounds, lost in (row for row in booked if row[0] == dataset)
        ]
        remaining = max(0.0, policy.max_epsilon - spent)
        yield DatasetSpending(dataset, spent, remaining, policy.max_epsilon, policy.delta, tuple(studies))


def _trains(admission: Admission | None) -> bool:
    """Return whether a study has rounds; one that is unknown, or that this release does not accept any more, did."""
    try:
        return admission is None or MODEL_UPDATE.is_asked(admission.study)
    except ConfigError:
        return True
