"""Report and card tell ratios with their intervals, or say that there are none."""

import json
from typing import Any

from server.card import model_card
from server.report import page
from server.report.sections.registry import sections_of
from server.result.finished import Run
from server.result.read import read

ROW = {"column": "age", "contrast": "per 10 years", "value": 1.214}
EFFECTS = {"measure": "odds ratio", "of": "the odds of death", "rows": [ROW], "curved": ["bmi"]}
ESTIMATE = {"value": 1.5, "low": 1.4, "high": 1.6}
RATIOS: dict[str, Any] = {
    "measure": "odds ratio",
    "rows": [
        {"column": "age", "contrast": "per 10 years", "estimate": ESTIMATE, "pooled": ESTIMATE | {"low": 1.45}},
        {"column": "sex", "contrast": "m against f", "estimate": ESTIMATE | {"low": 0.9}, "pooled": ESTIMATE},
    ],
    "curved": [],
    "sites": ["lille"],
    "noise_multiplier": 3.7,
    "drowned": 0.1,
    "moved": 0.7,
    "undefined": "",
}


def run(**entries: Any) -> Run:
    document = {"study": "a", "study_sha256": "", "outcome": "COMPLETE", "rounds_completed": 1}
    return read(json.dumps(document | entries))


def test_without_a_release_ratios_are_called_shrunken_and_a_curve_has_none() -> None:
    shown = run(effects=EFFECTS)
    for text in (page.render(shown), model_card.render(shown)):
        assert "shrunken, no interval" in text
        assert "per 10 years" in text
        assert "1.21" in text
        assert "bmi is a curve: it has no single figure" in text
    for text in (page.render(run()), model_card.render(run())):
        assert "no interval" not in text


def test_with_a_release_both_intervals_are_told_and_the_shrunken_ones_are_not() -> None:
    shown = run(effects=EFFECTS, releases={"inference": RATIOS})
    for text in (page.render(shown), model_card.render(shown)):
        assert "The odds ratios of age are surely other than 1" in text
        assert "1.50 (1.40 to 1.60)" in text
        assert "1.50 (1.45 to 1.60)" in text
        assert "no interval" not in text
    assert "the training had not arrived" in page.render(shown)


def test_ratios_are_drawn_and_given_as_numbers_for_a_paper() -> None:
    shown = run(releases={"inference": RATIOS})
    assert "age per 10 years: 1.50 (1.40 to 1.60)" in page.render(shown)
    (section,) = [section for section in sections_of(shown) if section.key == "release-inference"]
    (figure,) = section.figures(shown)
    assert figure.headings[:5] == ("column", "step", "odds ratio", "odds ratio low", "odds ratio high")
    assert figure.rows[0] == ("age", "per 10 years", 1.5, 1.4, 1.6, 1.5, 1.45, 1.6)
    assert figure.drawn


def test_drowned_ratios_are_undefined_and_the_shrunken_ones_remain() -> None:
    rows = [{"column": "age", "contrast": "per 10 years", "estimate": None, "pooled": None}]
    lost = RATIOS | {"rows": rows, "moved": None, "undefined": "noise would drown it"}
    shown = run(effects=EFFECTS, releases={"inference": lost})
    for text in (page.render(shown), model_card.render(shown)):
        assert "Odds ratios are undefined: noise would drown it." in text
        assert "shrunken, no interval" in text
