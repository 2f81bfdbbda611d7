"""Small odd studies as people bring them: the right value, or the right sentence."""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from client.admission import Admissions
from client.ledger import Ledger
from configs.errors import RunError
from configs.records.result import TrainingResult, read_result
from configs.strict_yaml import dump_yaml
from server.membership import Membership
from simulations import cli
from simulations.tables import print_table
from tests.server.test_report import card, heart, regression, report, words

Output = pytest.CaptureFixture[str]
WITHOUT_PRIVACY = {"mode": "none"}
WORDS = ("jamais", "sevré", "actif")


def written(folder: Path, rows: int = 120, header: bool = True, **changes: Any) -> Path:
    """A study of two hospitals with a length of stay, a death, and their made-up patients."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["ipp", "age", "tabac", "deces", "jours"]
    for place, site in enumerate(("lille", "lyon")):
        lines = [
            f"{place}{n:04},{30 + n % 60},{WORDS[n % 3]},{int((n * 7) % 10 < 4)},{4 + (n % 60) // 4}"
            for n in range(rows)
        ]
        (folder / f"{site}.csv").write_text("\n".join([*([",".join(names)] if header else []), *lines]) + "\n", "utf-8")
    document: dict[str, Any] = {
        "name": "deces",
        "purpose": "Predict death within 30 days of a made-up admission",
        "task": {"type": "binary", "target": "deces"},
        "patient_id": "ipp",
        "features": {
            "age": {"type": "number", "range": [18, 100], "unit": "years"},
            "tabac": {"type": "category", "values": list(WORDS)},
        },
        "cohort": {"lille": rows, "lyon": rows},
        "model": {"name": "logistic"},
        "training": {
            "strategy": {"name": "fedavg"},
            "rounds": 3,
            "local": {"batch_size": "full", "learning_rate": 1.0},
            "quorum": 2,
            "round_timeout_s": 600,
        },
        "privacy": {"mode": "local", "epsilon": 3.0, "delta": 1e-5, "clip_norm": 0.5, "spare": 2},
        "evaluation": {"test_fraction": 0.3, "metrics": ["auroc", "accuracy"]},
        "simulation": {
            "sites": {site: {"connector": "csv", "path": f"{site}.csv"} for site in ("lille", "lyon")},
        },
    }
    for section, value in changes.items():
        nested = isinstance(value, dict) and isinstance(document.get(section), dict) and value != WITHOUT_PRIVACY
        document[section] = document[section] | value if nested else value
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document), "utf-8")
    return path


def simulated(study: Path, out: Path, *options: str) -> int:
    return cli.main(["simulate", str(study), "--no-baselines", "--out", str(out), *options])


# A model that diverges


REGRESSION = {
    "task": {"type": "regression", "target": "jours", "range": [4, 20], "unit": "days"},
    "model": {"name": "linear"},
    "evaluation": {"test_fraction": 0.3, "metrics": ["mae", "r2"]},
}


def diverging(rate: float) -> dict[str, Any]:
    return REGRESSION | {"training": {"local": {"batch_size": "full", "learning_rate": rate}}}


@pytest.mark.parametrize("privacy", [WITHOUT_PRIVACY, {}], ids=["without privacy", "private"])
def test_a_model_worse_than_predicting_the_middle_is_called_so_everywhere(
    tmp_path: Path, capsys: Output, privacy: dict[str, Any]
) -> None:
    changes = diverging(1000.0) | ({"privacy": privacy} if privacy else {})
    study = written(tmp_path, **changes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulated(study, tmp_path / "out")
    said = capsys.readouterr()
    assert "WORSE THAN predicting the middle of the range for every patient" in said.out
    assert "RuntimeWarning" not in said.err
    run = (tmp_path / "out" / "latest").resolve()
    for name in ("report.html", "model_card.md"):
        text = (run / name).read_text("utf-8")
        if "COMPLETE" in text:
            assert "worse than predicting the middle of the range" in text or "unfinished" in text


def test_a_model_that_learns_is_not_called_worse(tmp_path: Path, capsys: Output) -> None:
    assert simulated(written(tmp_path, **diverging(0.1), privacy=WITHOUT_PRIVACY), tmp_path / "out") == 0
    assert "WORSE" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "guess", "says"),
    [(9.0, 4.0, True), (4.1, 4.0, True), (4.0, 4.0, False), (3.0, 4.0, False), (3.0, None, False)],
)
def test_report_and_card_hold_an_error_against_the_middle(
    tmp_path: Path, value: float, guess: float | None, says: bool
) -> None:
    metrics = regression()
    found = {"value": value, "low": value - 0.1, "high": value + 0.1}
    metrics["models"]["federated"] |= {"metrics": {"mae": found}, "guess": guess}
    for text in (words(report(tmp_path, metrics)), card(tmp_path, metrics)):
        assert ("worse than predicting the middle of the range for every patient (4.00 days)" in text) == says


@pytest.mark.parametrize(("auroc", "says"), [(0.31, True), (0.5, False), (0.86, False)])
def test_a_model_below_chance_is_called_so(tmp_path: Path, auroc: float, says: bool) -> None:
    metrics = heart()
    metrics["models"]["federated"] |= {"auroc": None, "metrics": {"auroc": {"value": auroc, "low": 0.2, "high": 0.9}}}
    assert ("That is worse than chance." in words(report(tmp_path, metrics))) == says


def training_result(metrics: dict[str, Any]) -> TrainingResult:
    result = read_result(metrics)
    assert isinstance(result, TrainingResult)
    return result


@pytest.mark.parametrize(("low", "high", "says"), [(0.5, 0.5, True), (0.4, 0.6, False), (0.5, 0.6, False)])
def test_a_model_that_predicts_the_same_for_every_patient_is_called_so(
    tmp_path: Path, capsys: Output, low: float, high: float, says: bool
) -> None:
    metrics = heart()
    metrics["models"]["federated"] |= {"auroc": None, "metrics": {"auroc": {"value": 0.5, "low": low, "high": high}}}
    assert ("It predicts the same for every patient." in words(report(tmp_path, metrics))) == says
    print_table(training_result(metrics))
    assert ("THE SAME PREDICTION FOR EVERY PATIENT" in capsys.readouterr().out) == says


def test_figures_of_a_model_that_diverged_are_short_and_leave_room_for_names(capsys: Output) -> None:
    metrics = regression() | {"why": ""}
    huge = {"value": 3.7e36, "low": 1.2e36, "high": 9.9e37}
    for model in metrics["models"].values():
        model |= {"per_site": dict.fromkeys(model["per_site"], huge), "metrics": {"mae": huge}}
    print_table(training_result(metrics))
    said = capsys.readouterr().out
    assert "3.7e+36" in said
    for site in metrics["sites"]:
        assert site["site"] in said
    assert max(len(word) for word in said.split() if word[0].isdigit()) < 30


# Paths


def test_a_path_that_is_too_long_for_a_data_base_is_called_too_long_before_anything_is_trained(
    tmp_path: Path, capsys: Output
) -> None:
    deep = tmp_path.joinpath(*["a" * 100] * 5)
    study = written(deep)
    assert simulated(study, deep / "out") == 2
    said = capsys.readouterr().err
    assert "SQLite takes 490: choose a folder with a shorter path" in said
    assert not (deep / "out").exists()
    assert simulated(study, tmp_path / "out") == 0  # the study may lie deep


@pytest.mark.parametrize("opened", [Ledger.open, Admissions.open, Membership.open])
def test_every_data_base_says_that_its_path_is_too_long(tmp_path: Path, opened: Any) -> None:
    deep = tmp_path.joinpath(*["a" * 100] * 6)
    deep.mkdir(parents=True)
    with pytest.raises(RunError, match="SQLite takes 490: choose a folder with a shorter path"):
        opened(deep / "kept.sqlite")


@pytest.mark.parametrize("name", ["Étude n° 1 (copie) \N{EN DASH} été", "a b", "it's", "100 %"])
def test_folders_as_people_name_them_work(tmp_path: Path, name: str) -> None:
    study = written(tmp_path / name)
    assert simulated(study, tmp_path / name / "résultats finaux") == 0
    assert cli.main(["compare", str(tmp_path / name / "résultats finaux" / "latest")]) == 0


# What worked and must go on to work


def test_without_a_header_no_value_is_shown_as_a_columns_name(tmp_path: Path, capsys: Output) -> None:
    assert simulated(written(tmp_path, header=False), tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "not in the header" in said.err
    for value in ("00000", "sevré", "jamais"):
        assert value not in said.out + said.err.replace(str(tmp_path), "")


def test_a_header_twice_is_no_patient(tmp_path: Path) -> None:
    study = written(tmp_path)
    path = tmp_path / "lille.csv"
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([*lines[:60], lines[0], *lines[60:]]) + "\n", "utf-8")
    assert simulated(study, tmp_path / "twice") == 0
    path.write_text("\n".join(lines) + "\n", "utf-8")
    assert simulated(study, tmp_path / "once") == 0
    models = [(tmp_path / out / "latest" / "model.safetensors").read_bytes() for out in ("twice", "once")]
    assert models[0] == models[1]


@pytest.mark.parametrize("variables", [{"HOME": None}, {"HOME": "/nonexistent"}, {"TMPDIR": None}])
def test_no_home_and_no_temporary_folder_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str | None]
) -> None:
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert simulated(written(tmp_path), tmp_path / "out") == 0


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, capsys: Output) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    study = written(tmp_path)
    (tmp_path / "ro").mkdir(mode=0o555)
    assert simulated(study, tmp_path / "ro" / "out") == 2
    assert "Permission denied" in capsys.readouterr().err


def test_columns_as_people_name_them_stay_text_in_report_and_card(tmp_path: Path) -> None:
    odd = {"Créat | <j1>": "age", "Tabac; sevré?": "tabac"}
    study = written(tmp_path)
    text = study.read_text("utf-8")
    for new, old in odd.items():
        text = text.replace(f"  {old}:", f'  "{new}":')
        for site in ("lille", "lyon"):
            path = tmp_path / f"{site}.csv"
            lines = path.read_text("utf-8").split("\n", 1)
            path.write_text(lines[0].replace(f",{old},", f",{new},") + "\n" + lines[1], "utf-8")
    study.write_text(text, "utf-8")
    assert simulated(study, tmp_path / "out") == 0
    run = (tmp_path / "out" / "latest").resolve()
    shown = (run / "model_card.md").read_text("utf-8")
    assert "Créat \\| &lt;j1&gt;" in shown
    assert "<j1>" not in (run / "report.html").read_text("utf-8")
