"""`archipel-site review --data`: what a study would read, told to the person who asks before anybody approves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.admission import Admissions
from client.cli import main
from client.connectors.ids import all_normal, could_be_alike, hashed, normal
from client.connectors.notes import Notes
from client.id_hashes import id_key
from client.patients import load_patients
from configs import journal
from configs.schema import ID_STEPS, CsvFile, Study
from configs.site import SiteConfig
from tests.builders import counting, study
from tests.consortium import Consortium

Output = pytest.CaptureFixture[str]
MARKER = "Durand-1937"
HEADER = "ipp,age,sex,disease"
ROWS = [f"{n:05d},{20 + n % 60},{('female', 'male')[n % 2]},{n % 2}" for n in range(100)]


def hospital(folder: Path, rows: Sequence[str], *studies: Study, **datasets: Any) -> SiteConfig:
    """A hospital where these studies wait, with one file for all of them unless `datasets` says otherwise."""
    (folder / "patients.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    sources = {s.name: {"connector": "csv", "path": str(folder / "patients.csv"), "identity": "all"} for s in studies}
    config = Consortium(folder).hospital("lille", datasets=sources | datasets)
    admissions = Admissions.open(config.admissions)
    for one in studies:
        admissions.propose(one.sha256, one.name, one.canonical)
    admissions.close()
    return config


def shown(config: SiteConfig, capsys: Output, *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["-C", str(config.folder), *words]) == code
    out, err = capsys.readouterr()
    assert MARKER not in out + err
    return " ".join((out + err).split())


def lines(folder: Path, rows: Sequence[str], chosen: Study) -> str:
    """What the process that looks prints of these rows, here without a process of its own."""
    (folder / "patients.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    notes = Notes(thorough=True)
    load_patients(CsvFile(folder / "patients.csv"), chosen, "lille", notes)
    text = "\n".join(notes.lines())
    assert MARKER not in text
    return text


SEEN: dict[str, tuple[list[str], bool, list[str]]] = {  # rows, whether a row is a patient, what is told
    "usual": (ROWS, False, ["100 rows, 100 patients, of 100 rows that count"]),
    "another unit": (
        [row.replace(f",{20 + n % 60},", f",{1000 + n},") for n, row in enumerate(ROWS)],
        False,
        ["age: MOST VALUES LIE OUTSIDE the study's range: is it another unit?", "age: 100 % outside its range, moved"],
    ),
    "some outside": (["00100,95,male,1", *ROWS[1:]], False, ["age: 1 % outside its range, moved to the edge"]),
    "one of very many outside": (
        [*[f"{n:05d},{20 + n % 60},male,{n % 2}" for n in range(300)], "00900,95,male,1"],
        False,
        ["age: under 1 % outside its range, moved to the edge"],
    ),
    "all but one outside": (
        [*[f"{n:05d},95,male,{n % 2}" for n in range(300)], "00900,50,male,1"],
        False,
        ["age: over 99 % outside its range, moved to the edge"],
    ),
    "a bad cell": (
        ["00100,NR,male,1", *ROWS[1:]],
        False,
        ["age: 1 of 100 rows is no number that can be read (line 2)"],
    ),
    "an unlisted word": ([f"00100,50,{MARKER},1", *ROWS[1:]], False, ["sex: 1 of 100 rows is no value that the study"]),
    "no outcome": (["00100,50,male,", *ROWS[1:]], False, ["1 row left out: without an outcome", "99 patients"]),
    "ghost rows": ([*ROWS, *[",,,"] * 40], False, ["40 rows with nothing in them", "100 patients"]),
    "torn": ([*ROWS, "1,2"], False, ["1 row left out: another number of cells, or a broken quotation (line 102)"]),
    "a quotation that swallows": (
        [*ROWS[:50], '"00100,50,male,1', *ROWS[50:], '00101",50,male,1'],
        False,
        [
            "100 patients",
            "2 rows left out: another number of cells, or a broken quotation (lines 52, 103)",
            "of these, 1 with a quotation that a row breaks off (line 52): export again",
        ],
    ),
    "unknown of all": ([row.replace("male", "").replace("fe", "") for row in ROWS], False, ["sex: UNKNOWN OF ALL"]),
    "a row is not a patient": (
        [f"{n % 30:03d},{20 + n % 60},male,{n % 2}" for n in range(120)],
        True,
        [
            "ONE ROW COUNTS AS ONE PATIENT, but column 'ipp' has 30 different values in 120 rows",
            "one row counts as one patient: the study names no column of ids",
        ],
    ),
    "one id, two spellings": (
        [*ROWS, *[f"{n},{20 + n % 60},male,{n % 2}" for n in range(50)], '"=""00051""",50,male,1', "52.0,50,male,1"],
        False,
        ["152 patients", "52 patient ids differ from another only in zeros, case or invisible characters"],
    ),
    "twice": (ROWS * 2, False, ["100 rows equal to another, word for word: an export twice, or a patient twice?"]),
    "nobody": ([], False, ["no patient at all: only noise would leave"]),
}


