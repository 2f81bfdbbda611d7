"""Messages against their forms: what is not listed neither leaves nor arrives."""

import json
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from configs import wire
from configs.errors import WireError
from strategies.exchange.arrays import to_record
from strategies.exchange.messages import content, read, to_frame

SPECS = {"bias": ((1,), "float32")}
MODEL = {"bias": np.ones(1, np.float32)}
FIELDS: dict[str, dict[str, Any]] = {
    "hello": {"protocol": 1, "study": "{}"},
    "hello reply": {"protocol": 1, "site": "lille", "study_sha256": "a" * 64},
    "train": {"study_sha256": "a" * 64, "round": 3},
    "refusal": {"code": 110, "reason": "not approved yet"},
    "train reply": {},
    "evaluate": {"study_sha256": "a" * 64},
    "evaluate reply": {},
    "statistics": {"study_sha256": "a" * 64},
    "statistics reply": {},
    "end": {"study_sha256": "a" * 64, "outcome": "COMPLETE", "code": 0, "rounds": 3},
    "end reply": {"study_sha256": "a" * 64},
    "inference": {"study_sha256": "a" * 64},
    "inference reply": {},
    "subgroups": {"study_sha256": "a" * 64},
    "subgroups reply": {},
    "kaplan_meier": {"study_sha256": "a" * 64},
    "kaplan_meier reply": {},
    "score_sum": {"study_sha256": "a" * 64},
    "score_sum reply": {},
}
LATER: dict[str, dict[str, Any]] = {  # what a side of protocol 2 may add
    "hello": {"record": "signed"},
    "hello reply": {"protocol_max": 2, "release": "0.1.0", "arithmetic": 2},
    "train": {"attempt": 1},
    "evaluate": {"attempt": 1},
    "statistics": {"attempt": 1},
    "inference": {"attempt": 1},
    "subgroups": {"attempt": 1},
    "kaplan_meier": {"attempt": 1},
    "score_sum": {"attempt": 1},
}
EVERY = {form: fields | LATER.get(form, {}) for form, fields in FIELDS.items()}
forms = pytest.mark.parametrize("form", FIELDS)
forms_with_fields = pytest.mark.parametrize(
    ("form", "field"), [(form, field) for form, fields in FIELDS.items() for field in fields]
)
every_field = pytest.mark.parametrize(
    ("form", "field"), [(form, field) for form, fields in EVERY.items() for field in fields]
)


def records(form: str, **changes: Any) -> RecordDict:
    """An honest message of this form, with fields changed, or left out where None."""
    fields = {name: value for name, value in (FIELDS[form] | changes).items() if value is not None}
    made = RecordDict({"config": ConfigRecord(fields)})
    if wire.FORMS[form].arrays:
        made["arrays"] = to_record(MODEL)
    return made


def test_every_form_and_field_is_tested_here() -> None:
    assert set(FIELDS) == set(wire.FORMS)
    for form, listed in wire.FORMS.items():
        assert {field.name for field in listed.fields} == set(EVERY[form])
        assert {field.name for field in listed.fields if field.optional} == set(LATER.get(form, {}))


@forms
def test_a_message_of_protocol_1_is_byte_for_byte_what_it_was(form: str) -> None:
    arrays = MODEL if wire.FORMS[form].arrays else None
    old = to_frame(form, content(form, FIELDS[form], arrays, SPECS), SPECS)
    data = bytes(to_record(MODEL)["bias"].data) if arrays else b""
    header = {"arrays": [["bias", len(data)]] if arrays else [], "fields": FIELDS[form], "form": form}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    assert b"".join(old.encode()) == len(text).to_bytes(4, "big") + text + data


@forms
def test_what_was_added_later_is_read_and_may_be_left_out(form: str) -> None:
    arrays = MODEL if wire.FORMS[form].arrays else None
    assert dict(read(form, content(form, EVERY[form], arrays, SPECS), SPECS).fields) == EVERY[form]
    assert wire.without_optional(form, EVERY[form]) == FIELDS[form]
    for name in LATER.get(form, {}):
        some = {field: value for field, value in EVERY[form].items() if field != name}
        assert dict(read(form, content(form, some, arrays, SPECS), SPECS).fields) == some


@forms
def test_an_honest_message_is_read_as_it_was_sent(form: str) -> None:
    arrays = MODEL if wire.FORMS[form].arrays else None
    received = read(form, content(form, FIELDS[form], arrays, SPECS), SPECS)
    assert dict(received.fields) == FIELDS[form]
    assert {name: array.tolist() for name, array in received.arrays.items()} == ({"bias": [1.0]} if arrays else {})


@forms
@given(name=st.text(min_size=1, max_size=100).filter(lambda n: not any(n in fields for fields in EVERY.values())))
def test_a_field_that_is_not_listed_is_refused(form: str, name: str) -> None:
    with pytest.raises(WireError, match="expected no field"):
        read(form, records(form, **{name: 1}), SPECS)


