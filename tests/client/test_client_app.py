"""The protocol as the coordinator sees it: what a hospital answers, and what never leaves it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord

from client import egress
from client.app import make_app
from client.ledger import Ledger
from client.patients import load_patients
from client.site import Site
from client.trainer import Trainer
from configs import wire
from configs.errors import BudgetError, CheckpointError, DataError, PrivacyError, RunError, SourceError, WireError
from configs.schema import CsvFile, Study
from strategies.exchange.arrays import from_record
from strategies.exchange.messages import read
from tests.builders import (
    DIVERGING,
    context,
    hello_message,
    patients,
    plain,
    random_arrays,
    same_bits,
    study,
    train_message,
)

PLANTED = "Jeanne-Planted-4711"


class Hospital:
    """A real ClientApp around a real site, with a list of what its own log would hold."""

    def __init__(self, chosen: Study, **people: Any) -> None:
        self.study = chosen
        self.site = Site("lille", chosen, patients(100, **people), Ledger.in_memory(), seeded=True)
        self.log: list[Exception] = []
        self._app = make_app(lambda _: self.site, lambda _, error: self.log.append(error))

    def answer(self, asked: Message) -> Message:
        return self._app(asked, context())

    def train(self, number: int = 1, **fields: Any) -> Message:
        asked = train_message(self.study, number, random_arrays(self.site.parameters), self.site.parameters)
        asked.content.config_records["config"].update(fields)
        return asked

    @property
    def spent(self) -> float:
        return self.site.ledger.spent("lille", delta=1e-5)


@pytest.fixture
def hospital() -> Hospital:
    return Hospital(study())


def refusal(reply: Message) -> int:
    """The code of a reply that carries an error and nothing else."""
    assert reply.has_error()
    assert not reply.has_content()
    assert reply.error.reason in {reason for _, _, reason in egress.REFUSALS}
    return int(reply.error.code)


def test_a_hospital_greets_the_study_that_it_approved_and_says_no_more_than_its_name(hospital: Hospital) -> None:
    reply = hospital.answer(hello_message(hospital.study))
    assert dict(read("hello reply", reply.content).fields) == {
        "protocol": wire.PROTOCOL,
        "site": "lille",
        "study_sha256": hospital.study.sha256,
    }


def test_the_greeted_digest_is_that_of_the_proposed_text(hospital: Hospital) -> None:
    asked = hello_message(hospital.study)
    told = read("hello reply", hospital.answer(asked).content).fields["study_sha256"]
    assert told == hashlib.sha256(asked.content["config"]["study"].encode()).hexdigest()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "other",
    [
        study(privacy={"epsilon": 3.1}),
        study(privacy={"clip_norm": 2.0}),
        study(training={"rounds": 4}),
        study(seed=1),
        study(purpose="Show that the tests can fail "),
    ],
    ids=["epsilon", "clip", "rounds", "seed", "one space"],
)
def test_any_other_study_is_refused(hospital: Hospital, other: Study) -> None:
    assert refusal(hospital.answer(hello_message(other))) == 104
    assert "another one" in str(hospital.log[0])


def test_another_protocol_is_refused_with_both_numbers_in_the_hospitals_log(hospital: Hospital) -> None:
    assert refusal(hospital.answer(hello_message(hospital.study, protocol=2))) == 104
    assert "expected protocol 1, found 2" in str(hospital.log[0])


def test_a_round_is_answered_with_the_trained_model_and_nothing_else(hospital: Hospital) -> None:
    reply = hospital.answer(hospital.train())
    assert list(reply.content) == ["arrays"]
    model = from_record(reply.content.array_records["arrays"], hospital.site.parameters)
    twin = Hospital(study())
    assert same_bits(model, twin.site.fit(1, random_arrays(twin.site.parameters)))


def test_a_greeting_costs_nothing(hospital: Hospital) -> None:
    hospital.answer(hello_message(hospital.study))
    assert hospital.spent == 0.0


@pytest.mark.parametrize(
    "fields",
    [
        {"noise_multiplier": 0.0},
        {"clip_norm": 1e9},
        {"epsilon": 100.0},
        {"steps": 1},
        {"proximal-mu": 0.0},
        {"lr": 9.0},
    ],
    ids=str,
)
def test_no_message_can_carry_a_number_of_the_plan(hospital: Hospital, fields: dict[str, Any]) -> None:
    plan = hospital.site.plan
    assert refusal(hospital.answer(hospital.train(**fields))) == 104
    assert hospital.site.plan == plan
    assert hospital.spent == 0.0


@pytest.mark.parametrize("number", [0, 4, 100_000])
def test_a_round_out_of_range_is_refused_and_costs_nothing(hospital: Hospital, number: int) -> None:
    assert refusal(hospital.answer(hospital.train(number))) == 104
    assert hospital.spent == 0.0


@pytest.mark.parametrize("fields", [{"round": True}, {"round": "1"}, {"round": 1.0}, {"round": -1}], ids=str)
def test_a_round_that_is_no_number_is_refused(hospital: Hospital, fields: dict[str, Any]) -> None:
    assert refusal(hospital.answer(hospital.train(**fields))) == 104


def test_a_round_of_another_study_is_refused(hospital: Hospital) -> None:
    assert refusal(hospital.answer(hospital.train(study_sha256=study(seed=1).sha256))) == 104
    assert hospital.spent == 0.0


def without_arrays(asked: Message) -> None:
    del asked.content["arrays"]


def with_metrics(asked: Message) -> None:
    asked.content["metrics"] = MetricRecord({"x": 1})


def with_not_a_number(asked: Message) -> None:
    array = asked.content.array_records["arrays"]["0.bias"]
    array.data = array.data[:-4] + np.float32(np.nan).tobytes()


def with_a_short_array(asked: Message) -> None:
    array = asked.content.array_records["arrays"]["0.bias"]
    array.data = array.data[:-1]


def with_arrays_as_fields(asked: Message) -> None:
    asked.content["arrays"] = ConfigRecord({"a": 1})


@pytest.mark.parametrize(
    "spoil", [without_arrays, with_metrics, with_not_a_number, with_a_short_array, with_arrays_as_fields]
)
def test_a_malformed_round_is_refused_and_costs_nothing(hospital: Hospital, spoil: Callable[[Message], None]) -> None:
    asked = hospital.train()
    spoil(asked)
    assert refusal(hospital.answer(asked)) == 104
    assert hospital.spent == 0.0


def test_when_the_budget_is_spent_no_model_leaves(hospital: Hospital) -> None:
    hospital.site.seeded = False
    replies = [hospital.answer(hospital.train()) for _ in range(5)]
    assert [reply.has_error() for reply in replies] == [False, False, False, True, True]
    assert refusal(replies[-1]) == 101
    assert hospital.spent <= 3.0


def test_a_model_that_diverged_does_not_leave_and_its_round_stays_spent() -> None:
    hospital = Hospital(study(training=DIVERGING))
    refusal(hospital.answer(hospital.train()))
    assert hospital.spent > 0
    assert "finite" in str(hospital.log[0])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BudgetError(PLANTED), 101),
        (PrivacyError(PLANTED), 102),
        (DataError(PLANTED), 103),
        (SourceError(PLANTED), 107),
        (WireError(PLANTED), 104),
        (RunError(PLANTED), 105),
        (CheckpointError(PLANTED), 199),
        (ValueError(PLANTED), 199),
        (FileNotFoundError(2, "No such file", f"/data/{PLANTED}.csv"), 199),
        (MemoryError(PLANTED), 199),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_leaves_as_a_code_and_its_text_stays(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    hospital = Hospital(plain())

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(Trainer, "fit", fail)
    reply = hospital.answer(hospital.train())
    assert refusal(reply) == code
    assert PLANTED not in repr(reply) + reply.deflate().decode("latin-1")
    assert hospital.log == [error]


@pytest.mark.parametrize("error", [DataError(PLANTED), MemoryError(PLANTED), ValueError(PLANTED)], ids=repr)
def test_an_error_after_a_booking_leaves_as_one_code_whatever_it_is(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(Trainer, "fit", fail)
    reply = hospital.answer(hospital.train())
    assert refusal(reply) == 105
    assert PLANTED not in repr(reply) + reply.deflate().decode("latin-1")
    assert hospital.log[0] == error
    assert hospital.spent > 0


@pytest.mark.parametrize("column", ["age", "sex", "disease"])
def test_a_planted_value_of_a_patient_is_in_no_reply_and_no_log(
    tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    row = {"age": "50", "sex": "male", "disease": "1"} | {column: PLANTED}
    path = tmp_path / "patients.csv"
    path.write_text("age,sex,disease\n40,female,0\n{age},{sex},{disease}\n".format(**row))
    chosen, log = plain(), []
    people = load_patients(CsvFile(path), chosen, "lille")
    site = Site("lille", chosen, people.train, Ledger.in_memory(), seeded=True)
    app = make_app(lambda _: site, lambda _, error: log.append(error))
    train = train_message(chosen, 1, random_arrays(site.parameters), site.parameters)
    for asked in (hello_message(chosen), train):
        reply = app(asked, context())
        assert not reply.has_error()
        assert PLANTED not in repr(reply) + reply.deflate().decode("latin-1") + caplog.text
    assert not log


def test_an_error_before_a_site_is_found_leaves_as_a_code_too() -> None:
    def site_of(_: object) -> Site:
        raise KeyError(PLANTED)

    reply = make_app(site_of)(hello_message(study()), context())
    assert refusal(reply) == 199
    assert PLANTED not in repr(reply)


def test_a_refused_hello_is_not_logged_as_a_success(hospital: Hospital) -> None:
    hospital.answer(hello_message(hospital.study))
    assert hospital.log == []


@pytest.mark.parametrize("fields", [{"patients": 46}, {"loss": 0.5}, {"site": 3}], ids=str)
def test_egress_lets_no_unlisted_field_out(hospital: Hospital, fields: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        egress.reply("train reply", fields, {}, {})


def test_every_refusal_has_a_code_of_its_own_and_a_sentence_that_nothing_is_filled_into() -> None:
    codes = [code for _, code, _ in egress.REFUSALS]
    assert len(set(codes)) == len(codes)
    assert all("{" not in reason and "%" not in reason for _, _, reason in egress.REFUSALS)
