"""The release `model update`: the shared model in, the model trained on it out.

Both halves are here. With privacy each step's gradients are clipped and noised (client/trainer.py,
strategies/privacy/); without, the model leaves as it was trained. Combining updates is the strategy's part
(strategies/federated).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from configs import wire
from configs.errors import RunError, WireError
from configs.federated import sent_arrays
from configs.schema import Study
from configs.wire import ArraySpec
from strategies.models.registry import shared_parameters, study_parameters
from strategies.privacy.modes.registry import mode_of
from strategies.releases.base import Arrays, Fit, Hospital, Judge, Making, People, Release, Request, Sent

if TYPE_CHECKING:  # PyTorch, which the coordinator's half does not need
    from strategies.privacy.accounting import SampledGaussian
    from strategies.privacy.plan import PrivacyPlan
    from strategies.privacy.randomness import Randomness


class ModelUpdate(Release):
    """The model that a hospital trained in one round."""

    name: ClassVar[str] = "model update"
    what: ClassVar[str] = "model update"
    message_type: ClassVar[str] = wire.TRAIN
    number: ClassVar[int | None] = 0
    unprotected: ClassVar[bool] = True

    def instructed(self, study: Study) -> Mapping[str, ArraySpec]:
        """Return the model's parameters, and what the study's strategy sends beside them."""
        parameters = shared_parameters(study)
        return {**parameters, **sent_arrays(study.training.strategy, parameters)}

    def arrays(self, study: Study) -> Mapping[str, ArraySpec]:
        """Return the model's parameters, but those that a hospital keeps to itself."""
        return shared_parameters(study)

    def event(self, plan: "PrivacyPlan") -> "SampledGaussian | None":
        """Return the cost of one round."""
        return plan.round_event if plan.trains else None

    def require_asked(self, study: Study) -> None:
        """Check that the study trains.

        Raises:
            WireError: it does not.
        """
        if not self.arrays(study):
            raise WireError("train: expected a study that trains a model, found one of statistics")

    def require(self, study: Study, request: Request) -> None:
        """Check that the study has such a round.

        Raises:
            WireError: it has none.
        """
        self.require_asked(study)
        if not 1 <= request.round <= study.training.rounds:
            raise WireError(f"train: expected a round from 1 to {study.training.rounds}, found another")

    def make(self, hospital: Hospital, people: People, request: Request, randomness: "Randomness") -> Making:
        """Train on the hospital's training patients; without privacy and patients the model stays as it is.

        Raises:
            RunError: training diverged.
        """
        from strategies.exchange.arrays import all_finite  # Flower, which the plan and the commands start without
        from strategies.federated.registry import local_rule

        start, sent = _split(request.arrays, hospital.study)
        own = hospital.personal.before(request.round)
        training, patients, mode = hospital.study.training, people.train, mode_of(hospital.study)
        plan = mode.training_plan(hospital.plan)
        if plan is not None:
            steps = plan.steps_per_round
        elif not patients.count:
            unchanged = {name: array.copy() for name, array in start.items()}
            request.loaded()
            return unchanged
        else:
            announced = hospital.study.announced_train_patients(hospital.name)
            steps = training.local.steps_per_round(announced or patients.count)
        rule = local_rule(hospital.study, sent).sparing(own)
        whole = {**start, **own} if own else start  # whose memory is freed once it was copied
        trained = yield Fit(whole, patients, training.local, steps, randomness, plan, rule, request.loaded)
        if not all_finite(trained.values()):
            raise RunError(
                f"{hospital.name}: training diverged to values that are not finite, nothing is sent; "
                "lower the study's learning_rate"
            )
        if patients.count:  # noise alone is no training
            hospital.personal.keep(request.round, {name: trained[name] for name in own})
        return mode.protect(hospital.study, start, {name: trained[name] for name in trained if name not in own})

    def judge(self, study: Study, shared: Arrays, sent: Sent) -> Judge:
        """Return the bounds on how far an honest update can be from the shared model."""
        from strategies.releases.plausible import Plausibility  # Flower, as above

        return Plausibility(study, shared, sent)

    @property
    def repeated(self) -> bool:
        """Return True: rounds are many."""
        return True

    def words(self, round_number: int) -> str:
        """Return the round's number."""
        return f"round {round_number}"

    def combine(self, _study: Study, _released: Mapping[str, Arrays], _shared: Arrays) -> dict[str, Any]:
        """Return nothing: what follows from the updates is the next shared model."""
        return {}

    def sentence(self, study: Study) -> str:
        """Return what leaves in each round."""
        noise = ", with noise" if mode_of(study).keys.noised_here else ""
        return f"in each round the model's numbers after training here{noise}"


def _split(received: Arrays, study: Study) -> tuple[Arrays, Arrays]:
    """Return the shared arrays of the model that was received, and what the study's strategy sent beside it."""
    shared, whole = shared_parameters(study), study_parameters(study)
    if len(received) == len(shared):
        return received, {}
    sent = {name: array for name, array in received.items() if name not in whole}
    return {name: received[name] for name in shared}, sent
