"""Every field that may cross the wire: name, type, bound.

This is the only list. A message is plain here: text and integer fields, and named arrays as (shape, dtype). Both sides
check what they send and what they receive against this table, so a field that is not listed can neither leave a
hospital nor reach one. Optional fields came later than protocol 1: a side sends them to another that has said that it
reads them, and a message without them is byte for byte what it was.

>>> check("train reply", {}, {"bias": ((1,), "float32")}, {"bias": ((1,), "float32")})
>>> check("train reply", {"patients": 46}, {}, {})
Traceback (most recent call last):
    ...
configs.errors.WireError: train reply: expected no field 'patients', found one; only configs/wire.py's fields may cross
"""

from collections.abc import Mapping
from dataclasses import dataclass

from configs.errors import KindError, WireError

PROTOCOL = 1
PROTOCOL_MAX = 4  # what this release can talk; a side that says nothing talks 1
OPTIONAL_FROM = (
    2  # the optional fields below; from 3 on a node without a certificate signs requests (configs/requests.py)
)
PROTOCOL_HEADER = "archipel-protocol"  # how the coordinator's answers say what it can talk, and of which release it is
RELEASE_HEADER = "archipel-release"
ARITHMETIC = 2  # the version of the arithmetic that trains: two sides of one version make the same bits; absent is 1
HELLO = "query.hello"  # Flower message types: a category and an action
TRAIN = "train"
EVALUATE = "evaluate"
STATISTICS = "query.statistics"
END = "query.end"
INFERENCE = "query.inference"
SUBGROUPS = "query.subgroups"
KAPLAN_MEIER = "query.kaplan_meier"
SCORE_SUM = "query.score_sum"
ASKS = {  # type -> form that it carries
    **{HELLO: "hello", TRAIN: "train", EVALUATE: "evaluate", STATISTICS: "statistics"},
    END: "end",
    INFERENCE: "inference",
    SUBGROUPS: "subgroups",
    KAPLAN_MEIER: "kaplan_meier",
    SCORE_SUM: "score_sum",
}
ARRAYS = "arrays"  # names of the records inside a message
CONFIG = "config"
HISTOGRAM = "histogram"  # the one array of an evaluate reply: (2, bins) of the study, or (3, bins) of survival
INFORMATION = "information"  # the one array of an inference reply: (numbers,) of strategies/releases/information.py
COUNTS = "counts"  # the one array of a statistics or subgroups reply: (cells,) of strategies/releases
ENDINGS = "endings"  # the one array of a kaplan_meier reply: (cells,) of strategies/releases/kaplan_meier.py
SCORES = "scores"  # the one array of a score_sum reply: (2,) of strategies/releases/score_sum.py
SEAL = "seal"  # between machines: the signed statement of configs/seal.py, taken off before a handler sees the message
SEAL_FIELDS = {"statement": 2000, "signature": 128}  # texts and their longest length
RECORD_FIELDS = {
    "record": 2000,
    "record_signature": 128,
}  # beside it: what the receiver signed last, from protocol 2 on
PACKED = "frame"  # a small message travels whole inside its seal (configs/frame.py): Flower asks for each part apart
MAX_PACKED_BYTES = 1_000_000
SHELVED = "bytes"  # a large message is a file apart (server/shelf.py): its size, in the place of its content

WAITING_FOR_APPROVAL = 110  # a person at the hospital has to decide: the coordinator asks again
UPGRADE = 118  # the hospital's release does not know what the study or the message asks for: the coordinator asks again
UNSETTLED = 119  # the hospital's records contradict each other; a person there has to settle them: it is asked again
KIT_ABSENT = 122  # the study's kit is not at the hospital: it must be sent there, and added by its IT
KIT_OTHER = 123  # another version of it is there, or its files were changed
KIT_UNAPPROVED = 124  # a person there has to read and approve it, or the policy allows no kit
OF_KITS = frozenset({KIT_ABSENT, KIT_OTHER, KIT_UNAPPROVED})  # the coordinator asks again: people act
WAITING = frozenset({WAITING_FOR_APPROVAL, UPGRADE, UNSETTLED}) | OF_KITS
BEGUN = 120  # the release was begun at the hospital before: another attempt may be made, as long as there is spare
NO_SPARE = 121  # none is left there
MISREAD = 104  # what a node of protocol 1 answers to a study that it does not know

