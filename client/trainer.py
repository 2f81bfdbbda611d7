"""Local training of one hospital's model: the shared model in, the trained one out.

With a plan, every step is a private one: a Poisson sample of patients, a clipped and noised sum. Without, plain batches
in a shuffled order. Only the batches and the noise are random, and both come from `Randomness`.

>>> from configs.schema import Local, Model, Task
>>> from strategies.data.table import TablePatients
>>> from strategies.learning import learning
>>> x = np.array([[-1.0], [1.0]], np.float32)
>>> patients = TablePatients(x, np.array([0, 1], np.float32), np.arange(2), np.arange(3))
>>> trainer = Trainer(learning(Task("binary", "disease"), Model("logistic"), inputs=1))
>>> start = {"0.weight": np.zeros((1, 1), np.float32), "0.bias": np.zeros(1, np.float32)}
>>> local = Local(batch_size=None, learning_rate=2.0)
>>> trainer.fit(Fit(start, patients, local, 1, Randomness.seeded(0, "lille", 1)))["0.weight"].tolist()
[[1.0]]
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.memory import keep_freed_blocks
from strategies.data.base import TrainablePatients
from strategies.exact.layers import one_thread
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning
from strategies.models.flat_model import FlatModel
from strategies.optimizers import optimizer_of
from strategies.privacy.engines.base import Engine, Gaussian, NoisySum, batch_of
from strategies.privacy.engines.one_by_one import OneByOne
from strategies.privacy.engines.select import private_engine
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.releases.base import Fit

# Of a fit without privacy, which an engine never clips or noises.
_WITHOUT = PrivacyPlan(
    clip_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1, delta=0.5, expected_patients=1
)


class EngineMaker(Protocol):
    """The factory of a private fit's engine; `private_engine` is the one that trains."""

    def __call__(self, model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, name: str) -> Engine:
        """Return an engine for one fit."""


class Trainer:
    """A model kept warm for every fit of one process; it remembers nothing from one fit to the next.

    Two seams are for audits and tests: `engine` makes the private gradients of a fit in place of `private_engine`, and
    the `randomness` of `fit` may be any object of Randomness's interface. What an audit measures between them is thus
    the very path that trains.
    """

    def __init__(self, task: Learning, engine: EngineMaker | None = None, device: str = "cpu") -> None:
        torch.set_num_threads(1)  # at these sizes a second thread only costs
        one_thread()
        keep_freed_blocks()
        self._model, self._one_patient = FlatModel(task, device), task.architecture.one_patient
        self._engine = engine

    def fit(self, fit: Fit) -> Arrays:
        """Train from `fit.start` on the hospital's training patients and return the model.

        Raises:
            PrivacyError: with a plan, a layer's gradient mixes patients.
        """
        model, rule = self._model, fit.rule
        model.load(fit.start)
        fit.loaded()
        flat = model.flat.detach().cpu().numpy()  # on the processor the parameters themselves
        anchor = flat.copy() if rule else None
        drift = None if rule.drift is None else np.concatenate([rule.drift[name].reshape(-1) for name in model.names])
        optimizer, on_host = optimizer_of(fit.local), model.flat.device.type == "cpu"
        usual = model.gradient.cpu().numpy()
        for gradient in self._plain(fit) if fit.plan is None else self._private(fit, fit.plan):
            values = usual if gradient is model.gradient and on_host else gradient.cpu().numpy()
            if anchor is not None:  # no data in it: with a plan it is added after the noise
                values += rule.added(flat, anchor, drift)
            optimizer.step(flat, values)
            if not on_host:
                model.flat.data.copy_(torch.from_numpy(flat))
        del optimizer, anchor
        return model.take()

    @property
    def is_plain(self) -> bool:
        """Return whether private gradients are those of `private_engine`."""
        return self._engine is None

    def _plain(self, fit: Fit) -> Iterator[Tensor]:
        patients, one_by_one = fit.patients, self._one_by_one()
        for rows in batches(patients, fit.local.batch_size, fit.steps, fit.randomness):
            count = patients.averaged(rows)
            if one_by_one is not None:
                every = np.arange(patients.rows) if rows is None else rows
                yield one_by_one.plain_mean_of(patients, every, count)
            elif (patients.rows if rows is None else len(rows)) <= patients.at_once:
                yield self._model.mean_gradient(*self._taken(patients, rows), count)
            else:
                yield self._in_portions(patients, rows, count)

    def _one_by_one(self) -> OneByOne | None:
        """Return what gives a model one patient at a time, for models that want it without privacy too."""
        if not self._one_patient:
            return None
        engine = private_engine(self._model, _WITHOUT, lambda *_: torch.zeros(0))
        assert isinstance(engine, OneByOne)
        return engine

    def _in_portions(self, patients: TrainablePatients, rows: NDArray[np.int64] | None, count: int) -> Tensor:
        """Write the same mean gradient of more rows than fit into memory, added up in float64."""
        rows = np.arange(patients.rows) if rows is None else rows
        total = torch.zeros_like(self._model.gradient, dtype=torch.float64)
        for start in range(0, len(rows), patients.at_once):
            some = self._taken(patients, rows[start : start + patients.at_once])
            total += self._model.mean_gradient(*some, count)
        self._model.gradient.copy_(total)
        return self._model.gradient

    def _taken(self, patients: TrainablePatients, rows: NDArray[np.int64] | None) -> tuple[Tensor, Tensor]:
        """Return rows where the model is."""
        x, y = (torch.from_numpy(part).to(self._model.flat.device) for part in patients.take(rows))
        return x, y

    def _private(self, fit: Fit, plan: PrivacyPlan) -> Iterator[Tensor]:
        patients = fit.patients
        engine = (self._engine or private_engine)(self._model, plan, fit.randomness.gaussian, fit.local.engine)
        try:
            for _ in range(plan.steps_per_round):
                chosen = fit.randomness.poisson(patients.count, plan.sampling_rate)
                if isinstance(engine, NoisySum):  # one of the product's own, which may read patients in portions
                    yield engine.noisy_gradient_of(patients, chosen)
                else:
                    x, y, whose = batch_of(patients, chosen, self._model.flat.device)
                    yield engine.noisy_gradient(x, y, whose, patients_in_batch=len(chosen))
        finally:
            engine.close()


def batches(
    patients: TrainablePatients, batch_size: int | None, steps: int, randomness: Randomness
) -> Iterator[NDArray[np.int64] | None]:
    """Yield row numbers of `steps` batches, pass after pass in a new order; None means every row."""
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
