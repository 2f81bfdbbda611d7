"""A kit is executed from the bytes that were hashed, under its own name, and from nowhere else."""

import sys
from pathlib import Path

import pytest

from configs.errors import KitError
from configs.kit import About, KitFiles, require_digest
from strategies.kits.opened import open_kit

SOURCE = b"""
from torch import nn
from strategies.kit import Model
from archipel_kit_toy.numbers_of import THREE

net = Model(build=lambda inputs, width=4: nn.Linear(inputs, width), loss=lambda out, y: out.sum(1) + THREE,
            options={"width": (1, 8)})
"""


def kit(value: int = 3, **entries: str) -> KitFiles:
    sources = {
        "archipel_kit_toy/__init__.py": SOURCE,
        "archipel_kit_toy/numbers_of.py": f"THREE = {value}\n".encode(),
        "configs/__init__.py": b"raise SystemExit('shadowed')\n",
    }
    return KitFiles(About("toy", "1.0.0", models=entries or {"net": "archipel_kit_toy:net"}), sources)


def unpacked(kit: KitFiles, folder: Path) -> Path:
    for name, content in kit.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_kit_opens_without_a_search_path_or_bytecode_and_the_newest_one_holds(tmp_path: Path) -> None:
    before = list(sys.path)
    opened = open_kit(unpacked(kit(), tmp_path / "a"), kit().sha256)
    assert opened.model("toy/net").module({"width": 2}, inputs=5).weight.shape == (2, 5)
    assert sys.path == before
    assert not list(tmp_path.rglob("*.pyc"))
    other = open_kit(unpacked(kit(4), tmp_path / "b"), kit(4).sha256)
    assert sys.modules["archipel_kit_toy.numbers_of"].THREE == 4
    assert opened.sha256 != other.sha256


@pytest.mark.parametrize("change", ["byte", "file", "link", "removed"])
def test_a_changed_folder_is_not_opened(tmp_path: Path, change: str) -> None:
    folder = unpacked(kit(), tmp_path)
    source = folder / "archipel_kit_toy/numbers_of.py"
    if change == "byte":
        source.write_bytes(b"THREE = 7\n")
    elif change == "file":
        (folder / "archipel_kit_toy/more.py").write_text("")
    else:
        source.unlink()
    if change == "link":
        source.symlink_to("/etc/hostname")
    with pytest.raises(KitError, match="expected"):
        open_kit(folder, kit().sha256)
    with pytest.raises(KitError, match="expected"):
        require_digest(folder, kit().sha256)


def test_an_entry_point_that_leads_to_no_model_is_named(tmp_path: Path) -> None:
    wrong = kit(net="archipel_kit_toy:SOURCE")
    with pytest.raises(KitError, match=r"expected a Model of strategies\.kit at archipel_kit_toy:SOURCE"):
        open_kit(unpacked(wrong, tmp_path), wrong.sha256)


def test_the_same_files_are_the_same_wheel_and_the_wheel_the_same_files() -> None:
    assert KitFiles.of_wheel(kit().wheel).wheel == kit().wheel
    assert kit().sha256 != kit(5).sha256