COMPLETE, INCOMPLETE = "COMPLETE", "INCOMPLETE"  # how a run ends
FEW_TAKE_PART, FEW_CONTRIBUTED, STOPPED, NOT_FINITE, FAILED = 1, 2, 3, 4, 9
ENDS: Mapping[int, str] = {  # why, as hospitals are told it: nothing of another hospital's words
    0: "every planned round had its quorum",
    FEW_TAKE_PART: "fewer hospitals took part than the study asks for",
    FEW_CONTRIBUTED: "fewer hospitals contributed to a round than the study asks for",
    STOPPED: "the consortium stopped it",
    NOT_FINITE: "the hospitals' models added up to no finite model",
    FAILED: "the coordinator ended it early; the coordinator's log says why",
}

ArraySpec = tuple[tuple[int, ...], str]  # shape, dtype


@dataclass(frozen=True, slots=True)
class Field:
    """A text (limit in characters) or an integer (limit is the largest value; the smallest is 0).

    An `optional` one is sent only to a side that is known to read it (OPTIONAL_FROM), and may be absent always.
    """

    name: str
    type: type[str] | type[int]
    limit: int
    purpose: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """The content of one kind of message. `arrays` says in a word what arrays it carries, empty for none.

    The model's parameters and noisy counts are all of Archipel's own. `bare`: it may also come without any. `since` is
    the protocol from which a side reads such a message.
    """

    fields: tuple[Field, ...]
    arrays: str
    purpose: str
    bare: bool = False
    since: int = 1


_STUDY = Field("study_sha256", str, 64, "which study this is about")
_RECORD = Field("record", str, 4_000, "the hospital's own newest signed record, given back to it", optional=True)
_ATTEMPT = Field("attempt", int, 1_000, "how often this release was lost before; absent is 0", optional=True)
_ABOUT = (
    Field("protocol_max", int, 1_000, "the newest version of this list that the hospital reads", optional=True),
    Field("release", str, 40, "the hospital's release of Archipel", optional=True),
    Field("arithmetic", int, 1_000, "the version of the arithmetic that trains there", optional=True),
)
STUDY_FIELDS = (_STUDY, _ATTEMPT)  # of an instruction that asks for a release once
FORMS: dict[str, Form] = {
    "hello": Form(
        (
            Field("protocol", int, 1_000, "version of this list"),
            Field("study", str, 1_000_000, "the canonical study"),
            _RECORD,
        ),
        arrays="",
        purpose="the coordinator proposes a study",
    ),
    "hello reply": Form(
        (
            Field("protocol", int, 1_000, "version of this list"),
            Field("site", str, 63, "the hospital's name"),
            _STUDY,
            *_ABOUT,
        ),
        arrays="",
        purpose="the hospital takes part",
    ),
    "train": Form(
        (_STUDY, Field("round", int, 100_000, "number of the round, from 1"), _ATTEMPT),
        arrays="model",
        purpose="the coordinator sends the shared model",
    ),
    "refusal": Form(
        (Field("code", int, 999, "which kind of refusal"), Field("reason", str, 300, "a sentence that is fixed")),
        arrays="",
        purpose="the hospital says that it does not take part, or not in this round",
    ),
    "train reply": Form((), arrays="model", purpose="the hospital returns the model that it trained"),
    "evaluate": Form(
        (_STUDY, _ATTEMPT),
        arrays="model",
        purpose="the coordinator sends the final model, and asks how good it is, once",
    ),
    "evaluate reply": Form(
        (),
        arrays="histogram",
        purpose="test patients by outcome and score, with noise; if the study asks and the hospital's policy allows",
    ),
    "statistics": Form(
        (_STUDY, _ATTEMPT),
        arrays="",
        purpose="the coordinator asks what the patients of a study of statistics are like, once",
    ),
    "statistics reply": Form(
        (), arrays="statistics", purpose="patients by each column's values or bins, with noise; nothing is trained"
    ),
    "end": Form(
        (
            _STUDY,
            Field("outcome", str, 10, "COMPLETE or INCOMPLETE"),
            Field("code", int, 99, "why it ended (ENDS); 0 where it is complete"),
            Field("rounds", int, 100_000, "how many rounds were done"),
        ),
        arrays="model",
        purpose="the coordinator tells that the run is over, with the model after the last round if there was one",
        bare=True,
        since=4,
    ),
    "end reply": Form((_STUDY,), arrays="", purpose="the hospital has the end; it depends on no patient", since=4),
    "subgroups": Form(
        (_STUDY, _ATTEMPT),
        arrays="model",
        purpose="the coordinator sends the final model, and asks how good it is for groups of patients, once",
    ),
    "subgroups reply": Form(
        (),
        arrays="histograms",
        purpose="test patients by group, outcome and score, with noise; if study and hospital's policy allow",
    ),
    "inference": Form(
        (_STUDY, _ATTEMPT),
        arrays="model",
        purpose="the coordinator sends the final model, and asks how certain its coefficients are, once",
    ),
    "inference reply": Form(
        (),
        arrays="information",
        purpose="the summed gradient and second derivative of the model's loss, each patient bounded, with noise",
    ),
    "kaplan_meier": Form(
        (_STUDY, _ATTEMPT),
        arrays="",
        purpose="the coordinator asks how and in which interval training patients' times ended, once",
    ),
    "kaplan_meier reply": Form(
        (),
        arrays="endings",
        purpose="counts of training patients by how and in which interval their time ended, with noise",
    ),
    "score_sum": Form(
        (_STUDY, _ATTEMPT),
        arrays="model",
        purpose="the coordinator asks how well the last model does on each hospital's test patients, as sums, once",
    ),
    "score_sum reply": Form(
        (),
        arrays="scores",
        purpose="sums over test patients of a score from 0 to 1, and of what it lacks to 1, with noise",
    ),
}


