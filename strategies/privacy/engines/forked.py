"""The engine `forked`: each patient's gradient is worked out by a process that has seen nobody else.

It rests on no reading of the model's code: a child has one patient, the parameters, and no memory of others. It may
return anything; what is not as many float32 as there are parameters contributes zero. Clip, grid, sum and noise stay
here. Of an honest model the sum has the same bits as the engine `alone` gives, which seeds chance within a model by the
same rows and parameters.

How children are made, what they may do and when they run is the hospital's matter (client/children). This file has the
engine, which sees them as `Children`, and the work that they do.

The idea is Airavat's (Roy et al., NSDI 2010): what maps one record is not trusted, what reduces is. Its holes are
state, time and budget (Haeberlen, Pierce and Narayan 2011, "Differential privacy under fire").
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.errors import PrivacyError
from strategies.kits.children import Children
from strategies.kits.packed import GRADIENT, packed, unpacked
from strategies.kits.shelf import SHELF
from strategies.models.flat_model import FlatModel, Trainable
from strategies.models.one_patient import as_it_was, seed_of
from strategies.privacy.engines.alone import gradient_of_rows
from strategies.privacy.engines.base import Gaussian
from strategies.privacy.engines.one_by_one import OneByOne, Take
from strategies.privacy.plan import PrivacyPlan

_ON_PROCESSOR = torch.device("cpu")
_FLOAT32 = 4  # bytes
_LATE = (
    "numpy.random",
    "numpy.linalg",
    "numpy.fft",
    "torch.nn.functional",
    "torch.nn.utils",
    "torch.fft",
    "torch.func",
)


class Forked(OneByOne):
    """Clipped sums of gradients that children work out.

    Args:
        children: the processes; those of this process's shelf of kits unless given.

    Raises:
        PrivacyError: there are none.
    """

    def __init__(
        self,
        model: FlatModel,
        plan: PrivacyPlan,
        gaussian: Gaussian,
        *,
        rows_at_once: int | None = None,
        children: Children | None = None,
    ) -> None:
        super().__init__(model, plan, gaussian, rows_at_once=rows_at_once)
        self._children = children_here() if children is None else children

    def begin(self, x: Tensor, y: Tensor) -> None:
        """Give the parameters to the children to come."""
        del x, y
        self._children.load(GRADIENT + self._model.flat.detach().numpy().tobytes())

    def gradients(self, takes: Iterable[Take]) -> Iterator[NDArray[np.float32]]:
        """See `OneByOne`; nothing here depends on what a child says but the sum."""
        questions = [partial(packed_from, take) for take in takes]
        size = _FLOAT32 * len(self._model.flat)
        for _, answer in self._children.answers(questions, size, expected=self._plan.expected_patients):
            if answer is not None:
                yield np.frombuffer(answer, np.float32)

    def gradient_of(self, take: Take) -> NDArray[np.float32]:
        """See `OneByOne`.

        Raises:
            ValueError: the child gave none.
        """
        for gradient in self.gradients([take]):
            return gradient
        raise ValueError("the child gave no gradient")


def children_here() -> Children:
    """Return the children of this process's shelf of kits.

    Raises:
        PrivacyError: there are none.
    """
    if SHELF.children is None:
        raise PrivacyError("kits in children of their own: expected a process that forks them, found none here")
    return SHELF.children


class PatientWork:
    """The work of a child: one patient's gradient, or one record's score.

    Args:
        task: the model and its loss. It is built where children come from, without code of a kit; `answer`, in a
            child, is what runs such code.
        opening: is given the module in a child, before chance is seeded: opens the kit.
        score: returns the score of a patient, from the module, x (rows, ...), and the target where there is one.
    """

    def __init__(
        self,
        task: Trainable,
        score: Callable[..., float] | None = None,
        opening: Callable[[nn.Module], object] = lambda _: None,
    ) -> None:
        torch.set_num_threads(1)  # a process with threads cannot be forked
        _load_what_is_loaded_late()
        self._model, self._score, self._opening = FlatModel(task), score, opening
        self._salt = self._kind = b""

    def load(self, shared: bytes) -> None:
        """Take what is to be done, one byte, and the parameters, (parameters,) float32."""
        self._kind, flat = shared[:1], self._model.flat.data.numpy()
        flat[:] = np.frombuffer(shared, np.float32, offset=1)
        self._salt = blake2b(flat.tobytes(), digest_size=32).digest()

    def answer(self, patient: bytes) -> bytes:
        """Return the gradient of the summed loss of a patient's rows, (parameters,), or the score, all float32.

        Raises:
            Exception: of any kind, where the patient has none.
        """
        x, *rest = unpacked(patient)
        self._opening(self._model.module)
        if self._kind == GRADIENT:
            with as_it_was(self._model.module, seed_of(self._salt, x, rest[0]), _ON_PROCESSOR):
                return gradient_of_rows(self._model, x, rest[0]).numpy().tobytes()
        assert self._score is not None
        with torch.no_grad():
            return np.float32(self._score(self._model.module.eval(), x, *rest)).tobytes()


def _load_what_is_loaded_late() -> None:
    """Load what NumPy and PyTorch load when it is first needed: a child can open no file."""
    for name in _LATE:
        importlib.import_module(name)
    layer = nn.Linear(1, 1)
    with as_it_was(layer, 0, _ON_PROCESSOR), torch.enable_grad():
        layer(torch.zeros((1, 1))).sum().backward()


def packed_from(take: Take) -> bytes:
    """Return one patient's rows and outcomes as bytes."""
    return packed(*(tensor.numpy() for tensor in take()))
