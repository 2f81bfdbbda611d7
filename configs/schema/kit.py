"""What a study says of a study kit: which one, the arrays of its model, its options, and the file it begins from.

All of it is data. The process on the network checks messages by `arrays` and never opens a kit.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs import kit
from configs.keys.declare import Entries, Part, declaration_of, key
from configs.keys.values import Around, Number, Place, Text, Value, is_number
from configs.kinds import Family
from configs.schema.masks import MaskTask, mask_section
from configs.schema.model import MODELS, ModelKind
from configs.schema.task import BINARY_WORDS, NO_RANGE_OF_CLASSES, OUTCOME, SCORES, TASKS, TaskKeys
from configs.sections import Section

ARRAY_NAME = re.compile(r"[A-Za-z0-9_]{1,63}(\.[A-Za-z0-9_]{1,63}){0,15}")
OPTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
MAX_ARRAYS, MAX_AXES, MAX_PARAMETERS = 2_000, 8, 1 << 30
DIGEST = Text("a SHA-256, 64 digits of 0-9 and a-f", kit.SHA256)
FAMILY, OWN_TASK, OWN_MASK = "KIT/MODEL", "own", "own_mask"


@dataclass(frozen=True, slots=True)
class KitKeys:
    """The study kit that a study needs, to the byte."""

    name: str = key(Text("a kit's name of a-z, 0-9 and _", kit.NAME), "the kit's name")
    version: str = key(Text("a version such as 1.2.0", kit.VERSION), "its version")
    sha256: str = key(DIGEST, "its digest, as archipel kit build prints it: another kit is another study")
    patient_s: float = key(
        Number("seconds from 0.02 to 600", 0.02, 600.0),
        "seconds in which a child works out one patient's part; public and the same for all, so that no patient's time "
        "shows: who takes longer adds nothing (archipel kit test measures it)",
        default=1.0,
    )


class _Shape(Value):
    """The sides of an array."""

    expected = f"a list of at most {MAX_AXES} sides from 1"

    def read(self, at: Place) -> tuple[int, ...]:
        """Return the sides; a stand-in in place of a mistake."""
        sides = at.found if isinstance(at.found, list) else [0]
        good = len(sides) <= MAX_AXES and all(type(side) is int and 1 <= side <= MAX_PARAMETERS for side in sides)
        if good and math.prod(sides) <= MAX_PARAMETERS:
            return tuple(sides)
        at.problem(self.expected, "archipel complete writes it")
        return (1,)

    def write(self, value: Sequence[int]) -> list[int]:
        """Return the sides as a list."""
        return list(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list of integers."""
        return {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": MAX_AXES}


class _Scalar(Value):
    """A number, a word or a truth value."""

    expected = "a number, a word, true or false"

    def read(self, at: Place) -> Any:
        """Return the value; a stand-in in place of a mistake."""
        if is_number(at.found) or isinstance(at.found, bool):
            return at.found
        return Text(self.expected, limit=100).read(at)

    @property
    def schema(self) -> dict[str, Any]:
        """Return the types of scalars."""
        return {"type": ["number", "string", "boolean"]}


def _named(pattern: re.Pattern[str], what: str) -> Any:
    return lambda name: "" if pattern.fullmatch(name) else f"expected {what}'s name; correct it"


def _pairs(of: Value, pattern: re.Pattern[str], what: str, member: str) -> Entries:
    build, split = lambda name, value: (name, value), lambda pair: pair
    return Entries(
        of, _named(pattern, what), f"a mapping of {what}s", required=False, build=build, split=split, member=member
    )


class _Start(Value):
    """The digest of a file of initial values, in a section of its own."""

    expected = "a mapping with sha256"

    def read(self, at: Place) -> str:
        """Return the digest."""
        return Part(_StartKeys).read(at).sha256  # type: ignore[no-any-return]

    def write(self, value: str) -> dict[str, str]:
        """Return the section."""
        return {"sha256": value}

    @property
    def schema(self) -> dict[str, Any]:
        """Return the section's schema."""
        return Part(_StartKeys).schema

    @property
    def children(self) -> tuple[tuple[str, Any], ...]:
        """Return the section's key."""
        return Part(_StartKeys).children


@dataclass(frozen=True)
class _StartKeys:
    sha256: str = key(DIGEST, "SHA-256 of NAME.start.safetensors beside the study, which archipel complete writes")


@dataclass(frozen=True, slots=True)
class KitModel:
    """The section `model` of a study whose model is a kit's."""

    name: str
    options: tuple[tuple[str, Any], ...] = key(
        _pairs(_Scalar(), OPTION_NAME, "option", "OPTION"),
        "the model's own options, as the kit declares them",
        default=(),
    )
    start: str | None = key(
        _Start(), "the file of initial values; archipel complete writes it", default=None, unsaid="open"
    )

    @property
    def is_open(self) -> bool:
        """Return whether archipel complete has yet to write what the model begins from."""
        return self.start is None

    def check(self, section: Section, around: Around) -> None:
        """Note a model of no kit, or of another one than the study's."""
        name = self.name.partition("/")[0]
        chosen = around.get("kit")
        if chosen is None:
            section.problem("name", f"the kit {name} under kit beside its model", self.name, "add kit: {name, ...}")
        elif around["task"].type not in (OWN_TASK, OWN_MASK):
            wanted = f"task.type: {OWN_TASK} or {OWN_MASK} beside a kit's model"
            section.problem("name", wanted, around["task"].type, "change the task")
        elif chosen.name and chosen.name != name:
            section.problem("name", f"a model of the study's kit {chosen.name}", self.name, "correct one of the two")


KIT = Part(KitKeys, "a mapping with name, version and sha256")
ARRAYS = _pairs(_Shape(), ARRAY_NAME, "array", "ARRAY")
_SECTION = declaration_of(KitModel)
MODELS.register_family(Family(FAMILY, kit.PART, lambda name: ModelKind(name, _SECTION, axes=(0, 1, 2, 3))))

OWN = TaskKeys(  # the loss and the score are a study kit's
    OWN_TASK,
    OUTCOME.but(refused={"range": NO_RANGE_OF_CLASSES}, classes={"value": BINARY_WORDS, "default": ("0", "1")}),
    (*SCORES, "auprc"),
    has_outcome=True,
    states=("without the outcome", "with it"),
)
TASKS.register(OWN)


@dataclass(frozen=True, slots=True)
class OwnMask(MaskTask):
    """An outcome that is a record, such as a mask: the loss and the score are a study kit's."""


OWN_MASK_KEYS = TaskKeys(
    OWN_MASK,
    mask_section(OwnMask, size={"about": "the sides of the masks"}),
    ("score",),
    data="records",
    scored="score by its kit",
)
TASKS.register(OWN_MASK_KEYS)


def start_file(study: str) -> str:
    """Return the name of the file that a kit's model begins from, beside a study of this name."""
    return f"{study}.start.safetensors"


def specifications(arrays: Sequence[tuple[str, tuple[int, ...]]]) -> Mapping[str, tuple[tuple[int, ...], str]]:
    """Return the arrays of a study's model as messages are checked by them: sorted by name, single precision."""
    return {name: (shape, "float32") for name, shape in sorted(arrays)}
