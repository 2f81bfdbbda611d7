"""Nothing that leaves tells whether a patient is there: neighbouring data sets through a real worker, form by form.

Each pair differs by one patient, who is odd in one way. Of proposal, rounds, evaluation and statistics everything is
compared but the noised values: codes, fields, names, types and sizes of arrays, order and number of the answers, and
the times at which they may leave.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.admission import Admissions
from client.connectors import checks
from client.egress import REFUSAL
from client.site import Site
from client.timing import leaves_after_s, quantum_s
from client.trainer import Trainer
from client.worker import ALONE, Worker, _answered
from configs.frame import Frame
from configs.schema import Study
from configs.site import load_site
from configs.strict_yaml import dump_yaml
from strategies.exchange.messages import content, to_frame
from strategies.models.registry import study_parameters
from tests.builders import counting, random_arrays, study

ASKS = {"test_fraction": 0.3, "release": {"epsilon": 0.5}}
PLANTED = "Durand"
HEADER = "ipp,age,sex,disease"
OTHERS = [f"p{n},{20 + n},{('female', 'male')[n % 2]},{n % 2}" for n in range(60)]
ONE_CLASS = [f"p{n},{20 + n},female,0" for n in range(60)]

ODD: dict[str, list[str]] = {  # the lines of one patient more
    "usual": ["x,50,male,1"],
    "an outcome that nobody lists": ["x,50,male,2"],
    "no outcome": ["x,50,male,"],
    "an outcome with words": ["x,50,male,maybe"],
    "an unlisted category": ["x,50,other,1"],
    "an empty category": ["x,50,,1"],
    "no number": ["x,NR,male,1"],
    "an empty number": ["x,,male,1"],
    "NaN": ["x,NaN,male,1"],
    "infinity": ["x,inf,male,1"],
    "out of its range": ["x,1e9,male,1"],
    "far out of its range": ["x,-1e308,male,1"],
    "too large for a float": ["x,1e999,male,1"],
    "censored": ["x,<30,male,1"],
    "no id": [",50,male,1"],
    "another's id in other letters": ["P1,50,male,1"],
    "another's id with zeros": ["00p1,50,male,1"],
    "a duplicate": ["p1,21,male,1"],
    "two sides of an outcome": ["x,50,male,1", "x,50,male,0"],
    "many rows": ["x,50,male,1"] * 3000,
    "more rows than count": ["x,50,male,1"] * 12,
    "nothing": [",,,"],
    "an empty line": [""],
    "a cell too few": ["x,50,male"],
    "a cell too many": ["x,50,male,1,2"],
    "the header again": [HEADER],
    "a stray quotation mark": ['x,"50,male,1'],
    "a quotation that goes on": ['x,"50"0,male,1'],
    "a line break in a cell": ['x,"5\n0",male,1'],
    "a null character": ["x,5\x000,male,1"],
    "another script": ["x,\u0665\u0660,male,1"],
    "1.0 for 1": ["x,50.0,male,1.0"],
}


@dataclass
class Hospital:
    """A worker of its own folder, for one study and one file."""

    folder: Path
    chosen: Study
    policy: dict[str, Any]

    def __post_init__(self) -> None:
        data = {self.chosen.name: {"connector": "csv", "path": str(self.folder / "data.csv"), "identity": "lille"}}
        document = {"site": "lille", "coordinator": "localhost:1", "datasets": data, "policy": self.policy}
        (self.folder / "site.yaml").write_text(dump_yaml(document))
        config = load_site(self.folder)
        admissions = Admissions.open(config.admissions)
        admissions.propose(self.chosen.sha256, self.chosen.name, self.chosen.canonical)
        admissions.decide(self.chosen.sha256, "approved")
        self.worker = Worker(config)

    def answers(self) -> list[Frame]:
        """All answers of a whole study, asked once."""
        return [_answered(self.worker, request)[1] for request in requests(self.chosen)]


def requests(chosen: Study) -> list[Frame]:
    """What a coordinator asks: the proposal twice, each round, the evaluation, one round too many."""
    hello = Frame("hello", {"protocol": 1, "study": chosen.canonical})
    if chosen.procedure != "training":
        return [hello, hello, *[Frame("statistics", {"study_sha256": chosen.sha256})] * 2]
    rounds = [asked(chosen, "train", round=number) for number in (1, 2, 3, 3, 4)]
    return [hello, hello, *rounds, asked(chosen, "evaluate"), asked(chosen, "evaluate")]


def asked(chosen: Study, form: str, **fields: Any) -> Frame:
    parameters = study_parameters(chosen)
    records = content(form, {"study_sha256": chosen.sha256, **fields}, random_arrays(parameters), parameters)
    return to_frame(form, records, parameters)


def seen(answers: Sequence[Frame]) -> list[Any]:
    """All of the answers that is not noised."""
    shapes = [{name: len(data) for name, data in answer.arrays.items()} for answer in answers]
    return [(a.form, dict(a.fields), shape) for a, shape in zip(answers, shapes, strict=True)]


def told(
    folder: Path, chosen: Study, lines: Sequence[str], *, ended: str = "\n", policy: dict[str, Any] | None = None
) -> list[Any]:
    """What a coordinator sees of a hospital with these lines."""
    folder.mkdir(exist_ok=True)
    (folder / "data.csv").write_text("\n".join([HEADER, *lines]) + ended)
    for path in folder.glob("*.sqlite*"):
        path.unlink()
    chosen_policy = {"max_epsilon": 8.0, "metrics": "noisy", "min_patients": 100} | (policy or {})
    answers = Hospital(folder, chosen, chosen_policy).answers()
    assert all(np.isfinite(np.frombuffer(data, np.float32)).all() for a in answers for data in a.arrays.values())
    return seen(answers)


STUDIES: dict[str, Callable[[], Study]] = {
    "a row is a patient": lambda: study(evaluation=ASKS),
    "ids": lambda: study(evaluation=ASKS, patient_id="ipp"),
    "small batches": lambda: study(
        evaluation=ASKS, patient_id="ipp", training={"local": {"batch_size": 16, "learning_rate": 0.5}}
    ),
    "regression": lambda: study(
        task={"type": "regression", "target": "disease", "range": [0, 1]},
        model={"name": "linear"},
        evaluation={"test_fraction": 0.3},
    ),
    "statistics": counting,
    "statistics by ids": lambda: counting(patient_id="ipp"),
    "opacus": lambda: study(
        patient_id="ipp", training={"local": {"batch_size": 16, "learning_rate": 0.5, "engine": "opacus"}}
    ),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Any]]:
    """What is told of the hospital without the odd patient, once for each study."""
    kept: dict[str, list[Any]] = {}

    def of(name: str) -> list[Any]:
        if name not in kept:
            kept[name] = told(tmp_path_factory.mktemp("without") / "a", STUDIES[name](), OTHERS)
        return kept[name]

    return of


@pytest.mark.parametrize("name", STUDIES)
def test_an_honest_hospital_answers_every_question_once(name: str, expected: Callable[[str], list[Any]]) -> None:
    forms = [form for form, _, _ in expected(name)]
    assert forms[:3] == [
        "hello reply",
        "hello reply",
        "train reply" if STUDIES[name]().procedure == "training" else "statistics reply",
    ]
    assert forms[-1] == REFUSAL


SLOW = {"opacus"}  # the reference engine is tried with some of them
PAIRS = [(name, odd) for name in STUDIES for i, odd in enumerate(ODD) if name not in SLOW or i % 6 == 0]


@pytest.mark.parametrize(("name", "odd"), PAIRS)
def test_one_odd_patient_more_changes_nothing_but_the_noised_values(
    name: str, odd: str, expected: Callable[[str], list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if odd == "more rows than count":
        monkeypatch.setattr(checks, "MOST_ROWS_EACH", 10)
    place = len(OTHERS) * (len(odd) % 2)  # the first or the last of the file
    lines = [*OTHERS[:place], *ODD[odd], *OTHERS[place:]]
    assert told(tmp_path / "b", STUDIES[name](), lines) == expected(name)


@pytest.mark.parametrize(
    ("lines", "ended"),
    [
        ([], "\n"),
        ([], ""),
        (ONE_CLASS, "\n"),
        ([*ONE_CLASS, "x,50,male,1"], "\n"),
        (OTHERS[:1], ""),
        (OTHERS[:49], "\n"),
    ],
    ids=[
        "nobody",
        "nobody and no line break",
        "one class",
        "one of the other class",
        "one patient",
        "below the policy",
    ],
)
@pytest.mark.parametrize("name", ["ids", "statistics", "regression"])
def test_how_many_and_of_which_class_there_are_is_not_told(
    name: str, lines: list[str], ended: str, expected: Callable[[str], list[Any]], tmp_path: Path
) -> None:
    assert told(tmp_path / "b", STUDIES[name](), lines, ended=ended) == expected(name)


@pytest.mark.parametrize("values", [["female"], ["male", "other"], ["nobody", "has"]])
def test_a_value_that_the_study_leaves_out_is_no_question(values: list[str], tmp_path: Path) -> None:
    chosen = study(features={"sex": {"type": "category", "values": ["intersex", *values]}})
    assert told(tmp_path / "a", chosen, OTHERS) == told(tmp_path / "b", chosen, [])


def test_a_delta_is_held_against_the_announced_number_alone(tmp_path: Path) -> None:
    chosen = counting(privacy={"mode": "local", "epsilon": 0.5, "delta": 0.0099})  # below one in a hundred announced
    many = [f"p{n},50,male,1" for n in range(300)]
    assert told(tmp_path / "a", chosen, many) == told(tmp_path / "b", chosen, OTHERS)


@pytest.mark.parametrize("error", [MemoryError("Durand"), ValueError("Durand"), OSError(5, "Durand"), RecursionError()])
@pytest.mark.parametrize("where", ["reading", "training"])
def test_whatever_fails_after_the_booking_leaves_as_noise_alone(
    where: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Callable[[str], list[Any]]
) -> None:
    fit = Trainer.fit

    def fail(self: Any, *arguments: Any, **options: Any) -> Any:
        if where == "reading" or arguments[0].patients.count:
            raise error
        return fit(self, *arguments, **options)

    monkeypatch.setattr(*(("client.reading.load_patients", fail) if where == "reading" else (Trainer, "fit", fail)))
    assert told(tmp_path / "b", STUDIES["ids"](), OTHERS) == expected("ids")


def test_noise_alone_is_told_to_the_hospital_and_counts_as_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError(PLANTED)

    monkeypatch.setattr("client.reading.load_patients", fail)
    (tmp_path / "data.csv").write_text("\n".join([HEADER, *OTHERS]))
    hospital = Hospital(tmp_path, study(), {"min_patients": 100})
    status, reply = _answered(hospital.worker, asked(study(), "train", round=1))
    assert (reply.form, status.fields["why"]) == ("train reply", "unexpected MemoryError")
    assert "MemoryError" in caplog.text
    assert PLANTED not in caplog.text
    assert hospital.worker._ledger.booked("lille", study().sha256, 1)


def proposal(folder: Path, **policy: Any) -> int | None:
    """The code of a hospital's answer to a proposal, None where it takes part."""
    chosen = study()
    hospital = Hospital(folder, chosen, {"min_patients": 100} | policy)
    code = _answered(hospital.worker, requests(chosen)[0])[1].fields.get("code")
    return None if code is None else int(code)