@pytest.mark.parametrize(("rows", "by_row", "told"), SEEN.values(), ids=SEEN)
def test_a_person_who_asks_is_told_what_a_study_would_read_without_a_value(
    rows: list[str], by_row: bool, told: list[str], tmp_path: Path
) -> None:
    text = lines(tmp_path, rows, study() if by_row else study(patient_id="ipp"))
    for sentence in told:
        assert sentence in text, text


def test_the_page_says_which_share_was_announced_and_from_where(tmp_path: Path, capsys: Output) -> None:
    announced = {"outcome_share": 0.3, "outcome_share_source": "literature"}
    config = hospital(tmp_path, ROWS, study(task=announced))
    assert "announced: 0.3 of all patients have the outcome (literature)" in shown(config, capsys, "review")


def test_the_command_tells_it_for_trainings_and_for_statistics(tmp_path: Path, capsys: Output) -> None:
    one, other = study(patient_id="ipp"), counting(name="counted")
    config = hospital(tmp_path, ROWS, one, other)
    told = "100 rows, 100 patients, of 100 rows that count 100 patients to train on, 0 kept aside for the test"
    assert told in shown(config, capsys, "review", "--data", one.sha256[:20])
    assert "100 rows, 100 patients" in shown(config, capsys, "review", "--data", other.sha256)


def test_the_look_is_in_the_journal_with_who_asked_and_without_what_was_told(tmp_path: Path, capsys: Output) -> None:
    chosen = study()
    config = hospital(tmp_path, ROWS, chosen)
    shown(config, capsys, "review")
    assert not config.journal.exists() or "data reviewed" not in config.journal.read_text()
    shown(config, capsys, "review", "--data", chosen.sha256)
    (record,) = [record for record in journal.read(config.journal) if record.kind == "data reviewed"]
    assert record.facts["study"] == chosen.sha256
    assert record.facts["by"]
    assert "100" not in str({k: v for k, v in record.facts.items() if k in ("name", "by")})


def test_a_look_at_a_header_that_does_not_fit_says_so(tmp_path: Path, capsys: Output) -> None:
    chosen = study(patient_id="nip")
    config = hospital(tmp_path, ROWS, chosen)
    assert "columns 'nip' are not in the header" in shown(config, capsys, "review", "--data", chosen.sha256, code=2)
    assert "expected the digest of one study" in shown(config, capsys, "review", "--data", code=2)


def test_the_page_says_what_counts_as_one_patient(tmp_path: Path, capsys: Output) -> None:
    by_row, by_id = study(), study(patient_id="ipp", name="ids")
    alike = study(patient_id={"column": "ipp", "normalise": ["zeros", "nfkc"]}, name="alike")
    config = hospital(tmp_path, ROWS, by_row, by_id, alike)
    assert "ONE ROW COUNTS AS ONE PATIENT" in shown(config, capsys, "review", by_row.sha256)
    assert "patient all rows of one 'ipp' never" in shown(config, capsys, "review", by_id.sha256)
    assert "all rows of one 'ipp', written alike by nfkc, zeros" in shown(config, capsys, "review", alike.sha256)


# An extract for each study


