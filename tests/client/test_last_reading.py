"""A round uses the last complete reading for as long as it may, whatever became of the file and of the worker since."""

from collections.abc import Callable
from pathlib import Path

import pytest

from client.admission import Admissions
from client.egress import REFUSAL
from client.worker import Worker, _answered
from configs.frame import Frame
from configs.schema import Study
from configs.site import load_site
from configs.strict_yaml import dump_yaml, read_yaml
from tests.builders import study
from tests.client.test_no_row_is_told import HEADER, Hospital, asked, requests

ROWS = [f"p{n},{20 + n},male,{n % 2}" for n in range(10)]
STUDY = study(patient_id="ipp")
OTHER = study(patient_id="ipp", name="other", seed=1)

MISFITS: dict[str, tuple[Callable[[Path], object], int]] = {  # what becomes of the file, and the refusal for it
    "a column renamed": (lambda path: path.write_text("\n".join([HEADER.replace("age", "Age"), *ROWS])), 103),
    "a column gone": (lambda path: path.write_text("\n".join([HEADER.replace(",age", ""), *ROWS])), 103),
    "semicolons": (lambda path: path.write_text("\n".join([HEADER, *ROWS]).replace(",", ";")), 103),
    "a header that never ends": (lambda path: path.write_text("\n".join([HEADER + ',"x', *ROWS])), 103),
    "no header": (lambda path: path.write_text("\n".join(ROWS)), 103),
    "nothing in it": (lambda path: path.write_text(""), 103),
    "a workbook": (lambda path: path.write_bytes(b"PK\x03\x04"), 103),
    "gone": (lambda path: path.unlink(), 107),
}


class Clock:
    """Turned by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def hospital(folder: Path) -> Hospital:
    (folder / "data.csv").write_text("\n".join([HEADER, *ROWS]))
    made = Hospital(folder, STUDY, {"min_patients": 100})
    document = read_yaml(folder / "site.yaml")
    document["datasets"][OTHER.name] = dict(document["datasets"][STUDY.name])  # two studies of one file
    (folder / "site.yaml").write_text(dump_yaml(document))
    admissions = Admissions.open(load_site(folder).admissions)
    admissions.propose(OTHER.sha256, OTHER.name, OTHER.canonical)
    admissions.decide(OTHER.sha256, "approved")
    made.worker = Worker(load_site(folder))
    return made


def hello(made: Hospital, chosen: Study) -> Frame:
    return _answered(made.worker, requests(chosen)[0])[1]


def trained(made: Hospital, number: int) -> Frame:
    return _answered(made.worker, asked(STUDY, "train", round=number))[1]


BETWEEN: dict[str, Callable[[Hospital], object]] = {  # what comes before the next round
    "nothing": lambda made: None,
    "the watch": lambda made: made.worker.reading().renew_if_due(),  # type: ignore[union-attr]
    "the proposal again": lambda made: hello(made, STUDY),
    "another study's proposal": lambda made: hello(made, OTHER),
    "both": lambda made: (hello(made, OTHER), hello(made, STUDY), hello(made, OTHER)),
    "another study's round": lambda made: _answered(made.worker, asked(OTHER, "train", round=1)),
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
@pytest.mark.parametrize(("misfit", "code"), MISFITS.values(), ids=MISFITS)
def test_a_file_that_stops_fitting_serves_no_round_but_its_last_reading_does_while_it_may(
    misfit: Callable[[Path], object], code: int, between: Callable[[Hospital], object], tmp_path: Path
) -> None:
    made, clock = hospital(tmp_path), Clock()
    assert hello(made, STUDY).form == "hello reply"
    one = made.worker.reading()
    assert one is not None
    one.clock = clock
    assert trained(made, 1).form == "train reply"
    first = one.digest
    misfit(tmp_path / "data.csv")
    clock.now += 60.0
    between(made)
    clock.now += 3000.0
    status, reply = _answered(made.worker, asked(STUDY, "train", round=2))
    assert (reply.form, reply.fields.get("code")) == ("train reply", None)
    assert status.fields["reading"] == first
    clock.now += 541.0  # an hour and a second in all
    between(made)
    reply = trained(made, 3)
    assert (reply.form, reply.fields["code"]) == (REFUSAL, code)
    assert not made.worker._ledger.booked("lille", STUDY.sha256, 3)
    (tmp_path / "data.csv").write_text("\n".join([HEADER, *ROWS[1:]]))
    assert trained(made, 3).form == "train reply"  # mended, it is read again at once


@pytest.mark.parametrize("misfit", [misfit for misfit, _ in MISFITS.values()], ids=MISFITS)
def test_a_proposal_is_judged_by_the_file_as_it_is(misfit: Callable[[Path], object], tmp_path: Path) -> None:
    made = hospital(tmp_path)
    assert hello(made, STUDY).form == "hello reply"
    assert trained(made, 1).form == "train reply"
    misfit(tmp_path / "data.csv")
    assert hello(made, STUDY).form == REFUSAL
    assert trained(made, 2).form == "train reply"


def test_a_reading_that_may_serve_no_more_is_not_kept_beside_another_studys(tmp_path: Path) -> None:
    made, clock = hospital(tmp_path), Clock()
    hello(made, STUDY)
    one = made.worker.reading()
    assert one is not None
    one.clock = clock
    trained(made, 1)
    hello(made, OTHER)
    assert set(made.worker._readings) == {STUDY.sha256, OTHER.sha256}
    clock.now += 3601.0
    hello(made, OTHER)
    assert set(made.worker._readings) == {OTHER.sha256}
