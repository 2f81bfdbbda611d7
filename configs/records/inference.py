"""The release `inference`: its keys in a study, and the ratios that follow from it in metrics.json."""

from dataclasses import dataclass
from typing import Annotated

from configs.keys.declare import key
from configs.keys.values import Around, Number
from configs.records.estimate import Estimate
from configs.records.fields import LATER
from configs.schema.privacy import MAX_EPSILON, MIN_EPSILON, PER_PATIENT
from configs.schema.releases import ReleaseKeys
from configs.schema.task import TASKS
from configs.sections import Section

COST = Number(f"0.01 to {MAX_EPSILON:g}, {PER_PATIENT}, beside the training's", MIN_EPSILON, MAX_EPSILON)
COST_ABOUT = f"what it costs {PER_PATIENT}, beside the training's"


@dataclass(frozen=True, slots=True)
class InferenceKeys:
    """A noisy score and information at the final model: ratios with intervals that include the noise."""

    epsilon: float = key(COST, COST_ABOUT)

    def check(self, section: Section, around: Around) -> None:
        """Note a model or an outcome without ratios."""
        model = around["model"]
        informs = TASKS[around["task"].type].has_information(around["task"])
        is_linear = getattr(model, "hidden", None) == () and not model.site_intercept
        if not informs or not is_linear:
            text = (
                "expected a logistic model of one outcome or of hazards of one cause, all of it shared, beside this "
                "release, found another"
            )
            section.note("epsilon", f"{text}; remove it")


@dataclass(frozen=True)
class Ratio:
    """One coefficient of the model in words; the figures are null where the noise would drown them."""

    column: Annotated[str, "The column."]
    contrast: Annotated[str, "What is compared: a step of the number, or a value against the reference."]
    estimate: Annotated[
        Estimate | None, "Ratio with the 95 % interval of patients like these: sampling and noise are part of it."
    ]
    pooled: Annotated[
        Estimate | None, "The same with the noise's 95 % interval alone: what these patients would give, pooled."
    ]


@dataclass(frozen=True)
class Ratios:
    """What a regression on all hospitals' training patients would say, as far as noise lets it be seen."""

    measure: Annotated[str, "What the figures are, such as odds ratio."]
    rows: Annotated[tuple[Ratio, ...], "Each coefficient but the intercept.", LATER]
    curved: Annotated[tuple[str, ...], "Columns with a curve in the place of one ratio.", LATER]
    sites: Annotated[tuple[str, ...], "Hospitals that released it.", LATER]
    noise_multiplier: Annotated[float | None, "Noise multiplier of each hospital's release."]
    drowned: Annotated[float | None, "Noise in the information beside its weakest direction; above 0.35 undefined."]
    moved: Annotated[float | None, "How far the final model is from the estimate: root mean square, in log odds."]
    undefined: Annotated[str, "Why there is no figure; empty where there are figures.", LATER]


INFERENCE_KEYS = ReleaseKeys("inference", InferenceKeys, Ratios)
