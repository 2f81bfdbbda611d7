"""The sections `model` of small networks for images and series. Registered when the schema is imported.

>>> UNet("unet").width, ResNet("resnet").width, UNet("unet").depth
(8, 16, 3)
"""

from dataclasses import dataclass

from configs.keys.declare import key
from configs.keys.values import Around, Integer
from configs.schema.model import MODELS, ModelKind
from configs.sections import Section

MAX_CHANNELS, MAX_DEPTH = 256, 6
_GROUPS = 4  # of every GroupNorm, at least


@dataclass(frozen=True, slots=True)
class Network:
    """A small network; `width` is the number of channels of its first level."""

    name: str
    width: int = key(Integer(_GROUPS, MAX_CHANNELS), "channels of the first level, a multiple of 4", default=16)

    def check(self, section: Section, around: Around) -> None:
        """Note a width that cannot be put into groups."""
        del around
        if self.width % _GROUPS:
            section.problem("width", "a multiple of 4", self.width, "round it")


@dataclass(frozen=True, slots=True)
class ResNet(Network):
    """Residual blocks of 1, 2, 4 and 8 times the width, one each, with GroupNorm; one record, one row of outputs."""


@dataclass(frozen=True, slots=True)
class UNet(Network):
    """A U-Net: every place of a record has outputs of its own; each level down has half the sides, twice the width."""

    width: int = key(Integer(_GROUPS, MAX_CHANNELS), "channels of the first level, a multiple of 4", default=8)
    depth: int = key(Integer(1, MAX_DEPTH), "how often the sides are halved", default=3)


@dataclass(frozen=True, slots=True)
class Conv1d(Network):
    """Three convolutions over time with GroupNorm, and the mean over time."""


@dataclass(frozen=True, slots=True)
class GRU(Network):
    """A gated recurrent unit over time, of `width` numbers, and the mean of its states."""


KINDS = (
    ModelKind("resnet", ResNet, axes=(2,)),
    ModelKind("unet", UNet, axes=(2, 3), maps=True),
    ModelKind("conv1d", Conv1d, axes=(1,)),
    ModelKind("gru", GRU, axes=(1,)),
)
for kind in KINDS:
    MODELS.register(kind)
