"""The engine that a model gets: the closed form, book-keeping, or Opacus where a study asks for the reference.

>>> from configs.schema import Model, Task
>>> from strategies.privacy.plan import PrivacyPlan
>>> from strategies.tasks.tabular import tabular_task
>>> plan = PrivacyPlan(clip_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1,
...                    delta=1e-5, expected_patients=1)
>>> model = FlatModel(tabular_task(Task("binary", "disease"), Model("logistic"), inputs=1))
>>> type(private_engine(model, plan, gaussian=lambda size, deviation: ...)).__name__
'ClosedForm'
"""

from typing import Literal

from strategies.privacy.engines.base import Engine, Gaussian
from strategies.privacy.engines.closed_form import ClosedForm
from strategies.privacy.plan import PrivacyPlan
from strategies.tasks.gradients import FlatModel


def private_engine(
    model: FlatModel, plan: PrivacyPlan, gaussian: Gaussian, name: Literal["auto", "opacus"] = "auto"
) -> Engine:
    """Return the cheapest exact engine for a model, or Opacus's.

    Raises:
        PrivacyError: a layer's gradient mixes patients; see separable.py.
    """
    if name == "auto" and model.is_linear_stack and model.flat.device.type == "cpu":
        return ClosedForm(model, plan, gaussian)
    from strategies.privacy.engines.separable import require_separable  # with what only other models need

    require_separable(model.module)
    if name == "opacus":
        from strategies.privacy.engines.opacus import OpacusEngine  # over a second to import

        return OpacusEngine(model, plan, gaussian)
    from strategies.privacy.engines.book_keeping import BookKeeping

    return BookKeeping(model, plan, gaussian)
