"""Models of study kits: known by the arrays that a study lists, opened where they are first run.

`build` executes nothing of a kit. Under `kit_run: together` its module is the kit's own, so that an engine may hook its
layers; under `forked` it has the same parameters and opens the kit when a record is first put through it, which is in a
patient's child.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import KitError
from configs.schema import Study
from configs.schema.kit import FAMILY, KitKeys, specifications
from configs.wire import ArraySpec
from strategies.kit import Model
from strategies.kits.children import Children, Question
from strategies.kits.packed import SCORE, packed
from strategies.kits.shelf import SHELF
from strategies.models.base import Architecture, Arrays

if TYPE_CHECKING:
    from torch import Tensor, nn

    from strategies.data.base import TrainablePatients

FORKED, TOGETHER = "forked", "alone"  # engines, by the shelf's `run`
_FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class KitArchitecture(Architecture):
    """A kit's model; `section` is a `configs.schema.kit.KitModel`."""

    name = FAMILY
    one_patient = True
    kit: KitKeys | None = None
    arrays: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @classmethod
    def of(cls, study: Study, inputs: int, outputs: int) -> "KitArchitecture":
        """Return the model of a study."""
        return cls(study.model, inputs, outputs, study.input_shape, study.kit, study.arrays)

    @property
    def engine(self) -> str:  # type: ignore[override]
        """Return the engine that gives a kit one patient at a time: in this process, or each in a child."""
        return FORKED if SHELF.run == "forked" else TOGETHER

    @property
    def parameters(self) -> Mapping[str, ArraySpec]:
        """Return the arrays that the study lists, sorted by name."""
        return specifications(self.arrays)

    @property
    def model(self) -> Model:
        """Return what the kit declares; the kit is opened.

        Raises:
            KitError: it is not here, or has no such model. Anything: the kit's own failure.
        """
        assert self.kit is not None
        return SHELF.opened(self.kit).model(self.section.name)

    def module(self) -> "nn.Module":
        """Return the kit's module itself, with arbitrary parameters.

        Raises:
            KitError: an option is not allowed, or its parameters are not those that the study lists.
        """
        module = self.model.module(dict(self.section.options), self.inputs)
        built = {name: (tuple(p.shape), "float32") for name, p in sorted(module.named_parameters())}
        if self.arrays and built != dict(self.parameters):
            raise KitError(
                f"kit: expected the arrays that the study lists, built others by {self.section.name}; "
                "complete the study anew"
            )
        return module

    def build(self) -> "nn.Module":
        """Return a module with the listed parameters; nothing of the kit is executed where it runs in children."""
        from strategies.models.kit_module import Opened, Unopened

        return Unopened(self.parameters, self.module) if SHELF.run == "forked" else Opened(self.module())

    def open(self, module: "nn.Module") -> None:
        """Open the kit for a module that `build` returned."""
        from strategies.models.kit_module import Unopened

        if isinstance(module, Unopened):
            module.open()

    def initial(self, seed: int) -> Arrays:
        """Return the initial values that the study names, or what the kit draws under `seed` where it names none yet.

        Raises:
            KitError: the file that the study names is not here.
        """
        import torch

        if self.section.start is not None:
            if (arrays := SHELF.start(self.section.start)) is None:
                raise KitError(
                    f"model.start: expected the file of digest {self.section.start[:12]} beside the study, found none; "
                    "put it there, or write it: archipel complete STUDY"
                )
            return {name: np.array(arrays[name], np.float32) for name in self.parameters}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return {name: p.detach().numpy().copy() for name, p in sorted(self.module().named_parameters())}

    def settings(self, seed: int) -> Iterator[tuple[str, str, Any, str]]:
        """Yield section, key, value and reason of each key that a study leaves open; the kit is opened.

        Raises:
            KitError: the kit is not here, or builds no such model.
        """
        if not self.section.is_open:
            return
        if self.model.score is None:
            raise KitError(f"kit: expected a score of {self.section.name}, from 0 to 1, found none; write one")
        arrays = replace(self, arrays=()).initial(seed)
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        yield "", "arrays", shapes, "what the kit's model has: all that hospitals may send"
        yield "model", "start", {"sha256": SHELF.begin_from(arrays)}, f"what the kit draws under the seed {seed}"

    def evaluate(self, arrays: Mapping[str, NDArray[np.float32]], x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return each row's score by the kit, (rows, 1): each row is put through alone."""
        import torch

        if SHELF.children is not None:
            return self._asked(arrays, [partial(packed, row[None]) for row in x], SHELF.children)
        rows = torch.split(torch.from_numpy(x), 1)
        return np.array(self._scored(arrays, ((row,) for row in rows)), np.float32).astype(np.float64).reshape(-1, 1)

    def outputs_of(
        self, arrays: Mapping[str, NDArray[np.float32]], patients: "TrainablePatients"
    ) -> NDArray[np.float64] | None:
        """Return each row's score where children work it out: a record is then decoded in its row's slot."""
        if SHELF.children is None or self.input_shape is None:
            return None
        takes = [partial(patients.take, np.array([row])) for row in range(patients.rows)]
        return self._asked(arrays, [partial(_packed_input, take) for take in takes], SHELF.children)

    def scores(self, arrays: Mapping[str, NDArray[np.float32]], patients: "TrainablePatients") -> NDArray[np.float64]:
        """Return each patient's score by the kit, (patients,): each patient is put through alone."""
        takes = [partial(patients.take, patients.rows_of(np.array([i]))) for i in range(patients.count)]
        if SHELF.children is not None:
            return self._asked(arrays, [partial(_packed, take) for take in takes], SHELF.children)[:, 0]
        import torch

        return np.array(self._scored(arrays, (map(torch.from_numpy, take()) for take in takes)), np.float64)

    def _scored(self, arrays: Mapping[str, NDArray[np.float32]], patients: "Iterable[Iterable[Tensor]]") -> list[float]:
        """Return the scores of patients in this process; each finds the parameters as the first one does."""
        import torch

        module, scores = self.build(), list[float]()
        state = {name: torch.tensor(arrays[name]) for name in self.parameters}
        with torch.no_grad():
            for patient in patients:
                module.eval().load_state_dict(state)
                scores.append(self.score(module, *patient))
        return scores

    def _asked(
        self, arrays: Mapping[str, NDArray[np.float32]], questions: Sequence[Question], children: Children
    ) -> NDArray[np.float64]:
        children.load(SCORE + np.concatenate([arrays[name].reshape(-1) for name in self.parameters]).tobytes())
        scores = np.zeros((len(questions), 1))
        for row, answer in children.answers(questions, _FLOAT32):
            scores[row] = _risk(answer)
        return scores

    def score(self, module: "nn.Module", x: "Tensor", y: "Tensor | None" = None) -> float:
        """Return a patient's score by the kit, in [0, 1]; 0 where it is no number, or the kit stumbles.

        Args:
            y: the target; zeros unless given, as for a risk.
        """
        from strategies.models.one_patient import as_it_was, seed_of  # PyTorch

        score = self.model.score
        assert score is not None
        target = x.new_zeros(len(x)) if y is None else y
        seed = seed_of(b"", x, target)
        try:
            with as_it_was(module, seed, x.device):
                return _within(float(score(module(x), target)))
        except (Exception, SystemExit):  # whatever it is, it is this patient's: others' scores are not lost with it
            return 0.0


def _packed(take: Callable[[], tuple[NDArray[Any], ...]]) -> bytes:
    return packed(*take())


def _packed_input(take: Callable[[], tuple[NDArray[Any], ...]]) -> bytes:
    return packed(take()[0])


def _risk(answer: bytes | None) -> float:
    """Return the risk that a child answered; 0 where it did not."""
    return 0.0 if answer is None else _within(float(np.frombuffer(answer, np.float32)[0]))


def _within(score: float) -> float:
    return min(1.0, max(0.0, score)) if score == score else 0.0
