"""What a toy kind costs: one file, and no file of the product that knows of it.

python -m tests.kits.test_nothing_edited    # prints the table: kind, its file, lines, files of the product that name it
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {".py", ".yaml", ".html", ".css", ".md"}
ROOMS = ("configs", "strategies", "client", "server", "simulations")
KITS = sorted(
    path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_") and path.stem != "launch"
)


def edited(kit: Path) -> list[str]:
    """Return the product's files that name the kit, as a study or a program would: quoted, or as a key of YAML."""
    name = kit.stem.replace("_", "[_ -]")
    pattern = re.compile(rf"""["']{name}["']|kits\.{kit.stem}|:\s*{kit.stem}\b(?=\s*[,}}\n])""")
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in SUFFIXES]
    return [path.relative_to(ROOT).as_posix() for path in files if pattern.search(path.read_text("utf-8"))]


def test_the_search_finds_the_kinds_of_the_product() -> None:
    assert "strategies/tasks/multiclass.py" in edited(Path("multiclass.py"))
    assert "strategies/federated/trimmed_mean.py" in edited(Path("trimmed_mean.py"))


@pytest.mark.parametrize("kit", KITS, ids=lambda path: path.stem)
def test_no_file_of_the_product_knows_of_a_toy_kind(kit: Path) -> None:
    assert edited(kit) == []


@pytest.mark.parametrize("kit", KITS, ids=lambda path: path.stem)
def test_a_toy_kind_is_one_file_that_registers_itself(kit: Path) -> None:
    text = kit.read_text("utf-8")
    assert re.search(r"^def install\(\) -> None:", text, re.MULTILINE)
    others = {other.stem for other in KITS} - {kit.stem}
    assert not [other for other in others if re.search(rf"kits\.{other}\b", text)]


def test_registering_all_toy_kinds_loads_no_pytorch() -> None:
    """Each command of people registers them: with PyTorch, a second and a half more."""
    kits = ",".join(kit.stem for kit in KITS)
    registered = f"from tests.kits import launch; launch.register(launch.read({kits!r}))"
    code = f"import sys; {registered}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


if __name__ == "__main__":
    for path in KITS:
        print(f"{path.stem:<20} {len(path.read_text('utf-8').splitlines()):>4} lines, {len(edited(path))} files edited")
