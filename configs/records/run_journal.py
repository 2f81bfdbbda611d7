"""Records of a run's journal, `RUN/journal.jsonl`: of a simulation or of the coordinator, one dataclass a kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from configs.records.fields import OMIT, Within
from configs.records.kinds import Kind

MAX_ROUNDS = 100_000  # configs/wire.py's bound
SITE = "The hospital's name."


@dataclass(frozen=True, kw_only=True)
class Round(Kind, name="round"):
    """A round ended: who contributed, and why others did not. metrics.json repeats it."""

    attempts: Annotated[Mapping[str, int], "Hospital: its last attempt, where a release was made anew.", OMIT] = field(
        default_factory=dict
    )
    contributed: Annotated[Mapping[str, int], "Hospital: bytes of its arrays."] = field(default_factory=dict)
    missing: Annotated[Mapping[str, str], "Hospital: why it contributed nothing."] = field(default_factory=dict)
    round: Annotated[int, "Number of the round, from 1.", Within(0, MAX_ROUNDS)]
    seconds: Annotated[float | None, "Duration in seconds.", OMIT] = None
    steps: Annotated[int | None, "Steps that were counted; in the rehearsal of an audit alone.", OMIT] = None

    @classmethod
    def present_form(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the record with objects where an earlier form had lists of hospitals."""
        return {**document, **_named(document, "contributed", 0), **_named(document, "missing", "")}


@dataclass(frozen=True, kw_only=True)
class Again(Kind, name="again"):
    """A hospital lost a release and is asked to make it anew. metrics.json repeats it."""

    attempt: Annotated[int, "Number of the attempt, from 1 for the first repetition."]
    round: Annotated[int, "Number of the round; 0 is the evaluation."]
    site: Annotated[str, SITE]
    why: Annotated[str, "Why the release before it was lost."]


def _named(document: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    names = document.get(key)
    is_list = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return {key: dict.fromkeys(names, value)} if is_list and names is not None else {}
