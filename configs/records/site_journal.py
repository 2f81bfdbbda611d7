"""Records of a hospital's journal, `journal.jsonl` in its folder.

They say what came, was decided, and left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from configs.records.fields import LATER, OMIT
from configs.records.kinds import Kind

STUDY = "The study's digest."
STUDY_NAME = "The study's name."
MESSAGE = "The message's id."
KIT = "The kit's digest."
PERSON = "Who did it: a person's account, or `policy`."
ROWS = "Number of the ledger's newest release."
LEDGER = "Hash of the ledger's newest release."
RELEASES = "Releases as the ledger holds them: data set, study, round, attempt, kind, noise, rate, steps, plan."
ORPHANS = "Messages in the outbox that no record names."
Row = tuple[Any, ...]  # of the ledger


@dataclass(frozen=True, kw_only=True)
class Joined(Kind, name="joined"):
    """The hospital took the coordinator's welcome."""

    coordinator: Annotated[str, "The coordinator's address."]
    coordinator_key: Annotated[str, "Its public signing key."]


@dataclass(frozen=True, kw_only=True)
class Started(Kind, name="started"):
    """The node started."""

    version: Annotated[str, "Archipel's release."]
    site: Annotated[str, "The hospital's name."]
    site_yaml: Annotated[str, "Digest of the site file."]


@dataclass(frozen=True, kw_only=True)
class Stopped(Kind, name="stopped"):
    """The node stopped."""


@dataclass(frozen=True, kw_only=True)
class Worker(Kind, name="worker"):
    """The process that sees patients was started."""

    alone: Annotated[bool, "Whether it has no network."]
    reaches: Annotated[tuple[str, ...], "Addresses that it may reach."]
    fence: Annotated[str, "What keeps it in its folder."]


@dataclass(frozen=True, kw_only=True)
class Proposed(Kind, name="proposed"):
    """A study was proposed to the hospital for the first time."""

    study: Annotated[str, STUDY]
    name: Annotated[str, STUDY_NAME]


@dataclass(frozen=True, kw_only=True)
class RereadAsked(Kind, name="reread asked"):
    """A person asked that the data be read again before the next answer."""

    by: Annotated[str, PERSON]


@dataclass(frozen=True, kw_only=True)
class DataReviewed(Kind, name="data reviewed"):
    """A person looked at what a study makes of the data."""

    study: Annotated[str, STUDY]
    name: Annotated[str, STUDY_NAME]
    by: Annotated[str, PERSON]


@dataclass(frozen=True, kw_only=True)
class Rehearsed(Kind, name="rehearsed"):
    """A person let a whole study run here on this hospital's own data; nothing of it left or was kept."""

    study: Annotated[str, STUDY]
    name: Annotated[str, STUDY_NAME]
    by: Annotated[str, PERSON]


@dataclass(frozen=True, kw_only=True)
class Approved(Kind, name="approved"):
    """A study was approved."""

    study: Annotated[str, STUDY]
    name: Annotated[str, STUDY_NAME, OMIT] = ""
    by: Annotated[str, PERSON]


@dataclass(frozen=True, kw_only=True)
class RefusedStudy(Kind, name="refused study"):
    """A person refused a study."""

    study: Annotated[str, STUDY]
    name: Annotated[str, STUDY_NAME]
    by: Annotated[str, PERSON]
    why: Annotated[str, "Why; it does not leave."]


@dataclass(frozen=True, kw_only=True)
class KitAdded(Kind, name="kit added"):
    """A study kit was unpacked; nothing of it was executed."""

    kit: Annotated[str, KIT]
    name: Annotated[str, "Its name."]
    version: Annotated[str, "Its version."]
    by: Annotated[str, PERSON]


@dataclass(frozen=True, kw_only=True)
class KitApproved(Kind, name="kit approved"):
    """A person let studies open a kit."""

    kit: Annotated[str, KIT]
    name: Annotated[str, "Its name."]
    version: Annotated[str, "Its version."]
    by: Annotated[str, PERSON]
    signers: Annotated[tuple[str, ...], "Public keys of those who had signed its digest."]


@dataclass(frozen=True, kw_only=True)
class KitWithdrawn(Kind, name="kit withdrawn"):
    """A person took the approval of a kit back."""

    kit: Annotated[str, KIT]
    by: Annotated[str, PERSON]
    why: Annotated[str, "Why; it does not leave."]


@dataclass(frozen=True, kw_only=True)
class Received(Kind, name="received"):
    """An instruction came, signed by the coordinator for this hospital."""

    message: Annotated[str, MESSAGE]
    run: Annotated[str, "The run's name.", LATER]
    study: Annotated[str, STUDY, LATER]
    round: Annotated[int, "Number of the round; 0 outside of rounds.", LATER]
    form: Annotated[str, "The message's form (configs/wire.py); absent where it was refused unread.", OMIT] = ""
    bytes: Annotated[int | None, "Bytes of its arrays.", OMIT] = None
    content: Annotated[str, "Hash of the whole message.", OMIT] = ""
    their_journal: Annotated[str | None, "Hash of the coordinator's newest record of the run.", OMIT] = None


@dataclass(frozen=True, kw_only=True)
class Repeated(Kind, name="repeated"):
    """An instruction came again; what was answered before is sent again."""

    message: Annotated[str, MESSAGE]


@dataclass(frozen=True, kw_only=True)
class Refused(Kind, name="refused"):
    """An instruction was refused."""

    message: Annotated[str, "The message's id; empty where it could not be trusted."]
    code: Annotated[int | None, "Code of the refusal that left (configs/wire.py); absent where none left.", OMIT] = None
    why: Annotated[str, "Why, for the hospital; it does not leave."]


