"""Where a hospital trains: the choice by engine, and a GPU that is asked for and not there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from client import device
from client.device import device_for, look_at_device, require_device
from client.findings import OK, WRONG
from client.ledger import Ledger
from client.trainer import Trainer
from client.worker import open_site
from configs.errors import ConfigError, RunError
from configs.schema import Study
from configs.site import SiteConfig, load_site
from tests.builders import study

SITE = "site: lille\ncoordinator: coord.example.org:8443\n"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that says it is there."""
    file = tmp_path / "version"
    file.write_text("NVRM")
    monkeypatch.setattr(device, "NVIDIA", file)


def config_of(folder: Path, text: str) -> SiteConfig:
    folder.mkdir(exist_ok=True)
    (folder / "site.yaml").write_text(SITE + text)
    return load_site(folder)


def of_images(**local: Any) -> Study:
    side = {"size": [8, 8]}
    return study(
        features={"scan": {"type": "image", "reader": "npy", **side}},
        model={"name": "resnet", "width": 8},
        training={"rounds": 1, "local": {"steps": 1, "batch_size": "full", "learning_rate": 0.1, **local}},
    )


@pytest.mark.parametrize(
    ("of_model", "of_study", "expected"),
    [
        ("alone", "auto", "cuda"),
        ("book-keeping", "auto", "cuda"),
        ("closed form", "auto", "cpu"),
        ("closed form", "alone", "cuda"),
        ("book-keeping", "opacus", "cpu"),
        ("forked", "auto", "cpu"),
    ],
)
def test_the_engine_decides_whether_a_gpu_that_is_asked_for_is_used(
    of_model: str, of_study: str, expected: str
) -> None:
    assert device_for("cuda", of_model, of_study) == expected
    assert device_for("cpu", of_model, of_study) == "cpu"


@pytest.mark.usefixtures("driver")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_pytorch_does_not_find_is_refused_with_who_mends_it() -> None:
    require_device("cpu")
    with pytest.raises(RunError, match=r"device: expected a GPU with CUDA.* hospital IT: install .*device: cpu"):
        require_device("cuda")


@pytest.mark.parametrize(
    ("version", "available", "why"),
    [(None, False, "without CUDA"), ("13.0", False, "finds no GPU"), ("13.0", True, "")],
)
@pytest.mark.usefixtures("driver")
def test_check_says_what_is_missing(
    version: str | None, available: bool, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    finding = look_at_device(config_of(tmp_path / "site", "device: cuda\n"))
    assert finding.verdict == (WRONG if why else OK)
    assert why in finding.text
    assert finding.who == ("hospital IT" if why else "")
    assert "not to the bit" in finding.text or why


def test_a_study_is_refused_before_anything_is_booked_or_read(tmp_path: Path) -> None:
    config = config_of(tmp_path / "site", "device: cuda\ndatasets:\n  test-study: {path: none.csv}\n")
    ledger = Ledger.in_memory()
    with pytest.raises(RunError, match="no NVIDIA driver is loaded"):
        open_site(config, ledger, of_images(), seeded=True)  # and not that the file is missing
    assert not ledger.events("test-study", of_images().sha256)


def test_children_of_kits_and_a_gpu_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"device: expected cpu with study kits that run in children.*kit_run"):
        config_of(tmp_path / "site", "device: cuda\npolicy: {kits: approved}\n")
    assert config_of(tmp_path / "site", "device: cuda\npolicy: {kits: approved}\nkit_run: together\n").device == "cuda"


def test_a_site_without_the_key_trains_on_its_processor(tmp_path: Path) -> None:
    assert config_of(tmp_path / "site", "").device == "cpu"


def test_the_trainer_builds_the_model_where_it_is_told() -> None:
    from strategies.learning import learning_of

    trainer = Trainer(learning_of(of_images()), device="meta")
    assert trainer._model.flat.device.type == "meta"