def register(message_type: str, form: str, instruction: Form, reply: Form) -> None:
    """Add the two forms of a kind of release that is installed beside Archipel's own; both sides must have it.

    Raises:
        KindError: another kind has the type or a form.
    """
    forms = {form: instruction, f"{form} reply": reply}
    if ASKS.get(message_type, form) != form or any(FORMS.get(name, added) != added for name, added in forms.items()):
        raise KindError(
            f"release form {form!r} ({message_type}): expected names of its own, found those of another; rename it"
        )
    ASKS[message_type] = form
    FORMS.update(forms)


def check(
    form: str,
    fields: Mapping[str, object],
    arrays: Mapping[str, ArraySpec],
    expected_arrays: Mapping[str, ArraySpec],
) -> None:
    """Compare a message with its form and with the arrays that it carries in this study.

    Raises:
        WireError: a field or array too many, too few, of another type, shape, dtype or size. The text holds no value.
    """
    listed = {field.name: field for field in form_of(form).fields}
    expected_arrays = expected_arrays if form_of(form).arrays else {}
    for name in sorted(fields.keys() - listed.keys()):
        _refuse(form, f"no field {name[:64]!r}", "one; only configs/wire.py's fields may cross")
    for name, field in listed.items():
        if field.optional and name not in fields:
            continue
        value = fields.get(name)
        if type(value) is not field.type:
            _refuse(form, f"{name} as {field.type.__name__}", "nothing" if value is None else type(value).__name__)
        size = len(value) if isinstance(value, str) else value
        if not isinstance(size, int) or not 0 <= size <= field.limit:
            _refuse(form, f"{name} within {field.limit}", "a larger or negative one")
    if arrays == expected_arrays or (form_of(form).bare and not arrays):
        return
    for name in sorted(arrays.keys() - expected_arrays.keys()):
        _refuse(form, f"no array {name[:64]!r}", "one; only what configs/wire.py lists may cross")
    for name, spec in expected_arrays.items():
        if arrays.get(name) != spec:
            _refuse(form, f"array {name!r} of {spec}", f"{arrays.get(name, 'nothing')}")


def attempted(fields: Mapping[str, str | int], attempt: int) -> dict[str, str | int]:
    """Return the fields of an instruction that asks for another attempt; those of the first have no such field.

    >>> attempted({"study_sha256": "ab"}, 0), attempted({"study_sha256": "ab"}, 2)
    ({'study_sha256': 'ab'}, {'study_sha256': 'ab', 'attempt': 2})
    """
    return {**fields, **({"attempt": attempt} if attempt else {})}


def without_optional(form: str, fields: Mapping[str, str | int]) -> dict[str, str | int]:
    """Return the fields of a message as a side of protocol 1 reads them."""
    optional = {field.name for field in FORMS[form].fields if field.optional}
    return {name: value for name, value in fields.items() if name not in optional}


def form_of(name: str) -> Form:
    """Return the form of that name.

    Raises:
        WireError: there is none, or the kind of release that brought it is not installed any more.
    """
    if name not in FORMS:
        _refuse(name[:64], "a form of configs/wire.py or of an installed kind of release", "no such form")
    return FORMS[name]


def _refuse(form: str, expected: str, found: str) -> None:
    raise WireError(f"{form}: expected {expected}, found {found}")
