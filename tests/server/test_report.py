"""The report and the model card: they say what the run says, load nothing, trust nothing, survive what is missing."""

import base64
import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ArchipelError, RunError
from server.charts.markup import VOID
from server.papers import write_model_card, write_report
from server.result.read import read

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e\n"
    "# [a](https://evil.example) | `b` &amp; ${c} $style"
)
Metrics = dict[str, Any]


def estimate(value: float, spread: float = 0.04) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": min(1.0, value + spread)}


def model(value: float, per_site: dict[str, Any]) -> Metrics:
    return {
        "auroc": estimate(value),
        "per_site": per_site,
        "metrics": {"auroc": estimate(value), "accuracy": estimate(0.79), "brier": estimate(0.15), "log_loss": None},
        "calibration": [
            {
                "low": b / 10,
                "high": (b + 1) / 10,
                "predicted": b / 10 + 0.05,
                "observed": min(1, b / 9),
                "count": 4 + 7 * b,
            }
            for b in range(10)
        ],
    }


def heart(sites: int = 4, rounds: int = 20, private: bool = True) -> Metrics:
    """Four hospitals like those of the demo, the last one with too few test patients; or any number of them."""
    names = (["cleveland", "hungary", "long_beach_va"] if sites == 4 else []) + ["switzerland"]
    names = names if len(names) == sites else [f"hospital-{n:02}" for n in range(1, sites + 1)]
    undefined = names[-1] if sites > 1 else ""
    spent = [3.0 * (r / rounds) ** 0.55 for r in range(1, rounds + 1)]

    def at_home(value: float) -> dict[str, Any]:
        return {n: None if n == undefined else estimate(value - 0.03 * (i % 7), 0.08) for i, n in enumerate(names)}

    return {
        "study": "heart-disease",
        "study_sha256": "a" * 64,
        "engine": "inprocess",
        "seed": 0,
        "outcome": "COMPLETE",
        "rounds_completed": rounds,
        "seconds": 12.3,
        "model_sha256": "b" * 64,
        "purpose": "Predict angiographic coronary disease from a routine work-up",
        "task": {"type": "binary", "target": "disease"},
        "primary_metric": "auroc",
        "rounds_planned": rounds,
        "started": "2026-01-01T10:00:00Z",
        "versions": {"archipel": "0.1.0", "flwr": "1.41.0"},
        "privacy": {
            "mode": "local",
            "epsilon": 3.0,
            "delta": 1e-5,
            "unit": "patient",
            "adjacency": "add or remove one",
            "noise": "seeded (simulation)",
        }
        if private
        else {"mode": "none"},
        "features": [
            {"name": "age", "type": "number", "range": [20, 90], "unit": "years"},
            {"name": "sex", "type": "category", "values": ["female", "male"]},
        ],
        "model": {"name": "logistic", "parameters": 15},
        "strategy": "fedavg",
        "sites": [
            {
                "site": name,
                "patients_train": 200 // (i + 1),
                "patients_test": 100 // (i + 1),
                "epsilon": 3.0 if private else None,
                "delta": 1e-5 if private else None,
                "noise_multiplier": 6.2 if private else None,
                "sampling_rate": 0.16 if private else None,
                "steps": 140,
                "bytes_sent": 6753 + 10 * i,
                "messages_sent": rounds + 1,
                "weight": 0.25,
                "values_clipped": {"age": i},
            }
            for i, name in enumerate(names)
        ],
        "models": {
            "federated": model(0.86, at_home(0.86)),
            "federated_without_privacy": model(0.87, at_home(0.87)),
            "local_only": model(0.84, at_home(0.85)) | {"calibration": None},
            "pooled": model(0.875, at_home(0.88)),
        },
        "convergence": {
            key: [{"round": r, "value": top - 0.3 / (1 + r)} for r in range(1, rounds + 1)]
            for key, top in (("federated", 0.87), ("federated_without_privacy", 0.88))
        },
        "epsilon_by_round": dict.fromkeys(names, spent) if private else {},
        "rounds": [{"round": r, "contributed": names, "missing": [], "seconds": 0.02} for r in range(1, rounds + 1)],
        "left": [
            {
                "what": "model update",
                "fields": ["weight (1, 14) float32", "bias (1,) float32"],
                "messages": 80,
                "bytes": 9000,
            },
            {"what": "hello", "fields": ["site", "study_sha256"], "messages": 4, "bytes": 400},
        ],
    }


