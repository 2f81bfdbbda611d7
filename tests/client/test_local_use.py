"""A study's final model at work at the hospital: scores, recalibration and figures that never leave."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import local_use, recalibration, scoring
from client.admission import Admissions
from client.after_end import personal_path
from client.audit import Audit
from client.cli import main
from client.connectors.features import rows_of_features
from client.ending import keep
from client.enrol import load_signing_key
from client.folder import SiteFolder
from client.kept_models import model_path
from client.patients import load_patients
from client.scoring import PREDICT, Request, Used, file_of_rows
from configs import journal
from configs.errors import DataError, RunError
from configs.files import write_atomically
from configs.frame import Frame
from configs.records import fields
from configs.records.exported import Exported
from configs.records.local_use import Recalibration
from configs.records.site_journal import EvaluatedHere, Predicted
from configs.schema import CsvFile, Study
from configs.schema.dialect import Dialect
from configs.seal import COORDINATOR, Statement
from configs.site import SiteConfig
from strategies.exchange.messages import content, to_frame
from strategies.exchange.tensors import safetensors
from strategies.learning import learning_of
from strategies.models.registry import study_parameters
from tests import builders
from tests.consortium import Consortium

Output = pytest.CaptureFixture[str]
MARKER = "Durand-1937"
CHANCE = np.random.default_rng(3)
ROWS = [(20 + n % 60, ("female", "male")[n % 2], int(CHANCE.random() < 0.2 + 0.6 * (n % 60) / 60)) for n in range(400)]


@pytest.fixture(scope="module")
def study() -> Study:
    return builders.study(name="heart", cohort={"lille": 400}, evaluation={"test_fraction": 0.3})


@pytest.fixture(scope="module")
def model(study: Study) -> dict[str, Any]:
    return builders.random_arrays(study_parameters(study), seed=1)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, study: Study, model: dict[str, Any]) -> SiteConfig:
    """A hospital with 400 patients, which has learned the end of the study."""
    folder = tmp_path_factory.mktemp("hospital")
    (folder / "patients.csv").write_text("age,sex,disease\n" + "".join(f"{a},{s},{y}\n" for a, s, y in ROWS))
    (folder / "new.csv").write_text(f"sex,note,age\nmale,{MARKER},50\nfemale,,\nnever,,1000\n")
    config = Consortium(folder).hospital(
        "lille", datasets={"heart": {"connector": "csv", "path": str(folder / "patients.csv")}}
    )
    admissions = Admissions.open(config.admissions)
    admissions.propose(study.sha256, study.name, study.canonical)
    admissions.decide(study.sha256, "approved")
    admissions.close()
    Audit(config, load_signing_key(config))
    keep(config, study, statement(study), end_of(study, model))
    return config


def statement(study: Study) -> Statement:
    return Statement(COORDINATOR, "lille", "run-1", 0, study.sha256, "m", "c", "", 0, "", "")


def end_of(study: Study, model: dict[str, Any]) -> Frame:
    expected = study_parameters(study)
    about: dict[str, str | int] = {"study_sha256": study.sha256, "outcome": "COMPLETE", "code": 0}
    records = content("end", about | {"rounds": study.training.rounds}, model, expected)
    return to_frame("end", records, expected)


def typed(config: SiteConfig, capsys: Output, *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["-C", str(config.folder), *words]) == code
    out, err = capsys.readouterr()
    assert MARKER not in out + err
    return out + err


def export_of(study: Study, model: dict[str, Any], path: Path, /, **changes: Any) -> Path:
    words = ("file", "format", "study", "purpose", "task", "model", "scaling", "outcome", "privacy", "archipel")
    about: dict[str, Any] = dict.fromkeys(words, "x") | {"features": [], "inputs": [], "prediction": []}
    digest = hashlib.sha256(b"".join(bytes(piece) for piece in safetensors(model))).hexdigest()
    about |= {"rounds": 1, "rounds_planned": 1, "study_sha256": study.sha256, "model_sha256": digest} | changes
    text = json.dumps(fields.plain(fields.read(Exported, about)))
    pieces = safetensors(model, {"archipel": text})
    path.write_bytes(b"".join(bytes(piece) for piece in pieces))
    return path


def test_new_patients_are_scored_and_nothing_but_a_private_file_and_a_record_is_left(
    hospital: SiteConfig, study: Study, model: dict[str, Any], tmp_path: Path, capsys: Output
) -> None:
    out, data = tmp_path / "scores.csv", hospital.folder.parent / "new.csv"
    sent = sorted(hospital.outbox.glob("*")) if hospital.outbox.exists() else []
    said = typed(hospital, capsys, "predict", study.sha256[:20], "--data", str(data), "--out", str(out))
    assert "3 rows scored" in said
    assert "noise" not in said
    assert "sex: 1 of 3 rows is no value that the study lists (line 4)" in said
    assert out.stat().st_mode & 0o777 == 0o600
    rows = list(csv.reader(out.read_text().splitlines()))
    assert rows[0] == ["line", "probability of disease = 0", "probability of disease = 1", "columns unknown"]
    assert [(row[0], row[3]) for row in rows[1:]] == [("2", "0"), ("3", "1"), ("4", "1")]
    x = np.array([[2 * 30 / 70 - 1, 1], [0, 0], [1, 0]], np.float32)  # as training reads such cells
    expected = learning_of(study).predict(model, x)
    assert np.array_equal(np.array([row[1:3] for row in rows[1:]], float), expected)
    noted = [entry for record in journal.read(hospital.journal) if (entry := record.of(Predicted))]
    assert [(entry.study, entry.rows, entry.recalibrated) for entry in noted] == [(study.sha256, 3, False)]
    assert sent == (sorted(hospital.outbox.glob("*")) if hospital.outbox.exists() else [])
    assert "expected a new file" in typed(hospital, capsys, "predict", study.sha256[:20], "--out", str(out), code=2)


def test_new_rows_are_read_as_site_yaml_maps_the_data_set(hospital: SiteConfig, study: Study, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("AGE;sex\n50,5;H\n", "cp1252")
    mapped = CsvFile(
        tmp_path / "all.csv",
        dialect=Dialect("french", ";", "excel"),
        columns=(("age", "AGE"),),
        words=(("sex", (("H", "male"),)),),
    )
    config = replace(hospital, datasets=(replace(hospital.datasets[0], source=mapped),))
    rows = rows_of_features(file_of_rows(config, study, tmp_path / "new.csv"), study)
    assert (rows.table.numbers["age"].tolist(), rows.table.categories["sex"].tolist()) == ([50.5], [1])


def test_probabilities_are_recalibrated_on_the_hospitals_own_training_patients(
    hospital: SiteConfig, study: Study, tmp_path: Path, capsys: Output
) -> None:
    data, out = hospital.folder.parent / "new.csv", tmp_path / "scores.csv"
    words = ("predict", study.sha256[:20], "--data", str(data), "--out", str(out), "--recalibrate")
    assert "recalibrated (logistic) on" in typed(hospital, capsys, *words)
    path = hospital.personal / study.sha256 / "recalibration.json"
    assert path.stat().st_mode & 0o777 == 0o600
    kept = fields.read(Recalibration, json.loads(path.read_bytes()))
    train = load_patients(CsvFile(hospital.folder.parent / "patients.csv"), study, "lille").train
    assert kept.events + kept.others == train.count
    scored = np.array([row[2] for row in list(csv.reader(out.read_text().splitlines()))[1:]], float)
    used = Used(builders.random_arrays(study_parameters(study), seed=1), "", "")
    raw = scoring.predicted(hospital, study, used, Request(PREDICT, study.sha256, str(data)))
    uncalibrated = np.array([row.split(",")[2] for row in raw.csv.splitlines()[1:]], float)
    assert np.allclose(scored, recalibration.apply(kept, uncalibrated))


def test_the_model_is_judged_on_test_patients_here_and_a_person_is_named(
    hospital: SiteConfig, study: Study, capsys: Output
) -> None:
    said = json.loads(typed(hospital, capsys, "evaluate", study.sha256[:20], "--json"))
    test = load_patients(CsvFile(hospital.folder.parent / "patients.csv"), study, "lille").test
    assert said["patients"] == test.count
    auroc = said["metrics"]["auroc"]
    assert auroc["low"] < auroc["value"] < auroc["high"]
    assert sum(part["count"] for part in said["calibration"]) == test.count
    noted = [entry for record in journal.read(hospital.journal) if (entry := record.of(EvaluatedHere))]
    assert [entry.study for entry in noted] == [study.sha256]
    assert noted[0].by


def test_a_model_of_another_study_is_refused_by_its_digest(
    hospital: SiteConfig, study: Study, model: dict[str, Any], tmp_path: Path, capsys: Output
) -> None:
    other = export_of(replace(study, seed=9), model, tmp_path / "other.safetensors")
    words = ("evaluate", study.sha256[:20], "--model", str(other))
    assert f"expected a model of study {study.sha256[:20]}" in typed(hospital, capsys, *words, code=2)
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(model_path(hospital, study.sha256).read_bytes())
    with pytest.raises(RunError, match="expected a file of archipel export"):
        scoring.exported(plain.read_bytes(), "plain")
    same = export_of(study, model, tmp_path / "same.safetensors")
    assert scoring.exported(same.read_bytes(), "same").study_sha256 == study.sha256


def test_a_file_that_names_another_model_than_it_holds_is_refused_and_its_words_stay_on_their_line(
    hospital: SiteConfig, study: Study, model: dict[str, Any], tmp_path: Path, capsys: Output
) -> None:
    """Whoever writes the file also writes its words: what the journal will name must be what scores."""
    genuine = export_of(study, model, tmp_path / "genuine.safetensors", mark="old\nall is well")
    said = typed(hospital, capsys, "evaluate", study.sha256[:20], "--model", str(genuine))
    assert "old\\nall is well" in said
    digest = hashlib.sha256(model_path(hospital, study.sha256).read_bytes()).hexdigest()
    moved = {name: array + 1 for name, array in model.items()}
    forged = export_of(study, moved, tmp_path / "forged.safetensors", model_sha256=digest)
    words = ("evaluate", study.sha256[:20], "--model", str(forged))
    assert "expected the arrays of the model that it names" in typed(hospital, capsys, *words, code=2)
    other = export_of(replace(study, seed=9), model, tmp_path / "other.safetensors", study="x\nall is well")
    words = ("evaluate", study.sha256[:20], "--model", str(other))
    assert "x\\nall is well" in typed(hospital, capsys, *words, code=2)


def test_the_hospitals_own_model_is_used_where_there_is_one(
    hospital: SiteConfig, study: Study, model: dict[str, Any]
) -> None:
    with pytest.raises(RunError, match="found no such model"):
        scoring._personal(hospital, study)
    path = personal_path(hospital, study.sha256, study.training.rounds)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, b"".join(bytes(piece) for piece in safetensors({n: a + 1 for n, a in model.items()})))
    own = scoring._personal(hospital, study).arrays
    path.unlink()
    assert all(np.array_equal(own[name], array + 1) for name, array in model.items())
    with pytest.raises(RunError, match="expected one of the two"):
        list(evaluate_here(hospital, path))


def evaluate_here(hospital: SiteConfig, path: Path) -> Any:
    digest = next(hospital.models.glob("*.json")).stem
    return local_use.evaluate(SiteFolder.open(hospital.folder), local_use.Wanted(digest, path, personal=True), "me")


def test_too_few_events_recalibrate_nothing() -> None:
    with pytest.raises(DataError, match=r"code 130: expected at least 50 .* found 49 and 500"):
        recalibration.fit(np.full(549, 0.3), np.zeros(549), 49, 500)


def test_a_recalibrated_model_is_right_in_the_large_and_order_is_kept() -> None:
    chance = np.random.default_rng(5)
    truth = chance.random(4000)
    wrong = truth**2  # too low
    y = (chance.random(4000) < truth).astype(float)
    events = int(y.sum())
    few = recalibration.fit(wrong[:400], y[:400], int(y[:400].sum()), 400 - int(y[:400].sum()))
    many = recalibration.fit(wrong, y, events, 4000 - events)
    assert (few.method, many.method) == ("logistic", "isotonic")
    for fitted, scores, outcomes in ((few, wrong[:400], y[:400]), (many, wrong, y)):
        right = recalibration.apply(fitted, scores)
        assert abs(right.mean() - outcomes.mean()) < 1e-3
        assert ((right - outcomes) ** 2).mean() < ((scores - outcomes) ** 2).mean()
        assert (np.diff(right[np.argsort(scores)]) >= -1e-12).all()


def test_without_a_kept_model_nothing_is_scored(hospital: SiteConfig, study: Study, tmp_path: Path) -> None:
    elsewhere = replace(hospital, folder=tmp_path)
    with pytest.raises(RunError, match="its end has not been told to this hospital"):
        scoring._used(elsewhere, study, b"", "")


def test_scores_are_written_whole_or_not_at_all(
    hospital: SiteConfig, study: Study, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes, **options: Any) -> None:
        write_atomically(path, lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")), **options)

    monkeypatch.setattr("client.local_use.write_atomically", full)
    data, out = hospital.folder.parent / "new.csv", tmp_path / "scores.csv"
    typed(hospital, capsys, "predict", study.sha256[:20], "--data", str(data), "--out", str(out), code=2)
    assert list(tmp_path.iterdir()) == []
