"""Flower messages <-> the forms of configs/wire.py, checked in both directions on both sides.

Between machines a message also carries a seal: a signed statement about its content (`seal`, `unseal`).

>>> sent = content("hello reply", {"protocol": 1, "site": "lille", "study_sha256": "ab"})
>>> read("hello reply", sent).fields["site"]
'lille'
>>> read("train reply", sent, {"bias": ((1,), "float32")})
Traceback (most recent call last):
    ...
configs.errors.WireError: train reply: expected no field 'protocol', found one; only configs/wire.py's fields may cross
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from configs import wire
from configs.errors import SealError, WireError
from configs.frame import Frame, MappedFile
from configs.seal import Signed, Statement
from configs.wire import ArraySpec
from strategies.exchange.arrays import (
    Arrays,
    array_of,
    from_buffers,
    from_record,
    joined_of,
    mark_finite,
    spec,
    to_buffer,
    to_record,
)
from strategies.exchange.flower import record_of
from strategies.exchange.keys import SigningKey, verify

_RECORDS = {wire.ARRAYS: ArrayRecord, wire.CONFIG: ConfigRecord}  # no other record, and none of another kind


@dataclass(frozen=True)
class Received:
    """A message that follows its form: `fields` and `arrays` hold what the form lists, no more and no less."""

    fields: Mapping[str, Any]
    arrays: Arrays


def envelope(
    form: str,
    fields: Mapping[str, str | int],
    arrays: Arrays | None = None,
    expected: Mapping[str, ArraySpec] | None = None,
) -> Frame:
    """Return what is sent as an envelope, checked before it is.

    Raises:
        WireError: anything that the form does not list, or a value that is not finite.
    """
    arrays, expected = arrays or {}, expected or {}
    wire.check(form, fields, {name: (array.shape, "float32") for name, array in arrays.items()}, expected)
    buffers = {name: to_buffer(array) for name, array in arrays.items()}
    from_buffers(buffers, expected if buffers else {})
    return Frame(form, dict(fields), buffers)


def received(form: str, frame: Frame, expected: Mapping[str, ArraySpec] | None = None) -> Received:
    """Return what an envelope holds: every byte of it may be hostile.

    Raises:
        WireError: it is of another form, or does not follow it.
    """
    if frame.form != form:
        raise WireError(f"frame: expected {form}, found another form")
    carries = (expected or {}) if _carries(form, frame.arrays) else {}
    if set(frame.arrays) != set(carries):
        raise WireError(f"{form}: expected the arrays of the study, found others")
    wire.check(form, frame.fields, carries, carries)
    return Received(frame.fields, from_buffers(frame.arrays, carries))


def records_of(frame: Frame, expected: Mapping[str, ArraySpec] | None = None) -> RecordDict:
    """Return a checked envelope as Flower's records, around the same bytes, in the order of `expected`."""
    records = RecordDict()
    if frame.arrays:
        specs = expected or {}
        records[wire.ARRAYS] = record_of(
            {name: mark_finite(array_of(specs[name], frame.arrays[name])) for name in specs}
        )
    if frame.fields:
        records[wire.CONFIG] = ConfigRecord(dict(frame.fields))
    return records


def content(
    form: str,
    fields: Mapping[str, str | int],
    arrays: Arrays | None = None,
    expected: Mapping[str, ArraySpec] | None = None,
) -> RecordDict:
    """Return what is sent as Flower's records, read back and checked before it is.

    Raises:
        WireError: anything that the form does not list, or a value that is not finite.
    """
    records = RecordDict()
    if arrays is not None:
        records[wire.ARRAYS] = to_record(arrays)
    if fields:
        records[wire.CONFIG] = ConfigRecord(dict(fields))
    read(form, records, expected)
    return records


