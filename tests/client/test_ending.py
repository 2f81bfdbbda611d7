"""The end of a study at a hospital: kept whole or not at all, once, whoever sends what."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import after_end, ending, kept_models
from client.folder import SiteFolder
from client.views import review
from configs import wire
from configs.errors import RunError, WireError
from configs.frame import Frame
from configs.journal import read
from configs.records.site_journal import Ended, Ignored, Sent
from configs.schema import Study
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import content, to_frame
from strategies.models.registry import study_parameters
from tests import builders
from tests.client.ward import ROUNDS, Ward, study_of, trained_ward, ward

WHOLE: dict[str, Any] = {"outcome": "COMPLETE", "code": 0, "rounds": ROUNDS}


@pytest.fixture(scope="module")
def study() -> Study:
    return study_of(1)


@pytest.fixture
def hospital(tmp_path: Path, study: Study) -> Iterator[Ward]:
    hospital = ward(tmp_path)
    assert hospital.start().propose(study) == 0
    yield hospital
    hospital.stop()


def model_of(study: Study, seed: int = 0) -> Arrays:
    return builders.random_arrays(study_parameters(study), seed=seed)


def end(hospital: Ward, study: Study, model: Arrays | None, **fields: Any) -> int:
    return hospital.ask(study, "end", {"study_sha256": study.sha256, **WHOLE, **fields}, model)


def frame_of(study: Study, model: Arrays | None, **fields: Any) -> Frame:
    about = {"study_sha256": study.sha256, **WHOLE, **fields}
    expected = study_parameters(study)
    return to_frame("end", content("end", about, model, expected), expected)


def test_a_hospital_keeps_the_model_that_came_of_a_study_and_says_so(hospital: Ward, study: Study) -> None:
    model = model_of(study)
    assert end(hospital, study, model) == 0
    kept = kept_models.kept(hospital.config, study.sha256)
    assert kept is not None
    assert (kept.outcome, kept.rounds, kept.coordinator) == ("COMPLETE", ROUNDS, hospital.config.coordinator)
    path = kept_models.model_path(hospital.config, study.sha256)
    assert path.stat().st_mode & 0o077 == 0
    assert kept.model_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    read_back = kept_models.model_of(hospital.config, study)
    assert all(np.array_equal(read_back[name], array) for name, array in model.items())
    noted = [record.of(Ended) for record in read(hospital.config.journal)]
    assert [entry.model_sha256 for entry in noted if entry] == [kept.model_sha256]
    folder = SiteFolder.open(hospital.folder)
    (decided,) = review.decided(folder)
    assert decided.end.startswith(f"COMPLETE after {ROUNDS} rounds; its model is models/")


def test_the_answer_is_the_same_whatever_is_kept_and_a_complete_study_does_not_end_again(
    hospital: Ward, study: Study
) -> None:
    assert end(hospital, study, model_of(study)) == 0
    assert end(hospital, study, model_of(study, seed=1)) == 0
    read_back = kept_models.model_of(hospital.config, study)
    assert all(np.array_equal(read_back[name], array) for name, array in model_of(study).items())
    records = list(read(hospital.config.journal))
    assert [ignored.what for record in records if (ignored := record.of(Ignored))] == ["end"]
    answers = {sent.content for record in records if (sent := record.of(Sent)) and sent.form == "end reply"}
    assert len(answers) == 1


def test_a_run_that_was_resumed_ends_again_as_long_as_it_was_not_complete(hospital: Ward, study: Study) -> None:
    assert end(hospital, study, model_of(study), outcome="INCOMPLETE", code=wire.STOPPED, rounds=2) == 0
    assert end(hospital, study, None, outcome="INCOMPLETE", code=wire.FEW_TAKE_PART, rounds=0) == 0
    before = kept_models.kept(hospital.config, study.sha256)
    assert before is not None
    assert (before.rounds, before.code) == (2, wire.STOPPED)  # it had come further
    assert end(hospital, study, model_of(study, seed=1)) == 0
    after = kept_models.kept(hospital.config, study.sha256)
    assert after is not None
    assert after.outcome == "COMPLETE"


def test_what_was_made_of_an_earlier_model_goes_with_it_and_never_adds_up(hospital: Ward, study: Study) -> None:
    config, about = hospital.config, {"outcome": "INCOMPLETE", "code": wire.STOPPED}
    for seed, rounds in enumerate((1, 1, 2, 3)):
        assert end(hospital, study, model_of(study, seed=seed), rounds=rounds, **about) == 0
        assert not after_end.personal_path(config, study.sha256, rounds).exists()
        for number in range(rounds + 1):
            made = after_end.personal_path(config, study.sha256, number)
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_bytes(b"of an earlier model")
    (made.parent / "3.safetensors").write_bytes(b"arrays of its own after a round")
    assert end(hospital, study, model_of(study)) == 0
    assert [path.name for path in made.parent.iterdir()] == ["3.safetensors"]
    after_end.personal_path(config, study.sha256, ROUNDS).write_bytes(b"of the last model")
    assert end(hospital, study, model_of(study, seed=9)) == 0  # ignored
    assert after_end.personal_path(config, study.sha256, ROUNDS).exists()


def test_an_end_without_a_round_leaves_no_model(hospital: Ward, study: Study) -> None:
    assert end(hospital, study, None, outcome="INCOMPLETE", code=wire.FEW_TAKE_PART, rounds=0) == 0
    assert not kept_models.model_path(hospital.config, study.sha256).exists()
    with pytest.raises(RunError, match="ended INCOMPLETE without one"):
        kept_models.model_of(hospital.config, study)


@pytest.mark.parametrize(
    ("fields", "with_model"),
    [
        ({"outcome": "DONE"}, True),
        ({"code": 5, "outcome": "INCOMPLETE"}, True),
        ({"code": wire.STOPPED}, True),
        ({"outcome": "INCOMPLETE"}, True),
        ({"rounds": ROUNDS + 1}, True),
        ({"rounds": ROUNDS - 1}, True),
        ({}, False),
        ({"outcome": "INCOMPLETE", "code": wire.STOPPED, "rounds": 0}, True),
    ],
)
def test_an_end_that_contradicts_itself_is_refused(study: Study, fields: dict[str, Any], with_model: bool) -> None:
    with pytest.raises(WireError, match="end: expected"):
        ending.judged(study, frame_of(study, model_of(study) if with_model else None, **fields))


def test_a_hostile_model_is_refused_and_nothing_is_kept(hospital: Ward, study: Study) -> None:
    honest = frame_of(study, model_of(study))
    name = next(iter(honest.arrays))
    spoilt = bytearray(bytes(honest.arrays[name]))
    spoilt[-4:] = np.float32(np.nan).tobytes()
    for arrays in ({**honest.arrays, name: bytes(spoilt)}, {**honest.arrays, "more": bytes(spoilt)}):
        with pytest.raises(WireError):
            ending.judged(study, replace(honest, arrays=arrays))
    other = study_of(2)
    hospital.studies[other.sha256] = other
    assert end(hospital, other, model_of(other)) != 0  # it was never proposed here
    assert not hospital.config.models.exists() or not list(hospital.config.models.iterdir())


def test_a_model_that_was_changed_on_the_disk_is_not_taken(hospital: Ward, study: Study) -> None:
    assert end(hospital, study, model_of(study)) == 0
    path = kept_models.model_path(hospital.config, study.sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(RunError, match="found another"):
        kept_models.model_of(hospital.config, study)


def test_an_end_books_nothing_and_counts_as_no_release(tmp_path: Path) -> None:
    study = study_of(3, rounds=1)
    hospital = trained_ward(tmp_path, study, rounds=1)
    rows = hospital.node.books.ledger.head if hospital.node else None
    fields = {"study_sha256": study.sha256, **WHOLE, "rounds": 1}
    assert hospital.ask(study, "end", fields, model_of(study)) == 0
    assert hospital.node is not None
    assert hospital.node.books.ledger.head == rows
    (decided,) = review.decided(SiteFolder.open(hospital.folder))
    assert decided.left.startswith("1 round sent")
    hospital.stop()


class _Step:
    """Remembers that it was asked for."""

    name = "toy"

    def is_asked(self, study: Study) -> bool:
        return study.seed == 4

    def make(self, site: Any, model: Arrays) -> Arrays:
        return {"weight": model[next(iter(model))] + site.count}


def test_what_a_study_asks_for_after_its_end_is_asked_of_the_worker_once_the_answer_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(after_end.STEPS, "_kinds", {"toy": _Step()})
    study = study_of(4)
    hospital = ward(tmp_path)
    assert hospital.start().propose(study) == 0
    assert hospital.worker is not None
    seen: list[tuple[str, int]] = []
    ask = hospital.worker.ask

    def asked(request: Frame, max_bytes: int) -> tuple[Frame, Frame]:
        seen.append((request.form, len(hospital.coordinator.codes)))
        return (request, request) if request.form == after_end.FORM else ask(request, max_bytes)

    monkeypatch.setattr(hospital.worker, "ask", asked)
    answers = len(hospital.coordinator.codes)
    assert end(hospital, study, model_of(study)) == 0
    assert seen == [(after_end.FORM, answers + 1)]
    assert hospital.node is not None
    hospital.node.answering.over.catch_up()  # the worker has kept nothing, so it is asked anew at a start
    assert len(seen) == 2

    class Hospital:
        study, count = study_of(4), 1

    after_end.make(hospital.config, Hospital())  # type: ignore[arg-type]
    assert after_end.personal_path(hospital.config, study.sha256, ROUNDS).stat().st_mode & 0o077 == 0
    hospital.node.answering.over.catch_up()
    assert len(seen) == 2
    hospital.stop()
