"""What the coefficients of a shared model say, in metrics.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from configs.records.fields import LATER


@dataclass(frozen=True)
class Effect:
    """One coefficient of the shared model in words, other columns being equal."""

    column: Annotated[str, "The column."]
    contrast: Annotated[str, "What is compared: a step of the number, or a value against the reference."]
    value: Annotated[float | None, "The ratio, or the difference in the target's unit: shrunken, no interval."]


@dataclass(frozen=True)
class CurvePoint:
    """A fitted curve at one of its knots."""

    at: Annotated[float, "The column's value."]
    value: Annotated[float | None, "As an effect's, against the lowest value of the range."]


@dataclass(frozen=True)
class Effects:
    """What a linear model's coefficients say; an interval needs a release `inference`."""

    measure: Annotated[str, "What the figures are, such as odds ratio."]
    of: Annotated[str, "What they are of, such as the odds of the outcome."]
    rows: Annotated[tuple[Effect, ...], "Each coefficient but the intercept.", LATER]
    curved: Annotated[tuple[str, ...], "Columns with a curve in the place of one figure.", LATER]
    curves: Annotated[Mapping[str, tuple[CurvePoint, ...]], "Column: its curve, straight between two knots.", LATER]
