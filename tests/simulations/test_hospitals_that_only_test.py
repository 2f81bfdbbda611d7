"""A hospital that only tests: it trains nothing, is asked for its histogram alone, and pays for that alone."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from client.ledger import Ledger
from client.patients import Split
from client.site import Site
from configs.errors import ConfigError, WireError
from configs.load import load_study
from configs.schema import Study
from configs.site import Policy
from configs.strict_yaml import dump_yaml
from server.proposals import Roster
from simulations.cli import main
from simulations.leave_one_out import without
from strategies.learning import learning_of
from strategies.privacy.accounting import epsilon
from strategies.privacy.modes.local import evaluation_event, plan_for
from strategies.releases.base import Request
from strategies.releases.registry import MODEL_UPDATE, SCORE_HISTOGRAM, is_asked_of
from tests.builders import patients, same_bits, study
from tests.client.test_evaluation import reviewed
from tests.simulations.test_left_out_and_rehearsed import written

ONLY = {"test_fraction": 0.5, "release": {"epsilon": 8.0, "bins": 5}, "test_only": ["lyon"]}
TRAINING = {"rounds": 3, "local": {"epochs": 1, "batch_size": "full", "learning_rate": 4.0}}


def asking(**evaluation: Any) -> Study:
    return study(evaluation=ONLY | evaluation)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("only_tests")
    training = study(training=TRAINING, evaluation=ONLY).to_dict()["training"]
    path = written(folder, evaluation=ONLY, training=training)
    assert main(["simulate", str(path), "--out", str(folder / "runs")]) == 0
    return folder / "runs" / "latest"


@pytest.fixture(scope="module")
def metrics(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metrics.json").read_text()))


def test_the_model_is_that_of_the_hospitals_that_train_bit_for_bit(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(dump_yaml(without(load_study(run / "study.yaml"), "").to_file()))
    assert main(["simulate", str(path), "--out", str(tmp_path / "runs"), "--no-baselines"]) == 0
    others = tmp_path / "runs" / "latest"
    assert load_study(others / "study.yaml").sites == ("brest", "lille")
    assert same_bits(load_file(run / "model.safetensors"), load_file(others / "model.safetensors"))


def test_all_its_patients_are_test_patients_and_its_figures_are_there(metrics: dict[str, Any]) -> None:
    site = next(entry for entry in metrics["sites"] if entry["site"] == "lyon")
    assert (site["patients_train"], site["patients_test"], site["steps"], site["tests_only"]) == (0, 240, 0, True)
    assert metrics["models"]["federated"]["per_site"]["lyon"] is not None
    assert metrics["models"]["local_only"]["per_site"]["lyon"] is None
    assert metrics["rehearsed"]["noisy"]["sites"] == ["brest", "lille", "lyon"]


def test_no_round_misses_it(metrics: dict[str, Any], run: Path) -> None:
    assert [sorted(entry["contributed"]) for entry in metrics["rounds"]] == [["brest", "lille"]] * 3
    assert [entry["missing"] for entry in metrics["rounds"]] == [{}] * 3
    assert metrics["absent"] == {}
    assert "lyon is no part" not in (run / "report.html").read_text()


def test_its_ledger_holds_the_histogram_alone(metrics: dict[str, Any], run: Path) -> None:
    event = evaluation_event(load_study(run / "study.yaml"))
    assert event is not None
    with closing(Ledger.open(run / "sites" / "lyon" / "ledger.sqlite", durable=False)) as ledger:
        assert ledger.asked_once("lyon", load_study(run / "study.yaml").sha256) == [SCORE_HISTOGRAM.name]
        assert [rounds for *_, rounds, _ in ledger.studies()] == [0]
        spent_here = ledger.spent("lyon", delta=1e-5)
    spent = {entry["site"]: entry["epsilon"] for entry in metrics["sites"]}
    assert spent["lyon"] == spent_here == pytest.approx(epsilon([event], 1e-5))
    assert spent["lyon"] < spent["lille"]


def test_its_plan_holds_the_histogram_alone() -> None:
    plan = plan_for(asking(), "lyon")
    assert plan.events == (plan.evaluation,)
    assert plan.whole_epsilon() == pytest.approx(8.0, abs=0.01)
    assert plan_for(asking(), "lyon", figures=False).events == ()
    assert len(plan_for(asking(), "lille").events) == 2


def hospital(chosen: Study) -> Site:
    """Lyon as in a deployment, with everybody kept aside."""
    people = Split(patients(40).subset(np.array([], np.int64)), patients(40), {})
    return Site("lyon", chosen, people, Ledger.in_memory(), seeded=False, policy=Policy(metrics="noisy"))


def test_it_makes_its_histogram_without_having_trained_and_refuses_to_train_before_anything_is_booked() -> None:
    lyon, model = hospital(asking()), learning_of(asking()).initial(0)
    with pytest.raises(WireError, match="train: expected a hospital that trains, found one that only tests"):
        lyon.release(MODEL_UPDATE.name, Request(model, 1))
    assert lyon.ledger.events("lyon") == ()
    assert lyon.release(SCORE_HISTOGRAM.name, Request(model))
    assert len(lyon.ledger.events("lyon")) == 1


def test_a_hospital_that_trains_waits_for_its_training_as_before() -> None:
    lyon = hospital(asking(test_only=["brest"]))
    with pytest.raises(WireError, match="expected a private study that has trained here before, found another"):
        lyon.release(SCORE_HISTOGRAM.name, Request(learning_of(asking()).initial(0)))


def test_it_is_asked_for_the_histogram_alone_and_makes_no_quorum() -> None:
    chosen = asking()
    assert [is_asked_of(kind, chosen, "lyon") for kind in (MODEL_UPDATE, SCORE_HISTOGRAM)] == [False, True]
    assert chosen.training.quorum == 2
    assert chosen.has_quorum(["brest", "lille"])
    assert not chosen.has_quorum(["brest", "lyon"])
    roster = Roster({"brest": 1, "lyon": 2}, {}, {"lille": "no answer"}).only(chosen.trains_at)
    assert roster == Roster({"brest": 1}, {}, {"lille": "no answer"})


def test_the_review_says_that_nothing_is_trained_here_and_what_alone_leaves(tmp_path: Path) -> None:
    noisy = Policy(metrics="noisy")
    here = reviewed(noisy, asking(test_only=["lille"]), tmp_path)
    assert "only tests THIS HOSPITAL: it trains nothing, all its patients are test patients" in here
    assert "leaves no update of the model; once, this hospital's name and the study's digest. Once, after" in here
    assert "for the one histogram that leaves; this hospital has no part in the training" in here
    assert "beside the training's" not in here
    there = reviewed(noisy, asking(), tmp_path)
    assert "only tests 'lyon'" in there
    assert "in each round 3 numbers of the trained model" in there


def test_a_study_without_such_hospitals_keeps_its_digest() -> None:
    assert "test_only" not in study().canonical
    assert asking().sha256 != asking(test_only=["brest"]).sha256


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"evaluation": ONLY | {"test_only": ["nancy"]}},
            "evaluation.test_only: expected hospitals of the study",
        ),
        (
            {"evaluation": ONLY | {"test_only": ["brest", "lille", "lyon"]}},
            "evaluation.test_only: expected a hospital",
        ),
        (
            {"evaluation": ONLY, "training": {"quorum": 3}},
            "training.quorum: expected at most 2 hospitals that train",
        ),
        (
            {"evaluation": ONLY | {"test_only": "lyon"}},
            "evaluation.test_only: expected a list of hospitals",
        ),
        (
            {
                "evaluation": {"test_fraction": 0.5, "test_only": ["lyon"]},
                "scaling": "site",
                "privacy": {"mode": "none"},
            },
            "scaling: expected public where a hospital only tests",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        study(**changes)
    assert caught.value.problems[-1].startswith(problem)
