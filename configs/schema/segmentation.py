"""The task `segmentation`: what each place of an image belongs to. Registered when the schema is imported.

The outcome is a mask: a record of the images' size, whose values are labels.

>>> task = Segmentation("segmentation", "mask", reader="nifti", size=(48, 48, 48), structures=("tumour",))
>>> [(column.name, column.full_shape, column.labels) for column in task.columns]
[('mask', (1, 48, 48, 48), True)]
"""

from dataclasses import dataclass
from typing import Literal

from configs.keys.declare import key
from configs.keys.values import Choice, Words
from configs.schema.masks import MaskTask, mask_section
from configs.schema.task import TASKS, TaskKeys

MAX_STRUCTURES = 32


@dataclass(frozen=True, slots=True)
class Segmentation(MaskTask):
    """Masks. `target` is the column of their paths; label 1 is the first of `structures`, 2 the second, and so on."""

    structures: tuple[str, ...] = key(
        Words("a list of the structures in the mask", 1, MAX_STRUCTURES, "1 to 32 names", "name each label from 1 on"),
        "the structures in the mask, in the order of its labels from 1; of one alone, every label above 0 is it",
        default=("structure",),
        init=("structure",),
    )
    loss: Literal["dice", "bce"] = key(
        Choice(("dice", "bce")),
        "the loss of an image: soft Dice, or the mean cross entropy of its places",
        default="dice",
    )

    @property
    def maps(self) -> bool:
        """Return True: every place has an outcome."""
        return True


SEGMENTATION_KEYS = TaskKeys(
    "segmentation",
    mask_section(Segmentation),
    ("dice",),
    data="records",
    scored="Dice coefficient",
)
TASKS.register(SEGMENTATION_KEYS)
