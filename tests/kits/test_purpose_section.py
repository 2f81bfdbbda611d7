"""A section of the report is one file and its registration."""

import json
from dataclasses import replace

import pytest

from configs.errors import KindError
from server.card import model_card
from server.report import page
from server.report.sections.registry import SECTIONS, sections_of
from server.result.finished import Run
from server.result.read import read
from tests.kits.purpose_section import PURPOSE, install


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SECTIONS, "_kinds", dict(SECTIONS._kinds))
    install()


def run(purpose: str) -> Run:
    facts = {"study": "a", "study_sha256": "", "outcome": "COMPLETE", "rounds_completed": 1, "purpose": purpose}
    return read(json.dumps(facts))


def test_it_stands_at_its_place_on_the_page_and_under_its_name_in_the_card() -> None:
    finished = run("predict <b>")
    keys = [section.key for section in sections_of(finished)]
    assert keys[keys.index("calibration") + 1 : keys.index("privacy")] == ["purpose"]
    assert "The purpose has 2 words." in page.render(finished)
    assert '<a href="#purpose">Purpose</a>' in page.render(finished)
    assert "predict &lt;b&gt;" in page.render(finished)
    assert "## Purpose\n\nThe purpose has 2 words." in model_card.render(finished)
    assert "What is it for?" not in page.render(run(""))


def test_what_must_not_be_overlooked_stands_at_the_head_of_both() -> None:
    finished = run("cure")
    head = page.render(finished).partition("<main>")[0]
    assert "A purpose of one word." in head
    assert "**A purpose of one word.**" in model_card.render(finished).partition("## ")[0]


def test_another_section_of_its_key_is_refused() -> None:
    with pytest.raises(KindError, match="section of the report 'purpose'"):
        SECTIONS.register(replace(PURPOSE, title="Why?"))
