"""The interface of an architecture: its parameters, how it is built, and its initial values.

One class for each kind; the parameters are known without PyTorch. An architecture is a subclass of `Architecture` in
one file; `strategies/models/registry.py` holds those that there are. Each method that needs PyTorch imports it:
planning, review, the coordinator and the process of a hospital that talks to the network read the parameters' names and
shapes alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from configs.errors import KindError
from configs.schema import Study
from configs.wire import ArraySpec

if TYPE_CHECKING:
    from torch import nn

    from strategies.data.base import TrainablePatients

Arrays = dict[str, NDArray[np.float32]]
LinearLayers = tuple[tuple[int, int], ...]  # (out, in) of each layer

# What a kind of model must have, beside its name.
PARTS = ("engine", "exact", "parameters", "build")
_AT_ONCE, _NUMBERS_AT_ONCE = 1024, 1 << 19  # rows, and numbers of them, that are predicted together


@dataclass(frozen=True)
class Architecture(ABC):
    """The model of one study.

    Args:
        section: the study's section `model`, as its kind declares it.
        inputs: numbers that the model reads of a row.
        outputs: numbers that it puts out for a row, as the study's outcome asks.
        input_shape: (channels, sides...) of a record that it reads in the place of a row; None of a flat row.

    `exact` promises the same bits on every processor, whatever else is in a batch. Without it a simulation and a
    deployment agree to the bit on one machine and with one PyTorch, and elsewhere within rounding.
    """

    name: ClassVar[str]  # what `model.name` calls it
    engine: ClassVar[str] = "book-keeping"  # of private gradients: strategies/privacy/engines/select.py
    exact: ClassVar[bool] = False
    one_patient: ClassVar[bool] = False  # whether it is given one patient's rows at a time, without privacy too

    section: Any
    inputs: int
    outputs: int
    input_shape: tuple[int, ...] | None = None

    @classmethod
    def of(cls, study: Study, inputs: int, outputs: int) -> Self:
        """Return the model of a study, for a kind that reads more of it than its section `model`."""
        return cls(study.model, inputs, outputs, study.input_shape)

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return name -> (shape, dtype) of every trained array, in the model's order."""

    @property
    def personal(self) -> tuple[str, ...]:
        """Return the names of the parameters that each hospital has its own values of, which never leave."""
        return ()

    @property
    def all_shared(self) -> Any:
        """Return the section of the same model with every array shared: the same steps, and all of them leave."""
        return self.section

    @property
    def linear_layers(self) -> LinearLayers | None:
        """Return each layer's (out, in) of linear layers with a ReLU between two; None of any other model."""
        return None

    @abstractmethod
    def build(self) -> "nn.Module":
        """Return a module with the named parameters in their order, and arbitrary values."""

    def initial(self, seed: int) -> Arrays:
        """Return the shared starting point: what `build` draws under `seed`."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return {name: p.detach().numpy().copy() for name, p in self.build().named_parameters()}

    def settings(self, seed: int) -> Iterable[tuple[str, str, Any, str]]:
        """Return section, key, value and reason of what a study leaves open and its model decides; mostly nothing."""
        del seed
        return ()

    def beginning_at(self, outputs: tuple[float, ...], arrays: Arrays) -> Arrays:
        """Return initial values with which a row of zeros has these outputs, where the study asks for that."""
        del outputs
        return arrays

    def evaluate(self, arrays: Mapping[str, NDArray[np.float32]], x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the outputs of rows, (rows, outputs), of the model with these parameters."""
        import torch

        module = self.build().eval()
        module.load_state_dict({name: torch.tensor(arrays[name]) for name in self.parameters})
        together = max(1, min(_AT_ONCE, _NUMBERS_AT_ONCE // max(1, x[:1].size)))
        with torch.no_grad():
            parts = [module(part).double().numpy() for part in torch.split(torch.from_numpy(x), together)]
        return np.concatenate(parts) if parts else np.empty((0, self.outputs))

    def outputs_of(
        self, arrays: Mapping[str, NDArray[np.float32]], patients: "TrainablePatients"
    ) -> NDArray[np.float64] | None:
        """Return (rows, outputs) of patients' rows where the model asks for each row itself, else None."""
        del arrays, patients
        return None

    def scores(
        self, arrays: Mapping[str, NDArray[np.float32]], patients: "TrainablePatients"
    ) -> NDArray[np.float64] | None:
        """Return each patient's score from 0 to 1 where the model brings its own, else None: the task has one then."""
        del arrays, patients
        return None


def require_as_declared(parameters: Mapping[str, ArraySpec], module: "nn.Module") -> None:
    """Check that a built module has the declared parameters, and nothing else that training changes.

    Raises:
        KindError: names the first difference.
    """
    built = {name: (tuple(p.shape), "float32") for name, p in module.named_parameters()}
    buffers = [name for name, _ in module.named_buffers()]
    if list(built.items()) != [(name, (tuple(shape), kind)) for name, (shape, kind) in parameters.items()]:
        raise KindError(f"model: expected the parameters {dict(parameters)}, built {built}; declare what is built")
    if buffers:
        raise KindError(
            f"model: expected parameters alone, built the buffers {buffers}, which would stay at one hospital; "
            "use layers without them, such as GroupNorm"
        )
