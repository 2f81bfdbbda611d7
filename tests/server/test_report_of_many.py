"""The report of 60 hospitals, figures at thresholds, calibration by hospital, and charts as files."""

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from configs.errors import RunError
from server.card import model_card
from server.figures import write_figures
from server.report import page
from server.report.released.base import Renderer
from server.report.released.registry import RENDERERS
from server.result.finished import Run
from server.result.read import read
from server.result.spread import Spread
from tests.server.test_headline import judged, threshold
from tests.server.test_report import HOSTILE, Metrics, estimate, heart

SVG = "{http://www.w3.org/2000/svg}"


def run(metrics: Metrics) -> Run:
    return read(json.dumps(metrics))


def outcome(sites: list[str], noisy: bool = False) -> dict[str, Any]:
    slope = None if noisy else estimate(0.9)
    calibrated = {"observed": estimate(0.6), "in_the_large": estimate(0.01), "slope": slope}
    points = [n / 50 for n in range(1, 50)]
    return {
        "calibrated": calibrated,
        "calibrated_by_site": {site: calibrated | {"in_the_large": estimate(n / 100)} for n, site in enumerate(sites)},
        "thresholds": [
            threshold(0.2, sensitivity=0.91, specificity=0.44, ppv=0.7, npv=0.8, flagged=0.7, net_benefit=0.3),
            threshold(0.5, sensitivity=0.8, specificity=0.75),
        ],
        "decision": [{"threshold": t, "model": 0.6 - t, "everybody": 0.6 - t / (1 - t)} for t in points],
        "roc": [{"threshold": t, "sensitivity": 1 - t, "specificity": t} for t in reversed(points)],
    }


def sixty() -> Metrics:
    metrics = heart(sites=60)
    metrics["models"]["federated"]["outcome"] = outcome([site["site"] for site in metrics["sites"]])
    return metrics


def open_parts(html: str) -> str:
    """The page without what is shown on demand."""
    parts = html.split("<details>")
    return parts[0] + "".join(part.partition("</details>")[2] for part in parts[1:])


def test_no_more_than_a_few_hospitals_are_named_where_nobody_asks() -> None:
    html = page.render(run(sixty()))
    seen = open_parts(html)
    assert seen.count("<tr>") < 60
    assert 'role="img"' in seen
    assert seen.count('scope="row" class="name">hospital-') == 0
    assert html.count('scope="row" class="name">hospital-') >= 120  # the quality and the plan of each, on demand
    assert "all 60 hospitals</summary>" in html
    assert "Median" in seen
    assert "hospital-07" in seen  # as a dot's tooltip


def test_few_hospitals_stand_on_the_page_as_before() -> None:
    seen = open_parts(page.render(run(heart())))
    assert 'class="name">cleveland' in seen
    assert "all 4 hospitals</summary>" not in page.render(run(heart()))


def test_the_card_folds_many_hospitals_and_says_their_spread() -> None:
    card = model_card.render(run(sixty()))
    assert card.count("<details><summary>All 60 hospitals</summary>\n\n|") == 3
    assert card.count("<details>") == card.count("</details>")
    assert "mean predicted less observed is from" in card


def test_the_private_model_stands_first_in_tables() -> None:
    html = page.render(run(heart()))
    for title in ("95 % intervals; undefined", "Every measure"):
        caption = html.index(title.replace(" %", "&nbsp;%"))
        headings = html[caption : html.index("</thead>", html.index("<caption>", caption - 10))]
        assert headings.index("together, with privacy") < headings.index("each hospital alone")


def test_a_spread_is_of_the_values_that_there_are() -> None:
    assert Spread.of([None, 1.0, 3.0, None, 2.0]) == Spread(3, 1.0, 1.5, 2.0, 2.5, 3.0)


def test_figures_at_each_stated_threshold_are_a_table_and_a_sentence_in_report_and_card() -> None:
    metrics = judged()
    metrics["models"]["federated"]["outcome"] = outcome(["cleveland"])
    html, card = page.render(run(metrics)), model_card.render(run(metrics))
    assert "from 20&nbsp;% on finds 91&nbsp;% of them and spares 44&nbsp;% of the others" in html
    assert "Net benefit of treating, by threshold" in html
    assert "| Sensitivity | 0.91 (0.87 to 0.95) | 0.80 (0.76 to 0.84) |" in card
    assert "| Negative predictive value | 0.80 (0.76 to 0.84) | undefined |" in card
    assert "more net benefit than treating all or none" in card