@forms_with_fields
def test_a_field_that_is_missing_is_refused(form: str, field: str) -> None:
    with pytest.raises(WireError, match=f"expected {field} as .*found nothing"):
        read(form, records(form, **{field: None}), SPECS)


@every_field
@pytest.mark.parametrize("value", [True, 1.0, b"1", [1], ["a"]], ids=["bool", "float", "bytes", "integers", "texts"])
def test_a_field_of_another_type_is_refused(form: str, field: str, value: object) -> None:
    with pytest.raises(WireError, match=f"expected {field} as"):
        read(form, records(form, **{field: value}), SPECS)


@every_field
def test_text_for_a_number_and_a_number_for_text_are_refused(form: str, field: str) -> None:
    swapped: object = 1 if isinstance(EVERY[form][field], str) else "1"
    with pytest.raises(WireError, match=f"expected {field} as"):
        read(form, records(form, **{field: swapped}), SPECS)


LIMITS = [(form, field.name, field) for form, listed in wire.FORMS.items() for field in listed.fields]


@pytest.mark.parametrize(("form", "name", "field"), LIMITS)
def test_a_field_may_reach_its_limit_and_not_pass_it(form: str, name: str, field: wire.Field) -> None:
    largest, larger = (
        ("x" * field.limit, "x" * (field.limit + 1)) if field.type is str else (field.limit, field.limit + 1)
    )
    assert read(form, records(form, **{name: largest}), SPECS).fields[name] == largest
    with pytest.raises(WireError, match=f"expected {name} within {field.limit}"):
        read(form, records(form, **{name: larger}), SPECS)


def test_a_negative_round_is_refused() -> None:
    with pytest.raises(WireError, match="negative"):
        read("train", records("train", round=-1), SPECS)


@forms
@pytest.mark.parametrize("record", [MetricRecord({"patients": 46}), ConfigRecord({"a": 1}), ArrayRecord()], ids=repr)
def test_a_record_that_is_not_listed_is_refused(form: str, record: Any) -> None:
    message = records(form)
    message["metrics"] = record
    with pytest.raises(WireError, match="expected no field 'metrics'"):
        read(form, message, SPECS)


@forms
@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("arrays", ConfigRecord({"patient": "secret"})),
        ("arrays", MetricRecord({"weight": 1e9})),
        ("config", MetricRecord({"weight": 1e9})),
        ("config", to_record(MODEL)),
    ],
    ids=["fields as arrays", "metrics as arrays", "metrics as config", "arrays as config"],
)
def test_a_record_of_another_kind_under_a_listed_name_is_refused(form: str, name: str, record: Any) -> None:
    message = records(form)
    message[name] = record
    with pytest.raises(WireError):
        read(form, message, SPECS)


@forms
def test_an_array_too_many_is_refused(form: str) -> None:
    message = records(form)
    message["arrays"] = to_record(MODEL | {"patients": np.zeros(46, np.float32)})
    with pytest.raises(WireError, match=r"expected no array '(bias|patients)'"):
        read(form, message, SPECS)


@pytest.mark.parametrize("form", ["train", "train reply"])
@pytest.mark.parametrize(
    "arrays",
    [{}, {"bias": np.zeros(2)}, {"bias": np.zeros((1, 1))}, {"Bias": np.zeros(1)}],
    ids=["none", "longer", "deeper", "renamed"],
)
def test_arrays_that_are_not_the_models_are_refused(form: str, arrays: dict[str, Any]) -> None:
    message = records(form)
    message["arrays"] = to_record(arrays)
    with pytest.raises(WireError, match="array"):
        read(form, message, SPECS)


@pytest.mark.parametrize("form", ["train", "train reply"])
def test_a_message_without_its_arrays_is_refused(form: str) -> None:
    message = records(form)
    del message["arrays"]
    with pytest.raises(WireError, match="array 'bias'"):
        read(form, message, SPECS)


@pytest.mark.parametrize("form", ["train", "train reply"])
def test_a_value_that_is_not_finite_neither_arrives_nor_leaves(form: str) -> None:
    diverged = {"bias": np.array([np.nan], np.float32)}
    message = records(form)
    message["arrays"] = to_record(diverged)
    with pytest.raises(WireError, match="finite"):
        read(form, message, SPECS)
    with pytest.raises(WireError, match="finite"):
        content(form, FIELDS[form], diverged, SPECS)


def test_nothing_that_is_not_listed_leaves() -> None:
    with pytest.raises(WireError, match="expected no field 'patients'"):
        content("train reply", {"patients": 46}, MODEL, SPECS)


def test_a_refusal_never_quotes_a_fields_value() -> None:
    with pytest.raises(WireError) as refused:
        read("hello reply", records("hello reply", site="planted-secret" * 10), SPECS)
    assert "planted" not in str(refused.value)


def test_a_reply_without_fields_has_no_config_record() -> None:
    assert list(content("train reply", {}, MODEL, SPECS)) == ["arrays"]
