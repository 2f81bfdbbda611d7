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

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from configs.schema import Local
from strategies.arrays import Arrays
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.tasks.gradients import FlatModel
from strategies.tasks.table import Encoded
from strategies.tasks.tabular import TabularTask


class Trainer:
    """A model kept warm for every fit of one process; it remembers nothing from one fit to the next."""

    def __init__(self, task: TabularTask) -> None:
        # One thread: sums keep their order, so every engine and machine of a kind agrees to the last bit; and at these
        # sizes a second thread only costs.
        torch.set_num_threads(1)
        self._model = FlatModel(task)

    def fit(
        self,
        start: Arrays,
        patients: Encoded,
        local: Local,
        *,
        steps: int,
        randomness: Randomness,
        plan: PrivacyPlan | None = None,
        proximal_mu: float = 0.0,
    ) -> Arrays:
        """Train from `start` on the hospital's training patients.

        Args:
            steps: optimizer steps; with a plan they are the plan's steps of one round.
            proximal_mu: weight of the pull towards `start` (FedProx; Li et al. 2020, arXiv 1812.06127, section 3.2).
        """
        self._model.load(start)
        anchor = self._model.flat.detach().clone() if proximal_mu else None
        x, y = torch.from_numpy(patients.x), torch.from_numpy(patients.y)
        if plan is not None:
            self._private(x, y, patients, local, plan, randomness, proximal_mu, anchor)
        else:
            self._plain(x, y, patients, local, steps, randomness, proximal_mu, anchor)
        return self._model.arrays()

    def _plain(
        self,
        x: Tensor,
        y: Tensor,
        patients: Encoded,
        local: Local,
        steps: int,
        randomness: Randomness,
        mu: float,
        anchor: Tensor | None,
    ) -> None:
        model = self._model
        optimizer = None if _is_plain_sgd(local) else _optimizer(local, [model.flat])
        for rows in _batches(patients, local.batch_size, steps, randomness.sampling):
            gradient = model.mean_gradient(x, y) if rows is None else model.mean_gradient(x[rows], y[rows])
            if anchor is not None:
                gradient.add_(model.flat.detach() - anchor, alpha=mu)
            if optimizer is None:
                model.flat.data.add_(gradient, alpha=-local.learning_rate)
            else:
                optimizer.step()

    def _private(
        self,
        x: Tensor,
        y: Tensor,
        patients: Encoded,
        local: Local,
        plan: PrivacyPlan,
        randomness: Randomness,
        mu: float,
        anchor: Tensor | None,
    ) -> None:
        from strategies.privacy.gradients import OpacusEngine  # over a second to import, for private studies only

        model = self._model
        parameters = list(model.module.parameters())
        anchors = [] if anchor is None else list(torch.split(anchor, [p.numel() for p in parameters]))
        optimizer = _optimizer(local, parameters)
        engine = OpacusEngine(model, optimizer, plan, randomness.noise)
        try:
            for _ in range(plan.steps_per_round):
                chosen = randomness.poisson(patients.count, plan.sampling_rate)
                batch = patients.subset(chosen)
                rows = torch.from_numpy(patients.rows_of(chosen))
                engine.noisy_gradient(x[rows], y[rows], torch.from_numpy(batch.patients), patients_in_batch=len(chosen))
                for parameter, pull in zip(parameters, anchors, strict=False):  # no data in it: added after the noise
                    assert parameter.grad is not None
                    parameter.grad.add_(parameter.detach() - pull.view_as(parameter), alpha=mu)
                optimizer.step()
        finally:
            engine.close()
            model.restore_gradients()


def _is_plain_sgd(local: Local) -> bool:
    return local.optimizer == "sgd" and local.momentum == 0.0 and local.weight_decay == 0.0


def _optimizer(local: Local, parameters: list[torch.nn.Parameter]) -> Optimizer:
    if local.optimizer == "adam":
        return Adam(parameters, lr=local.learning_rate, weight_decay=local.weight_decay)
    return SGD(parameters, lr=local.learning_rate, momentum=local.momentum, weight_decay=local.weight_decay)


def _batches(
    patients: Encoded, batch_size: int | None, steps: int, sampling: np.random.Generator
) -> Iterator[Tensor | None]:
    """Row numbers of `steps` batches, pass after pass in a new order; None means every row."""
    if batch_size is None or batch_size >= patients.count:
        for _ in range(steps):
            yield None
        return
    done = 0
    while done < steps:
        order = sampling.permutation(patients.count)
        for start in range(0, patients.count, batch_size):
            if done == steps:
                return
            yield _rows(patients, order[start : start + batch_size])
            done += 1


def _rows(patients: Encoded, chosen: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(patients.rows_of(chosen))
