"""`archipel-site rehearse`: a whole study on this hospital's own data; nothing is booked, sent or left behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client import rehearsal
from client.cli import main
from client.views.rehearsal_text import MARK
from client.views.rehearsal_text import rehearsal as lines_of
from configs import journal
from configs.records import fields
from configs.records.rehearsal import Rehearsal
from configs.schema import Study
from configs.site import SiteConfig
from configs.strict_yaml import dump_yaml
from tests.builders import counting, study
from tests.consortium import Consortium

HEADER = "age,sex,disease"
ROWS = [f"{20 + n % 60},{('female', 'male')[n % 2]},{int(n % 60 > 30)}" for n in range(300)]
TRAINING = {"rounds": 4, "local": {"batch_size": "full", "learning_rate": 2.0}}
RELEASE = {"test_fraction": 0.3, "metrics": ["auroc", "brier"], "release": {"epsilon": 1.0}}
CHOSEN = study(cohort={"lille": 300}, training=TRAINING, evaluation=RELEASE, privacy={"epsilon": 6.0})


def hospital(folder: Path, chosen: Study, **settings: Any) -> SiteConfig:
    """A hospital with data of one study, which nobody has proposed."""
    (folder / "rows.csv").write_text("\n".join([HEADER, *ROWS]) + "\n")
    source = {"connector": "csv", "path": str(folder / "rows.csv")}
    return Consortium(folder).hospital("lille", datasets={chosen.name: source}, **settings)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[SiteConfig, set[str], int]:
    """A hospital after one rehearsal, the files that it had before, and the exit code."""
    folder = tmp_path_factory.mktemp("rehearsed")
    config = hospital(folder, CHOSEN)
    (folder / "study.yaml").write_text(dump_yaml(CHOSEN.to_dict()))
    before = {path.name for path in config.folder.rglob("*")}
    return config, before, main(["-C", str(config.folder), "rehearse", str(folder / "study.yaml"), "--json"])


def test_nothing_is_booked_sent_or_left_behind_but_the_journals_record(
    rehearsed: tuple[SiteConfig, set[str], int],
) -> None:
    config, before, code = rehearsed
    assert code == 0
    left = {path.name for path in config.folder.rglob("*") if path.is_dir() or path.stat().st_size} - before
    assert not config.ledger.exists()
    assert left <= {"journal.jsonl", "ids", "key"}, left
    (record,) = journal.read(config.journal)
    assert (record.kind, record.facts["study"], bool(record.facts["by"])) == ("rehearsed", CHOSEN.sha256, True)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Rehearsal]:
    """Rehearse in this process, which keeps its network."""

    def rehearse(chosen: Study, **settings: Any) -> Rehearsal:
        config = hospital(tmp_path, chosen, **settings)
        monkeypatch.setattr(rehearsal, "apart", lambda _folder, name: (config, config.dataset(name)))
        record = rehearsal.rehearse(config.folder, chosen.name, rehearsal.asked(chosen))
        return fields.read(Rehearsal, json.loads(json.dumps(fields.plain(record))))

    return rehearse


def test_it_tells_size_time_and_whether_the_training_gets_anywhere(inside: Callable[..., Rehearsal]) -> None:
    record = inside(CHOSEN)
    text = "\n".join(lines_of(record))
    assert MARK in text
    assert record.rounds == 4
    update, figures = record.leaving
    assert (update.name, update.times, update.bytes) == ("model update", 4, 12)
    assert "the policy lets none leave (metrics: none)" in figures.why
    assert record.train + record.test == 300
    auroc = record.metrics["auroc"]
    assert auroc.constant == 0.5
    assert auroc.plain is not None
    assert auroc.plain.low > 0.9
    assert auroc.noisy is not None
    assert record.metrics["brier"].constant == pytest.approx(0.25, abs=0.04)
    assert "leaves      score histogram: no, " in text
    assert ("gets somewhere here" in text) == (auroc.noisy.low > 0.5)


def test_a_figure_that_the_policy_allows_is_made_too(inside: Callable[..., Rehearsal]) -> None:
    record = inside(CHOSEN, policy={"metrics": "noisy"})
    assert [(kind.name, kind.times, kind.why) for kind in record.leaving[1:]] == [("score histogram", 1, "")]


def test_statistics_are_rehearsed_without_a_training(inside: Callable[..., Rehearsal]) -> None:
    record = inside(counting(cohort={"lille": 300}, training={"quorum": 1}))
    assert (record.rounds, record.metrics, [kind.name for kind in record.leaving]) == (0, {}, ["statistics"])


def test_a_failure_inside_is_told_with_its_reason_and_no_value(
    inside: Callable[..., Rehearsal], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("Durand-1937")

    monkeypatch.setattr("client.trainer.Trainer.fit", fails)
    with pytest.raises(
        Exception, match=r"round 1 could not be made .unexpected ValueError.; the node would send noise"
    ):
        inside(CHOSEN)


def test_the_command_tells_what_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = study(patient_id="nip", cohort={"lille": 300})
    config = hospital(tmp_path, chosen)
    (tmp_path / "study.yaml").write_text(dump_yaml(chosen.to_dict()))
    assert main(["-C", str(config.folder), "rehearse", str(tmp_path / "study.yaml")]) == 2
    assert "the rehearsal failed: " in (err := capsys.readouterr().err)
    assert "columns 'nip' are not in the header" in err