@dataclass(frozen=True, kw_only=True)
class RefusedAgain(Kind, name="refused again"):
    """A refusal left once more; written each time that their number doubles."""

    message: Annotated[str, "Id of the message in the outbox that is the same."]
    study: Annotated[str, STUDY]
    times: Annotated[int, "How often it left."]


@dataclass(frozen=True, kw_only=True)
class Egress(Kind, name="egress"):
    """A reply was kept back: it was not of its form."""

    message: Annotated[str, MESSAGE]
    why: Annotated[str, "What was found."]


@dataclass(frozen=True, kw_only=True)
class Sent(Kind, name="sent"):
    """A message is in the outbox and is about to leave."""

    message: Annotated[str, MESSAGE]
    study: Annotated[str, STUDY]
    round: Annotated[int, "Number of the round; 0 outside of rounds."]
    form: Annotated[str, "The message's form (configs/wire.py)."]
    bytes: Annotated[int, "Bytes of its arrays.", LATER]
    content: Annotated[str, "Hash of the whole message.", LATER]
    answers: Annotated[str, "Id of the instruction that it answers.", LATER]
    instruction: Annotated[str, "What names that instruction in the outbox, however often it is asked.", LATER]
    why: Annotated[str, "Why it is noise alone; for the hospital.", OMIT] = ""
    reading: Annotated[str, "Keyed digest of the rows that it is made of.", OMIT] = ""


@dataclass(frozen=True, kw_only=True)
class Ended(Kind, name="ended"):
    """The coordinator told how a study ended; what came is kept in `models`."""

    study: Annotated[str, STUDY]
    outcome: Annotated[str, "COMPLETE or INCOMPLETE."]
    code: Annotated[int, "Why it ended (configs/wire.py, ENDS); 0 where it is complete."]
    rounds: Annotated[int, "How many rounds were done."]
    model_sha256: Annotated[str, "Digest of the model's file; absent where none came.", OMIT] = ""


@dataclass(frozen=True, kw_only=True)
class Personalised(Kind, name="personalised"):
    """The worker went on from a study's last model on this hospital's own patients; nothing of it leaves."""

    study: Annotated[str, STUDY]
    why: Annotated[str, "Why it failed, where it did.", OMIT] = ""


@dataclass(frozen=True, kw_only=True)
class Predicted(Kind, name="predicted"):
    """A person let a study's model score rows of this hospital; the scores stay in a file of that person's."""

    study: Annotated[str, STUDY]
    name: Annotated[str, STUDY_NAME]
    by: Annotated[str, PERSON]
    model_sha256: Annotated[str, "Digest of the model."]
    rows: Annotated[int, "Rows that were scored."]
    recalibrated: Annotated[bool, "Whether it was recalibrated on this hospital's training patients.", OMIT] = False


@dataclass(frozen=True, kw_only=True)
class EvaluatedHere(Kind, name="evaluated here"):
    """A person looked how good a study's model is on this hospital's own test patients; nothing of it leaves."""

    study: Annotated[str, STUDY]
    name: Annotated[str, STUDY_NAME]
    by: Annotated[str, PERSON]
    model_sha256: Annotated[str, "Digest of the model."]


@dataclass(frozen=True, kw_only=True)
class Compared(Kind, name="compared"):
    """A start found that ledger, journal and outbox fit together."""

    rows: Annotated[int, ROWS]
    ledger: Annotated[str, LEDGER]
    orphans: Annotated[tuple[str, ...], ORPHANS]


@dataclass(frozen=True, kw_only=True)
class Booked(Kind, name="booked"):
    """Releases were booked in the ledger; written before anything of them leaves."""

    rows: Annotated[int, ROWS]
    ledger: Annotated[str, LEDGER]
    releases: Annotated[tuple[Row, ...], RELEASES]


@dataclass(frozen=True, kw_only=True)
class Ignored(Kind, name="ignored"):
    """Something that came was not what it should be, and was left aside."""

    what: Annotated[str, "What it was to be."]
    why: Annotated[str, "What was found."]


@dataclass(frozen=True, kw_only=True)
class Unsettled(Kind, name="unsettled"):
    """The coordinator's record of this hospital shows other records than those here: nothing trains any more."""

    statement: Annotated[str, "The statement that this hospital had signed."]
    signature: Annotated[str, "Its signature."]
    why: Annotated[str, "What contradicts."]
    confirmed: Annotated[int, "Rows of the ledger that an earlier record had confirmed."]


@dataclass(frozen=True, kw_only=True)
class Settled(Kind, name="settled"):
    """A person settled a contradiction; what was added stays spent."""

    settled: Annotated[int, "How often these records were settled."]
    by: Annotated[str, PERSON]
    former: Annotated[str, "Name of a broken journal that was put aside.", OMIT] = ""
    former_sha256: Annotated[str, "Its digest.", OMIT] = ""
    reasons: Annotated[tuple[str, ...], "What did not fit together.", LATER]
    added: Annotated[tuple[Row, ...], "Releases that were added to the ledger.", LATER]
    rows: Annotated[int, ROWS]
    ledger: Annotated[str, LEDGER]
    releases: Annotated[tuple[Row, ...], RELEASES]
    orphans: Annotated[tuple[str, ...], ORPHANS]


KINDS: Mapping[str, type[Kind]] = {
    kind.kind: kind
    for kind in (
        *(Joined, Started, Stopped, Worker, Proposed, RereadAsked, DataReviewed, Approved, RefusedStudy, Received),
        *(Repeated, Refused, RefusedAgain, Egress, Sent, Compared, Booked, Ignored, Unsettled, Settled),
        *(KitAdded, KitApproved, KitWithdrawn),
        *(Ended, Personalised, Predicted, EvaluatedHere, Rehearsed),
    )
}