def test_a_proposal_and_its_refusals_read_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.reading.load_patients", lambda *_: pytest.fail("patients were read"))
    (tmp_path / "data.csv").write_text("\n".join([HEADER, *OTHERS]))
    assert proposal(tmp_path) is None
    assert proposal(tmp_path, min_patients=101) == 116
    assert proposal(tmp_path, max_epsilon=1.0) == 114
    (tmp_path / "data.csv").write_text("\n".join([HEADER.replace("age", "alter"), *OTHERS]))
    assert proposal(tmp_path) == 103
    (tmp_path / "data.csv").unlink()
    assert proposal(tmp_path) == 107


def test_noise_alone_can_be_asked_for_only_of_what_is_booked_and_by_no_message(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("\n".join([HEADER, *OTHERS]))
    hospital = Hospital(tmp_path, study(), {"min_patients": 100})
    request = asked(study(), "train", round=1)
    alone = Frame(request.form, {**request.fields, ALONE: 1}, request.arrays)
    _, reply = _answered(hospital.worker, alone)
    assert (reply.form, reply.fields["code"]) == (REFUSAL, 105)
    assert not hospital.worker._ledger.booked("lille", study().sha256, 1)
    assert _answered(hospital.worker, request)[1].form == "train reply"
    spent = hospital.worker._ledger.spent("lille", delta=1e-5)
    assert _answered(hospital.worker, alone)[1].form == "train reply"
    assert hospital.worker._ledger.spent("lille", delta=1e-5) == spent


CELL = st.one_of(
    st.sampled_from(["", "1", "0", "50", "male", "nan", "1e400", "-0", '"', '""', "\x00", "\u0301", "p1"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CELL, min_size=1, max_size=6), st.integers(0, 60), st.sampled_from(sorted(STUDIES)[:4]))
def test_any_line_at_any_place_changes_nothing_but_the_noised_values(
    expected: Callable[[str], list[Any]], tmp_path: Path, cells: list[str], place: int, name: str
) -> None:
    lines = [*OTHERS[:place], ",".join(cells), *OTHERS[place:]]
    (tmp_path / "b").mkdir(exist_ok=True)
    assert told(tmp_path / "b", STUDIES[name](), lines) == expected(name)


# The time of an answer


@pytest.mark.parametrize("name", STUDIES)
def test_the_public_time_follows_from_the_study_and_the_announced_size_alone(name: str) -> None:
    chosen = STUDIES[name]()
    site = Site("lille", chosen, lambda: pytest.fail("patients were read"), None, seeded=False)  # type: ignore[arg-type]
    assert site.quantum_s == quantum_s(chosen, "lille")
    assert 0.02 <= site.quantum_s < 0.03  # a small study's rounds stay fast


@given(st.floats(0, 1e4), st.floats(0.02, 10))
def test_an_answer_leaves_at_a_doubling_of_its_quantum_and_never_before_it_is_there(elapsed: float, q: float) -> None:
    leaves = leaves_after_s(elapsed, quantum=q)
    assert leaves >= elapsed
    assert leaves == q or leaves < 2 * elapsed
    assert float(np.log2(leaves / q)).is_integer()
