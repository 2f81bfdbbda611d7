"""Tasks whose outcome is a mask of each image: the keys that they have alike."""

from dataclasses import dataclass
from typing import Any

from configs.keys.declare import REQUIRED, Declaration, declaration_of, key
from configs.schema.records import READER_KEYS, Image, NamedKind, Size
from configs.schema.task import Task


@dataclass(frozen=True, slots=True)
class MaskTask(Task):
    """An outcome that is a record of the images' size. `target` is the column of the masks' paths."""

    reader: str = key(
        NamedKind(READER_KEYS), "how one mask is read: the name of a reader", default=REQUIRED, init="npy"
    )
    size: tuple[int, ...] = key(Size(), "the sides of the masks: those of the images", default=REQUIRED, init=(8, 8))

    @property
    def columns(self) -> tuple[Image, ...]:
        """Return the column of the masks."""
        return (Image(self.target, "image", reader=self.reader, size=self.size, labels=True),)


def mask_section(task: type[MaskTask], **changes: Any) -> Declaration:
    """Return the section of a task of masks, without the keys of outcomes that are words or numbers."""
    section = declaration_of(task).without("classes", "range", "bins", "unit")
    return section.but(target={"about": "the column of the masks' paths"}, **changes)