def test_patients_of_two_identities_are_told_with_their_share(tmp_path: Path, capsys: Output) -> None:
    first, second = study(patient_id="ipp", name="first"), study(patient_id="ipp", name="second")
    other = tmp_path / "other.csv"
    other.write_text("\n".join([HEADER, *[f"{n},50,male,1" for n in range(75, 175)]]))  # without zeros in front
    datasets = {"second": {"connector": "csv", "path": str(other), "identity": "second"}}
    config = hospital(tmp_path, ROWS, first, second, **datasets)
    assert "two budgets" not in shown(config, capsys, "review", "--data", first.sha256)
    told = "25 % of these patients (25) are in the data set of first too, under another identity ('all', here 'second')"
    assert told in shown(config, capsys, "review", "--data", second.sha256)
    assert "are in the data set of second too" in shown(config, capsys, "review", "--data", first.sha256)
    Admissions.open(config.admissions).decide(first.sha256, "approved")
    assert "they have two budgets; give both data sets one identity" in shown(config, capsys, "check", code=2)


def test_what_is_kept_of_ids_tells_nothing_without_the_hospitals_key(tmp_path: Path, capsys: Output) -> None:
    chosen = study(patient_id="ipp")
    config = hospital(tmp_path, ROWS, chosen)
    shown(config, capsys, "review", "--data", chosen.sha256)
    key = id_key(config)
    assert (config.id_key.stat().st_mode & 0o777, len(key)) == (0o600, 32)
    (path,) = config.ids.glob("*.hashes")
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes()) == 16 * 100
    assert hashed(["00007"], key) == hashed(["7.0"], key)
    assert hashed(["00007"], bytes(32)).isdisjoint(hashed(["00007"], key))


# One id, several spellings


@pytest.mark.parametrize(
    ("steps", "patients"),
    [(["nfkc"], 5), (["case"], 8), (["zeros"], 6), (["nfkc", "case"], 5), (["nfkc", "case", "zeros"], 2)],
)
def test_spellings_are_one_patient_as_far_as_the_study_says(steps: list[str], patients: int, tmp_path: Path) -> None:
    spellings = ["012a", "12A", "12", "012", "12.0", '"=""12"""', "\u200b12", "\uff11\uff12", "12"]
    rows = [f"{spelling},50,male,1" for spelling in spellings]
    text = lines(tmp_path, rows, study(patient_id={"column": "ipp", "normalise": steps}))
    assert f"9 rows, {patients} patients" in text


ID = st.text(st.sampled_from("0019aZ.-'= \n\u200bé"), max_size=6)


@given(st.lists(ID, max_size=6), st.sets(st.sampled_from(ID_STEPS)))
def test_many_ids_are_normal_as_each_of_them_is(ids: list[str], steps: set[str]) -> None:
    assert all_normal(ids, steps) == [normal(cell, steps) for cell in ids]
    different = {*ids} - {""}
    assert could_be_alike(ids) or len({normal(cell, ID_STEPS) for cell in different} - {""}) == len(different)


@given(st.text(max_size=12))
def test_an_id_that_was_written_alike_stays_as_it_is(cell: str) -> None:
    once = normal(cell, ID_STEPS)
    assert normal(once, ID_STEPS) == once


# Approval


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"privacy": {"epsilon": 9.0}}, "it needs epsilon"),
        ({"cohort": {"lille": 40}}, "the study announces 40 of patients of this hospital (cohort), fewer than 50"),
        ({"patient_id": "nip"}, "columns 'nip' are not in the header"),
        ({"privacy": {"mode": "none"}}, "it trains without differential privacy"),
    ],
    ids=["the ledger", "the announced size", "the header", "the policy"],
)
def test_what_public_facts_keep_from_running_cannot_be_approved(
    changes: dict[str, Any], why: str, tmp_path: Path, capsys: Output
) -> None:
    chosen = study(**changes)
    config = hospital(tmp_path, ROWS, chosen)
    assert why in shown(config, capsys, "approve", chosen.sha256, code=2)
    assert [a.state for a in Admissions.open(config.admissions).all()] == ["waiting"]


@pytest.mark.parametrize("rows", [[], ROWS[:3], [row.replace(",1", ",7") for row in ROWS]], ids=["none", "few", "odd"])
def test_no_row_keeps_a_study_from_being_approved(rows: list[str], tmp_path: Path, capsys: Output) -> None:
    chosen = study(patient_id="ipp")
    assert "approved: " in shown(hospital(tmp_path, rows, chosen), capsys, "approve", chosen.sha256)
