"""A figure with its interval, in every record that has figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: Annotated[float, "The figure."]
    low: Annotated[float, "Lower end of the interval."]
    high: Annotated[float, "Upper end of the interval."]

    @classmethod
    def present_form(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a figure without an interval as one with a point as interval."""
        value = document.get("value")
        return {"low": value, "high": value} | {key: entry for key, entry in document.items() if entry is not None}


@runtime_checkable
class Judgement(Protocol):
    """The result of a further release that says how good the model is."""

    def verdict(self) -> str:
        """Return it in one sentence."""
