"""The interface of a release, which is one thing that may leave a hospital.

Both halves of a kind stand in one file. The hospital's half is `make`; `Site.release` (client/site.py) is the one place
that calls it, after it has booked the release in the ledger. The coordinator's half is `judge`, which refuses what no
honest hospital can have sent, and `combine`. What a message of the kind may hold stands in configs/wire.py; it is
checked there, on both sides.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from configs import wire
from configs.errors import WireError
from configs.schema import Local, Study
from configs.wire import ArraySpec
from strategies.federated.local_rule import NO_RULE, LocalRule
from strategies.models.registry import study_parameters
from strategies.privacy.modes.registry import mode_of

if TYPE_CHECKING:  # PyTorch, which the coordinator's half does not need
    from strategies.data.base import TrainablePatients
    from strategies.learning import Learning
    from strategies.privacy.accounting import SampledGaussian
    from strategies.privacy.plan import PrivacyPlan
    from strategies.privacy.randomness import Randomness

Arrays = dict[str, NDArray[np.float32]]
Sent = Callable[[str], Arrays]  # hospital -> what it is sent beside the shared model


@dataclass(frozen=True)
class Fit:
    """One local fit that a release asks for: what `Trainer.fit` (client/trainer.py) takes."""

    start: Arrays
    patients: "TrainablePatients"
    local: Local
    steps: int
    randomness: "Randomness"
    plan: "PrivacyPlan | None" = None
    rule: LocalRule = NO_RULE
    loaded: Callable[[], object] = lambda: None


Making = Generator[Fit, Arrays, Arrays]  # asks for fits, is sent each one's model, and returns what is released


@dataclass(frozen=True)
class Request:
    """The content of an instruction, beside the kind of release.

    `arrays` is the shared model, where the instruction carries one, with what is sent beside it. `round` is 0 of what
    is asked for once. `attempt` is above 0 of a release that was lost: a booking of its own, with other noise. `loaded`
    is called once `arrays` was copied: the caller may let them go.
    """

    arrays: Arrays = field(default_factory=dict)
    round: int = 0
    attempt: int = 0
    loaded: Callable[[], object] = lambda: None


class OwnArrays(Protocol):
    """The arrays of the study's model that a hospital keeps to itself (client/personal.py); most models have none."""

    def before(self, number: int) -> Arrays:
        """Return the arrays that a round begins from."""

    def keep(self, number: int, arrays: Arrays) -> None:
        """Keep the arrays as they are after a round."""

    def final(self) -> Arrays:
        """Return the arrays that go with the study's last model."""


class Hospital(Protocol):
    """The facts that a release may know of the hospital that makes it."""

    @property
    def name(self) -> str:
        """Return the hospital's name."""

    @property
    def study(self) -> Study:
        """Return the approved study."""

    @property
    def plan(self) -> "PrivacyPlan | None":
        """Return the hospital's plan, None without privacy."""

    @property
    def task(self) -> "Learning":
        """Return the study's task and model."""

    @property
    def personal(self) -> OwnArrays:
        """Return the arrays of the model that never leave."""


def at_home(hospital: Hospital, arrays: Arrays) -> Arrays:
    """Return the study's last model as a hospital uses it: with the arrays of its own."""
    return {**arrays, **hospital.personal.final()}


class People(Protocol):
    """A hospital's patients, of the study's kind of data (strategies/data), on the two sides of the split."""

    @property
    def train(self) -> Any:
        """Return the patients for training or counting."""

    @property
    def test(self) -> Any:
        """Return the test patients."""


class Judge(Protocol):
    """Decide which replies to one instruction an honest hospital can have sent."""

    def require(self, site: str, arrays: Arrays) -> None:
        """Refuse what cannot be honest; the arrays' names, shapes and types are known to be right.

        Raises:
            WireError: they cannot come from an honest hospital. The text holds no value.
        """

    def work_out(self, sites: Iterable[str]) -> None:
        """Compute beforehand what `require` needs, while replies are awaited."""


