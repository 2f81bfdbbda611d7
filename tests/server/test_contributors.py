"""The report, the card and the screens count the hospitals that contributed, and say who did not and why."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.journal import Journal
from configs.schema import Study
from server.conductor import write_down
from server.outcome import Outcome, Released, RoundRecord
from server.papers import write_model_card, write_report
from server.result.read import load
from server.rounds import Rounds
from simulations.tables import print_comparison, print_run
from strategies.data.columns import cells_of
from strategies.learning import learning_of
from tests.builders import counting
from tests.builders import study as private_study
from tests.server.test_report import heart, words

REFUSAL = "the hospital refused this study"


@dataclass(frozen=True)
class Case:
    """A study of so many hospitals, and who contributed to each of its rounds; the others refused or were late."""

    of: int
    rounds: tuple[tuple[int, ...], ...]
    quorum: int = 1
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    private: bool = True
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def sites(self) -> list[str]:
        return [f"h{n:02}" for n in range(1, self.of + 1)]

    @property
    def study(self) -> Study:
        privacy = {} if self.private else {"privacy": {"mode": "none"}}
        return private_study(
            cohort=dict.fromkeys(self.sites, 500),
            training={"rounds": len(self.rounds), "quorum": self.quorum},
            **privacy,
        )


def epsilon_of(done: int) -> float:
    return round(0.5 * done, 2)


def deployed(run: Path, case: Case) -> None:
    """What the conductor leaves of a run between machines in which so many contributed."""
    run.mkdir(parents=True, exist_ok=True)
    study, journal = case.study, Journal(run / "journal.jsonl", durable=False)
    journal.append("begin", study_sha256=study.sha256)
    for number, why in case.refused.items():
        journal.append("refused", site=case.sites[number - 1], code=103, reason=why)
    there = [site for n, site in enumerate(case.sites, 1) if n not in case.refused]
    journal.append("gathered", study_sha256=study.sha256, sites=there, bytes=dict.fromkeys(there, 70))
    rounds, done = Rounds(len(case.rounds), case.quorum), dict.fromkeys(case.sites, 0)
    for number, present in enumerate(case.rounds, 1):
        contributed = [case.sites[n - 1] for n in present]
        for site in contributed:
            done[site] += 1
            epsilon = {"epsilon": f"{epsilon_of(done[site])}"} if case.private else {}
            journal.append("received", site=site, round=number, form="train reply", bytes=400, **epsilon)
        missing = {site: "no reply in time" for site in there if site not in contributed}
        journal.append("round", round=number, contributed=dict.fromkeys(contributed, 400), missing=missing, seconds=0.5)
        rounds = rounds.close(set(contributed))
    write_down(run, study, Outcome(rounds, learning_of(study).initial(0)), 1.0)


def papers(run: Path) -> tuple[str, str]:
    """The report's and the card's words."""
    page = words(write_report(run).read_text("utf-8"))
    return page, " ".join(write_model_card(run).read_text("utf-8").split())


ALL12 = tuple(range(1, 13))
CASES = {
    "one of two": Case(
        2,
        ((2,), (2,), (2,)),
        says=("One of two hospitals trained a model.", f"h01 is no part of the result: {REFUSAL}."),
        never=("two hospitals trained", "Patients of two", "two hospitals together sent", "Both hospitals"),
        refused={1: REFUSAL},
    ),
    "one of three, for two reasons": Case(
        3,
        ((3,), (3,)),
        says=(
            "One of three hospitals trained a model.",
            "h01 is no part of the result: the budget is spent.",
            "h02 is no part of the result: no reply in time.",
        ),
        never=("three hospitals trained", "Patients of three hospitals", "from three hospitals", "All three hospitals"),
        refused={1: "the budget is spent"},
    ),
    "ten of twelve, for one reason": Case(
        12,
        (ALL12[2:],) * 2,
        says=(
            "Together, ten of twelve hospitals trained one model.",
            f"h01 and h02 are no part of the result: {REFUSAL}.",
        ),
        never=("twelve hospitals trained", "Patients of twelve", "All twelve hospitals"),
        refused={1: REFUSAL, 2: REFUSAL},
    ),
    "two of thirty": Case(
        30,
        ((7, 9),),
        quorum=2,
        says=(
            "Together, two of 30 hospitals trained one model.",
            "and 18 more are no part of the result: no reply in time.",
        ),
        never=("Together, 30 hospitals",),
    ),
    "all of two": Case(
        2,
        ((1, 2), (1, 2)),
        says=("Together, two hospitals trained one model.", "Both hospitals contributed to all 2 rounds."),
        never=("is no part of the result", "one of two", "missed", "of 2 in the study"),
    ),
    "one hospital": Case(1, ((1,),), says=("One hospital trained a model.",), never=("is no part", "Together,")),
    "sets that change, everybody once": Case(
        4,
        ((1, 2), (3, 4), (1, 2, 3)),
        quorum=2,
        says=(
            "Together, four hospitals trained one model.",
            "The fewest, two of four hospitals, contributed to round 1 and 1 other",
        ),
        never=("is no part of the result",),
    ),
    "a last round that did not count": Case(
        3,
        ((1, 2), (3,)),
        quorum=2,
        says=(
            "The study stopped after 1 of 2 rounds",
            "h03 is no part of the result: it contributed only to a round that did not count.",
        ),
        never=("from three hospitals", "Patients of three hospitals"),
    ),
    "away for some rounds": Case(
        3,
        ((1, 2, 3), (1, 2), (1, 2), (1, 2, 3)),
        says=(
            "Together, three hospitals trained one model.",
            "Of 4 rounds, h03 missed 2; two hospitals contributed to all.",
        ),
        never=("is no part of the result", "of three hospitals trained"),
    ),
    "without privacy": Case(
        2,
        ((2,),),
        private=False,
        says=("One of two hospitals trained a model.", "h01 is no part of the result: no reply in time."),
        never=("two hospitals trained",),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_papers_count_contributors_and_name_who_was_away_and_why(tmp_path: Path, case: Case) -> None:
    deployed(tmp_path, case)
    page, card = papers(tmp_path)
    for text in case.says:
        assert text in page, text
        assert text in card.replace("\\", ""), text
    for text in case.never:  # but "two of three hospitals" may be said
        assert not re.search(f"(?<!of ){re.escape(text)}", page), text
        assert not re.search(f"(?<!of ){re.escape(text)}", card), text


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tables_and_curves_hold_no_hospital_that_never_came(tmp_path: Path, case: Case) -> None:
    """A hospital's epsilon is what it said that it had spent, never what the plan foresaw."""
    deployed(tmp_path, case)
    metrics = json.loads((tmp_path / "metrics.json").read_bytes())
    came = {case.sites[n - 1] for present in case.rounds for n in present}
    done = {site: sum(site in r["contributed"] for r in metrics["rounds"]) for site in case.sites}
    for site in metrics["sites"]:
        expected = epsilon_of(done[site["site"]]) if done[site["site"]] and case.private else None
        assert site["epsilon"] == expected
    assert set(metrics["epsilon_by_round"]) == (came if case.private else set())
    for site, curve in metrics["epsilon_by_round"].items():
        assert curve[-1]["epsilon"] == epsilon_of(done[site])
    assert set(metrics["absent"]) == {s.name for s in load(tmp_path).sites} - {
        s.name for s in load(tmp_path).contributors
    }
    _, card = papers(tmp_path)
    privacy = write_model_card(tmp_path).read_text("utf-8").partition("## Privacy")[2].partition("##")[0]
    rows = set(re.findall(r"^\| (h\d\d) ", privacy, re.M))
    assert rows == (came if case.private else set())
    assert card


