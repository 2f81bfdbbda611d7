"""The choice of a model's engine.

It is the closed form, book-keeping, one patient alone, here or in a child, or Opacus where a study asks for it.

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

from configs.errors import PrivacyError
from configs.kinds import Registry
from strategies.models.flat_model import FlatModel
from strategies.privacy.engines.base import Engine, Gaussian
from strategies.privacy.engines.closed_form import ClosedForm
from strategies.privacy.plan import PrivacyPlan

Maker = Callable[[FlatModel, PrivacyPlan, Gaussian], Engine]


@dataclass(frozen=True)
class EngineKind:
    """An engine's name; `load` imports it and returns what makes one for a fit.

    `on_cuda`: whether it trains on a GPU where the hospital says so.
    `binding`: a study whose model has it can ask for no other, as it is the hospital that chose it.
    """

    name: str
    load: Callable[[], Maker]
    binding: bool = False
    on_cuda: bool = False


def _book_keeping() -> Maker:
    from strategies.privacy.engines.book_keeping import BookKeeping  # linear stacks start without

    return BookKeeping


def _alone() -> Maker:
    from strategies.privacy.engines.alone import Alone  # linear stacks start without

    return Alone


def _forked() -> Maker:
    from strategies.privacy.engines.forked import Forked  # linear stacks start without

    return Forked


def _opacus() -> Maker:
    from strategies.privacy.engines.opacus import OpacusEngine  # over a second to import

    return OpacusEngine


def _closed_form(model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian) -> Engine:
    make: Maker = ClosedForm if model.flat.device.type == "cpu" else _book_keeping()
    return make(model, plan, gaussian)


ENGINES = Registry(
    "engine",
    ("load",),
    [
        EngineKind("closed form", lambda: _closed_form),
        EngineKind("book-keeping", _book_keeping, on_cuda=True),
        EngineKind("alone", _alone, on_cuda=True),
        EngineKind("forked", _forked, binding=True),
        EngineKind("opacus", _opacus),
    ],
)


def load_engine(of_model: str, of_study: str = "auto") -> Maker:
    """Import an engine, which may take over a second, and return what makes one for a fit.

    Args:
        of_model: the engine that the model's architecture names.
        of_study: another one that the study asks for, or `auto`.

    Raises:
        KindError: there is no engine of that name. PrivacyError: the study asks for another than the hospital's own.
    """
    return engine_kind(of_model, of_study).load()


def engine_kind(of_model: str, of_study: str = "auto") -> EngineKind:
    """Return the engine that `load_engine` loads.

    Raises:
        KindError, PrivacyError: as `load_engine`.
    """
    if ENGINES[of_model].binding and of_study not in ("auto", "alone"):
        raise PrivacyError(
            f"training.local.engine: expected auto where kits run in children of their own, found {of_study!r}; it "
            "needs kit_run: together in site.yaml, at a hospital where a person has read the kit"
        )
    return ENGINES[of_model if of_study == "auto" or ENGINES[of_model].binding else of_study]


def private_engine(model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, name: str = "auto") -> Engine:
    """Return the engine that the model's architecture names, or the one that the study asks for.

    Raises:
        KindError: there is no engine of that name. PrivacyError: a layer's gradient mixes patients; see separable.py.
    """
    return load_engine(model.task.engine, name)(model, plan, gaussian)
