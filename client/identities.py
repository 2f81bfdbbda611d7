"""Identities in the ledger that no data set of site.yaml has any more.

Their patients have a budget that site.yaml has lost sight of. A budget follows an identity. Where the identity of a
data set was changed, its patients have a second budget, and nothing in site.yaml alone shows it. Whether they are the
same patients, the hospital's people know; they are told.
"""

from dataclasses import dataclass

from client.admission import Admissions
from client.ledger import Ledger
from configs.schema import PER_PATIENT
from configs.shown import DIGITS
from configs.site import SiteConfig


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The spending under an identity that no data set of site.yaml has any more."""

    identity: str
    epsilon: float
    studies: tuple[str, ...]  # names of those that spent it
    replaced_by: str  # the identity that the data set of one of these studies has now; empty where none has a data set
    more_than_its_successor: bool  # has the identity that replaced it spent less?

    def __str__(self) -> str:
        places = (
            f"the ledger holds epsilon {self.epsilon:.3f} ({PER_PATIENT}) spent under the identity {self.identity!r} "
            f"by {', '.join(self.studies)}, and no data set of site.yaml has this identity any more"
        )
        if self.replaced_by:
            return f"{places}: their data set has {self.replaced_by!r} now; the same patients would have two budgets"
        return f"{places}: patients of theirs who are in another data set would have two budgets"

    @property
    def todo(self) -> str:
        """Return what a person must do to settle it."""
        return f"give the data set of these patients `identity: {self.identity}`; or know that no data set has them"


def forgotten(config: SiteConfig) -> list[Forgotten]:
    """Return each identity with releases in the ledger that no data set of site.yaml has, oldest first.

    Raises:
        RunError: the ledger or the list of studies cannot be opened.
    """
    if not config.ledger.exists():
        return []
    ledger, admissions = Ledger.open(config.ledger), Admissions.open(config.admissions)
    try:
        names = {admission.sha256: admission.name for admission in admissions.all()}
        declared = {dataset.identity for dataset in config.datasets}
        by_identity: dict[str, list[str]] = {}
        for identity, study, *_ in ledger.studies():
            if identity not in declared:
                by_identity.setdefault(identity, []).append(study)
        return [
            _forgotten(config, ledger, identity, [names.get(study, f"study {study[:DIGITS]}") for study in studies])
            for identity, studies in by_identity.items()
        ]
    finally:
        ledger.close()
        admissions.close()


def _forgotten(config: SiteConfig, ledger: Ledger, identity: str, studies: list[str]) -> Forgotten:
    delta = config.policy.delta
    spent = ledger.spent(identity, delta=delta)
    successor = next((data.identity for study in studies if (data := config.dataset(study)) is not None), "")
    more = bool(successor) and ledger.spent(successor, delta=delta) < spent
    return Forgotten(identity, spent, tuple(dict.fromkeys(studies)), successor, more)
