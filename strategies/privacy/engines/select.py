"""The engine that a model gets: the closed form, book-keeping, or Opacus where a study asks for the reference.

>>> from configs.schema import Model, Task
>>> from strategies.privacy.plan import PrivacyPlan
>>> from strategies.learning import learning
>>> plan = PrivacyPlan(clip_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1,
...                    delta=1e-5, expected_patients=1)
>>> model = FlatModel(learning(Task("binary", "disease"), Model("logistic"), inputs=1))
>>> type(private_engine(model, plan, gaussian=lambda size, deviation: ...)).__name__
'ClosedForm'
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from configs.kinds import Registry
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.base import Engine, Gaussian
from strategies.privacy.engines.closed_form import ClosedForm
from strategies.privacy.engines.separable import require_separable
from strategies.privacy.plan import PrivacyPlan


def private_engine(
    model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, name: Literal["auto", "opacus"] = "auto"
) -> Engine:
    """Return the engine that the model's architecture names, or Opacus's.

    Raises:
        KindError: the architecture names no engine. PrivacyError: a layer's gradient mixes patients; see separable.py.
    """
    return ENGINES[model.task.engine if name == "auto" else name].make(model, plan, gaussian)


def _closed_form(model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian) -> Engine:
    make = ClosedForm if model.flat.device.type == "cpu" else _book_keeping
    return make(model, plan, gaussian)


def _book_keeping(model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian) -> Engine:
    from strategies.privacy.engines.book_keeping import BookKeeping  # with what linear stacks do not need

    require_separable(model.module)
    return BookKeeping(model, plan, gaussian)


def _opacus(model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian) -> Engine:
    from strategies.privacy.engines.opacus import OpacusEngine  # over a second to import

    require_separable(model.module)
    return OpacusEngine(model, plan, gaussian)


@dataclass(frozen=True)
class EngineKind:
    """An engine's name, and how one is made for a fit."""

    name: str
    make: Callable[[FlatModel, PrivacyPlan, Gaussian], Engine]


ENGINES = Registry(
    "engine",
    ("make",),
    [
        EngineKind("closed form", _closed_form),  # of linear stacks; a GPU's are kept by book-keeping
        EngineKind("book-keeping", _book_keeping),
        EngineKind("opacus", _opacus),
    ],
)
