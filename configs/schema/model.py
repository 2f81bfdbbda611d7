"""The section `model`: a name in a registry, never a path to code."""

from dataclasses import dataclass
from typing import Any, Literal

from configs.keys.declare import declaration_of, key
from configs.keys.one_of import HasSection, Kind, OneOf, Sections
from configs.keys.values import Around, Choice, Place, Truth, Value
from configs.schema.task import COX
from configs.sections import Section

DEFAULT_LAYERS, MAX_LAYERS, MAX_WIDTH = (64, 32), 16, 65_536


class _Layers(Value):
    """The sizes of hidden layers."""

    expected = f"a list of layer sizes from 1 to {MAX_WIDTH}"

    def read(self, at: Place) -> tuple[int, ...]:
        """Return the sizes, the default ones in place of a mistake."""
        sizes = at.found if isinstance(at.found, list) else []
        whole = all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MAX_WIDTH for n in sizes)
        if 1 <= len(sizes) <= MAX_LAYERS and whole:
            return tuple(sizes)
        at.problem(self.expected, "for example [64, 32]")
        return DEFAULT_LAYERS

    def write(self, value: Any) -> list[int]:
        """Return the sizes as a list."""
        return list(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list of integers."""
        size = {"type": "integer", "minimum": 1, "maximum": MAX_WIDTH}
        return {"type": "array", "items": size, "minItems": 1, "maxItems": MAX_LAYERS}


@dataclass(frozen=True, slots=True)
class Model:
    """A name in the registry, never a path to code."""

    name: str
    hidden: tuple[int, ...] = key(_Layers(), "sizes of the hidden layers", default=DEFAULT_LAYERS, init=())
    init: Literal["zeros", "random", "share"] = key(
        Choice(("zeros", "random", "share")),
        "what every hospital begins from; random follows the seed, share begins at task.outcome_share for everybody",
        default="zeros",
    )
    site_intercept: bool = key(
        Truth(),
        "whether every hospital has an intercept of its own, trained with the rest and never sent",
        default=False,
        written=lambda model: model.site_intercept,
    )


def _check_share(model: Model, section: Section, around: Around) -> None:
    if model.init == "share" and getattr(around["task"], "outcome_share", None) is None:
        section.problem(
            "init", "zeros or random without task.outcome_share", model.init, "announce the share, or change"
        )


def _check_logistic(model: Model, section: Section, around: Around) -> None:
    _check_share(model, section, around)
    if around["task"].minimum is not None:
        section.problem("name", "linear or mlp for a regression", model.name, "change the model or the task")


def _check_linear(model: Model, section: Section, around: Around) -> None:
    _check_share(model, section, around)
    if around["task"].classes:
        section.problem("name", "logistic or mlp for a classification", model.name, "change the model or the task")


def _check_mlp(model: Model, section: Section, around: Around) -> None:
    _check_share(model, section, around)
    if model.init == "zeros":
        section.problem("init", "random for an mlp", model.init, "an mlp of zeros has no gradient to start from")


AXES = ("rows of numbers", "series", "images of two axes", "images of three axes")


@dataclass(frozen=True)
class ModelKind(Kind):
    """A model's keys, and what it reads: `axes` of a record beside its channels, as places in AXES; 0: rows.

    `maps`: whether it puts out a map of the record's sides, and not one row of numbers.
    """

    axes: tuple[int, ...] = (0,)
    maps: bool = False


def axes_of(name: str) -> tuple[int, ...]:
    """Return the axes of what a model of that name reads: those of rows unless its kind says otherwise."""
    return getattr(MODELS[name], "axes", (0,)) if name in MODELS else tuple(range(len(AXES)))


def maps_of(name: str, *, otherwise: bool) -> bool:
    """Return whether a model of that name puts out maps; of one that is not registered what is said otherwise."""
    return getattr(MODELS[name], "maps", False) if name in MODELS else otherwise


_MODEL = declaration_of(Model)
MODELS: Sections[HasSection] = Sections(
    "model",
    [
        Kind("logistic", _MODEL.without("hidden").but(check=_check_logistic)),
        Kind("linear", _MODEL.without("hidden").but(check=_check_linear)),
        Kind("mlp", _MODEL.but(check=_check_mlp, init={"default": "random"})),
    ],
)
MODEL = OneOf(MODELS, "name", "a mapping with a name", refused={"cox": COX})
