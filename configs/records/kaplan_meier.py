"""The release `kaplan_meier`: its keys in a study, and the risks over time that follow from it in metrics.json."""

from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class KaplanMeierKeys:
    """Noisy counts of training patients by how and in which interval their time ended: observed risks over time."""

    epsilon: float = key(
        Number(f"0.01 to {MAX_EPSILON:g}, {PER_PATIENT}, beside the training's", MIN_EPSILON, MAX_EPSILON),
        f"what it costs {PER_PATIENT}, beside the training's",
    )

    def check(self, section: Section, around: Around) -> None:
        """Note an outcome without time."""
        if TASKS[around["task"].type].data != "person_periods":
            section.note("epsilon", "expected task.type: survival beside this release, found another; remove it")


@dataclass(frozen=True)
class ObservedRisk:
    """The share of patients in whom one cause has come by one time."""

    cause: Annotated[str, "The event's word."]
    time: Annotated[float, "The end of an interval.", LATER]
    risk: Annotated[
        Estimate | None, "The risk by then, with its 95 % interval of sampling and noise; null where noise drowns it."
    ]


@dataclass(frozen=True)
class ObservedRisks:
    """What hospitals released of how their patients' times ended, and the risks that follow."""

    together: Annotated[tuple[ObservedRisk, ...], "All hospitals together, cause by cause.", LATER]
    sites: Annotated[Mapping[str, tuple[ObservedRisk, ...]], "Hospital: its own patients.", LATER]
    counts: Annotated[Mapping[str, tuple[float, ...]], "Hospital: its noisy counts, as they left.", LATER]
    noise_multiplier: Annotated[float | None, "Standard deviation of the noise in each count, in patients."]


KAPLAN_MEIER_KEYS = ReleaseKeys("kaplan_meier", KaplanMeierKeys, ObservedRisks)
