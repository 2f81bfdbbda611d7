"""The interface of a task type: its columns, model outputs, loss and metrics.

One class for each task type. A task type is a subclass of `Objective` in one file; `strategies/tasks/registry.py` holds
those that there are. PyTorch is imported within the methods that train: planning, review and report read the rest
without it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from configs.records.result import Bin, SurvivalPoint
from configs.schema import Feature, Study, Task
from strategies.tasks.metrics import Floats, Metric

if TYPE_CHECKING:
    from torch import Tensor

MOST_EXPONENT = 700.0  # a power of e that a float holds

# What a task type must have, beside its name.
PARTS = (
    "metrics",
    "prediction",
    "residual_bound",
    "encode",
    "loss",
    "residual",
    "predict",
    "made_up",
)


@dataclass(frozen=True)
class Measure:
    """What a linear model's coefficient says of a step in a column.

    `name`: "odds ratio"; `of`: what it is of: "the odds of {target}", or of the task's {event}. `is_ratio`: whether the
    model's output is a logarithm, so that steps multiply.
    """

    name: str
    of: str
    is_ratio: bool = True


@dataclass(frozen=True)
class Objective(ABC):
    """The outcome of one study's task.

    `y` is what `encode` makes of the target's columns: (rows,), or (rows, targets) where several make an outcome. A
    patient may have several rows. `outputs`, where it is an argument, is a model's (rows, outputs).
    """

    name: ClassVar[str]  # what `task.type` calls it
    metrics: ClassVar[tuple[Metric, ...]]  # what a study may ask for; the first is the headline
    always: ClassVar[tuple[str, ...]] = ()  # metrics that are measured also where a study does not ask for them
    prediction: ClassVar[str]  # what is predicted for one patient, before the target's name: "the value of"
    begins_at_share: ClassVar[bool] = False  # whether `training: auto` needs an announced share of outcomes
    largest_curvature: ClassVar[float] = 1.0  # of a patient's loss by its outputs: it sizes the steps of training: auto
    outcome: ClassVar[int | None] = None  # the column of a prediction that is the probability of one outcome
    figures: ClassVar[tuple[str, str]] = ("auroc", "brier")  # the metrics that a released histogram of scores gives
    tuned_by: ClassVar[str] = ""  # the metric by which settings are chosen; the headline where empty
    lowest: ClassVar[float] = 0.0  # the least value of y
    has_score: ClassVar[bool] = False  # whether a patient is judged by one score, and not by a prediction of each row
    measure: ClassVar[Measure | None] = None  # what a coefficient of a linear model says
    guess_in_words: ClassVar[str] = "the same for every patient"  # of `guess`, after "worse than predicting"

    task: Task

    @classmethod
    def of(cls, study: Study) -> Self:
        """Return the outcome of a study, for a type that reads more of it than its section `task`."""
        return cls(study.task)

    @property
    def columns(self) -> tuple[Feature, ...]:
        """Return the columns that the outcome is read from, with their public ranges or values."""
        return self.task.columns

    @property
    def outputs(self) -> int:
        """Return how many numbers a model puts out for a row."""
        return 1

    @property
    def beginning(self) -> tuple[float, ...]:
        """Return the outputs for everybody before anything is learned, as far as the task announces them."""
        return (0.0,) * self.outputs

    @property
    def predicted(self) -> tuple[str, ...]:
        """Return what each column of a prediction says, in a few words."""
        return (f"{self.prediction} {self.task.target}",)

    @property
    @abstractmethod
    def residual_bound(self) -> tuple[float, float]:
        """Return a and b such that the norm of a row's residual is at most a + b * norm of its outputs."""

    @property
    def scored(self) -> int | None:
        """Return the column of a prediction that is the score of a released histogram."""
        return self.outcome

    def states(self, y: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the row of a released histogram that each outcome is in: 1 with the outcome, 0 without it.

        A third one, 2, is of outcomes that nobody knows; `TaskKeys.states` has the rows' words.

        Args:
            y: as it is encoded, (patients,) or (patients, targets).
        """
        return np.asarray(y >= 0.5).astype(np.int64)

    @property
    def added_inputs(self) -> tuple[str, ...]:
        """Return the names of inputs that a model reads of each row beside those of the study's features."""
        return ()

    @property
    def most_expected(self) -> float | None:
        """Return a bound on the events that the rows of one patient are expected to have; None where a row is one."""
        return None

    @property
    def rows_each(self) -> int:
        """Return the most rows that the outcome makes of one row of the data."""
        return 1

    @property
    def remark(self) -> str:
        """Return what a hospital should know of how the outcome is read, in words; mostly nothing."""
        return ""

    @classmethod
    def metrics_of(cls, names: Iterable[str]) -> list[Metric]:
        """Return the metrics of these names, each once."""
        metrics = {metric.name: metric for metric in cls.metrics}
        return [metrics[name] for name in dict.fromkeys(names)]

    @abstractmethod
    def encode(self, targets: Mapping[str, Floats]) -> tuple[Floats, Mapping[str, int]]:
        """Return `y`, and how many values of each column were clipped to its range (a column without any is left out).

        Args:
            targets: column name -> (rows,) numbers, or positions in the column's values.
        """

    def unsound(self, targets: Mapping[str, Floats]) -> Mapping[str, NDArray[np.bool_]]:
        """Return for some columns which values are no outcome, such as a time before zero: their rows do not count.

        Args:
            targets: as `encode` takes them; NaN and -1 are unknown, and not meant here.
        """
        del targets
        return {}

    @abstractmethod
    def loss(self, outputs: "Tensor", y: "Tensor") -> "Tensor":
        """Return the loss of each row: (rows,)."""

    @abstractmethod
    def residual(self, outputs: Floats, y: NDArray[np.float32]) -> Floats:
        """Return the derivative of each row's loss with respect to its outputs, the same bits on every processor.

        Args:
            outputs: (..., rows, outputs), as `y` with any leading axes, such as models that are trained together.
        """

    def effect(self, moved: float) -> float:
        """Return what `measure` says of so much change in a linear model's output; infinite beyond a float."""
        if self.measure is None or not self.measure.is_ratio:
            return moved
        return math.exp(moved) if moved < MOST_EXPONENT else math.inf

    def curvature(self, outputs: Floats) -> Floats | None:
        """Return the derivative of each row's residual by its one output, (rows,); None of an outcome that has none.

        It is what a row adds to the information about a linear model's coefficients, beside its inputs.
        """
        del outputs
        return None

    @abstractmethod
    def predict(self, outputs: Floats) -> Floats:
        """Return what people read: probabilities (rows, classes), or a value in the target's own unit (rows, 1)."""

    def score(self, outputs: Floats, y: NDArray[np.float32]) -> float:
        """Return how good the outputs for one patient's rows are, from 0 to 1, where `has_score` says so."""
        del outputs, y
        raise NotImplementedError

    @abstractmethod
    def made_up(self, rows: int) -> NDArray[np.float32]:
        """Return the `y` of rows of no patient, to time a training with."""

    def in_unit(self, y: NDArray[Any]) -> Floats:
        """Return `y` as metrics read it: class numbers, or values in the target's own unit."""
        return np.asarray(y, np.float64)

    def bins(self, y: Floats, predicted: Floats) -> tuple[Bin, ...] | None:
        """Return predicted and observed shares of patients, by predicted probability; None of an outcome without any.

        Args:
            y: as `in_unit` returns it.
        """
        del y, predicted
        return None

    def curves(self, y: Floats, predicted: Floats) -> tuple[SurvivalPoint, ...] | None:
        """Return predicted and observed risks over time; None of an outcome without time.

        Args:
            y: as `in_unit` returns it.
        """
        del y, predicted
        return None

    def guess(self, y: Floats) -> float | None:
        """Return the headline metric of a prediction that reads no patient, where the metric says nothing of chance.

        Args:
            y: as `in_unit` returns it.
        """
        del y  # the report compares with `Metric.chance`
        return None