def test_a_hospitals_curve_of_epsilon_stands_still_while_it_is_away(tmp_path: Path) -> None:
    deployed(tmp_path, CASES["away for some rounds"])
    curve = json.loads((tmp_path / "metrics.json").read_bytes())["epsilon_by_round"]["h03"]
    assert [point["epsilon"] for point in curve] == [0.5, 0.5, 0.5, 1.0]


def test_reasons_are_told_once_for_all_rounds_they_hold_for(tmp_path: Path) -> None:
    deployed(tmp_path, Case(3, ((1, 2), (1,), (1, 2), (1, 2)), refused={3: REFUSAL}))
    page, _ = papers(tmp_path)
    assert f"h03 1 to 4 {REFUSAL}" in page
    assert "h02 2 no reply in time" in page


def simulated(away: Sequence[str] = ("hungary",)) -> dict[str, Any]:
    """A simulation in which some hospitals never took part."""
    metrics: dict[str, Any] = heart()
    for entry in metrics["rounds"]:
        entry["contributed"] = [name for name in entry["contributed"] if name not in away]
        entry["missing"] = dict.fromkeys(away, "no reply in time")
    for site in metrics["sites"]:
        if site["site"] in away:
            site |= {"epsilon": 0.0, "bytes_sent": 0, "messages_sent": 0}
    return metrics | {"absent": dict.fromkeys(away, "no reply in time"), "why": ""}


