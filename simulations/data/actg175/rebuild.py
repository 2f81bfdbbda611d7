"""The command that rebuilds the four made hospitals' CSV files of ACTG 175 from their source.

The source is one file in the PyPI package lifelines 0.30.3; it and the files here are pinned by SHA-256. How the
patients of one trial became those of four hospitals, what the columns mean and where they mislead: README.md here.

    python -m simulations.data.actg175.rebuild --source FILE            write the four files
    python -m simulations.data.actg175.rebuild --source FILE --check    compare only: exit 0 where equal, 1 where not

FILE is the package's `lifelines/datasets/ACTG175.csv`; without it that of the installed lifelines is taken. A source
that is not the pinned one is refused: exit 2, nothing written.

>>> hospital_of("10056", naive=True), hospital_of("10056", naive=False)
('sud', 'est')
"""

import argparse
import csv
import hashlib
import importlib.util
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import DataError
from configs.files import write_atomically

FOLDER = Path(__file__).parent
PACKAGE, SOURCE = "lifelines==0.30.3", "datasets/ACTG175.csv"
SOURCE_SHA256 = "56fba31fa0d7bfbff9667b7149fd96a97c352e72aa582871a62a935e812f0e07"
# The hospitals, with the share of the patients without earlier treatment that goes to each, and of all others.
HOSPITALS = {"nord": (0.15, 0.45), "est": (0.2, 0.3), "sud": (0.35, 0.15), "ouest": (0.3, 0.1)}
SHA256 = {
    "nord": "b29dde413f75a3bb9fec2f11236d0b74cc306e34be8b101878ff32e8c94c39ae",
    "est": "8f6a3ab79484a788fa2d89739af62a9e61f5d45d140bcd8fb4f444086274ff70",
    "sud": "d7206e42563f1dc49418cd520c4b021562bc3a1444bc863775e405117f944f67",
    "ouest": "ddc8b2057ebaf621bb21343bd782cd1be4c093a719468962839f1ee58275fdaf",
}
KEY = "archipel/actg175/"
NO_YES = {"0": "no", "1": "yes"}
WORDS = {
    "sex": ("gender", {"0": "female", "1": "male"}),
    "race": ("race", {"0": "white", "1": "other"}),
    "arm": (
        "arms",
        {"0": "zidovudine", "1": "zidovudine_didanosine", "2": "zidovudine_zalcitabine", "3": "didanosine"},
    ),
    "earlier": ("strat", {"1": "none", "2": "up_to_a_year", "3": "over_a_year"}),
    "hemophilia": ("hemo", NO_YES),
    "drugs": ("drugs", NO_YES),
    "symptoms": ("symptom", NO_YES),
}
NUMBERS = {
    "age": "age",
    "weight": "wtkg",
    "karnofsky": "karnof",
    "cd4": "cd40",
    "cd8": "cd80",
    "days": "days",
}
COLUMNS = ("age", "weight", *WORDS, "karnofsky", "cd4", "cd8", "days", "event")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m simulations.data.actg175.rebuild")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    parser.add_argument("--source", type=Path, metavar="FILE", help=f"{SOURCE} of {PACKAGE}")
    chosen = parser.parse_args(arguments)
    try:
        files = build(source_rows(chosen.source or installed()))
        different = [name for name, content in files.items() if not _holds(FOLDER / name, content)]
        for name in different if not chosen.check else ():
            write_atomically(FOLDER / name, files[name])
    except (DataError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    outcome = f"{', '.join(different)} {'differ' if chosen.check else 'written'}"
    print(outcome if different else "4 files are what the source gives")
    return 1 if chosen.check and different else 0


def installed() -> Path:
    """Return the file in the lifelines that is installed.

    Raises:
        DataError: there is none.
    """
    package = importlib.util.find_spec("lifelines")
    if package is None or package.origin is None:
        raise DataError(
            f"expected {PACKAGE} to be installed, it is not; pip install it, or name its file with --source"
        )
    return Path(package.origin).parent / SOURCE


def source_rows(path: Path) -> list[dict[str, str]]:
    """Return the source's patients in its order.

    Raises:
        DataError: it is not the pinned file.
    """
    content = path.read_bytes()
    _require(SOURCE_SHA256, content, path.name)
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))


def hospital_of(patient: str, *, naive: bool) -> str:
    """Return the hospital that a patient was given to: a keyed hash of the id, within shares by earlier treatment."""
    place = int.from_bytes(hashlib.sha256(f"{KEY}{patient}".encode()).digest()[:8], "big") / 2**64
    for name, shares in HOSPITALS.items():
        place -= shares[0 if naive else 1]
        if place < 0:
            return name
    return name


def build(source: Sequence[dict[str, str]]) -> dict[str, bytes]:
    """Return each file's name and bytes.

    Raises:
        DataError: a file came out otherwise than it was released.
    """
    files = {}
    for hospital in HOSPITALS:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            _patient(row) for row in source if hospital_of(row["pidnum"], naive=row["strat"] == "1") == hospital
        )
        files[f"{hospital}.csv"] = text.getvalue().encode()
        _require(SHA256[hospital], files[f"{hospital}.csv"], f"{hospital}.csv")
    return files


def _patient(row: dict[str, str]) -> dict[str, str]:
    """Return one output row; numbers keep the source's own text."""
    numbers = {ours: row[theirs] for ours, theirs in NUMBERS.items()}
    words = {ours: words[row[theirs]] for ours, (theirs, words) in WORDS.items()}
    return {**numbers, **words, "event": row["cens"]}


def _require(sha256: str, content: bytes, name: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if sha256 and digest != sha256:
        raise DataError(f"{name}: expected SHA-256 {sha256}, found {digest}; nothing was written")


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


if __name__ == "__main__":
    sys.exit(main())
