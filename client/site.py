"""A hospital as its handlers see it: the study it approved, its patients, its plan, its ledger, its chance.

The plan comes from the study and the announced size; nothing in a message can change it.
"""

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from hashlib import sha256
from typing import TypeVar

from client.ledger import EVALUATION, STATISTICS, Ledger, Release
from client.patients import Patients, nobody
from client.policy import require_figures
from client.timing import quantum_s
from client.trainer import Trainer
from configs.errors import RunError, WireError
from configs.federated import sent_arrays
from configs.schema import Study
from configs.site import Policy
from configs.wire import ARITHMETIC, COUNTS, HISTOGRAM, ArraySpec
from strategies.exchange.arrays import Arrays, all_finite
from strategies.federated.registry import local_rule
from strategies.learning import Learning, learning_of
from strategies.models.registry import study_parameters
from strategies.privacy.accounting import SampledGaussian
from strategies.privacy.plan import PrivacyPlan, plan_for
from strategies.privacy.randomness import Randomness
from strategies.releases import statistics
from strategies.releases.base import Fit, Making
from strategies.releases.columns import layout_of
from strategies.releases.noisy_counts import noised
from strategies.releases.score_histogram import counts
from strategies.tasks.table import Encoded

Made = TypeVar("Made")
log = logging.getLogger("archipel.client")