def test_a_simulation_too_counts_who_contributed(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(simulated()))
    page, card = papers(tmp_path)
    for text in (page, card.replace("\\", "")):
        assert "Together, three of four hospitals reach AUROC 0.86" in text
        assert "hungary is no part of the result: no reply in time." in text
        assert "Together, four" not in text
    assert "Patients of three of four hospitals" in card
    assert "also of those that did not train it" in card
    assert "from three of four hospitals" in page
    assert "three of four hospitals together sent" in page.lower()
    assert "316 to learn from, at three of four hospitals" in page


def test_an_older_file_without_reasons_at_its_top_is_read_from_its_rounds(tmp_path: Path) -> None:
    metrics = simulated()
    del metrics["absent"]
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    page, _ = papers(tmp_path)
    assert "hungary is no part of the result: no reply in time." in page


def test_the_screen_says_who_is_no_part_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(simulated()))
    print_run(tmp_path)
    shown = " ".join(capsys.readouterr().out.split())
    assert "hungary is no part of the shared model: no reply in time" in shown
    assert "sent by 3 of 4 hospitals" in shown
    assert "by all hospitals" not in shown
    print_comparison([tmp_path])
    assert re.search(r"hospitals +3 of 4", capsys.readouterr().out)


def test_a_deployed_run_is_compared_by_the_figures_that_hospitals_released(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = {"value": 0.812, "low": 0.7, "high": 0.9}
    metrics = heart() | {"engine": "deployed", "primary_metric": None, "why": ""}
    metrics["models"] = dict.fromkeys(metrics["models"])
    metrics["models"]["federated"] = {"auroc": figure, "per_site": {}, "metrics": {"auroc": figure}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    print_comparison([tmp_path])
    shown = capsys.readouterr().out
    assert "0.812" in shown
    assert "NONE" not in shown


def test_statistics_add_up_the_announced_patients_of_those_who_released(tmp_path: Path) -> None:
    study = counting()
    journal = Journal(tmp_path / "journal.jsonl", durable=False)
    journal.append("begin", study_sha256=study.sha256)
    journal.append("refused", site="lyon", code=103, reason=REFUSAL)
    journal.append("gathered", sites=["brest", "lille"], bytes={"brest": 70, "lille": 70})
    sent = {"brest": 100, "lille": 100}
    journal.append("round", round=1, contributed=sent, missing={}, seconds=0.1)
    counts = {site: {"counts": np.full(cells_of(study), 30.0, np.float32)} for site in sent}
    record = RoundRecord(1, sent, {}, 0.1)
    conducted = Outcome(Rounds(1, 2).close(set(sent)), {}, [record], released={"statistics": Released(counts, {})})
    write_down(tmp_path, study, conducted, 1.0)
    page = words(write_report(tmp_path).read_text("utf-8"))
    assert "Two hospitals count about" in page
    assert "all together 160" in page
    assert "all together 240" not in page
    assert f"lyon {REFUSAL}" in page
    assert f"lyon released nothing: {REFUSAL}." in page