def test_what_noisy_bins_do_not_show_is_called_undefined() -> None:
    metrics = judged()
    shared = metrics["models"]["federated"]
    shared["outcome"] = outcome(["cleveland"], noisy=True)
    shared["noisy"] = {"epsilon": 1.0, "bins": 10, "noise_multiplier": 3.0, "sites": ["cleveland"], "missing": {}}
    html = page.render(run(metrics))
    assert "AUPRC is not defined from noisy bins" in html
    assert "only a threshold between two bins has figures" in html


def test_every_chart_is_written_as_svg_that_stands_alone_and_as_csv(tmp_path: Path) -> None:
    metrics = sixty()
    metrics["sites"][0]["site"] = "=cmd()"
    metrics["study"] = HOSTILE
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    paths = write_figures(tmp_path, tmp_path / "made" / "figures")
    names = {path.name for path in paths}
    charts = {"forest", "rounds", "calibration", "decision_curve", "roc"}
    assert names == {f"{n}.{e}" for n in charts for e in ("svg", "csv")} | {
        "thresholds.csv",
        "calibration_by_hospital.csv",
    }
    for path in paths:
        if path.suffix == ".svg":
            root = ElementTree.fromstring(path.read_bytes())
            assert root.tag == f"{SVG}svg"
            assert root.find(f"{SVG}style") is not None
            assert {element.tag for element in root.iter()}.isdisjoint({f"{SVG}script", f"{SVG}image"})
            assert "href" not in path.read_text()
    rows = list(csv.reader((tmp_path / "made/figures/forest.csv").read_text().splitlines()))
    assert len(rows) == 62
    assert rows[0][:3] == ["hospital", "test patients", "each hospital alone"]
    assert any(row[0] == "'=cmd()" for row in rows)
    curve = list(csv.DictReader((tmp_path / "made/figures/decision_curve.csv").read_text().splitlines()))
    assert [float(row["threshold"]) for row in curve] == pytest.approx([n / 50 for n in range(1, 50)])
    assert curve[0]["treating nobody"] == "0"


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(heart()))
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunError, match=r"figures cannot be written there: .*; give another folder"):
        write_figures(tmp_path, tmp_path / "taken")


def counted(sites: int) -> Metrics:
    """A run of statistics: two columns, the outcome last."""

    def figures(patients: float, share: float) -> dict[str, Any]:
        cells = {"counts": [estimate(patients / 2, 5.0)] * 3, "shares": [estimate(share), estimate(1 - share), None]}
        return {
            "patients": {"value": patients, "low": patients - 9, "high": patients + 9},
            "outcome": estimate(share),
            "columns": {"sex": cells, "ill": cells},
        }

    names = [f"hospital-{n:02}" for n in range(1, sites + 1)]
    return {
        **{key: heart()[key] for key in ("study", "study_sha256", "engine", "seed", "outcome", "privacy")},
        **{"rounds_completed": 1, "task": {"type": "statistics", "target": "ill"}, "models": {}},
        "sites": [{"site": name, "patients_announced": 100, "epsilon": 1.0} for name in names],
        "statistics": {
            "noise": 3.0,
            "columns": [{"name": name, "labels": ["0", "1", "unknown"], "edges": []} for name in ("sex", "ill")],
            "outcome": "1",
            "sites": {name: figures(100.0 + n, 0.3 + n / 200) for n, name in enumerate(names)},
            "together": figures(6000.0, 0.45),
        },
    }


def test_a_study_of_statistics_of_many_hospitals_shows_their_spread() -> None:
    html = page.render(run(counted(60)))
    seen = open_parts(html)
    assert seen.count('scope="row" class="name">hospital-') == 0
    assert "Over 60 hospitals" in seen
    assert html.count('scope="row" class="name">hospital-') >= 120
    few = open_parts(page.render(run(counted(4))))
    assert 'class="name">hospital-02' in few


def test_the_card_says_that_no_groups_were_judged_unless_a_release_did(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfGroups(Renderer):
        name, of_groups = "by age", True

    monkeypatch.setattr(RENDERERS, "_kinds", dict(RENDERERS._kinds))
    RENDERERS.register(OfGroups())
    limit = "Figures of groups (by sex, age or origin) were not computed."
    assert limit in model_card.render(run(heart() | {"releases": {"count of beds": {"n": 3}}}))
    assert limit not in model_card.render(run(heart() | {"releases": {"by age": {"n": 3}}}))
