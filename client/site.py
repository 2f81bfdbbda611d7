"""A hospital as its handlers see it.

It joins the study that the hospital approved, its patients, its plan, its ledger and its random numbers. The plan comes
from the study and the announced size; nothing in a message can change it.
"""

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from typing import Any, TypeVar

from client.ledger import Ledger, Release
from client.patients import Split, nobody
from client.personal import Personal
from client.policy import require_figures
from client.timing import quantum_s
from client.trainer import Trainer
from configs.errors import RunError, WireError
from configs.schema import Study
from configs.site import Policy
from configs.wire import ARITHMETIC, ArraySpec
from strategies.data.base import Patients
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning, learning_of
from strategies.models.registry import study_parameters
from strategies.privacy.accounting import SampledGaussian
from strategies.privacy.modes.registry import mode_of
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit, Making, Request
from strategies.releases.base import Release as Kind
from strategies.releases.registry import MODEL_UPDATE, RELEASES, arrays_of

Made = TypeVar("Made")
_UNTRAINED = "expected a private study that has trained here before, found another"
log = logging.getLogger("archipel.client")


class Site:
    """One hospital in one study. `seeded` chance is for simulations and tests; hospitals draw from the system.

    `dataset` names the patients in the ledger, so that their budget outlives a study and a file's name; the hospital's
    own name unless it is given. Of the test patients nothing leaves but what `policy.metrics` allows.

    The patients are those to train with alone, both sides of the split, or a function that reads both: it is called
    when they are needed, which in a private study is after the booking. Whatever fails then may be a row's doing, so a
    release of noise alone leaves in its place, and `on_failure` is told. `alone` asks for such a release of what is
    booked already: no patient is read.
    """

    def __init__(
        self,
        name: str,
        study: Study,
        patients: Patients | Split | Callable[[], Split],
        ledger: Ledger,
        *,
        seeded: bool,
        trainer: Trainer | None = None,
        dataset: str | None = None,
        policy: Policy = Policy(),  # noqa: B008 - frozen
    ) -> None:
        self.name, self.study, self.ledger, self.seeded = name, study, ledger, seeded
        self.dataset, self.policy, self.mode = dataset or name, policy, mode_of(study)
        self._tests = callable(patients) or isinstance(patients, Split)
        self._read = patients if callable(patients) else _reader(patients, study)
        self.alone = False
        self.personal = Personal(study, name)  # which a hospital with a folder keeps there
        self.on_failure: Callable[[Exception], object] = lambda error: log.error("%s: noise alone: %s", name, error)
        self._trainer = trainer or (Trainer(self.task) if self.parameters else None)

    @property
    def train(self) -> Any:
        """Return the training patients, in the study's kind of data; they are read if they have to be."""
        return self._read().train

    @cached_property
    def task(self) -> Learning:
        """Return the study's outcome and model."""
        return learning_of(self.study)

    @cached_property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return the specifications of the model's arrays."""
        return study_parameters(self.study)

    @cached_property
    def _nobody(self) -> Split:
        return nobody(self.study)

    @cached_property
    def forms(self) -> Mapping[str, Mapping[str, ArraySpec]]:
        """Return the arrays of each form of a release, instruction or reply, in this study."""
        return {form: arrays_of(form, self.study) for kind in RELEASES for form in (kind.form, kind.reply)}

    @cached_property
    def plan(self) -> PrivacyPlan | None:
        """Return the guarantee at this hospital by public numbers, None without privacy."""
        return self.mode.plan(self.study, self.name, figures=self.policy.metrics == "noisy")

    @cached_property
    def quantum_s(self) -> float:
        """Return what the public times of its answers are multiples of, in seconds (client/timing.py)."""
        return quantum_s(self.study, self.name)

    def fit(
        self, round_number: int, start: Arrays, loaded: Callable[[], object] = lambda: None, attempt: int = 0
    ) -> Arrays:
        """Train for one round: `release` of a model update.

        Args:
            loaded: called once `start` was copied, so that its memory may be freed.
            attempt: above 0 of a round whose release was lost: a booking of its own, with other noise. Without
                privacy every attempt has the same bits.
        """
        return self.release(MODEL_UPDATE.name, Request(start, round_number, attempt, loaded))

    def release(self, name: str, request: Request) -> Arrays:
        """Make a release; with privacy, booked on disk before a patient is looked at.

        Args:
            name: of its kind (strategies/releases/registry.py).

        Raises:
            BudgetError: the ledger refuses. PolicyError: the hospital's policy does. WireError: the study does not ask
                for it, or not yet. KindError: there is no such kind.
        """
        return driven(self.releasing(name, request), self.work)

    def work(self, fit: Fit) -> Arrays:
        """Fit what is asked for."""
        assert self._trainer is not None
        return self._trainer.fit(fit)

    def releasing(self, name: str, request: Request) -> Making:
        """Make a release as `release` does, for a caller that fits several hospitals at once: yield each booked fit.

        A release about the test patients is booked about the whole data set, though no patient is in both the training
        and the test: the ledger knows data sets, and composing the two is on the safe side.
        """
        kind = RELEASES[name]
        self._require(kind, request)

        plan = self.plan
        if plan is None:
            chance = self._randomness(*kind.chance(request), request.attempt)
            return (yield from kind.make(self, self._people(kind), request, chance))
        event = kind.event(plan)
        if event is None:
            raise WireError(f"{kind.form}: {_UNTRAINED}")
        seeded_name = self._release_name(kind, request, event) if self.seeded else None
        of_study = (self.dataset, self.study.sha256)
        release = Release(*of_study, request.round, event, seeded_name, request.attempt, kind.name)
        with self._booked(release, plan):
            # Noise alone may have to begin from the same model: it is let go of once the release is made.
            outcome = yield from self._released(kind, replace(request, loaded=lambda: None))
        request.loaded()
        return outcome

    def _require(self, kind: Kind, request: Request) -> None:
        """Check what the study, the policy and the ledger say of a release, before anything is booked.

        Raises:
            WireError, PolicyError: it may not be made.
        """
        kind.require(self.study, request)
        trains = self.study.trains_at(self.name)
        if not trains and not kind.of_test:
            raise WireError(f"{kind.form}: expected a hospital that trains, found one that only tests")
        if kind.of_test:
            if not self._tests:
                raise WireError(f"{kind.form}: expected a hospital with test patients, found one without")
            require_figures(self.policy)
        waits = kind.after_training and trains and not self.seeded
        untrained = waits and not self.ledger.events(self.dataset, self.study.sha256)
        if untrained or (self.plan is None and (self.mode.keys.budgeted or not kind.unprotected)):
            raise WireError(f"{kind.form}: {_UNTRAINED}")

    def _booked(self, release: Release, plan: PrivacyPlan) -> AbstractContextManager[None]:
        """Book a release around a block; one of noise alone must be booked before, and never is twice.

        Raises:
            BudgetError: the ledger refuses. RunError: noise alone is asked for, and nothing is booked.
        """
        if not self.alone:
            return self.ledger.reserve(release, plan)
        if self.ledger.booked(self.dataset, self.study.sha256, release.round, release.attempt, release.release):
            return nullcontext()
        raise RunError("noise alone: expected a release that was booked before, found none")

    def _released(self, kind: Kind, request: Request) -> Making:
        """Make a booked release of the patients; should that fail, make it of no patient (noise alone).

        Reading, memory and numbers may fail because of a row, and an answer that is missing would tell that it is
        there. A release of no patient fails only for what the study, the message or the machine decides.

        Raises:
            RunError: it fails without patients too.
        """
        label, number = kind.chance(request)
        if not self.alone:
            try:
                people = self._people(kind)
                return (yield from kind.make(self, people, request, self._randomness(label, number, request.attempt)))
            except Exception as error:
                self.on_failure(error)
        chance = self._randomness(f"{label}/noise alone", number, request.attempt)
        try:
            return (yield from kind.make(self, self._nobody, request, chance))
        except RunError:
            raise
        except Exception as error:
            text = f"{self.name}: no release could be made, not even of nobody: {type(error).__name__}"
            raise RunError(text) from None

    def _people(self, kind: Kind) -> Split:
        """Return the patients whom a kind may see: those who were kept aside only where it says that it is of them."""
        people = self._read()
        return people if kind.of_test else replace(people, test=self._nobody.test)

    def _randomness(self, label: str, number: int, attempt: int) -> Randomness:
        # Without noise chance only orders the batches, so it is always seeded: a deployment repeats its simulation.
        if not self.mode.keys.noised_here:
            return Randomness.ordering(self.study.seed, f"{self.name}{label}", number)
        if self.seeded:
            return Randomness.seeded(self.study.seed, f"{self.name}{label}", number, attempt)
        return Randomness.system()

    def _release_name(self, kind: Kind, request: Request, event: SampledGaussian) -> str:
        """Name a seeded release by all that decides its bits beside the study: kind, plan, patients, first model."""
        label, number = kind.chance(request)
        people = self._read()
        about = f"{ARITHMETIC}/{label}{number}/{event if kind.after_training else self.plan}/"
        digest = sha256(about.encode() + (people.test if kind.of_test else people.train).digest)
        own = self.personal.before(request.round) if request.round else self.personal.final()
        for arrays in (request.arrays, own):
            for name in sorted(arrays):
                digest.update(arrays[name].tobytes())
        return digest.hexdigest()


def _reader(patients: Patients | Split, study: Study) -> Callable[[], Split]:
    split = patients if isinstance(patients, Split) else Split(patients, nobody(study).test, {})
    return lambda: split


def driven(fitting: Generator[Fit, Arrays, Made], fit: Callable[[Fit], Arrays]) -> Made:
    """Fit all that is asked for, one after the other, and return what comes of it."""
    try:
        fit_request = next(fitting)
        while True:
            try:
                trained = fit(fit_request)
            except Exception as error:
                fit_request = fitting.throw(error)
            else:
                fit_request = fitting.send(trained)
    except StopIteration as end:
        release: Made = end.value
        return release
