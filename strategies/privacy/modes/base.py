"""The interface of a privacy mode: a hospital's plan, both sides' protection, the guarantee.

The guarantee is stated in words. "No privacy" is one more mode behind the same interface. Where noise is added differs:
by the hospital in each step of its training (`training_plan`), by the hospital to a whole update (`protect`; a mode
that shares the noise out divides it by the study's quorum here, and accounts for the whole in `plan`), or by the
coordinator (`combine`).

>>> Guarantee("patient", "add or remove one", "at each hospital", "whoever sees what leaves it").words
'per patient, add or remove one, at each hospital'
"""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configs.schema import Study
from configs.schema.privacy import ModeKeys
from strategies.privacy.accounting import SampledGaussian
from strategies.privacy.plan import PrivacyPlan

if TYPE_CHECKING:  # imports Flower, which commands that plan do without
    from strategies.exchange.arrays import Arrays


@dataclass(frozen=True, slots=True)
class Guarantee:
    """The guarantee of an epsilon, for people.

    `where` says of which releases; `against` whom it protects; `limits`, a sentence, against whom it does not.
    """

    unit: str
    adjacency: str
    where: str
    against: str
    limits: str = ""

    @property
    def words(self) -> str:
        """Return what stands behind the pair of numbers."""
        return f"per {self.unit}, {self.adjacency}, {self.where}"


def covered(study: Study) -> str:
    """Return what the study's epsilon is about: its training, where releases cost an epsilon of their own beside it."""
    return "training" if study.evaluation.release or study.releases else "study"


class PrivacyMode(ABC):
    """One mode. By default nothing is planned, added or guaranteed."""

    keys: ModeKeys

    @property
    def name(self) -> str:
        """Return the name by which a study says it."""
        return self.keys.name

    def plan(self, study: Study, site: str, patients: int = 1, *, figures: bool = True) -> PrivacyPlan | None:
        """Return what a hospital's releases cost, known before anybody looks at data; None where nothing is booked.

        Args:
            patients: of statistics alone, where the study announces no number: what delta is held against.
            figures: whether the site lets the figures leave that the study may ask for.

        Raises:
            PrivacyError: the hospital announced no size, or no noise reaches the budget.
        """
        del study, site, patients, figures
        return None

    def plan_of_size(self, study: Study, patients: int, site: str) -> PrivacyPlan | None:
        """Return the plan of a hospital of so many training patients, a public number; `site` is for messages.

        Raises:
            PrivacyError: no noise reaches the budget.
        """
        del study, patients, site
        return None

    def require_plannable(self, study: Study, site: str) -> None:
        """Check, without the cost of a plan, that the hospital can have one.

        Raises:
            PrivacyError: the hospital announced no size.
        """
        del study, site

    def evaluation(self, study: Study) -> SampledGaussian | None:
        """Return the noisy histogram that a study asks for after its training, None where it asks for none."""
        del study
        return None

    def training_plan(self, plan: PrivacyPlan | None) -> PrivacyPlan | None:
        """Return what each step of a hospital's training clips and noises by; None where its steps are plain ones."""
        del plan
        return None

    def protect(self, study: Study, start: "Arrays", trained: "Arrays") -> "Arrays":
        """Return the model as it leaves the hospital, of a round that began with `start` and that is booked.

        It must depend on a patient no more than the plan accounts for. Of a release that fails, what an empty training
        makes of `start` leaves in its place. Where nothing is booked `start` may be gone.
        """
        del study, start
        return trained

    def combine(
        self, study: Study, combined: "Arrays", weights: Mapping[str, float], number: int, *, seeded: bool
    ) -> "Arrays":
        """Return the coordinator's new model.

        Args:
            combined: what the strategy made of the hospitals' updates.
            weights: of the hospitals that contributed.
            number: the round.
            seeded: whether chance follows from the study's seed, as in a simulation.
        """
        del study, weights, number, seeded
        return combined

    def guarantee(self, study: Study) -> Guarantee | None:
        """Return what the study's epsilon guarantees; None where it has none."""
        del study
        return None

    def review(self, study: Study) -> str:
        """Return what a person at a hospital must know of the mode before approving a study."""
        guarantee, privacy = self.guarantee(study), study.privacy
        if guarantee is None:
            return "NONE: the model's numbers leave without noise"
        return (
            f"differential privacy ({self.name}): epsilon {privacy.epsilon:g} at delta {privacy.delta:g} "
            f"{guarantee.words}, for the whole {covered(study)}, against {guarantee.against}"
            f"{f'; {guarantee.limits}' if guarantee.limits else ''}"
        )

    def fragility(self, study: Study) -> str:
        """Return a sentence where one lost release ends the study for ever, an empty text where it does not."""
        if not self.keys.budgeted or study.privacy.spare or study.training.quorum < max(1, len(study.training_sites)):
            return ""
        return (
            f"training.quorum is all {len(study.training_sites)} hospitals and privacy.spare is 0: one release that is "
            "lost after it was booked (a killed process, a power cut) ends the study for ever; write privacy.spare: 2, "
            "or lower training.quorum"
        )
