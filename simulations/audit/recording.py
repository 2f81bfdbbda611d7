"""Fits as an audit saw them: who was in each step, what was released, and what the sum ought to have been.

To know who is in a step, an audit's copies of the patients carry a mark that survives every path: each row's first
input is replaced by that row's rank among all, scaled to [-1, 1], so that no two rows agree in it. The learning rate is
0, so the model stays where it starts, and the noiseless sum of a step is the sum of its patients' own clipped
gradients: plain autograd in float64, a patient at a time, with nothing of the engine's code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from configs.schema import Local
from simulations.audit.subject import Floats, Subject, Watch, watched_trainer
from strategies.arrays import Arrays
from strategies.privacy.plan import PrivacyPlan
from strategies.privacy.randomness import Randomness
from strategies.tasks.table import Encoded
from strategies.tasks.tabular import TabularTask

STILL = Local(batch_size=None, learning_rate=0.0)  # a fit that leaves the model where it starts


def marked(patients: Encoded) -> Encoded:
    """The same patients with marks: x[:, 0] becomes the row's rank, from -1 to 1."""
    x = patients.x.copy()
    rank = np.empty(len(x), np.int64)
    rank[np.argsort(x[:, 0], kind="stable")] = np.arange(len(x))
    x[:, 0] = np.linspace(-1.0, 1.0, len(x), dtype=np.float32)[rank] if len(x) > 1 else 0.0
    return replace(patients, x=x)


def joined(patients: Encoded, sizes: Sequence[int] = (1, 2, 1, 3, 1, 8)) -> Encoded:
    """The same rows as fewer patients of several rows each, so that a row is no patient.

    >>> rows = Encoded(np.zeros((6, 1), np.float32), np.zeros(6, np.float32), np.arange(6), np.arange(7))
    >>> joined(rows, (1, 2)).starts.tolist()
    [0, 1, 3, 4, 6]
    """
    starts = [0]
    while starts[-1] < len(patients.x):
        starts.append(min(len(patients.x), starts[-1] + sizes[(len(starts) - 1) % len(sizes)]))
    bounds = np.array(starts, np.int64)
    return replace(patients, patients=np.repeat(np.arange(len(starts) - 1), np.diff(bounds)), starts=bounds)


@dataclass(frozen=True)
class Recording:
    """Steps of one plan, as they were seen.

    member: (steps, patients) booleans; noise: (steps, parameters), what was released minus the noiseless sum, in booked
    standard deviations; clean: (steps, parameters), the noiseless sum in the same unit; expected_steps: those booked;
    torn: steps that held rows of nobody, a row twice, or some of a patient's rows only.
    """

    site: str
    plan: PrivacyPlan
    member: NDArray[np.bool_]
    noise: Floats
    clean: Floats
    expected_steps: int
    torn: int

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return len(self.member)


def recorded(
    watch: Watch, site: str, task: TabularTask, plan: PrivacyPlan, patients: Encoded, start: Arrays, expected_steps: int
) -> Recording:
    """What a watch saw of marked patients, all steps from the same start."""
    member, torn = _members(watch.rows, patients)
    unit = plan.noise_multiplier * plan.clip_norm
    size = sum(array.size for array in start.values())
    released = np.array(watch.released, np.float64).reshape(len(watch.released), size) * (plan.expected_patients / unit)
    each = clipped_gradients(task, start, patients, plan.clip_norm) / unit  # (patients, parameters)
    clean = member.astype(np.float64) @ each
    return Recording(site, plan, member, released - clean, clean, expected_steps, torn)


def record_fit(
    subject: Subject, task: TabularTask, plan: PrivacyPlan, patients: Encoded, start: Arrays, randomness: Randomness
) -> Watch:
    """One fit of the plan's steps, watched, at learning rate 0."""
    watch = Watch()
    trainer = watched_trainer(subject, task, watch)
    trainer.fit(start, patients, STILL, steps=plan.steps_per_round, randomness=randomness, plan=plan)
    return watch


def clipped_gradients(task: TabularTask, start: Arrays, patients: Encoded, clip_norm: float) -> Floats:
    """(patients, parameters): each patient's gradient, summed over their rows, shortened to the clip norm."""
    raw = patient_gradients(task, start, patients)
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    return np.asarray(raw * np.minimum(1.0, clip_norm / np.maximum(norms, 1e-300)))


def patient_gradients(task: TabularTask, start: Arrays, patients: Encoded) -> Floats:
    """(patients, parameters): the gradient of the sum of the losses of each patient's rows."""
    model = task.build().double()
    model.load_state_dict({name: torch.from_numpy(array.astype(np.float64)) for name, array in start.items()})
    parameters = list(model.parameters())
    x, y = torch.from_numpy(patients.x).double(), torch.from_numpy(patients.y).double()
    out = np.empty((patients.count, sum(p.numel() for p in parameters)))
    for number in range(patients.count):
        rows = slice(int(patients.starts[number]), int(patients.starts[number + 1]))
        gradient = torch.autograd.grad(task.loss(model(x[rows]), y[rows]).sum(), parameters)
        out[number] = torch.cat([g.flatten() for g in gradient]).numpy()
    return out


def _members(rows: Sequence[NDArray[np.float32]], patients: Encoded) -> tuple[NDArray[np.bool_], int]:
    """(steps, patients), and how many steps held anything but whole patients, once each."""
    order = np.argsort(patients.x[:, 0], kind="stable")
    marks = patients.x[order, 0]
    lengths = np.diff(patients.starts)
    member = np.zeros((len(rows), patients.count), bool)
    torn = 0
    for step, seen in enumerate(rows):
        place = np.minimum(np.searchsorted(marks, seen), len(marks) - 1)
        found = order[place]
        counts = np.bincount(patients.patients[found], minlength=patients.count)
        member[step] = counts > 0
        known = bool((marks[place] == seen).all()) and len(np.unique(seen)) == len(seen)
        torn += not known or bool(((counts > 0) & (counts != lengths)).any())
    return member, torn