class Unsealed(RecordDict):
    """Records that were checked as their seal was taken off: `read` does not check the very same ones again."""

    def __init__(
        self, records: RecordDict, form: str, expected: Mapping[str, ArraySpec] | None, content: Received
    ) -> None:
        """Keep what was read of these records."""
        super().__init__(dict(records.items()))
        self.__dict__["_checked"] = form, dict(expected or {}), content, dict(records.items())

    def checked(self, form: str, expected: Mapping[str, ArraySpec] | None) -> Received | None:
        """Return what was read, None where another form or arrays are expected, or a record was put in its place."""
        form_before, specs, content, records = self.__dict__["_checked"]
        same = form == form_before and dict(expected or {}) == specs and self.keys() == records.keys()
        if not same or any(self[name] is not record for name, record in records.items()):
            return None
        return Received(content.fields, dict(content.arrays))

    def clear(self) -> None:
        """Let go of the records, and of what was read of them."""
        super().clear()
        self.__dict__["_checked"] = "", {}, Received({}, {}), {}


def arrays_in(records: RecordDict) -> ArrayRecord:
    """Return the arrays of a message that was checked; Flower's `array_records` would keep them alive."""
    arrays = records[wire.ARRAYS]
    assert isinstance(arrays, ArrayRecord)
    return arrays


def read(form: str, records: RecordDict, expected: Mapping[str, ArraySpec] | None = None) -> Received:
    """Return what was received, or raise: every byte of it may be hostile.

    Raises:
        WireError: the message is not of this form, or its arrays are not those of the model.
    """
    if isinstance(records, Unsealed) and (content := records.checked(form, expected)) is not None:
        return content
    by_name = dict(records.items())
    config, arrays = by_name.get(wire.CONFIG), by_name.get(wire.ARRAYS)
    fields: dict[str, Any] = {n: None for n, record in by_name.items() if not isinstance(record, _RECORDS.get(n, ()))}
    fields |= dict(config.items()) if isinstance(config, ConfigRecord) else {}
    expected = expected or {}
    record = arrays if isinstance(arrays, ArrayRecord) else ArrayRecord()
    named = dict(record.items())
    carries = _carries(form, named)
    if carries and (joined := joined_of(named, expected)) is not None:
        wire.check(form, fields, expected, expected)
        return Received(fields, joined)
    wire.check(form, fields, {name: spec(array) for name, array in named.items()}, expected)
    return Received(fields, from_record(record, expected) if carries else {})


def _carries(form: str, arrays: Mapping[str, object]) -> bool:
    """Return whether a message must have the arrays of its form: one that may come bare only where it has any."""
    listed = wire.form_of(form)
    return bool(listed.arrays) and not (listed.bare and not arrays)


def to_frame(form: str, records: RecordDict, expected: Mapping[str, ArraySpec] | None = None) -> Frame:
    """Return Flower's records as an envelope.

    Raises:
        WireError: they do not follow their form.
    """
    return _enveloped(form, records, read(form, records, expected))


def _enveloped(form: str, records: RecordDict, content: Received) -> Frame:
    record = records.get(wire.ARRAYS)
    arrays = record if isinstance(record, ArrayRecord) else ArrayRecord()
    return Frame(form, content.fields, {name: array.data for name, array in arrays.items()})


def from_frame(form: str, frame: Frame, expected: Mapping[str, ArraySpec] | None = None) -> RecordDict:
    """Return an envelope as Flower's records, in the order of `expected`.

    Raises:
        WireError: it is of another form, or does not follow it.
    """
    received(form, frame, expected)
    return records_of(frame, expected)


def seal(
    records: RecordDict, frame: Frame, statement: Statement, key: SigningKey, record: Signed | None = None
) -> RecordDict:
    """Return the message with its seal: a small one whole inside it, a large one beside it.

    Args:
        frame: the same message as bytes; `statement.content` is its hash.
        record: what the receiver itself signed last, given back to it beside the statement: an instruction's content,
            by which it is known again, does not change with it.
    """
    fields: dict[str, str | bytes] = {"statement": statement.text}
    if record is not None:
        fields |= dict(zip(wire.RECORD_FIELDS, (record.statement, record.signature), strict=True))
    fields["signature"] = key.sign(statement.text.encode("ascii"))
    parts = list(frame.encode())
    if sum(map(len, parts)) <= wire.MAX_PACKED_BYTES:
        records = RecordDict()
        fields[wire.PACKED] = b"".join(parts)
    records[wire.SEAL] = ConfigRecord(dict(fields))
    return records


