"""Records of a run's journal, `RUN/journal.jsonl`, one dataclass for each kind.

The run is one of a simulation or of the coordinator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from configs.records.fields import LATER, OMIT, Within
from configs.records.kinds import Kind

MAX_ROUNDS = 100_000  # configs/wire.py's bound
SITE = "The hospital's name."
STUDY = "The study's digest."
ROUND = "Number of the round, from 1."
MISSING = "Hospital: why it did not take part."
HELLO = "Hospital: bytes of its answer to the proposal."


@dataclass(frozen=True, kw_only=True)
class Begin(Kind, name="begin"):
    """A leg of the run began: the first, or one after an interruption."""

    study_sha256: Annotated[str, STUDY, LATER]
    engine: Annotated[str, "`inprocess` or `ray` for a simulation, `deployed` between machines.", LATER]
    seed: Annotated[int | None, "The study's seed."]
    versions: Annotated[Mapping[str, str], "Package: its release.", LATER]
    arithmetic: Annotated[int, "Version of the arithmetic that decides a model's bits; 1 where it is absent."] = 1
    noise: Annotated[str, "`seeded` in a simulation.", OMIT] = ""


@dataclass(frozen=True, kw_only=True)
class Gathered(Kind, name="gathered"):
    """The study's hospitals were asked whether they take part."""

    study_sha256: Annotated[str, STUDY, LATER]
    sites: Annotated[tuple[str, ...], "Hospitals that take part."]
    bytes: Annotated[Mapping[str, int], HELLO, LATER]
    missing: Annotated[Mapping[str, str], MISSING, LATER]


@dataclass(frozen=True, kw_only=True)
class Joined(Kind, name="joined"):
    """Hospitals came after the first round and take part from here on."""

    sites: Annotated[tuple[str, ...], "The hospitals."]
    bytes: Annotated[Mapping[str, int], HELLO, LATER]
    before_round: Annotated[int, "Number of the first round that asks them."]


@dataclass(frozen=True, kw_only=True)
class Postponed(Kind, name="postponed"):
    """The run waits for another time."""

    why: Annotated[str, "Why."]


@dataclass(frozen=True, kw_only=True)
class Resumed(Kind, name="resumed"):
    """The run goes on from a checkpoint."""

    after_round: Annotated[int, "Number of the checkpoint's round."]


@dataclass(frozen=True, kw_only=True)
class Round(Kind, name="round"):
    """A round ended: who contributed, and why others did not. metrics.json repeats it."""

    attempts: Annotated[Mapping[str, int], "Hospital: its last attempt, where a release was made anew.", OMIT] = field(
        default_factory=dict
    )
    contributed: Annotated[Mapping[str, int], "Hospital: bytes of its arrays.", LATER]
    missing: Annotated[Mapping[str, str], MISSING, LATER]
    round: Annotated[int, ROUND, Within(0, MAX_ROUNDS)]
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


@dataclass(frozen=True, kw_only=True)
class Judged(Kind, name="judged"):
    """One point of the learning curve; in a simulation."""

    round: Annotated[int, ROUND]
    value: Annotated[float, "The main metric on all test patients."]


@dataclass(frozen=True, kw_only=True)
class Evaluated(Kind, name="evaluated"):
    """Hospitals released once what the study asks of the final model, such as noisy histograms of its scores."""

    contributed: Annotated[Mapping[str, int], "Hospital: bytes of its arrays."]
    missing: Annotated[Mapping[str, str], "Hospital: why it released none.", LATER]
    attempts: Annotated[Mapping[str, int], "Hospital: its last attempt, where a release was made anew.", OMIT] = field(
        default_factory=dict
    )
    release: Annotated[str, "The release's name; where it is absent, the score histogram.", OMIT] = ""


@dataclass(frozen=True, kw_only=True)
class Refused(Kind, name="refused"):
    """A hospital refused, or what it sent was refused."""

    site: Annotated[str, SITE, OMIT] = ""
    round: Annotated[int | None, "Number of the round, where it is one's update.", OMIT] = None
    code: Annotated[int | None, "Code of the hospital's refusal (configs/wire.py); else 0.", OMIT] = None
    reason: Annotated[str, "Why, as the hospital said it or the coordinator found it.", OMIT] = ""
    final: Annotated[bool | None, "Whether the hospital is not asked again.", OMIT] = None
    answers: Annotated[str, "Id of the instruction whose answer was not trusted.", OMIT] = ""
    why: Annotated[str, "Why the answer was not trusted.", OMIT] = ""


@dataclass(frozen=True, kw_only=True)
class Exchanged(Kind, name="exchanged"):
    """What is kept of a message: enough to prove what was sent, and what the other side's journal said."""

    site: Annotated[str, SITE]
    run: Annotated[str, "The run's name.", LATER]
    round: Annotated[int, "Number of the round; 0 outside of rounds.", LATER]
    study: Annotated[str, STUDY, LATER]
    message: Annotated[str, "The message's id.", LATER]
    content: Annotated[str, "Hash of the whole message.", LATER]
    answers: Annotated[str, "Id of the message that it answers; empty for an instruction.", LATER]
    form: Annotated[str, "The message's form (configs/wire.py).", LATER]
    bytes: Annotated[int, "Bytes of its arrays.", LATER]
    epsilon: Annotated[str, "Epsilon that the hospital's ledger states, as it signed it.", OMIT] = ""


@dataclass(frozen=True, kw_only=True)
class Sent(Exchanged, name="sent"):
    """An instruction is about to leave the coordinator."""

    journal: Annotated[str, "Hash of this journal's newest record, as the message quotes it.", LATER]


@dataclass(frozen=True, kw_only=True)
class Received(Exchanged, name="received"):
    """An answer came, signed by its hospital."""

    their_journal: Annotated[str, "Hash of the newest record of the hospital's journal.", LATER]


@dataclass(frozen=True, kw_only=True)
class Repeated(Kind, name="repeated"):
    """An instruction is sent again: its answer was lost."""

    site: Annotated[str, SITE]
    message: Annotated[str, "The message's id."]


@dataclass(frozen=True, kw_only=True)
class End(Kind, name="end"):
    """The run's rounds ended."""

    outcome: Annotated[str, "COMPLETE or INCOMPLETE."]
    why: Annotated[str, "Why it ended early; empty where it is complete."]


@dataclass(frozen=True, kw_only=True)
class Measured(Kind, name="measured"):
    """The run's files were written."""

    metrics_sha256: Annotated[str, "Digest of metrics.json.", OMIT] = ""
    model_sha256: Annotated[str, "Digest of model.safetensors.", OMIT] = ""


KINDS: Mapping[str, type[Kind]] = {
    kind.kind: kind
    for kind in (
        *(Begin, Gathered, Joined, Postponed, Resumed, Round, Again, Judged, Evaluated, Refused),
        *(Sent, Received, Repeated, End, Measured),
    )
}


def _named(document: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    names = document.get(key)
    is_list = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return {key: dict.fromkeys(names, value)} if is_list and names is not None else {}