class Site:
    """One hospital in one study. `seeded` chance is for simulations and tests; hospitals draw from the system.

    `dataset` names the patients in the ledger, so that their budget outlives a study and a file's name; the hospital's
    own name unless it is given. Of the `test` patients nothing leaves but what `policy.metrics` allows.

    The patients are given, or a function that reads them: it is called when they are needed, which in a private study
    is after the booking. Whatever fails then may be a row's doing, so a release of noise alone leaves in its place, and
    `on_failure` is told. `alone` asks for such a release of what is booked already: no patient is read.
    """

    def __init__(
        self,
        name: str,
        study: Study,
        train: Encoded | Callable[[], Patients],
        ledger: Ledger,
        *,
        seeded: bool,
        trainer: Trainer | None = None,
        dataset: str | None = None,
        test: Encoded | None = None,
        policy: Policy = Policy(),  # noqa: B008 - frozen
    ) -> None:
        self.name, self.study, self.ledger, self.seeded = name, study, ledger, seeded
        self.dataset, self.policy = dataset or name, policy
        self._tests = callable(train) or test is not None
        self._read = train if callable(train) else partial(Patients, train, test or nobody(study).test, {})
        self.alone = False
        self.on_failure: Callable[[Exception], object] = lambda error: log.error("%s: noise alone: %s", name, error)
        self._trainer = trainer or (Trainer(self.task) if study.trains else None)
        self.loaded: Callable[[], object] = lambda: None  # called when a round's first model was copied

    @property
    def train(self) -> Encoded:
        """The training patients, who may have to be read."""
        return self._read().train

    @cached_property
    def task(self) -> Learning:
        """Return the study's outcome and model."""
        return learning_of(self.study)

    @cached_property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """What the model's arrays must be."""
        return study_parameters(self.study)

    @cached_property
    def instructed(self) -> Mapping[str, ArraySpec]:
        """Return what a round's instructions must hold: the model, and what the strategy sends beside it."""
        return {**self.parameters, **sent_arrays(self.study.training.strategy, self.parameters)}

    @cached_property
    def plan(self) -> PrivacyPlan | None:
        """The guarantee at this hospital by public numbers, None without privacy."""
        if not self.study.private:
            return None
        return plan_for(self.study, self.name, figures=self.policy.metrics == "noisy")

    @cached_property
    def quantum_s(self) -> float:
        """What the public times of its answers are multiples of, in seconds (client/timing.py)."""
        return quantum_s(self.study, self.name)

    def fit(
        self, round_number: int, start: Arrays, loaded: Callable[[], object] = lambda: None, attempt: int = 0
    ) -> Arrays:
        """Train for one round; with privacy, booked before the first gradient.

        Args:
            loaded: called once `start` was copied; whoever holds it may let it go.
            attempt: above 0 of a round whose release was lost: a booking of its own, with other noise. Without
                privacy every attempt has the same bits.

        Raises:
            BudgetError: the ledger refuses. WireError: the study has no such round.
        """
        return driven(self.fitting(round_number, start, loaded, attempt), self.work)

    def work(self, fit: Fit) -> Arrays:
        """Fit what is asked for."""
        assert self._trainer is not None
        return self._trainer.fit(fit)

    def fitting(
        self, round_number: int, start: Arrays, loaded: Callable[[], object] = lambda: None, attempt: int = 0
    ) -> Making:
        """`fit` for whoever fits several hospitals at once: ask for each fit, once it is booked, and take its model."""
        if not self.study.trains:
            raise WireError("train: expected a study that trains a model, found one of statistics")
        if not 1 <= round_number <= self.study.training.rounds:
            raise WireError(f"train: expected a round from 1 to {self.study.training.rounds}, found another")
        plan = self.plan
        if plan is None:
            chance = self._randomness(round_number, attempt)
            return (yield from self._train(self._read().train, start, chance, None, loaded))
        name = self._release_name(round_number, start) if self.seeded else None
        release = Release(self.dataset, self.study.sha256, round_number, plan.round_event, name, attempt)

        def make(people: Patients, randomness: Randomness) -> Making:
            return self._train(people.train, start, randomness, plan, loaded)

        with self._booked(release, plan):
            trained = yield from self._released(make, round_number, attempt)
        loaded()
        self.loaded()
        return trained

    def evaluate(self, model: Arrays, attempt: int = 0) -> Arrays:
        """How the final model scores the test patients: a noisy histogram, booked before anything is computed.

        Nobody is in both the training and the test, but a release about either is booked about the whole data set:
        the ledger knows data sets, and composing the two is on the safe side.

        Raises:
            PolicyError: the policy lets no figure leave. BudgetError: the ledger refuses, or it was asked before.
            WireError: the study asks for none, or has not trained here.
        """
        asked = self.study.evaluation.release
        if asked is None or not self._tests:
            raise WireError("evaluate: expected a study that asks for figures (evaluation.release), found another")
        require_figures(self.policy)
        trained = self.seeded or self.ledger.events(self.dataset, self.study.sha256)
        if self.plan is None or self.plan.evaluation is None or not trained:
            raise WireError("evaluate: expected a private study that has trained here before, found another")
        event, bins = self.plan.evaluation, asked.bins
        name = self._release_name(EVALUATION, model, event) if self.seeded else None

        def make(people: Patients, randomness: Randomness) -> Making:
            yield from ()  # nothing is fitted
            scores = self.task.predict(model, people.test.x)[:, self.task.objective.outcome]
            exact = counts(scores, people.test.y, starts=people.test.starts, bins=bins)
            return {HISTOGRAM: noised(exact, event.noise_multiplier, randomness)}

        with self._booked(Release(self.dataset, self.study.sha256, EVALUATION, event, name, attempt), self.plan):
            return driven(self._released(make, EVALUATION, attempt), self.work)

    def statistics(self, attempt: int = 0) -> Arrays:
        """How many patients have each value of each column: noisy counts, booked before anything is counted.

        Raises:
            BudgetError: the ledger refuses. WireError: the study trains a model.
        """
        if self.study.trains or self.plan is None:
            raise WireError("statistics: expected a private study of statistics, found another")
        name = self._release_name(STATISTICS, {}) if self.seeded else None
        release = Release(self.dataset, self.study.sha256, STATISTICS, self.plan.round_event, name, attempt)
        deviation = statistics.standard_deviation(self.plan)

        def make(people: Patients, randomness: Randomness) -> Making:
            yield from ()  # nothing is fitted
            exact = statistics.counts(people.train.x, layout_of(self.study))
            return {COUNTS: noised(exact, deviation, randomness)}

        with self._booked(release, self.plan):
            return driven(self._released(make, STATISTICS, attempt), self.work)

    def _booked(self, release: Release, plan: PrivacyPlan) -> AbstractContextManager[None]:
        """Book a release around a block; one of noise alone must be booked before, and never is twice.

        Raises:
            BudgetError: the ledger refuses. RunError: noise alone is asked for, and nothing is booked.
        """
        if not self.alone:
            return self.ledger.reserve(release, plan)
        if self.ledger.booked(self.dataset, self.study.sha256, release.round, release.attempt):
            return nullcontext()
        raise RunError("noise alone: expected a release that was booked before, found none")

    def _released(self, make: Callable[[Patients, Randomness], Making], number: int, attempt: int) -> Making:
        """Make a booked release of the patients; should that fail, of nobody.

        Reading, memory and numbers may fail because of a row, and an answer that is missing would tell that it is
        there. Of nobody fails only what the study, the message or the machine decides.

        Raises:
            RunError: it fails of nobody too.
        """
        if not self.alone:
            try:
                return (yield from make(self._read(), self._randomness(number, attempt)))
            except Exception as error:
                self.on_failure(error)
        try:
            return (yield from make(nobody(self.study), self._randomness(number, attempt, "/noise alone")))
        except RunError:
            raise
        except Exception as error:
            text = f"{self.name}: no release could be made, not even of nobody: {type(error).__name__}"
            raise RunError(text) from None

    def _train(
        self,
        people: Encoded,
        start: Arrays,
        randomness: Randomness,
        plan: PrivacyPlan | None,
        loaded: Callable[[], object],
    ) -> Making:
        def let_go() -> None:
            if plan is None:  # else noise alone may have to begin from it
                loaded()
                self.loaded()

        training = self.study.training
        start, sent = self._told_apart(start)
        if plan is not None:
            steps = plan.steps_per_round
        elif not people.count:
            unchanged = {name: array.copy() for name, array in start.items()}
            let_go()
            return unchanged
        else:
            steps = training.local.steps_per_round(self.study.announced_train_patients(self.name) or people.count)
        trained = yield Fit(
            start, people, training.local, steps, randomness, plan, local_rule(self.study, sent), let_go
        )
        if not all_finite(trained.values()):
            raise RunError(
                f"{self.name}: training diverged to values that are not finite, nothing is sent; "
                "lower the study's learning_rate"
            )
        return trained

    def _told_apart(self, received: Arrays) -> tuple[Arrays, Arrays]:
        """Return the model that was received, and what the study's strategy sent beside it."""
        if len(received) == len(self.parameters):
            return received, {}
        sent = {name: array for name, array in received.items() if name not in self.parameters}
        return {name: received[name] for name in self.parameters}, sent

    def _randomness(self, round_number: int, attempt: int, use: str = "") -> Randomness:
        # Without privacy chance only orders the batches, so it is always seeded: a deployment repeats its simulation.
        if not self.study.private:
            return Randomness.ordering(self.study.seed, f"{self.name}{use}", round_number)
        if self.seeded:
            return Randomness.seeded(self.study.seed, f"{self.name}{use}", round_number, attempt)
        return Randomness.system()

    def _digest_of(self, test: bool) -> bytes:
        people = self._read()
        return (people.test if test else people.train).digest

    def _release_name(self, round_number: int, start: Arrays, event: SampledGaussian | None = None) -> str:
        """All that decides a seeded release's bits beside the study: round, plan, patients, first model."""
        about = f"{ARITHMETIC}/{round_number}/{event or self.plan}/"
        digest = sha256(about.encode() + self._digest_of(event is not None))
        for name in sorted(start):
            digest.update(start[name].tobytes())
        return digest.hexdigest()


def driven(fitting: Generator[Fit, Arrays, Made], fit: Callable[[Fit], Arrays]) -> Made:
    """Fit all that is asked for, one after the other, and return what comes of it."""
    try:
        asked = next(fitting)
        while True:
            try:
                trained = fit(asked)
            except Exception as error:
                asked = fitting.throw(error)
            else:
                asked = fitting.send(trained)
    except StopIteration as end:
        made: Made = end.value
        return made
