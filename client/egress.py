"""The egress guard, through which every reply leaves a hospital.

A reply holds what configs/wire.py lists for it; a failure leaves as a code. What went wrong is for the hospital's own
log. The coordinator learns a number and a plain sentence, so no path, no column and no value can leave inside an
error's text.

>>> code_of(BudgetError("round 3: needs epsilon 3.78 in all, the study has 3.00"))
(101, "the hospital's privacy budget does not allow this round")
"""

from collections.abc import Mapping

from flwr.app import Error, Message

from client.policy import NO_FIGURES
from configs import wire
from configs.errors import (
    AdmissionError,
    BegunError,
    BudgetError,
    DataError,
    PolicyError,
    PrivacyError,
    ReleaseError,
    RunError,
    SealError,
    SourceError,
    SpareError,
    UnsettledError,
    WireError,
)
from configs.frame import Frame
from configs.wire import ArraySpec
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import envelope, records_of

REFUSAL = "refusal"
REFUSALS: tuple[tuple[type[Exception], int, str], ...] = (  # the first that fits
    (
        BegunError,
        wire.BEGUN,
        "the hospital had begun this release before it was lost, so it counts as spent and is not made twice",
    ),
    (SpareError, wire.NO_SPARE, "the hospital has made anew as many lost releases as the study allows (privacy.spare)"),
    (BudgetError, 101, "the hospital's privacy budget does not allow this round"),
    (PrivacyError, 102, "the hospital cannot make a privacy plan for this study"),
    (SourceError, 107, "the hospital's data cannot be read at present; its own log says why"),
    (DataError, 103, "the hospital's data do not fit the study"),
    (SealError, 106, "the hospital refused a message whose signature does not hold, or that is not for it"),
    (
        ReleaseError,
        wire.UPGRADE,
        "the hospital's release of Archipel does not know this study; its node must be upgraded",
    ),
    (WireError, wire.MISREAD, "the hospital refused a message that does not follow the protocol"),
    (
        UnsettledError,
        wire.UNSETTLED,
        "the hospital's records of what it has released contradict each other; a person there must settle them",
    ),
    (RunError, 105, "the hospital could not train; its own log says why"),
    (Exception, 199, "the hospital had an unexpected error; its own log says why"),
)
DECISIONS: Mapping[int, str] = {  # what a person or a policy of the hospital decided
    wire.WAITING_FOR_APPROVAL: "the hospital has not approved this study yet",
    111: "the hospital refused this study",
    112: "the hospital has no data set for this study",
    113: "the hospital's policy does not allow training without privacy",
    114: "the hospital's policy leaves less privacy budget than the study asks for",
    115: "the study's messages are larger than the hospital's policy allows",
    116: "the hospital's policy does not allow this study on its data set",
    wire.KIT_ABSENT: "the hospital has not the study's kit; send it the wheel, its IT adds it (archipel-site kit add)",
    wire.KIT_OTHER: "the hospital has another version of the study's kit, or a changed one; send it the wheel anew",
    wire.KIT_UNAPPROVED: "the hospital has not approved the study's kit; a person there must (archipel-site kit show)",
    NO_FIGURES: "the hospital's policy does not let figures of its test patients leave",
}
OF_ROWS = frozenset({102, 103, 105, 107, 116, 199})  # what lies behind these may be rows: never in the journal's chain
SENTENCES: Mapping[int, str] = {code: reason for _, code, reason in REFUSALS} | dict(DECISIONS)


def reply(
    form: str,
    fields: Mapping[str, str | int],
    arrays: Arrays | None = None,
    expected: Mapping[str, ArraySpec] | None = None,
) -> Frame:
    """Return a reply, checked as it will leave.

    Raises:
        WireError: it holds anything that the form does not list, or a value that is not finite.
    """
    return envelope(form, fields, arrays, expected)


def refusal(error: Exception) -> Frame:
    """Return a failure as the coordinator may see it."""
    code, reason = code_of(error)
    return Frame(REFUSAL, {"code": code, "reason": reason})


def addressed(frame: Frame, message: Message, expected: Mapping[str, ArraySpec] | None = None) -> Message:
    """Return a reply or refusal as Flower's answer to a message."""
    if frame.form == REFUSAL:
        code, reason = int(frame.fields["code"]), str(frame.fields["reason"])
        return Message(Error(code=code, reason=reason), reply_to=message)
    return Message(records_of(frame, expected), reply_to=message)


def code_of(error: Exception) -> tuple[int, str]:
    """Return the code and the sentence that stand for an error outside the hospital."""
    if isinstance(error, AdmissionError):
        code = wire.WAITING_FOR_APPROVAL if error.waiting else 111
        return code, DECISIONS[code]
    if isinstance(error, PolicyError):
        return error.code, DECISIONS[error.code]
    return next((code, reason) for kind, code, reason in REFUSALS if isinstance(error, kind))
