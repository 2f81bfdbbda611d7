"""A column that says the outcome alone is told to the researcher: in the terminal, in report and card."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.patients import load_patients
from configs.schema import CsvFile
from configs.strict_yaml import dump_yaml, read_yaml
from simulations import cli
from strategies.telltale import telltale
from tests import builders

DATA = Path(__file__).resolve().parents[2] / "simulations" / "data" / "heart_disease"
PRESET = DATA.parents[2] / "configs" / "presets" / "heart_disease_none.yaml"
SITES = ("cleveland", "hungary")
Column = Callable[[np.ndarray, np.random.Generator], np.ndarray]
NUMBER: dict[str, object] = {"type": "number", "range": [0, 10]}
WORD: dict[str, object] = {"type": "category", "values": ["a", "b", "c"]}
SAYS: dict[str, tuple[dict[str, object], Column]] = {
    "the same": (NUMBER, lambda y, _: y),
    "the other way round": (NUMBER, lambda y, _: 9 - 5 * y),
    "a laboratory value after it": (NUMBER, lambda y, rng: 5 + 4 * y + rng.uniform(-1, 1, len(y))),
    "in words of their own": (WORD, lambda y, rng: np.where(y == 1, "b", rng.choice(["a", "c"], len(y)))),
}
SAYS_NOT: dict[str, tuple[dict[str, object], Column]] = {
    "chance": (NUMBER, lambda y, rng: rng.uniform(0, 10, len(y))),
    "a good sign": (NUMBER, lambda y, rng: np.clip(5 + 2 * y + rng.normal(0, 1, len(y)), 0, 10)),
    "a constant": (NUMBER, lambda y, _: np.full(len(y), 3)),
    "a word of chance": (WORD, lambda y, rng: rng.choice(["a", "b", "c"], len(y))),
}


def simulated(folder: Path, feature: dict[str, object], column: Column) -> int:
    """Simulate the study with one more column."""
    document, rng = read_yaml(PRESET), np.random.default_rng(0)
    document["features"] = {"age": document["features"]["age"], "added": feature}
    document["cohort"] = {site: document["cohort"][site] for site in SITES}
    document["training"] |= {"rounds": 2, "quorum": 2}
    document["simulation"]["sites"] = {site: {"connector": "csv", "path": f"{site}.csv"} for site in SITES}
    for site in SITES:
        head, *lines = (DATA / f"{site}.csv").read_text("utf-8").splitlines()
        y = np.array([int(line.split(",")[head.split(",").index("disease")]) for line in lines])
        rows = [f"{line},{value}" for line, value in zip(lines, column(y, rng), strict=True)]
        (folder / f"{site}.csv").write_text("\n".join([f"{head},added", *rows]) + "\n", "utf-8")
    (folder / "study.yaml").write_text(dump_yaml(document), "utf-8")
    return cli.main(["simulate", str(folder / "study.yaml"), "--no-baselines", "--out", str(folder)])


@pytest.mark.parametrize("name", SAYS)
def test_a_column_that_says_the_outcome_alone_is_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulated(tmp_path, *SAYS[name]) == 0
    warning = "says the outcome alone: see whether it is the outcome in disguise"
    assert f"added {warning}" in capsys.readouterr().out
    for page in ("report.html", "model_card.md"):
        assert f"Added {warning}" in (tmp_path / "latest" / page).read_text("utf-8")


@pytest.mark.parametrize("name", SAYS_NOT)
def test_a_column_that_does_not_is_not(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulated(tmp_path, *SAYS_NOT[name]) == 0
    assert "in disguise" not in capsys.readouterr().out


def test_a_record_whose_numbers_say_the_outcome_is_named_once(tmp_path: Path) -> None:
    rows = ["id,scan,disease"]
    for number in range(40):
        np.save(tmp_path / f"{number}.npy", np.full((16, 16), 0.2 + 0.6 * (number % 2)))
        rows.append(f"p{number},{number}.npy,{number % 2}")
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n", "utf-8")
    picture = {"type": "image", "reader": "npy", "size": [16, 16], "window": [0, 1], "encoder": "texture"}
    study = builders.study(patient_id="id", task={"type": "binary", "target": "disease"}, features={"scan": picture})
    people = load_patients(CsvFile(tmp_path / "index.csv", root=tmp_path), study, "lille")
    assert len(study.inputs) > 100
    assert telltale(study, [people.train, people.test]) == ("scan",)
