"""The coordinator of a study of statistics: who is asked, what is accepted, what is said of it, what is shown."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from numpy.typing import NDArray

from configs import wire
from configs.errors import RunError
from configs.journal import Journal
from configs.journal import read as read_journal
from configs.schema import Study
from server.app import conduct
from server.conductor import write_down
from server.outcome import Outcome
from server.papers import write_model_card, write_papers
from strategies.exchange.messages import read
from tests.builders import counting
from tests.server.test_conduct import NODES, Behaviour, FakeGrid, Honest, Replies, with_arrays
from tests.server.test_report import Page, words

STUDY = counting()
PATIENTS = {"brest": 60, "lille": 100, "lyon": 80}
Vector = NDArray[np.float32]
Say = Callable[[Message, Vector], Replies]


def vector_of(patients: int, share: float = 0.5) -> Vector:
    """Patients spread evenly over the bins of age and over both sexes; a share of them has the disease."""
    ill = round(patients * share)
    return np.array([patients / 5] * 5 + [0] + [patients / 2] * 2 + [0, patients - ill, ill, 0], np.float32)


def honestly(message: Message, vector: Vector) -> Replies:
    return with_arrays(message, ArrayRecord({"counts": Array(vector)}))


class Counts(Honest):
    """A hospital that counts; `say` turns its counts into what it sends."""

    def __init__(self, study: Study, name: str, say: Say = honestly, share: float = 0.5) -> None:
        super().__init__(study, name, 0.0)
        self.say, self.share = say, share

    def __call__(self, message: Message) -> Iterator[Message]:
        if message.metadata.message_type == wire.HELLO:
            yield self.greet(message)
            return
        assert message.metadata.message_type == wire.STATISTICS
        assert read("statistics", message.content).fields == {"study_sha256": self.study.sha256}
        yield from self.say(message, vector_of(PATIENTS[self.name], self.share))


def hospitals(study: Study = STUDY, **others: Behaviour) -> dict[int, Behaviour]:
    return {node: others.get(name, Counts(study, name)) for name, node in NODES.items()}


def finished(folder: Path, study: Study = STUDY, **others: Behaviour) -> tuple[Outcome, dict[str, Any]]:
    """A run between machines, and its metrics.json."""
    journal = Journal(folder / "journal.jsonl", durable=False)
    journal.append("begin", study_sha256=study.sha256)
    conducted = conduct(FakeGrid(hospitals(study, **others)), study, journal=journal)
    write_down(folder, study, conducted, 1.0)
    return conducted, json.loads((folder / "metrics.json").read_bytes())


# Who is asked, and what counts


def test_each_hospital_is_asked_once_and_nothing_is_trained() -> None:
    grid = FakeGrid(hospitals())
    conducted = conduct(grid, STUDY)
    assert [m.metadata.message_type for m in grid.sent] == [wire.HELLO] * 3 + [wire.STATISTICS] * 3
    assert (conducted.rounds.outcome, conducted.rounds.done, conducted.model) == ("COMPLETE", 1, {})
    assert {site: a["counts"].tolist() for site, a in conducted.released["statistics"].arrays.items()} == {
        site: vector_of(n).tolist() for site, n in PATIENTS.items()
    }


def test_the_journal_says_who_sent_how_many_bytes(tmp_path: Path) -> None:
    finished(tmp_path)
    (facts,) = [record.facts for record in read_journal(tmp_path / "journal.jsonl") if record.kind == "round"]
    assert facts["contributed"] == dict.fromkeys(PATIENTS, 4 * 12 + len("counts"))


def test_below_the_quorum_there_are_no_statistics(tmp_path: Path) -> None:
    silent = {name: Counts(STUDY, name, lambda m, v: []) for name in ("brest", "lyon")}
    conducted, metrics = finished(tmp_path, STUDY, **silent)
    assert (conducted.rounds.outcome, conducted.released) == ("INCOMPLETE", {})
    assert conducted.rounds.why == "round 1: 1 hospital contributed, the study asks for 2"
    assert metrics["statistics"] is None
    assert "there are no statistics to show" in words((tmp_path / "report.html").read_text())


def says(array: NDArray[Any], name: str = "counts", **records: Any) -> Say:
    return lambda m, v: with_arrays(m, ArrayRecord({name: Array(array)}), **records)


def cell(value: float) -> Say:
    def say(message: Message, vector: Vector) -> Replies:
        vector[2] = value
        return honestly(message, vector)

    return say


LIES: dict[str, tuple[Say, str]] = {
    "another shape": (says(np.zeros(13, np.float32)), "expected array 'counts'"),
    "another type": (says(np.zeros(12)), "expected array 'counts'"),
    "another name": (says(np.zeros(12, np.float32), "patients"), "no array 'patients'"),
    "a field more": (
        says(np.zeros(12, np.float32), config=ConfigRecord({"num-examples": 46})),
        "no field 'num-examples'",
    ),
    "not a number": (cell(np.nan), "expected finite values"),
    "infinite": (cell(np.inf), "expected finite values"),
    "huge": (cell(1e9), "no more patients than the hospital announced"),
    "far below zero": (cell(-1000.0), "far below zero"),
    "no whole number": (cell(10.5), "whole numbers"),
    "columns of different patients": (
        lambda m, v: honestly(m, v + np.array([100] * 6 + [0] * 6, np.float32)),
        "totals",
    ),
    "nothing": (lambda m, v: [Message(RecordDict(), reply_to=m)], "expected array 'counts'"),
    "no reply": (lambda m, v: [], "no reply in time"),
    "an error": (lambda m, v: [Message(Error(101, "the budget\x1b is spent"), reply_to=m)], "the budget is spent"),
}


@pytest.mark.parametrize(("say", "why"), LIES.values(), ids=LIES)
def test_hostile_counts_are_left_out_and_the_reason_is_on_record(say: Say, why: str, tmp_path: Path) -> None:
    conducted, metrics = finished(tmp_path, STUDY, brest=Counts(STUDY, "brest", say))
    assert conducted.rounds.outcome == "COMPLETE"
    assert set(metrics["statistics"]["sites"]) == {"lille", "lyon"}
    assert why in metrics["statistics"]["missing"]["brest"]
    assert "brest" in words((tmp_path / "report.html").read_text()).partition("Who released nothing")[2]


def test_a_second_answer_and_a_strangers_count_for_nothing() -> None:
    def twice(message: Message, vector: Vector) -> Replies:
        stranger = honestly(message, vector + 1)[0]
        stranger.metadata.__dict__["_src_node_id"] = 99
        return [stranger, *honestly(message, vector), *honestly(message, vector + 1)]

    found = conduct(FakeGrid(hospitals(brest=Counts(STUDY, "brest", twice))), STUDY).released["statistics"]
    assert found.arrays["brest"]["counts"].tolist() == vector_of(60).tolist()


# What is said of it


def test_the_whole_is_the_sum_of_the_hospitals_whatever_the_order_of_their_replies(tmp_path: Path) -> None:
    _, metrics = finished(tmp_path)
    together = metrics["statistics"]["together"]
    assert together["patients"]["value"] == pytest.approx(240)
    assert [count["value"] for count in together["columns"]["age"]["counts"]] == pytest.approx([48] * 5 + [0])
    again = conduct(FakeGrid(hospitals(), arrange=lambda replies: replies[::-1]), STUDY).released["statistics"]
    assert {s: a["counts"].tolist() for s, a in sorted(again.arrays.items())} == metrics["statistics"]["released"]


def test_the_outcome_of_each_hospital_has_an_interval_that_holds_the_noise(tmp_path: Path) -> None:
    study = counting(privacy={"mode": "local", "epsilon": 4.0, "delta": 1e-5})
    _, metrics = finished(tmp_path, study, lyon=Counts(study, "lyon", share=0.25))
    lyon, lille = (metrics["statistics"]["sites"][site]["outcome"] for site in ("lyon", "lille"))
    assert lyon["value"] == pytest.approx(0.25, abs=0.01)
    assert lyon["low"] < 0.22 < 0.28 < lyon["high"] < lille["high"]
    assert metrics["statistics"]["noise"] == pytest.approx(1.08 * 3**0.5, rel=0.05)


def test_no_exact_number_of_patients_is_in_the_metrics(tmp_path: Path) -> None:
    _, metrics = finished(tmp_path)
    assert {"patients_train", "patients_test", "values_clipped"}.isdisjoint(metrics["sites"][0])
    assert metrics["sites"][0]["patients_announced"] == 60


# What is shown


def test_the_report_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    finished(tmp_path)
    html = (tmp_path / "report.html").read_text()
    parsed = Page(html)
    names = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(set(names)) == len(names)
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert "nan" not in html.replace("Financ", "").lower().split('"')
    assert not (tmp_path / "model_card.md").exists()
    assert not (tmp_path / "model.safetensors").exists()


def test_the_report_says_who_is_hidden_and_who_is_seen(tmp_path: Path) -> None:
    study = counting(
        cohort={"brest": 3, "lille": 100, "lyon": 80}, privacy={"mode": "local", "epsilon": 2.0, "delta": 1e-5}
    )
    three = Counts(study, "brest", lambda m, v: honestly(m, np.round(v / 20)))
    finished(tmp_path, study, brest=three)
    text = words((tmp_path / "report.html").read_text())
    assert "Too small to be seen through so much noise: brest." in text
    assert "Not drawn: brest, hidden by the noise." in text
    assert "disease = 1" in text
    for label in ("20 to 34", "female", "unknown"):
        assert label in text


def test_the_report_says_what_is_unknown(tmp_path: Path) -> None:
    study = counting(privacy={"mode": "local", "epsilon": 8.0, "delta": 1e-5})

    def half_without_age(message: Message, vector: Vector) -> Replies:
        vector[:6] = [*(vector[:5] / 2), vector[:5].sum() / 2]
        return honestly(message, np.rint(vector))

    finished(tmp_path, study, lille=Counts(study, "lille", half_without_age))
    text = words((tmp_path / "report.html").read_text())
    assert "Most is unknown of age: 21 % (" in text
    assert "Share of patients of whom it is unknown" in text


def test_hospitals_that_surely_differ_are_named_by_column(tmp_path: Path) -> None:
    study = counting(privacy={"mode": "local", "epsilon": 8.0, "delta": 1e-5})
    finished(tmp_path, study, lyon=Counts(study, "lyon", share=0.1))
    assert "Hospitals surely differ in disease" in words((tmp_path / "report.html").read_text())


def test_text_of_a_run_stays_text(tmp_path: Path) -> None:
    _, metrics = finished(tmp_path)
    spoilt = json.loads(json.dumps(metrics).replace("female", "<script>alert(1)<\\/script>"))
    (tmp_path / "metrics.json").write_text(json.dumps(spoilt))
    assert "script" not in Page(write_papers(tmp_path).read_text()).tags


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("noise",), "much"),
        (("columns", 0, "labels"), ["one"]),
        (("sites", "lille", "columns", "age", "counts"), []),
        (("sites", "lille", "columns", "age", "shares", 0, "value"), "half"),
        (("together", "patients"), None),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_malformed_statistics_are_refused_by_their_place(path: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    _, metrics = finished(tmp_path)
    node = metrics["statistics"]
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(RunError, match=r"metrics\.json: statistics\."):
        write_papers(tmp_path)


def test_sixty_hospitals_stay_small(tmp_path: Path) -> None:
    _, metrics = finished(tmp_path)
    found = metrics["statistics"]
    found["sites"] = {f"hospital-{n}": found["sites"]["lille"] for n in range(60)}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    html = write_papers(tmp_path).read_text()
    assert len(html.encode()) < 1_000_000
    assert "51 hospitals smaller than those above" in words(html)


def test_there_is_no_model_card_of_statistics(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(RunError, match="no model"):
        write_model_card(tmp_path)
