"""The task type `survival`: the time to an event, which not every patient was followed up to.

Time is cut into public intervals. A model puts out the log odds of the event in one interval for a patient who reached
it, from the features and one input for each interval (Gensheimer and Narasimhan 2019, PeerJ 7:e6257; the loss is one of
each patient alone: Andreux 2020, arXiv 2006.08997). With `logistic` the odds are proportional over time, with `mlp`
they need not be. Several causes are classes of the same rows (Tutz and Schmid 2016, chapter 8), class 0 being none.

Cox's partial likelihood is not here: a patient's part in it holds everybody at risk, so that no clip bounds what one
patient changes. Reports show a pooled Cox model beside the others, and nothing of it leaves a hospital.
"""

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.records.result import Bin, SurvivalPoint
from configs.schema import Survival as SurvivalTask
from strategies.exact.functions import exponential, logarithm, sigmoid, softmax
from strategies.tasks.base import Measure, Objective
from strategies.tasks.metrics import Floats
from strategies.tasks.times import C_INDEX, HORIZON_AUROC, HORIZON_BRIER, horizon_bins, incidence, state

if TYPE_CHECKING:
    from torch import Tensor

LEAST_EXPECTED, MOST_EXPECTED = 0.165, 0.7  # of a patient, beyond which little is gained, and the information is lost


