"""Task types and a model from outside, in every process of a federation: reviewed, trained over TLS and reported."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kits import convolution, installed, ordinal, test_convolution, test_ordinal, test_time_to_event, time_to_event

from configs import parts
from configs.load import load_study
from configs.schema.model import MODELS
from configs.schema.task import TASKS
from configs.strict_yaml import dump_yaml, read_yaml
from simulations.federation import Federation
from strategies.models.registry import ARCHITECTURES
from strategies.tasks.registry import OBJECTIVES
from tests.federation.deployed import until

STUDIES = {
    "ordinal": test_ordinal.written,
    "time-to-event": test_time_to_event.written,
    "convolution": test_convolution.written,
}
SITES = ("brest", "lille", "lyon")


@pytest.fixture(scope="module", autouse=True)
def _installed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for registry in (OBJECTIVES, TASKS, ARCHITECTURES, MODELS):
            patch.setattr(registry, "_kinds", dict(registry._kinds))
        ordinal.install()
        time_to_event.install()
        convolution.install()
        patch.setattr(parts, "command", installed.command_with("ordinal,time_to_event,convolution"))
        yield


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: named(tmp_path_factory.mktemp(name), name) for name in STUDIES}


def named(folder: Path, name: str) -> Path:
    path = STUDIES[name](folder)
    document = read_yaml(path) | {"name": name}
    document["training"] |= {"rounds": 2}
    path.write_text(dump_yaml(document))
    return path


@pytest.fixture(scope="module")
def federation(studies: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with Federation(tmp_path_factory.mktemp("federation")) as running:
        running.init()
        running.start_coordinator()
        for site in SITES:
            sources = {n: {"connector": "csv", "path": str(p.parent / f"{site}.csv")} for n, p in studies.items()}
            policy = {"max_epsilon": 20.0, "require_approval": site == "lille"}
            document: dict[str, Any] = {"site": site, "coordinator": running.address}
            running.enrol(site, document | {"datasets": sources, "policy": policy})
            running.start_site(site)
        yield running


@pytest.mark.parametrize(
    ("name", "learns", "predicts"),
    [
        ("ordinal", "ordinal 'grade' ('none', 'mild', 'severe')", "the grade of `grade`"),
        ("time-to-event", "time_to_event 'months' (0 to 60) in 'months' and 'died'", "the risk by `months` (months)"),
        ("convolution", "with a convolution model", "convolution"),
    ],
)
def test_a_kind_from_outside_is_reviewed_trained_and_reported(
    federation: Federation, studies: dict[str, Path], name: str, learns: str, predicts: str
) -> None:
    run = federation.submit(studies[name])
    digest = load_study(studies[name]).sha256
    until(lambda: digest in federation.hospital("lille", "review"), "the study to arrive")
    assert learns in " ".join(federation.hospital("lille", "review").split())
    federation.hospital("lille", "approve", digest[:20])
    federation.await_state(run, "COMPLETE", "INCOMPLETE")
    metrics = federation.metrics(run)
    assert metrics["outcome"] == "COMPLETE"
    assert all(site["epsilon"] == pytest.approx(8.0, abs=0.01) for site in metrics["sites"])
    assert predicts in (federation.coordinator / "runs" / run / "model_card.md").read_text()
    assert f"{name}: " in federation.hospital("brest", "ledger")
