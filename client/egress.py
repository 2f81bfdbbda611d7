"""The one way out of a hospital: a reply holds what configs/wire.py lists for it; a failure leaves as a code.

What went wrong is for the hospital's own log. The coordinator learns a number and a plain sentence, so no path, no
column and no value can leave inside an error's text.

>>> code_of(BudgetError("round 3: needs epsilon 3.78 in all, the study has 3.00"))
(101, "the hospital's privacy budget does not allow this round")
"""

from collections.abc import Mapping

from flwr.app import Error, Message

from configs.errors import BudgetError, DataError, PrivacyError, RunError, WireError
from configs.wire import ArraySpec
from strategies.arrays import Arrays
from strategies.messages import content

REFUSALS: tuple[tuple[type[Exception], int, str], ...] = (  # the first that fits
    (BudgetError, 101, "the hospital's privacy budget does not allow this round"),
    (PrivacyError, 102, "the hospital cannot make a privacy plan for this study"),
    (DataError, 103, "the hospital's data do not fit the study"),
    (WireError, 104, "the hospital refused a message that does not follow the protocol"),
    (RunError, 105, "the hospital could not train; its own log says why"),
    (Exception, 199, "the hospital had an unexpected error; its own log says why"),
)


def reply(
    message: Message,
    form: str,
    fields: Mapping[str, str | int],
    arrays: Arrays | None = None,
    expected: Mapping[str, ArraySpec] | None = None,
) -> Message:
    """The reply to a message, checked as it will leave.

    Raises:
        WireError: it holds anything that the form does not list, or a value that is not finite.
    """
    return Message(content(form, fields, arrays, expected), reply_to=message)


def refusal(message: Message, error: Exception) -> Message:
    """A failure as the coordinator may see it."""
    code, reason = code_of(error)
    return Message(Error(code=code, reason=reason), reply_to=message)


def code_of(error: Exception) -> tuple[int, str]:
    """The code and the sentence that stand for an error outside the hospital."""
    return next((code, reason) for kind, code, reason in REFUSALS if isinstance(error, kind))