def signed_in(records: RecordDict) -> Signed:
    """Return the statement of a sealed message as its sender signed it; whether it holds, `unseal` says.

    Raises:
        SealError: there is none.
    """
    if (signed := _signed(records, tuple(wire.SEAL_FIELDS))) is None:
        raise SealError("seal: expected a statement and a signature, found none; the message was not sealed")
    return signed


def given_back(records: RecordDict) -> Signed | None:
    """Return what the receiver had signed, where the sender gives it back; whether it holds, the receiver checks."""
    return _signed(records, tuple(wire.RECORD_FIELDS))


def _signed(records: RecordDict, names: tuple[str, ...]) -> Signed | None:
    record = records.get(wire.SEAL)
    texts = [record.get(name) for name in names] if isinstance(record, ConfigRecord) else []
    if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        return None
    return Signed(*map(str, texts))


def unseal(records: RecordDict, public: str) -> tuple[Statement, bytes | None]:
    """Take the seal off and check its signature; what it states is for the caller to compare.

    Returns:
        The statement, and the message where it was whole inside the seal: for `opened`.

    Raises:
        SealError: there is none, or another key made it.
    """
    record = records.pop(wire.SEAL, None)
    fields = dict(record) if isinstance(record, ConfigRecord) else {}
    packed = fields.pop(wire.PACKED, None)
    for name, limit in wire.RECORD_FIELDS.items():
        text = fields.pop(name, "")
        if not isinstance(text, str) or len(text) > limit:
            raise SealError(f"seal: expected {name} as text of at most {limit} characters, found something else")
    if set(fields) != set(wire.SEAL_FIELDS):
        raise SealError("seal: expected a statement and a signature, found none; the message was not sealed")
    for name, limit in wire.SEAL_FIELDS.items():
        if not isinstance(value := fields[name], str) or len(value) > limit or not value.isascii():
            raise SealError(f"seal: expected {name} as text of at most {limit} characters, found something else")
    if packed is not None and (not isinstance(packed, bytes) or len(packed) > wire.MAX_PACKED_BYTES or len(records)):
        raise SealError("seal: expected a small message inside it or a large one beside it, found something else")
    statement, signature = str(fields["statement"]), str(fields["signature"])
    if not verify(public, statement.encode("ascii"), signature):
        raise SealError("seal: the signature is not by the expected key; the message was forged or changed")
    return Statement.parse(statement), packed


def shelve(records: RecordDict, size: int) -> RecordDict:
    """Return a sealed large message without its content, which is sent apart."""
    record = records[wire.SEAL]
    assert isinstance(record, ConfigRecord)
    fields = {name: value for name, value in record.items() if name != wire.PACKED}
    return RecordDict({wire.SEAL: ConfigRecord({**fields, wire.SHELVED: size})})


def shelved(records: RecordDict) -> int | None:
    """Return the size of a content that is sent apart, None where there is none; to be asked before `unseal`.

    Raises:
        SealError: it is none.
    """
    record = records.get(wire.SEAL)
    if not isinstance(record, ConfigRecord) or wire.SHELVED not in record:
        return None
    size = record.pop(wire.SHELVED)
    if type(size) is not int or not 0 < size < 2**40 or len(records) != 1 or wire.PACKED in record:
        raise SealError("seal: expected the size of a message that is sent apart, found something else")
    return size


def opened(
    form: str, records: RecordDict, packed: bytes | MappedFile | None, expected: Mapping[str, ArraySpec] | None = None
) -> tuple[Frame, RecordDict]:
    """Return a message of which the seal was taken off, as an envelope and as records that were checked.

    Raises:
        WireError: it does not follow its form.
    """
    if packed is None:
        content = read(form, records, expected)
        return _enveloped(form, records, content), Unsealed(records, form, expected, content)
    frame = Frame.mapped(packed) if isinstance(packed, MappedFile) else Frame.decode(packed)
    content = received(form, frame, expected)
    return frame, Unsealed(records_of(frame, expected), form, expected, content)