def regression() -> Metrics:
    metrics = heart()
    metrics |= {"task": {"type": "regression", "target": "length_of_stay", "unit": "days"}, "primary_metric": "mae"}
    for key, value in {"federated": 4.3, "federated_without_privacy": 4.1, "local_only": 5.2, "pooled": 4.0}.items():
        found = {"value": value, "low": value - 0.4, "high": value + 0.5}
        metrics["models"][key] = {
            "auroc": None,
            "per_site": dict.fromkeys(metrics["models"][key]["per_site"], found),
            "metrics": {"mae": found, "r2": {"value": 0.31, "low": -0.02, "high": 0.4}},
        }
    for points in metrics["convergence"].values():
        for point in points:
            point["value"] = 4.2 + 3 / point["round"]
    return metrics


def incomplete() -> Metrics:
    """Two hospitals were missing in some rounds, and round 8 had too few."""
    metrics = heart()
    metrics |= {
        "outcome": "INCOMPLETE",
        "why": "round 8: 2 hospitals contributed, the study asks for 3",
        "rounds_completed": 7,
        "rounds": metrics["rounds"][:8],
    }
    for number, absent in {3: ["hungary"], 8: ["hungary", "switzerland"]}.items():
        entry = metrics["rounds"][number - 1] = dict(metrics["rounds"][number - 1])
        entry["contributed"] = {name: 334 for name in entry["contributed"] if name not in absent}
        entry["missing"] = dict.fromkeys(absent, "no reply in time")
    metrics["epsilon_by_round"] = {s: values[:7] for s, values in metrics["epsilon_by_round"].items()}
    metrics["convergence"] = {key: points[:7] for key, points in metrics["convergence"].items()}
    return metrics


def barest() -> Metrics:
    return {"study": "s", "study_sha256": "", "outcome": "INCOMPLETE", "rounds_completed": 0}


def without_models() -> Metrics:
    return heart() | {"models": {"federated": None}}


def with_everything_undefined() -> Metrics:
    metrics = heart()
    for found in metrics["models"].values():
        found |= {"auroc": None, "per_site": dict.fromkeys(found["per_site"]), "metrics": {"auroc": None}}
        found["calibration"] = []
    return metrics


def without_baselines() -> Metrics:
    metrics = heart()
    metrics["models"] |= dict.fromkeys(["federated_without_privacy", "local_only", "pooled"])
    del metrics["convergence"]["federated_without_privacy"]
    return metrics


def with_objects_where_the_contract_has_lists() -> Metrics:
    """What simulations/run.py writes."""
    metrics = heart()
    metrics["features"] = {f["name"]: {k: v for k, v in f.items() if k != "name"} for f in metrics["features"]}
    metrics["epsilon_by_round"] = {
        site: [{"round": r, "epsilon": value} for r, value in enumerate(values, 1)]
        for site, values in metrics["epsilon_by_round"].items()
    }
    for entry in metrics["rounds"]:
        entry |= {"contributed": dict.fromkeys(entry["contributed"], 334), "missing": {}}
    return metrics


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "four hospitals": heart,
    "objects for lists": with_objects_where_the_contract_has_lists,
    "one hospital, one round": lambda: heart(1, 1),
    "sixty hospitals, two thousand rounds": lambda: heart(60, 2000),
    "no privacy": lambda: heart(private=False),
    "regression": regression,
    "multiclass": lambda: heart() | {"task": {"type": "multiclass", "target": "stage"}},
    "incomplete": incomplete,
    "no baselines": without_baselines,
    "no models": without_models,
    "everything undefined": with_everything_undefined,
    "nothing but the first line": barest,
    "unknown metric": lambda: heart() | {"primary_metric": "concordance_index"},
}


