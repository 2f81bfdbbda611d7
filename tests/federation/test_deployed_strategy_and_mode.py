"""Toy kinds between real processes, over mutual TLS: no product file knows them."""

import json
from pathlib import Path
from typing import Any

import pytest
from kits import central, drift_correction, installed

from configs import parts
from configs.federated import FEDERATED
from configs.load import load_study
from configs.schema.privacy import PRIVACY_MODES
from configs.strict_yaml import dump_yaml, read_yaml
from strategies.federated import registry as strategies
from strategies.privacy.modes import registry as modes
from tests.federation.deployed import finished, hospitals, model, simulated, write_study


@pytest.fixture(autouse=True)
def _kitted(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (strategies.STRATEGIES, FEDERATED, modes.MODES, PRIVACY_MODES):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    central.install()
    drift_correction.install()
    monkeypatch.setattr(parts, "command", installed.command_with("central,drift_correction"))


def changed(path: Path, **sections: dict[str, Any]) -> Path:
    document = read_yaml(path)
    for name, section in sections.items():
        document[name] |= section
    path.write_text(dump_yaml(document))
    return path


@pytest.mark.slow
def test_a_strategy_with_arrays_of_its_own_and_noise_of_the_coordinator_are_deployed(tmp_path: Path) -> None:
    corrected = changed(write_study(tmp_path, "corrected"), training={"strategy": {"name": "drift_correction"}})
    noised = changed(
        write_study(tmp_path, "central"),
        privacy={"mode": "central", "epsilon": 3.0, "delta": 1e-5, "clip_norm": 0.1},
    )
    with hospitals(tmp_path / "deployed", ("corrected", "central")) as federation:
        run = finished(federation, corrected)
        assert model(federation, run) == simulated(corrected, tmp_path / "simulated")
        run = finished(federation, noised)
        privacy = federation.metrics(run)["privacy"]
        assert (privacy["mode"], privacy["unit"]) == ("central", "hospital")
        spent = [site["epsilon"] for site in federation.metrics(run)["sites"]]
        assert all(2.9 < epsilon <= 3.0 for epsilon in spent), json.dumps(spent)
        assert "does not protect against the coordinator" in federation.hospital(
            "cleveland", "review", load_study(noised).sha256
        )
