"""What metrics.json says of lost releases and of refused updates, from the journal alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.journal import Journal
from configs.schema import Study
from configs.strict_yaml import dump_yaml
from server.app import conduct
from server.conductor import write_down
from tests.server.test_attempts import Losing, study_of
from tests.server.test_conduct import NODES, FakeGrid, hospitals
from tests.server.test_poison import POISON, Hospital
from tests.server.test_poison import study_of as learning


def written(study: Study, people: dict[int, Any], run: Path) -> dict[str, Any]:
    """Conduct a study and write its papers, as the consortium does."""
    (run / "study.yaml").write_text(dump_yaml(study.to_dict()))
    journal = Journal(run / "journal.jsonl", durable=False)
    journal.append("begin", study_sha256=study.sha256, engine="deployed", seed=study.seed, versions={})
    write_down(run, study, conduct(FakeGrid(people), study, journal=journal), 1.0)
    return dict(json.loads((run / "metrics.json").read_text()))


def test_each_attempt_stands_in_the_metrics_with_its_reason(tmp_path: Path) -> None:
    study = study_of(spare=2)
    metrics = written(study, hospitals(study, lyon=Losing(study, "lyon", {2: 2})), tmp_path)
    assert metrics["privacy"]["spare"] == 2
    assert metrics["made_anew"] == [
        {"site": "lyon", "round": 2, "attempt": attempt, "why": "it was lost"} for attempt in (1, 2)
    ]
    assert [facts.get("attempts") for facts in metrics["rounds"]] == [None, {"lyon": 2}, None]


def test_a_study_that_lost_nothing_says_so(tmp_path: Path) -> None:
    study = study_of(spare=2)
    assert written(study, hospitals(study), tmp_path)["made_anew"] == []


@pytest.mark.parametrize("private", [True, False])
def test_a_hospital_whose_updates_were_refused_is_named_in_metrics_and_report(private: bool, tmp_path: Path) -> None:
    study = learning("fedavg", 2, private=private)
    people = {NODES[n]: Hospital(n, study, POISON["1e30"] if n == "lyon" else None) for n in NODES}
    metrics = written(study, people, tmp_path)
    assert metrics["outcome"] == "COMPLETE"
    assert all("update refused" in facts["missing"]["lyon"] for facts in metrics["rounds"])
    assert "update refused: expected a move of at most" in (tmp_path / "report.html").read_text()