class Survival(Objective):
    """Discrete hazards. An encoded outcome is (rows, 2): time, and the cause that ended it, 0 for none.

    A row of training is an interval (strategies/data/person_periods.py), with y the cause in it, or -1 for unknown. A
    prediction is (patients, causes * intervals): the risk of each cause by each interval's end, cause by cause.
    """

    name = "survival"
    prediction = "the risk over"
    metrics = (C_INDEX, HORIZON_AUROC, HORIZON_BRIER)
    figures = (HORIZON_AUROC.name, HORIZON_BRIER.name)
    tuned_by = HORIZON_BRIER.name  # ranks alone do not see risks that are all too high
    lowest = -1.0
    measure = Measure("hazard ratio", "the hazard of {event} (its odds within an interval)")
    largest_curvature = 0.15  # of a patient's rows together, where hazards begin at the announced share
    begins_at_share = True
    task: SurvivalTask

    @property
    def outputs(self) -> int:
        """Return 1 for one cause, else one for each and one for none."""
        return 1 if self._causes == 1 else self._causes + 1

    @property
    def beginning(self) -> tuple[float, ...]:
        """Return outputs of equal hazards of all causes, by which the announced share has an event in the end."""
        if self.task.outcome_share is None:
            return (0.0,) * self.outputs
        none = exponential(logarithm(np.array([1.0 - self.task.outcome_share])) / self.rows_each)  # in one interval
        odds = float(logarithm((1.0 - none) / (none * self._causes))[0])
        return (odds,) if self._causes == 1 else (0.0,) + (odds,) * self._causes

    @property
    def residual_bound(self) -> tuple[float, float]:
        """Return 1, or the root of 2 with several causes, at any outputs."""
        return (1.0 if self._causes == 1 else math.sqrt(2.0)), 0.0

    @property
    def added_inputs(self) -> tuple[str, ...]:
        """Return one input for each interval."""
        cuts = self.task.intervals
        return tuple(f"{self.task.target} {low:g} to {high:g}" for low, high in itertools.pairwise(cuts))

    @property
    def predicted(self) -> tuple[str, ...]:
        """Return the risk of each cause by each interval's end, cause by cause."""
        ends = self.task.intervals[1:]
        return tuple(f"risk of {self.task.event} = {cause} by {end:g}" for cause in self.task.classes for end in ends)

    @property
    def rows_each(self) -> int:
        """Return the number of intervals."""
        return len(self.task.intervals) - 1

    @property
    def scored(self) -> int:
        """Return the column of the first cause's risk by the horizon."""
        return self.task.intervals.index(self.task.horizon) - 1

    def states(self, y: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return 1 with the event by the horizon, 0 free of it, 2 lost from sight before."""
        now = state(self.in_unit(y))
        return np.where(now < 0, 2, now)

    @property
    def remark(self) -> str:
        """Return the cut points, and which row of a patient counts."""
        cuts = ", ".join(f"{cut:g}" for cut in self.task.intervals)
        return f"time is cut at {cuts}; of a patient's rows, that with the longest follow-up counts"

    def encode(self, targets: Mapping[str, Floats]) -> tuple[Floats, Mapping[str, int]]:
        """Return times and causes: nobody is followed beyond the last cut point, which is counted."""
        time, cause = (targets[column.name] for column in self.columns)
        end = self.task.intervals[-1]
        beyond = time > end
        y = np.stack([np.minimum(time, end), np.where(beyond, 0.0, cause)], axis=1)
        return y, {self.task.target: int(beyond.sum())} if beyond.any() else {}

    def unsound(self, targets: Mapping[str, Floats]) -> Mapping[str, NDArray[np.bool_]]:
        """Return times before the first cut point: no patient was at risk then."""
        return {self.task.target: targets[self.task.target] < self.task.intervals[0]}

    def periods(self, y: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return each interval's cause, 0 for none, -1 where a patient was not at risk: (patients, intervals)."""
        time, cause = y[:, :1], y[:, 1:].astype(np.int64)
        cuts = np.array(self.task.intervals, np.float32)  # as times are kept
        low, high = cuts[:-1], cuts[1:]
        ends_here = (cause > 0) & (time <= high) & ((time > low) | (np.arange(len(low)) == 0))
        return np.where(ends_here, cause, np.where(time >= high, 0, -1))

    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return each row's cross entropy in nats, 0 where y says nothing."""
        from torch.nn import functional

        known = (y >= 0).to(outputs.dtype)
        if self._causes == 1:
            return known * functional.binary_cross_entropy_with_logits(outputs[:, 0], y * known, reduction="none")
        return known * functional.cross_entropy(outputs, (y * known).long(), reduction="none")

    def residual(self, outputs: Floats, y: NDArray[np.float32]) -> Floats:
        """Return the hazard of each cause, less 1 for the one that came; 0 where y says nothing."""
        if self._causes == 1:
            residual = sigmoid(outputs)
            residual -= y[..., None]
        else:
            residual = softmax(outputs)
            residual -= y[..., None] == np.arange(self.outputs, dtype=np.float32)
        np.copyto(residual, 0.0, where=y[..., None] < 0)
        return residual

    def curvature(self, outputs: Floats) -> Floats | None:
        """Return the variance of an event in the interval: h (1 - h); None with several causes."""
        if self._causes > 1:
            return None
        hazard = sigmoid(outputs[:, 0])
        return hazard * (1.0 - hazard)

    @property
    def most_expected(self) -> float:
        """Return a bound on the events that are expected of a patient: 1.4 times the announced share's, or 1/2."""
        if self.task.outcome_share is None:
            return 0.5
        return min(MOST_EXPECTED, max(LEAST_EXPECTED, -1.4 * math.log1p(-self.task.outcome_share)))

    def predict(self, outputs: Floats) -> Floats:
        """Return the risk of each cause by each interval's end, of rows of whole patients: (patients, causes * K)."""
        shape = (-1, self.rows_each, self._causes)
        if self._causes == 1:
            hazards = np.where(outputs < -709.0, 0.0, sigmoid(outputs)).reshape(shape)  # exp(709) is finite
        else:
            hazards = softmax(outputs)[:, 1:].reshape(shape)
        free = np.cumprod(1.0 - hazards.sum(axis=2), axis=1)  # of any event, by each interval's end
        before = np.concatenate([np.ones_like(free[:, :1]), free[:, :-1]], axis=1)
        incidence = np.cumsum(hazards * before[:, :, None], axis=1)
        risks: Floats = incidence.transpose(0, 2, 1).reshape(-1, self._causes * self.rows_each)
        return risks

    def made_up(self, rows: int) -> NDArray[np.float32]:
        """Return every cause in turn, after none."""
        return (np.arange(rows) % (self._causes + 1)).astype(np.float32)

    def in_unit(self, y: NDArray[Any]) -> Floats:
        """Return time, cause, the horizon, and the column of a prediction with the risk by then: (patients, 4)."""
        asked = np.broadcast_to([np.float32(self.task.horizon), self.scored], (len(y), 2))
        return np.concatenate([np.asarray(y, np.float64), asked], axis=1)

    def bins(self, y: Floats, predicted: Floats) -> tuple[Bin, ...]:
        """Return predicted and observed risks by the horizon."""
        return horizon_bins(y, predicted)

    def curves(self, y: Floats, predicted: Floats) -> tuple[SurvivalPoint, ...]:
        """Return predicted and observed risks of each cause by each interval's end."""
        ends, points = np.array(self.task.intervals[1:]), []
        for number, cause in enumerate(self.task.classes):
            mean = predicted[:, number * len(ends) : (number + 1) * len(ends)].mean(axis=0)
            for time, risk, (observed, error) in zip(ends, mean, incidence(y, number + 1, ends), strict=True):
                reach = 1.96 * error
                points.append(
                    SurvivalPoint(
                        *(cause, float(time), float(risk), observed),
                        *(max(0.0, observed - reach), min(1.0, observed + reach)),
                    )
                )
        return tuple(points)

    @property
    def _causes(self) -> int:
        return len(self.task.classes)
