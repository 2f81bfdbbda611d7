"""Models that are fitted to convergence: the baselines alone and pooled, which owe nothing to a study's settings.

A model of one linear layer (logistic, linear or softmax regression, and any task type with a convex loss) is fitted to
its optimum by L-BFGS in float64, with the ridge that scikit-learn's LogisticRegression and Ridge have by default: it
keeps weights finite where outcomes are separable, and is as good as one chosen by cross-validation at each hospital
(configs/decisions/0035). Any other model is trained by Adam on all rows at once with early stopping: a fifth of the
patients judge, and the step with the least loss on them is kept (Prechelt 1998, "Early stopping - but when?").

>>> from configs.schema import Model, Task
>>> from strategies.data.table import TablePatients
>>> from strategies.learning import learning
>>> x, y = np.array([[-1.0], [1.0], [-1.0], [1.0]], np.float32), np.array([0, 1, 1, 1], np.float32)
>>> patients = TablePatients(x, y, np.arange(4), np.arange(5))
>>> model = converged(learning(Task("binary", "disease"), Model("logistic"), inputs=1), patients)
>>> round(model["0.weight"].item(), 3)
0.583
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from torch import nn

from strategies.data.base import TrainablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import Learning

RIDGE = 1.0  # half of it times the squared weights is added to the sum of the rows' losses; scikit-learn's 1 / C
JUDGES = 5  # one patient of so many judges when to stop
STEP = 0.01  # of Adam
PATIENCE, MOST_STEPS = 20, 1000  # steps without a better loss, and steps in all
_AT_ONCE = 1 << 12  # rows of which gradients are computed together
_TO_THE_END = {"gtol": 1e-9, "ftol": 1e-15, "maxiter": 2000, "maxfun": 4000, "maxcor": 20}

Floats = NDArray[np.float64]


def converged(task: Learning, patients: TrainablePatients, *, seed: int = 0, ridge: float = RIDGE) -> Arrays:
    """Return the model that fits these patients best, or the initial one where there are none.

    Args:
        seed: of the initial values, and of the choice of patients who judge when to stop.
        ridge: of a model of one layer; its intercepts are free.
    """
    if not patients.rows:
        return task.initial(seed)
    if task.linear_layers is not None and len(task.linear_layers) == 1:
        return _Convex(task, patients, ridge).optimum()
    return _stopped_early(task, patients, seed)


class _Convex:
    """The mean loss of one linear layer as a function of whitened weights V, (outputs, inputs + 1) in one row.

    The weights are V L^-1, where L L^T are the rows' second moments: in V the loss curves about as much in every
    direction, and a few dozen evaluations suffice whatever the columns' scales.
    """

    def __init__(self, task: Learning, patients: TrainablePatients, ridge: float) -> None:
        self._task, self._patients = task, patients
        (self._shape,) = task.linear_layers or ()
        self._penalty = np.append(np.full(self._shape[1], ridge), 0.0) / patients.rows
        moments = sum((x.T @ x for x, _ in self._portions()), np.zeros(2 * (self._shape[1] + 1,)))
        self._root = cholesky(moments / patients.rows + np.diag(self._penalty + 1e-9), lower=True)

    def optimum(self) -> Arrays:
        """Return the weight and bias with the least penalised loss."""
        start = np.zeros(self._shape[0] * len(self._root))
        fit = minimize(self._loss, start, jac=True, method="L-BFGS-B", options=_TO_THE_END)
        layer = self._weights(fit.x).astype(np.float32)
        return dict(zip(self._task.parameters, (layer[:, :-1].copy(), layer[:, -1].copy()), strict=True))

    def _loss(self, flat: Floats) -> tuple[float, Floats]:
        """Return the penalised mean loss and its gradient, both at these whitened weights."""
        weights = self._weights(flat)
        loss, slope = 0.0, np.zeros_like(weights)
        for x, y in self._portions():
            outputs = x @ weights.T
            loss += float(self._task.loss(torch.from_numpy(outputs), torch.from_numpy(y.astype(np.float64))).sum())
            slope += self._task.residual(outputs, y).T @ x
        pull = self._penalty * weights
        slope = solve_triangular(self._root, (slope / self._patients.rows + pull).T, lower=True).T
        return loss / self._patients.rows + float((pull * weights).sum()) / 2, slope.ravel()

    def _weights(self, flat: Floats) -> Floats:
        whitened = flat.reshape(self._shape[0], -1)
        return np.asarray(solve_triangular(self._root, whitened.T, lower=True, trans="T").T)

    def _portions(self) -> Iterator[tuple[Floats, NDArray[np.float32]]]:
        """Yield rows with a one for the intercept, (rows, inputs + 1), and their y."""
        start = 0
        for x in self._patients.portions():
            yield np.column_stack([x, np.ones(len(x))]).astype(np.float64), self._patients.y[start : start + len(x)]
            start += len(x)


def _stopped_early(task: Learning, patients: TrainablePatients, seed: int) -> Arrays:
    """Return the model at Adam's best step, as patients judge from whom it did not learn."""
    order = np.random.default_rng(seed).permutation(patients.count)
    judging = order % JUDGES == 0 if patients.count >= JUDGES else np.ones(patients.count, bool)
    judges = patients.subset(np.flatnonzero(judging))
    learned = patients.subset(np.flatnonzero(~judging)) if patients.count >= JUDGES else patients
    module, start = task.build().train(), task.initial(seed)
    module.load_state_dict({name: torch.tensor(array) for name, array in start.items()})
    optimizer = torch.optim.Adam(module.parameters(), STEP)
    best, least, waited = start, _mean_loss(task, module, judges), 0
    for _ in range(MOST_STEPS):
        optimizer.zero_grad()
        for share in _losses(task, module, learned):
            share.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss = _mean_loss(task, module, judges)
        waited += 1
        if loss < least:
            best = {name: p.detach().numpy().copy() for name, p in module.named_parameters()}
            least, waited = loss, 0
        if waited == PATIENCE:
            break
    return best


def _mean_loss(task: Learning, module: nn.Module, patients: TrainablePatients) -> float:
    with torch.no_grad():
        return sum(float(share) for share in _losses(task, module, patients))


def _losses(task: Learning, module: nn.Module, patients: TrainablePatients) -> Iterator[torch.Tensor]:
    """Yield parts of the rows' mean loss, each of so many rows as are computed together."""
    step = min(_AT_ONCE, patients.at_once)
    for start in range(0, patients.rows, step):
        x, y = patients.take(np.arange(start, min(start + step, patients.rows)))
        yield task.loss(module(torch.from_numpy(x)), torch.from_numpy(y)).sum() / patients.rows
