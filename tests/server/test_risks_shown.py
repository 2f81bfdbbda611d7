"""Report and card draw predicted and observed risks over time, where a study is of times to an event."""

import json
from typing import Any

from server.report.sections import times
from server.report.sections.registry import sections_of
from server.result.finished import Run
from server.result.read import read


def run_of(points: list[dict[str, Any]] | None) -> Run:
    value = {"value": 0.7, "low": 0.6, "high": 0.8}
    model: dict[str, Any] = {"auroc": None, "per_site": {}, "metrics": {"c_index": value}, "c_index": value}
    model |= {"survival": points} if points else {}
    return read(
        json.dumps(
            {
                **{"study": "a", "study_sha256": "", "outcome": "COMPLETE", "rounds_completed": 1},
                **{"primary_metric": "c_index", "models": {"federated": model, "pooled_cox": model}},
                "task": {"type": "survival", "time": "days", "unit": "days"},
                "privacy": {"mode": "local", "epsilon": 1.0},
            }
        )
    )


POINTS = [
    {"cause": "death", "time": time, "predicted": risk, "observed": risk + 0.1, "low": risk, "high": risk + 0.2}
    for time, risk in ((90.0, 0.1), (365.0, 0.25))
]


def test_risks_are_drawn_in_words_as_a_chart_and_as_a_file() -> None:
    run = run_of(POINTS)
    assert "times" in [section.key for section in sections_of(run)]
    sentence = "By 365 days the model expects the event in 25\N{NO-BREAK SPACE}% of test patients; 35"
    assert times.SECTION.reading(run).replace(" %", "\N{NO-BREAK SPACE}%").startswith(sentence)
    drawn = "".join(str(part) for part in times.SECTION.body(run))
    assert drawn.count("<polyline") == 4  # two models, wide and narrow
    assert "by 90: 20" in drawn
    (figure,) = times.SECTION.figures(run)
    assert figure.rows[1] == ("federated", "death", 365.0, 0.25, 0.35, 0.25, 0.45)
    assert run.target == "days"


def test_no_section_is_there_for_other_outcomes() -> None:
    assert "times" not in [section.key for section in sections_of(run_of(None))]
