"""One local fit: the shared model in, this hospital's model out.

With a plan, every step is a private one: a Poisson sample of patients, a clipped and noised sum. Without, plain batches
in a shuffled order. Only the batches and the noise are random, and both come from `Randomness`.

>>> from configs.schema import Local, Model, Task
>>> from strategies.tasks.tabular import tabular_task
>>> x = np.array([[-1.0], [1.0]], np.float32)
>>> patients = Encoded(x, np.array([0, 1], np.float32), np.arange(2), np.arange(3))
>>> trainer = Trainer(tabular_task(Task("binary", "disease"), Model("logistic"), inputs=1))
>>> start = {"0.weight": np.zeros((1, 1), np.float32), "0.bias": np.zeros(1, np.float32)}
>>> local = Local(batch_size=None, learning_rate=2.0)
>>> trainer.fit(start, patients, local, steps=1, randomness=Randomness.seeded(0, "lille", 1))["0.weight"].tolist()
[[1.0]]
"""

from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.memory import keep_freed_blocks
from configs.schema import Local
from strategies.exact.layers import one_thread
from strategies.exchange.arrays import Arrays
from strategies.federated.local_rule import NO_RULE, LocalRule
from strategies.models.flat_model import FlatModel
from strategies.optimizers import optimizer_of
from strategies.privacy.engines.base import Engine, Gaussian
from strategies.privacy.engines.closed_form import ClosedForm
from strategies.privacy.engines.groups import positions
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit
from strategies.tasks.table import Encoded
from strategies.tasks.tabular import TabularTask


class EngineMaker(Protocol):
    """How a private fit gets its engine; `private_engine` is the one that trains."""

    def __call__(
        self, model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, name: Literal["auto", "opacus"]
    ) -> Engine:
        """An engine for one fit."""


class Trainer:
    """A model kept warm for every fit of one process; it remembers nothing from one fit to the next.

    Two seams are for audits and tests: `engine` makes the private gradients of a fit in place of `private_engine`, and
    the `randomness` of `fit` may be any object of Randomness's interface. What an audit measures between them is thus
    the very path that trains.
    """

    def __init__(self, task: TabularTask, engine: EngineMaker | None = None) -> None:
        torch.set_num_threads(1)  # at these sizes a second thread only costs
        one_thread()
        keep_freed_blocks()
        self._model = FlatModel(task)
        self._engine = engine

    def fit(
        self,
        start: Arrays,
        patients: Encoded,
        local: Local,
        *,
        steps: int,
        randomness: Randomness,
        plan: PrivacyPlan | None = None,
        rule: LocalRule = NO_RULE,
        loaded: Callable[[], object] = lambda: None,
    ) -> Arrays:
        """Train from `start` on the hospital's training patients.

        Args:
            steps: optimizer steps; with a plan they are the plan's steps of one round.
            rule: what the study's strategy adds to each step's gradient.
            loaded: called once `start` was copied; whoever holds it may let it go.

        Raises:
            PrivacyError: with a plan, a layer's gradient mixes patients.
        """
        model = self._model
        model.load(start)
        loaded()
        flat = model.flat.detach().numpy()
        anchor = flat.copy() if rule else None
        drift = None if rule.drift is None else np.concatenate([rule.drift[name].reshape(-1) for name in model.names])
        optimizer = optimizer_of(local)
        if plan is None:
            gradients = self._plain(patients, local, steps, randomness)
        else:
            gradients = self._private(patients, local, plan, randomness)
        usual = model.gradient.numpy()
        for gradient in gradients:
            values = usual if gradient is model.gradient else gradient.numpy()
            if anchor is not None:  # no data in it: with a plan it is added after the noise
                values += rule.added(flat, anchor, drift)
            optimizer.step(flat, values)
        del optimizer, anchor
        return model.take()

    def work(self, fit: Fit) -> Arrays:
        """`fit` of what is asked for."""
        return self.fit(
            fit.start,
            fit.patients,
            fit.local,
            steps=fit.steps,
            randomness=fit.randomness,
            plan=fit.plan,
            rule=fit.rule,
            loaded=fit.loaded,
        )

    @property
    def is_plain(self) -> bool:
        """Whether private gradients are those of `private_engine`."""
        return self._engine is None

    def _plain(self, patients: Encoded, local: Local, steps: int, randomness: Randomness) -> Iterator[Tensor]:
        x, y = torch.from_numpy(patients.x), torch.from_numpy(patients.y)
        for rows in batches(patients, local.batch_size, steps, randomness):
            if rows is None:
                yield self._model.mean_gradient(x, y)
            else:
                some = torch.from_numpy(rows)
                yield self._model.mean_gradient(x[some], y[some])

    def _private(self, patients: Encoded, local: Local, plan: PrivacyPlan, randomness: Randomness) -> Iterator[Tensor]:
        engine = (self._engine or private_engine)(self._model, plan, randomness.gaussian, local.engine)
        # The usual case without tensors, whose making costs as much as a tenth of such a step. The bits are the same.
        of_rows = engine if isinstance(engine, ClosedForm) and self.is_plain and patients.one_row_each else None
        try:
            for _ in range(plan.steps_per_round):
                chosen = randomness.poisson(patients.count, plan.sampling_rate)
                if of_rows is not None:
                    yield of_rows.noisy_gradient_of_rows(patients.x.take(chosen, axis=0), patients.y.take(chosen))
                    continue
                if patients.one_row_each:
                    rows, whose = chosen, positions(len(chosen))
                else:
                    rows, owners = patients.rows_and_patients(chosen)
                    whose = torch.from_numpy(owners)
                x, y = (torch.from_numpy(column.take(rows, axis=0)) for column in (patients.x, patients.y))
                yield engine.noisy_gradient(x, y, whose, patients_in_batch=len(chosen))
        finally:
            engine.close()


def batches(
    patients: Encoded, batch_size: int | None, steps: int, randomness: Randomness
) -> Iterator[NDArray[np.int64] | None]:
    """Row numbers of `steps` batches, pass after pass in a new order; None means every row."""
    if batch_size is None or batch_size >= patients.count:
        for _ in range(steps):
            yield None
        return
    done = 0
    while done < steps:
        order = randomness.sampling.permutation(patients.count)
        for start in range(0, patients.count, batch_size):
            if done == steps:
                return
            yield patients.rows_of(order[start : start + batch_size])
            done += 1
