"""A new kit's folder: a project, one module, one test. The module is a whole example to begin from."""

import math
import random
from pathlib import Path

from configs.errors import RunError
from configs.kit import NAME
from simulations.kits.project import EXAMPLE, MODULE, lines_for_a_study, of_template, read_project

FILES = ("pyproject.toml", MODULE, f"test_{EXAMPLE}.py", "study.yaml")
SITES = {"north": -0.2, "south": 0.2}  # made-up hospitals, and how much likelier the outcome is there


def write_new(name: str, folder: Path) -> list[Path]:
    """Write a new kit into a folder of its own name; return the files.

    Raises:
        RunError: the name is no kit's, or something is there already.
    """
    if not NAME.fullmatch(name):
        raise RunError(f"kit new: expected a name of a-z, 0-9 and _, found {name[:40]!r}; choose another")
    home = folder / name
    if home.exists():
        raise RunError(f"{home}: expected nothing there, found a folder; choose another name or remove it")
    files = {home / file.replace(EXAMPLE, name): of_template(file, name) for file in FILES}
    try:
        (home / "data").mkdir(parents=True)
        for site, shift in SITES.items():
            files[home / "data" / f"{site}.csv"] = made_up(site, shift)
        for path, text in files.items():
            path.write_text(text, "utf-8")
        study = home / "study.yaml"
        study.write_text(files[study].replace("KIT\n", f"{lines_for_a_study(read_project(home))}\n"), "utf-8")
    except OSError as error:
        raise RunError(f"{home}: cannot be written: {error.strerror}") from None
    return list(files)


def made_up(site: str, shift: float, patients: int = 150) -> str:
    """Return rows of made-up patients as CSV: the older and the higher the marker, the more often ill."""
    chance = random.Random(site)
    rows = ["age,marker,ill"]
    for _ in range(patients):
        age, marker = chance.uniform(20.0, 90.0), chance.uniform(0.0, 10.0)
        risk = 1.0 / (1.0 + math.exp(-(0.06 * (age - 55.0) + 0.6 * (marker - 5.0) + shift)))
        rows.append(f"{age:.0f},{marker:.1f},{int(chance.random() < risk)}")
    return "\n".join(rows) + "\n"
