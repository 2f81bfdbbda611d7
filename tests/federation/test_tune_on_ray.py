"""`archipel tune` on a Ray cluster of two nodes that this test starts: the figures are those of one process."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulations import cli

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"
STORE_BYTES = 80_000_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster: a head and one more node, each with its own processes and one processor."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from ray.cluster_utils import Cluster

    here: dict[str, Any] = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    nodes = Cluster(initialize_head=True, head_node_args=here | {"include_dashboard": False})
    try:
        nodes.add_node(**here)
        yield nodes.address
    finally:
        nodes.shutdown()  # type: ignore[no-untyped-call]


def figures(out: Path) -> dict[tuple[str, int], object]:
    """What each trial found."""
    lines = [json.loads(line) for line in out.with_suffix(".trials.jsonl").read_text().splitlines()]
    return {(line["study"], line["seed"]): line["figures"] for line in lines}


@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_two_nodes_share_the_trainings_and_find_the_same_figures(
    cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["tune", str(PRESET), "--set", "training.local.learning_rate=1,2,4", "--seeds", "2"]
    on_ray = ["--engine", "ray", "--address", cluster, "--out", str(tmp_path / "ray.yaml")]
    assert cli.main([*asked, *on_ray]) == 0
    shown = capsys.readouterr().out
    counts = re.search(r"trainings by node of the cluster: (\d+), (\d+)$", shown, re.MULTILINE)
    assert counts, shown
    assert sum(map(int, counts.groups())) == 5  # and the one that was timed
    assert cli.main([*asked, "--out", str(tmp_path / "here.yaml")]) == 0
    assert figures(tmp_path / "ray.yaml") == figures(tmp_path / "here.yaml")
    assert (tmp_path / "ray.yaml").read_bytes() == (tmp_path / "here.yaml").read_bytes()


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1", "nowhere:x", "127.0.0.1:99999999"]
)
def test_an_address_where_no_cluster_answers_is_named(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    out = ["--engine", "ray", "--address", address, "--out", str(tmp_path / "tuned.yaml")]
    assert cli.main(["tune", str(PRESET), *out]) == 2
    shown = capsys.readouterr().err
    assert f"engine ray: expected a Ray cluster at {address}, found none that answers" in shown