class Release(ABC):
    """One kind of thing that may leave a hospital.

    `name` is the kind's name in the ledger, `what` says in a few words what leaves; `message_type` is what the
    coordinator's instruction is called (configs/wire.py: ASKS). `of_test` says that it tells of the patients who were
    kept aside, whom no other kind is given; `after_training`, that a hospital makes it only where it has trained
    before; `unprotected`, that it may leave without noise in a study without privacy. `number` is given to the kinds
    that were there before kinds had names: it stood in the place of a round's number where one was asked for once.
    """

    name: ClassVar[str]
    what: ClassVar[str]
    message_type: ClassVar[str]
    number: ClassVar[int | None] = None
    of_test: ClassVar[bool] = False
    after_training: ClassVar[bool] = False
    unprotected: ClassVar[bool] = False

    @property
    def form(self) -> str:
        """Return the form of the instruction that asks for it."""
        return wire.ASKS[self.message_type]

    @property
    def reply(self) -> str:
        """Return the form of the reply that carries it."""
        return f"{self.form} reply"

    def instructed(self, study: Study) -> Mapping[str, ArraySpec]:
        """Return the shape and type of each array of the instruction: the model's, where it carries one."""
        return study_parameters(study) if wire.FORMS[self.form].arrays else {}

    @abstractmethod
    def arrays(self, study: Study) -> Mapping[str, ArraySpec]:
        """Return the shape and type of each array of the reply; none where the study asks for no such release."""

    def is_asked(self, study: Study) -> bool:
        """Return whether a study asks for such a release, which it may only with privacy unless `unprotected`."""
        return (self.unprotected or mode_of(study).keys.budgeted) and bool(self.arrays(study))

    @abstractmethod
    def event(self, plan: "PrivacyPlan") -> "SampledGaussian | None":
        """Return what one release costs by a hospital's plan; None where the plan has none."""

    @abstractmethod
    def require_asked(self, study: Study) -> None:
        """Check that a study asks for such a release.

        Raises:
            WireError: it does not.
        """

    def require(self, study: Study, request: Request) -> None:
        """Check that a study asks for this very release.

        Raises:
            WireError: it does not.
        """
        self.require_asked(study)
        if request.round:
            raise WireError(f"{self.form}: expected a release that is asked for once, found a round's number")

    @abstractmethod
    def make(self, hospital: Hospital, people: People, request: Request, randomness: "Randomness") -> Making:
        """Make the release at the hospital, once it is booked; there may be no patient."""

    @abstractmethod
    def judge(self, study: Study, shared: Arrays, sent: Sent) -> Judge:
        """Return what decides, at the coordinator, which replies are plausible.

        Args:
            shared: the model that was sent to every hospital; empty where the instruction carries none.
            sent: what each hospital was sent beside it.
        """

    @abstractmethod
    def sentence(self, study: Study) -> str:
        """Return what leaves, in one sentence."""

    def outlook(self, study: Study) -> str:
        """Return what a plan must say of it by public numbers alone, such as that noise will drown it."""
        del study
        return ""

    @property
    def repeated(self) -> bool:
        """Return whether it is asked for in each round, and not once."""
        return False

    def words(self, _round_number: int) -> str:
        """Return one release in words, for people."""
        return f"the {self.name}"

    @abstractmethod
    def combine(self, study: Study, released: Mapping[str, Arrays], shared: Arrays) -> Any:
        """Return what follows from the hospitals' releases, as metrics.json has it.

        `released` is hospital -> arrays, of one hospital at least; `shared` the final model, empty where nothing is
        trained or nothing is read of it. What follows from a further release
        (section `releases` of a study) is the record that its `ReleaseKeys` declare.
        """

    def rehearsed(self, study: Study, result: Any, shared: Arrays, people: Iterable[People]) -> Any:
        """Return a combined result with what it would be without noise, where a simulation has the patients.

        Args:
            people: of each hospital that released something.
        """
        del study, shared, people  # most results have nothing to compare
        return result

    def chance(self, request: Request) -> tuple[str, int]:
        """Return what decides a seeded release's chance: what is added to the hospital's name, and a number."""
        return f"/{self.name}" if self.number is None else "", self.number_of(request.round)

    def number_of(self, round_number: int) -> int:
        """Return what stands in the place of a round's number: that of the round, or the kind's own."""
        return round_number or self.number or 0


@dataclass(frozen=True)
class Each:
    """A judge of each reply independently: `check` gets the hospital's name and arrays."""

    check: Callable[[str, Arrays], None]

    def require(self, site: str, arrays: Arrays) -> None:
        """Refuse what cannot be honest.

        Raises:
            WireError: as `check`.
        """
        self.check(site, arrays)

    def work_out(self, sites: Iterable[str]) -> None:
        """Compute nothing beforehand."""
