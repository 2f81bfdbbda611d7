"""An outcome that is none contributes nothing, and the hospital's own people are told where it stands."""

from pathlib import Path

import pytest

from client.connectors import read_table
from client.connectors.notes import Notes
from client.views.study_rows import rows_of
from configs.errors import ConfigError
from configs.schema import CsvFile, Study
from configs.site import SiteConfig
from tests.builders import plain

SURVIVAL = {"type": "survival", "time": "days", "event": "died", "intervals": [0, 90, 365], "unit": "days"}
COUNTS = {
    "type": "counts",
    "target": "visits",
    "range": [0, 10],
    "exposure": "days",
    "exposure_range": [1, 365],
}


def read(study: Study, folder: Path, header: str, rows: list[str]) -> tuple[list[float], str]:
    (folder / "a.csv").write_text("\n".join([f"age,sex,{header}", *(f"50,male,{row}" for row in rows), ""]))
    notes = Notes()
    table = read_table(CsvFile(folder / "a.csv"), study, notes)
    return table.targets["days"].tolist(), "\n".join(notes.lines())


def test_times_before_zero_unlisted_words_and_events_without_a_time(tmp_path: Path) -> None:
    rows = ["12,1", "-3,1", "9,2", ",1", "30,", "soon,0", "400,0"]
    times, told = read(plain(task=SURVIVAL), tmp_path, "days,died", rows)
    assert times == [12, 400]
    assert "5 rows left out: without an outcome" in told
    assert "days: 2 of 7 rows are no outcome that the study lists; left out (lines 7, 3)" in told
    assert "died: 1 of 7 rows is no outcome that the study lists; left out (line 4)" in told


def test_counts_below_zero_half_counts_and_no_exposure(tmp_path: Path) -> None:
    rows = ["3,100", "-1,100", "1.5,100", "2,0", "4,365"]
    times, told = read(
        plain(task={"target": "visits"} | COUNTS, model={"name": "linear"}), tmp_path, "visits,days", rows
    )
    assert times == [100, 365]
    assert "visits: 2 of 5 rows are no outcome" in told
    assert "days: 1 of 5 rows is no outcome" in told


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({"intervals": [0, 180, 90]}, "task.intervals: expected a list of 2 to 101 cut points of time, ascending"),
        ({"intervals": [0]}, "task.intervals: expected a list of 2"),
        ({"intervals": [-1, 90]}, "the first one 0 or more, found [-1, 90]; for example"),
        ({"intervals": None}, "task.intervals: expected a list of 2 to 101 cut points"),
        ({"horizon": 100}, "task.horizon: expected one of the intervals' ends, 90, 365, found 100"),
        ({"causes": ["0", "1"]}, "task.censored: expected a word that is no cause, found '0'"),
        ({"event": "sex"}, "task.event: expected a column that is not a feature, found 'sex'"),
        ({"event": "days"}, "time, event, patient_id and split_column must be four different columns"),
        ({"type": "cox"}, "task.type: expected a loss of each patient alone, found Cox's partial likelihood"),
        ({"loss": "cox"}, "task.loss: unknown key; it follows from task.type and is one of each patient alone"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(task: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        plain(task=SURVIVAL | task)
    assert sentence in str(refusal.value)


def test_models_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.name: expected a loss of each patient alone, found Cox"):
        plain(task=SURVIVAL, model={"name": "cox"})
    with pytest.raises(ConfigError, match=r"model.name: expected logistic or mlp"):
        plain(task=SURVIVAL, model={"name": "linear"})
    with pytest.raises(ConfigError, match=r"model.name: expected linear or mlp"):
        plain(task=COUNTS, model={"name": "logistic"})


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({"range": [1, 10]}, r"task.range: expected \[0, high\]"),
        ({"exposure_range": None}, r"task.exposure_range: expected \[low, high\]"),
        ({"exposure_range": [0, 9]}, "task.exposure_range: expected a range above 0"),
        ({"exposure": None}, "task.exposure: expected the column that exposure_range is about"),
    ],
)
def test_counts_need_public_ranges(task: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plain(task=COUNTS | task, model={"name": "linear"})


def test_a_hospital_that_reviews_is_told_how_the_outcome_is_read(tmp_path: Path) -> None:
    def learns(study: Study) -> str:
        site = SiteConfig(tmp_path, "lille", "coord.example.org:8443")
        return next(row.text for row in rows_of(site, study) if row.title == "learns")

    assert learns(plain(task=SURVIVAL)).endswith(
        "time is cut at 0, 90, 365; of a patient's rows, that with the longest follow-up counts"
    )
    assert learns(plain(task=COUNTS, model={"name": "linear"})).endswith(
        "counts above 10 are taken as 10, and none larger is expected"
    )
