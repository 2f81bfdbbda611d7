"""Flower messages <-> the forms of configs/wire.py, checked in both directions on both sides.

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
from configs.wire import ArraySpec
from strategies.arrays import Arrays, from_record, spec, to_record

_RECORDS = {wire.ARRAYS: ArrayRecord, wire.CONFIG: ConfigRecord}  # no other record, and none of another kind


@dataclass(frozen=True)
class Received:
    """A message that follows its form: `fields` and `arrays` hold what the form lists, no more and no less."""

    fields: Mapping[str, Any]
    arrays: Arrays


def content(
    form: str,
    fields: Mapping[str, str | int],
    arrays: Arrays | None = None,
    expected: Mapping[str, ArraySpec] | None = None,
) -> RecordDict:
    """What is sent, read back and checked before it is.

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


def read(form: str, records: RecordDict, expected: Mapping[str, ArraySpec] | None = None) -> Received:
    """What was received, or an error: every byte of it may be hostile.

    Raises:
        WireError: the message is not of this form, or its arrays are not those of the model.
    """
    config, arrays = records.get(wire.CONFIG), records.get(wire.ARRAYS)
    fields: dict[str, Any] = {n: None for n, record in records.items() if not isinstance(record, _RECORDS.get(n, ()))}
    fields |= dict(config) if isinstance(config, ConfigRecord) else {}
    record = arrays if isinstance(arrays, ArrayRecord) else ArrayRecord()
    wire.check(form, fields, {name: spec(array) for name, array in record.items()}, expected or {})
    carries = wire.FORMS[form].arrays
    return Received(fields, from_record(record, expected or {}) if carries else {})