@pytest.fixture(params=CASES)
def any_run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return folder(tmp_path, CASES[request.param]())


def folder(path: Path, metrics: Any) -> Path:
    (path / "metrics.json").write_text(metrics if isinstance(metrics, str) else json.dumps(metrics), "utf-8")
    return path


def report(path: Path, metrics: Any) -> str:
    return write_report(folder(path, metrics)).read_text("utf-8")


def card(path: Path, metrics: Any) -> str:
    return write_model_card(folder(path, metrics)).read_text("utf-8")


def words(html: str) -> str:
    """The text that a reader sees, on one line."""
    page = Page(html)
    return " ".join(" ".join(page.text).split())


class Page(HTMLParser):
    """Reads a page as a browser would, and complains where a browser would guess."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], "elements left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag}: an attribute twice"
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def test_every_page_is_well_formed_and_every_name_is_unique(any_run: Path) -> None:
    page = Page(write_report(any_run).read_text("utf-8"))
    names = [value for _, name, value in page.attributes if name == "id"]
    assert len(set(names)) == len(names)
    links = [value[1:] for _, name, value in page.attributes if name == "href"]
    referred = [value for _, name, text in page.attributes if name == "aria-labelledby" for value in text.split()]
    assert set(links) | set(referred) <= set(names)


def test_a_page_loads_nothing_and_runs_nothing(any_run: Path) -> None:
    html = write_report(any_run).read_text("utf-8")
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base", "image", "use"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:|data:", html)
    loading = {"src", "srcset", "style", "action", "poster", "background", "xlink:href"}
    assert [a for a in page.attributes if a[1] in loading or a[1].startswith("on")] == []
    assert all(value.startswith("#") for _, name, value in page.attributes if name == "href")


def test_the_policy_of_a_page_allows_its_own_style_and_nothing_else(tmp_path: Path) -> None:
    html = report(tmp_path, heart())
    policy = next(v for tag, name, v in Page(html).attributes if tag == "meta" and name == "content" and "src" in v)
    style = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_numbers_in_drawings_are_numbers(any_run: Path) -> None:
    html = write_report(any_run).read_text("utf-8")
    assert not re.search(r'="[^"]*\b(nan|inf|None)\b', html)
    for tag, name, value in Page(html).attributes:
        if name in {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height"} and tag != "meta":
            assert re.fullmatch(r"-?\d+(\.\d)?", value), (tag, name, value)


def test_every_drawing_has_a_title_and_a_description(any_run: Path) -> None:
    html = write_report(any_run).read_text("utf-8")
    for drawing in re.findall(r'<svg[^>]*role="img".*?</svg>', html, re.DOTALL):
        assert re.search(r"<title [^>]*>[^<]+</title><desc [^>]*>[^<]+</desc>", drawing)


def test_sixty_hospitals_and_two_thousand_rounds_stay_small(tmp_path: Path) -> None:
    assert len(report(tmp_path, heart(60, 2000)).encode()) < 2_000_000


def test_text_of_a_run_stays_text(tmp_path: Path) -> None:
    html = report(tmp_path, everywhere_hostile())
    page = Page(html)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert [a for a in page.attributes if a[1].startswith("on")] == []
    assert "<script>alert(1)</script>" in "".join(page.text)
    assert "\u202e" not in html


def test_text_of_a_run_cannot_structure_the_model_card(tmp_path: Path) -> None:
    text = card(tmp_path, everywhere_hostile())
    honest = card(tmp_path, heart())
    assert "<" not in text
    assert re.findall(r"(?<!\\)\[", text) == []
    assert "https://" not in text
    assert headings(text)[1:] == headings(honest)[1:]
    table_rows = [line for line in text.splitlines() if line.startswith("|")]
    columns = [len(re.findall(r"(?<!\\)\|", line)) for line in table_rows]
    honest_columns = [len(re.findall(r"\|", line)) for line in honest.splitlines() if line.startswith("|")]
    assert sorted(set(columns)) == sorted(set(honest_columns))


def headings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]


def everywhere_hostile() -> Metrics:
    """Every text and every name of a hospital or a metric, except those that the contract fixes."""
    fixed = {"outcome", "mode", "type", "primary_metric", "engine"}

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            renamed = {k: f"{k} {HOSTILE}" if k in names else k for k in value}
            return {renamed[k]: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(item, key) for item in value]
        return f"{value} {HOSTILE}" if isinstance(value, str) and key not in fixed else value

    metrics = incomplete()
    names = {site["site"] for site in metrics["sites"]} | {"brier", "archipel", "age"}
    spoiled = spoil(metrics)
    assert isinstance(spoiled, dict)
    return spoiled


def test_half_of_a_surrogate_pair_does_not_break_the_file(tmp_path: Path) -> None:
    assert "heart" in report(tmp_path, json.dumps(heart() | {"study": "heart \ud800"}))


def test_the_headline_says_what_was_reached_and_what_privacy_costs(tmp_path: Path) -> None:
    text = words(report(tmp_path, heart()))
    assert "Together, four hospitals reach AUROC 0.86 (0.82 to 0.90); alone, they average 0.84" in text
    assert "privacy costs 0.01." in text


@pytest.mark.parametrize(
    ("rounds", "every", "said"),
    [
        (20, 1, "is judged after every round, on"),
        (1, 1, "is judged after every round, on"),
        (125, 2, "is judged every 2 rounds, and after the last, on"),
        (600, 10, "is judged every 10 rounds, and after the last, on"),
    ],
)
def test_a_long_study_says_how_often_its_model_was_judged(tmp_path: Path, rounds: int, every: int, said: str) -> None:
    metrics = heart(rounds=rounds)
    metrics["convergence"] = {
        key: [point for point in points if not point["round"] % every or point["round"] == rounds]
        for key, points in metrics["convergence"].items()
    }
    assert said in words(report(tmp_path, metrics))


def test_an_undefined_figure_is_called_undefined_and_never_a_number(tmp_path: Path) -> None:
    text = words(report(tmp_path, heart()))
    assert "undefined: fewer than two test patients of one outcome" in text
    assert "None" not in text
    assert "switzerland (undefined" in card(tmp_path, heart()).replace("None", "")


def test_an_incomplete_study_says_so_before_any_figure(tmp_path: Path) -> None:
    text = words(report(tmp_path, incomplete()))
    assert text.index("Incomplete") < text.index("The study stopped after 7 of 20 rounds") < text.index("0.86")
    assert "round 8: 2 hospitals contributed, the study asks for 3" in text
    assert "Together, four hospitals reach" not in text
    assert "no reply in time" in text


def test_a_study_without_privacy_says_so_and_claims_no_guarantee(tmp_path: Path) -> None:
    text, kept = words(report(tmp_path, heart(private=False))), card(tmp_path, heart(private=False))
    assert "trained without differential privacy" in text
    assert "privacy costs" not in text
    assert "add or remove one" not in text + kept
    assert "**None.**" in kept


def test_a_rehearsal_does_not_pretend_to_protect_anybody(tmp_path: Path) -> None:
    assert "Only a deployed study protects patients" in words(report(tmp_path, heart()))
    deployed = heart() | {"engine": "deployment"}
    deployed["privacy"]["noise"] = "secure"
    assert "Only a deployed study protects patients" not in words(report(tmp_path, deployed))


def test_more_spending_than_the_budget_is_never_called_a_guarantee(tmp_path: Path) -> None:
    metrics = heart()
    metrics["sites"][1]["epsilon"] = 3.4
    text = "More privacy was spent than the study allows, by hungary: the stated guarantee does not hold."
    assert text in words(report(tmp_path, metrics))
    assert text in card(tmp_path, metrics)
    assert "Asked for, and not kept: (epsilon = 3" in words(report(tmp_path, metrics))
    assert "Asked for, and not kept: (epsilon = 3" in card(tmp_path, metrics)


def test_a_regression_is_judged_by_its_error_in_its_unit(tmp_path: Path) -> None:
    text = words(report(tmp_path, regression()))
    assert "reach a mean absolute error of 4.30 days (3.90 to 4.80)" in text
    assert "AUROC" not in text


def test_the_card_states_the_guarantee_precisely(tmp_path: Path) -> None:
    text = card(tmp_path, heart())
    assert "(epsilon = 3, delta = 1e-05) per patient, add or remove one, at each hospital, for the whole study" in text
    assert "a" * 64 in text
    assert "b" * 64 in text
    assert "| age | number | 20 to 90 | years |" in text


def test_a_card_is_written_for_every_run(any_run: Path) -> None:
    text = write_model_card(any_run).read_text("utf-8")
    assert headings(text)[1:] == [
        *("## What it predicts", "## Intended use", "## Data", "## Training"),
        *("## Privacy", "## Performance", "## Limits", "## Digests"),
    ]


def broken() -> Iterator[tuple[str, Any]]:
    yield "not json", "{"
    yield "not an object", "[]"
    yield "not a number", json.dumps(heart()).replace("12.3", "NaN")
    yield "infinite", json.dumps(heart()).replace("12.3", "1e999")
    yield "enormous", json.dumps(heart() | {"seed": 10**400})
    yield "deep", "[" * 100_000
    for key in ("study", "study_sha256", "outcome", "rounds_completed"):
        yield f"no {key}", {k: v for k, v in heart().items() if k != key}
    for key in heart():
        yield f"{key} of another kind", heart() | {key: [[1]]}
        yield f"{key} a truth", heart() | {key: True}
    yield "negative rounds", heart() | {"rounds_planned": -1}
    yield "rounds without end", heart() | {"rounds_planned": 10**12}
    metrics = copy.deepcopy(heart())
    metrics["models"]["federated"]["calibration"][0]["observed"] = 2
    yield "a share of two", metrics


@pytest.mark.parametrize(("metrics"), [pytest.param(m, id=name) for name, m in broken()])
def test_a_malformed_file_is_a_clear_error_and_leaves_the_old_report(tmp_path: Path, metrics: Any) -> None:
    old = report(tmp_path, heart())
    with pytest.raises(RunError, match=r"metrics\.json: .*expected .*found .*; run the study again"):
        report(tmp_path, metrics)
    with pytest.raises(ArchipelError):
        card(tmp_path, metrics)
    assert (tmp_path / "report.html").read_text("utf-8") == old


def test_a_folder_without_metrics_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        write_report(tmp_path)


def test_bytes_that_are_no_text_are_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="UTF-8"):
        write_report(tmp_path)


def test_the_same_run_gives_the_same_report(tmp_path: Path) -> None:
    assert report(tmp_path, heart()) == report(tmp_path, heart())


@pytest.mark.parametrize("value", [-1e99, -1.0, 0.0, 1e-300, 1e99])
def test_absurd_figures_are_drawn_without_complaint(tmp_path: Path, value: float) -> None:
    metrics = regression()
    found = {"value": value, "low": value, "high": value}
    for entry in metrics["models"].values():
        entry |= {"metrics": {"mae": found}, "per_site": dict.fromkeys(entry["per_site"], found)}
    metrics["convergence"] = {"federated": [{"round": 1, "value": value}]}
    metrics["epsilon_by_round"] = {"cleveland": [value]}
    metrics["privacy"] |= {"epsilon": value, "delta": value}
    for site in metrics["sites"]:
        site |= {"epsilon": value, "delta": value, "noise_multiplier": value}
    Page(report(tmp_path, metrics))
    assert card(tmp_path, metrics)


def test_a_deployed_run_says_that_nothing_was_measured_and_leaves_out_what_would_be_empty(tmp_path: Path) -> None:
    deployed = heart() | {"engine": "deployed", "convergence": {}}
    deployed["models"] = dict.fromkeys(deployed["models"])
    text = words(report(tmp_path, deployed))
    assert "How good it is was not measured: no metric left." in text
    assert "How good is it at each hospital?" not in text
    assert "undefined on these test patients" not in text
    assert "Who took part in each round?" in text


def test_a_mean_score_that_hospitals_released_is_how_good_the_model_is(tmp_path: Path) -> None:
    deployed = heart() | {"engine": "deployed", "convergence": {}}
    deployed["models"] = dict.fromkeys(deployed["models"])
    score: Metrics = {"score": "Dice coefficient", "together": {"value": 0.8, "low": 0.7, "high": 0.9}, "sites": {}}
    score |= {"patients": {"value": 40.0, "low": 36.0, "high": 44.0}, "noise_multiplier": 2.0}
    sentence = "The mean Dice coefficient of the test patients is 0.80 (0.70 to 0.90)."
    for together, said in ((score["together"], sentence), (None, "The noise drowns the mean Dice coefficient")):
        deployed["releases"] = {"score_sum": score | {"together": together}}
        assert f"trained one model. {said}" in words(report(tmp_path, deployed))
        assert f"trained one model. {said}" in card(tmp_path, deployed)
        assert "How good it is was not measured" not in words(report(tmp_path, deployed))


def noisy(auroc: Metrics | None) -> Metrics:
    """A deployed run of which three hospitals of four released histograms."""
    deployed = heart() | {"engine": "deployed", "convergence": {}}
    deployed["models"] = dict.fromkeys(deployed["models"])
    per_site = {
        "cleveland": estimate(0.84, 0.1),
        "hungary": estimate(0.8, 0.1),
        "long_beach_va": None,
        "switzerland": None,
    }
    entry = {"predicted": 0.75, "observed": 0.8, "observed_low": 0.125, "observed_high": 0.9, "count": 40}
    deployed["models"]["federated"] = {
        "auroc": auroc,
        "per_site": per_site if auroc else dict.fromkeys(per_site),
        "metrics": {"auroc": auroc, "brier": estimate(0.15) if auroc else None, "log_loss": None},
        "calibration": [entry] if auroc else [],
        "noisy": {"epsilon": 0.5, "bins": 20, "sites": ["cleveland", "hungary", "long_beach_va"]},
    }
    return deployed


def test_noisy_figures_of_a_deployed_run_are_shown_and_called_noisy(tmp_path: Path) -> None:
    text = words(report(tmp_path, noisy(estimate(0.83, 0.06))))
    assert "0.83" in text
    assert "three hospitals of 4 released" in text
    assert "the noise included" in text
    assert "which cost epsilon 0.50 of it" in text or "which cost epsilon 0.5 of it" in text
    assert "not released, or undefined" in text
    assert "was not measured" not in text
    assert "carry no noise" not in text
    assert "How fast did it learn?" not in text
    shown = card(tmp_path, noisy(estimate(0.83, 0.06)))
    assert "include the noise" in shown
    assert "without noise" not in shown


def test_a_noisy_figure_that_is_undefined_is_called_so(tmp_path: Path) -> None:
    text = words(report(tmp_path, noisy(None)))
    assert "its quality is undefined on so few test patients for so much noise" in text
    assert "was not measured" not in text


def test_the_line_of_a_noisy_calibration_bin_is_its_own_interval(tmp_path: Path) -> None:
    found = read(json.dumps(noisy(estimate(0.83)))).model("federated")
    assert found is not None
    assert found.calibration[0].interval == (0.125, 0.9)
    wider = noisy(estimate(0.83))
    wider["models"]["federated"]["calibration"][0]["observed_low"] = 0.0625
    (tmp_path / "wider").mkdir()
    drawn, drawn_wider = report(tmp_path, noisy(estimate(0.83))), report(tmp_path / "wider", wider)
    assert drawn != drawn_wider


def test_a_deployed_runs_card_does_not_say_that_no_value_was_moved(tmp_path: Path) -> None:
    """Nobody but the hospital knows."""
    metrics = heart()
    metrics["sites"][0] |= {"patients_train": None, "patients_test": None, "values_clipped": {}}
    metrics["sites"][1] |= {"values_clipped": {}}
    lines = [line for line in card(tmp_path, metrics).splitlines() if line.startswith("| ")]
    moved = {line.split("|")[1].strip(): line.split("|")[4].strip() for line in lines if line.count("|") == 5}
    assert (moved["cleveland"], moved["hungary"]) == ("\N{EN DASH}", "none")
