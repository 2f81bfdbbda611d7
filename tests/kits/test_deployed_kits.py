"""Toy kinds in a real federation: processes over TLS, with no file of the product edited."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from configs import parts
from configs.strict_yaml import dump_yaml, read_yaml
from simulations.federation import Federation
from tests.federation.deployed import until
from tests.kits import launch

DATA = Path(__file__).resolve().parents[2] / "simulations" / "data" / "heart_disease"
PRESET = DATA.parents[2] / "configs" / "presets" / "heart_disease.yaml"
SITES = ("cleveland", "hungary")
CAREFUL = "hungary"  # where a person approves
GRADES = ["typical_angina", "atypical_angina", "non_anginal_pain", "asymptomatic"]  # of the column cp, in order


def _shared_direction(document: dict[str, Any]) -> None:
    document["training"]["strategy"] = {"name": "shared_direction"}


def _graded(document: dict[str, Any]) -> None:
    del document["features"]["cp"]
    document["task"] = {"type": "graded", "target": "cp", "classes": GRADES}
    document["evaluation"] = {"test_fraction": document["evaluation"]["test_fraction"]}


def _json_lines(document: dict[str, Any]) -> None:
    document["purpose"] += ", from files of JSON lines"


def _convolution(document: dict[str, Any]) -> None:
    document["model"] = {"name": "convolution", "channels": 3}


def _central(document: dict[str, Any]) -> None:
    document["privacy"] |= {"mode": "central", "epsilon": 8.0}


def _time_to_event(document: dict[str, Any]) -> None:
    del document["features"]["thalach"]
    document["task"] = {"type": "time_to_event", "target": "thalach", "event": "disease", "range": [60, 200]}
    document["task"] |= {"unit": "beats/min"}
    document["model"] = {"name": "linear"}
    document["evaluation"] = {"test_fraction": document["evaluation"]["test_fraction"]}


def _column_count(document: dict[str, Any]) -> None:
    document["releases"] = {"column count": {"epsilon": 1.0, "column": "sex", "value": "male"}}


EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "shared_direction": _shared_direction,
    "graded": _graded,
    "json_lines": _json_lines,
    "convolution": _convolution,
    "central": _central,
    "time_to_event": _time_to_event,
    "column_count": _column_count,
}
REVIEWED = {  # on the page that a hospital's people read before they approve, and on the model card
    "shared_direction": ("shared_direction", "shared_direction"),
    "graded": ("graded 'cp' ('typical_angina',", "the grade of `cp`"),
    "json_lines": (".jsonl", "`disease`"),
    "convolution": ("with a convolution model", "convolution"),
    "central": ("A toy: it does not protect against the coordinator", "does not protect against the coordinator"),
    "column_count": ("how many patients have sex male", "patients have the value ("),
    "time_to_event": ("time_to_event 'thalach' (60 to 200)", "the risk by `thalach`"),
}
KITS = ",".join((*EDITS, "count_renderer"))


def study(folder: Path, kit: str) -> Path:
    """Write a study of two hospitals that names the kit's kind."""
    document = read_yaml(PRESET)
    document["name"] = kit.replace("_", "-")
    document["cohort"] = {site: document["cohort"][site] for site in SITES}
    document["simulation"]["sites"] = {site: {"connector": "csv", "path": str(DATA / f"{site}.csv")} for site in SITES}
    document["training"] |= {"rounds": 2, "quorum": 2}
    document["privacy"]["spare"] = 0
    EDITS[kit](document)
    path = folder / f"{kit}.yaml"
    path.write_text(dump_yaml(document))
    return path


def data_set(folder: Path, kit: str, site: str) -> dict[str, str]:
    """Return where a hospital's rows are, each study's patients with a budget of their own."""
    source = {"connector": "csv", "path": str(DATA / f"{site}.csv")}
    if kit == "json_lines":
        path = folder / f"{site}.jsonl"
        with (DATA / f"{site}.csv").open(encoding="utf-8", newline="") as rows:
            path.write_text("".join(json.dumps(row) + "\n" for row in csv.DictReader(rows)))
        source = {"connector": "jsonl", "path": str(path)}
    return source | {"identity": f"{kit}-{site}"}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A coordinator and two hospitals, all of whose processes know the kits."""
    usual = parts.command
    parts.command = lambda module, *arguments: launch.command(KITS, module, *arguments)
    try:
        folder = tmp_path_factory.mktemp("kits")
        with Federation(folder / "federation") as started:
            started.init()
            started.start_coordinator()
            for site in SITES:
                datasets = {kit.replace("_", "-"): data_set(folder, kit, site) for kit in EDITS}
                document = {
                    "site": site,
                    "coordinator": started.address,
                    "datasets": datasets,
                    "policy": {
                        "max_epsilon": 20.0,
                        "metrics": "noisy",
                        "require_approval": site == CAREFUL,
                        "allow_privacy_none": True,
                    },
                }
                started.enrol(site, document)
                started.start_site(site)
            yield started
    finally:
        parts.command = usual


@dataclass(frozen=True)
class Deployed:
    """What people saw of all toy studies: the page before they approved, the runs, the ledger afterwards."""

    page: str
    runs: Mapping[str, str]
    states: Mapping[str, str]
    ledger: str


@pytest.fixture(scope="module")
def deployed(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Submit every study, review and approve each, and wait for all to end."""
    folder = tmp_path_factory.mktemp("studies")
    runs = {kit: federation.submit(study(folder, kit)) for kit in EDITS}
    names = {kit.replace("_", "-") for kit in EDITS}

    def reviewed() -> str:
        page = " ".join(federation.hospital(CAREFUL, "review").split())
        return page if all(f"{name}: waiting" in page for name in names) else ""

    try:
        page = until(reviewed, "all studies to arrive")
        for digest in sorted(set(re.findall(r"approve ([0-9a-f]{20,})", page))):
            federation.hospital(CAREFUL, "approve", digest)
        states = {kit: federation.await_state(run, "COMPLETE", "INCOMPLETE") for kit, run in runs.items()}
    finally:
        print(*(federation.log(name) for name in ("coordinator", *SITES)), sep="\n")  # shown where it fails
    return Deployed(page, runs, states, federation.hospital(SITES[0], "ledger"))


@pytest.mark.slow
@pytest.mark.parametrize("kit", sorted(EDITS))
def test_a_toy_kind_is_reviewed_deployed_over_tls_booked_and_reported(
    federation: Federation, deployed: Deployed, kit: str
) -> None:
    run = deployed.runs[kit]
    assert deployed.states[kit].split("  ", 1)[1].startswith("COMPLETE")
    on_page, on_card = REVIEWED[kit]
    assert on_page in deployed.page
    assert federation.metrics(run)["outcome"] == "COMPLETE"
    assert on_card in (federation.coordinator / "runs" / run / "model_card.md").read_text()
    assert re.search(rf"{kit.replace('_', '-')} [0-9a-f]{{20}}: epsilon \d", deployed.ledger)
