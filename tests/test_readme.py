"""The READMEs are true: commands parse, all are there, trees are the files, the table is what the demo prints."""

import argparse
import json
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from configs.reference import FILES, _rows
from simulations import cli
from tests.options import PARSERS, options_of, with_options
from tests.recipes import with_recipes
from tests.trees import ROOMS, with_tree

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path: (ROOT / path).read_text("utf-8")
    for path in (
        "README.md",
        *(f"{room}/README.md" for room in ROOMS),
        "simulations/benchmarks/README.md",
        ".github/CONTRIBUTING.md",
        ".github/SECURITY.md",
    )
}
README = PAGES["README.md"]
COMMANDS = sorted(
    {
        line.partition("#")[0].strip()
        for page in PAGES.values()
        for line in re.findall(r"^[123]?\$ (.+)$", page, re.MULTILINE)
    }
)
PERSONS = {"archipel": "simulations", "archipel-site": "client", "archipel-coordinator": "server"}
COLUMNS = ("local_only", "pooled", "federated_without_privacy", "federated")


def table_rows(heading: str) -> dict[str, list[str]]:
    """The cells of the README's table whose header starts so, by their first cell."""
    lines = README[README.index(f"| {heading}") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("archipel")])
def test_every_archipel_command_in_the_readme_is_understood(command: str) -> None:
    program, *words = shlex.split(command)
    arguments = PARSERS[program]().parse_args(words)
    study = getattr(arguments, "study", None)
    assert study is None or (ROOT / study).is_file()


@pytest.mark.parametrize("command", [c for c in COMMANDS if "make " in c])
def test_every_make_target_in_the_readme_exists(command: str) -> None:
    target = command.split("make ")[1].split()[0]
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m ")])
def test_every_module_that_the_readme_runs_exists(command: str) -> None:
    assert (ROOT / (command.split()[2].replace(".", "/") + ".py")).is_file()


@pytest.mark.parametrize("program", sorted(PARSERS))
def test_every_command_that_exists_is_in_the_readme_of_its_room(program: str) -> None:
    page = PAGES[f"{PERSONS[program]}/README.md"]
    (subcommands,) = [a for a in PARSERS[program]()._actions if isinstance(a, argparse._SubParsersAction)]
    folder = "" if program == "archipel" else r"-C \w+ "
    assert [n for n in subcommands.choices if not re.search(rf"\$ {program} {folder}{n}\b", page)] == []


@pytest.mark.parametrize("program", sorted(PARSERS))
def test_the_readme_shows_each_person_five_commands(program: str) -> None:
    assert len(re.findall(rf"^\$ {program} ", README, re.MULTILINE)) == 5


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 125


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_tree_has_a_line_for_each_file(room: str) -> None:
    page = PAGES[f"{room}/README.md"]
    assert page == with_options(room, with_tree(room, page)), "write it anew with: make docs"


def test_the_recipes_are_the_code_of_the_toy_kinds() -> None:
    page = PAGES[".github/CONTRIBUTING.md"]
    assert page == with_recipes(page), "write them anew with: make docs"


def test_the_picture_is_what_its_script_draws() -> None:
    picture = runpy.run_path(str(ROOT / ".github" / "data_flow.py"))["picture"]()
    assert (ROOT / ".github" / "data_flow.svg").read_text("utf-8") == picture, "draw it anew with: make docs"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_or_a_heading(page: str) -> None:
    dead = []
    for link, anchor in re.findall(r"\]\((?!http|mailto)([^)#]*)(?:#([^)]+))?\)", PAGES[page]):
        target = (ROOT / page).parent / link if link else ROOT / page
        if not target.exists():
            dead.append(link)
        elif anchor:
            text = target.read_text("utf-8")
            slugs = {
                re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)
            }
            dead += [] if anchor in slugs else [f"{link}#{anchor}"]
    assert dead == []


def test_the_table_is_what_the_demo_prints(tmp_path: Path) -> None:
    assert cli.main(["simulate", str(ROOT / "configs/presets/heart_disease.yaml"), "--out", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "latest" / "metrics.json").read_text())
    rows = table_rows("AUROC on test patients")
    names = {
        "Cleveland": "cleveland",
        "Hungary": "hungary",
        "Long Beach": "long_beach_va",
        "Switzerland": "switzerland",
    }
    found = {name: [metrics["models"][key]["per_site"][site] for key in COLUMNS] for name, site in names.items()}
    found["all together"] = [metrics["models"][key]["auroc"] for key in COLUMNS]
    assert rows.keys() == found.keys()
    for name, cells in rows.items():
        for cell, estimate in zip(cells, found[name], strict=True):
            if estimate is None:
                assert cell == "undefined"
            else:
                assert float(cell) == pytest.approx(estimate["value"], abs=0.0006)  # three decimals were written


def test_the_demo_says_what_it_installs_and_is_never_silent_for_long() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not here")
    shown = subprocess.run([make, "-n", "-B", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "two minutes or more" in shown
    assert "pip install" in shown
    assert "--quiet" not in shown


@pytest.mark.parametrize("program", sorted(PARSERS))
def test_help_says_what_each_option_does_and_its_default(program: str) -> None:
    silent = []
    for command, text, action in options_of(program):
        is_flag = isinstance(action, argparse._StoreTrueAction) or not action.option_strings or action.required
        if not action.help or not (is_flag or "default" in action.help):
            silent.append(f"{command} {text}")
    assert silent == []


def test_every_key_says_what_it_is() -> None:
    assert [row.path for file in FILES for row in _rows(file) if not row.key.about or not row.expected] == []
