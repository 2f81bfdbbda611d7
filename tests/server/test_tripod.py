"""The TRIPOD+AI checklist: 27 items, facts where the run has them, the rest for the authors."""

import json
import re
from pathlib import Path

from server.card.tripod import AUTHORS, render
from server.papers import write_papers
from server.result.finished import Run
from server.result.read import read
from tests.server.test_headline import judged
from tests.server.test_report import HOSTILE, Metrics, heart


def run(metrics: Metrics) -> Run:
    return read(json.dumps(metrics))


def item(text: str, number: int) -> str:
    found = re.search(rf"### {number}\. .*?(?=\n#|\Z)", text, re.DOTALL)
    assert found
    return found.group()


def test_all_27_items_are_there_and_each_says_something() -> None:
    text = render(run(judged()))
    assert re.findall(r"### (\d+)\. ", text) == [str(number) for number in range(1, 28)]
    for number in range(1, 28):
        assert "\n- " in item(text, number)


def test_facts_are_filled_and_what_no_run_knows_is_left_to_the_authors() -> None:
    text = render(run(judged()))
    assert "sex: category, female, male." in item(text, 9)
    assert "to train on and" in item(text, 10)
    assert "per patient" in item(text, 12)
    assert "a" * 64 in item(text, 18)
    assert "Mean predicted less observed: 0.00" in item(text, 23)
    assert "Over three hospitals, AUROC is from" in item(text, 23)
    for number in (3, 17, 19, 25):
        assert AUTHORS in item(text, number)


def test_a_flaw_stands_at_its_head_and_a_run_between_machines_claims_no_figure() -> None:
    assert "**On average the model predicts 84 %" in render(run(judged(0.24))).partition("## ")[0]
    deployed = heart() | {"engine": "deployed", "models": {}}
    for site in deployed["sites"]:
        site |= {"patients_train": None, "patients_test": None}
    text = render(run(deployed))
    assert "No number of patients left the hospitals." in item(text, 10)
    assert item(text, 23).count("Not measured.") == 1


def test_texts_of_a_run_cannot_become_markup() -> None:
    metrics = heart() | {"study": HOSTILE, "purpose": HOSTILE, "outcome": HOSTILE}
    metrics["features"][0] |= {"name": HOSTILE}
    text = render(run(metrics))
    assert "<script" not in text
    assert "<img" not in text
    assert " [a](https" not in text
    assert re.findall(r"^### (\d+)\. ", text, re.MULTILINE) == [str(number) for number in range(1, 28)]


def test_it_is_written_beside_the_card(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(heart()))
    write_papers(tmp_path)
    assert (tmp_path / "tripod.md").read_text().startswith("# TRIPOD+AI checklist: heart-disease")
