"""Is it worth it: answered without a patient, repeatably, and with the answer that must come where one must."""

import itertools
import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.load import dump_yaml
from configs.schema import DataSource, Study
from simulations.cli import main
from simulations.worth import AtEpsilon, Interval, Phase, Question, Worth, of, verdict_of, weigh
from tests.builders import study

QUICK: dict[str, Any] = {"rounds": 3, "local": {"epochs": 1, "batch_size": "full", "learning_rate": 4.0}}


class Silent:
    def phase(self, title: str, total: int) -> AbstractContextManager[Phase]:
        return nullcontext(self)

    def advance(self, note: str = "") -> None:
        pass


def asked(here: Study, repetitions: int = 3, search: bool = False, **question: Any) -> Worth:
    return weigh(here, Question(repetitions=repetitions, seconds=1e6, search=search, **question), Silent())


def here(patients: dict[str, int], epsilon: float, clip_norm: float = 0.5) -> Study:
    privacy = {"epsilon": epsilon, "delta": 1e-5, "clip_norm": clip_norm}
    return study(cohort=patients, privacy=privacy, training=QUICK)


@pytest.fixture(scope="module")
def small() -> Study:
    return here({"brest": 60, "lille": 60, "lyon": 60}, 0.5)


@pytest.fixture(scope="module")
def worth(small: Study) -> Worth:
    return asked(small)


def test_no_patient_file_is_read(small: Study, worth: Worth) -> None:
    nowhere = tuple((site, DataSource("csv", Path("/nowhere"))) for site in small.sites)
    assert asked(replace(small, simulation=nowhere)) == worth


@pytest.fixture(scope="module")
def searched() -> Worth:
    return asked(here({"brest": 60}, 1.0), search=True)


def test_the_same_seed_gives_the_same_answer_and_recommendation(searched: Worth) -> None:
    assert asked(here({"brest": 60}, 1.0), search=True) == searched


def test_less_privacy_never_loses_more_beyond_the_intervals(worth: Worth) -> None:
    losses = [row.loss for row in worth.by_epsilon if row.loss]
    assert [row.epsilon for row in worth.by_epsilon] == [0.5, 1.0, 3.0, 8.0, None]
    for stricter, looser in itertools.pairwise(losses):
        assert stricter.high is not None
        assert looser.low is not None
        assert looser.low <= stricter.high
    assert losses[0].mean > losses[-1].mean + 0.02  # 60 patients at epsilon 0.5: noise decides


def test_more_hospitals_lose_less(worth: Worth) -> None:
    one, half, every = worth.by_hospitals
    assert (one.hospitals, half.hospitals, every.hospitals) == (1, 2, 3)
    assert (one.patients, every.patients) == (60, 180)
    assert one.loss.mean > every.loss.mean + 0.01


def test_a_hopeless_study_is_not_worth_it() -> None:
    assert asked(here({"brest": 20}, 0.1), repetitions=12).verdict.startswith(
        "not worth it: privacy at epsilon 0.1 costs"
    )


def test_an_easy_study_is_worth_it_and_could_do_with_less_epsilon() -> None:
    easy = asked(here({"brest": 5000, "lille": 5000}, 8.0, clip_norm=2.0), search=True)
    assert easy.verdict.startswith("worth it: privacy at epsilon 8 costs")
    assert easy.cheapest is not None
    assert easy.cheapest.epsilon is not None
    assert easy.cheapest.epsilon < 1
    assert easy.cheapest.loss is not None
    assert easy.cheapest.loss.high is not None
    assert easy.cheapest.loss.high <= 0.02


def test_the_cheapest_epsilon_was_seen_to_reach_the_wish_or_none_is_named(searched: Worth) -> None:
    found = searched.cheapest
    assert found is not None
    assert found.epsilon is None or (found.loss is not None and (found.loss.high or 1) <= searched.within)


def test_settings_that_are_recommended_were_judged_on_worlds_that_did_not_choose_them(searched: Worth) -> None:
    found = searched.recommended
    assert found is not None
    assert found.tried >= 8
    assert found.better == (found.gain.low is not None and found.gain.low > 0)


def test_without_time_nothing_is_said(small: Study) -> None:
    hurried = weigh(small, Question(seconds=0.0), Silent())
    assert hurried.verdict.startswith("cannot say: 0 made-up worlds were finished")
    assert any("the time ended first" in note for note in hurried.notes)


LARGE, TINY, ABOUT = (Interval(m, m - 0.005, m + 0.005) for m in (0.1, 0.002, 0.02))
AUROC = Interval(0.8, 0.79, 0.81)


@pytest.mark.parametrize(
    ("loss", "above", "begins"),
    [
        (LARGE, None, "not worth it: privacy at epsilon 3 costs 0.100 (0.095 to 0.105) of AUROC, more than 0.02"),
        (TINY, None, "worth it: privacy at epsilon 3 costs"),
        (ABOUT, None, "cannot say: privacy at epsilon 3 costs"),
        (TINY, Interval(-0.03, -0.04, -0.02), "not worth it: the largest hospital alone"),
        (TINY, Interval(0.001, -0.002, 0.004), "worth it:"),
    ],
)
def test_the_verdict_follows_from_the_intervals(loss: Interval, above: Interval | None, begins: str) -> None:
    assert verdict_of(Question(), 3.0, 10, AtEpsilon(3.0, AUROC, loss), above).startswith(begins)


@pytest.mark.parametrize(
    ("wanted", "begins"), [(0.82, "not worth it: AUROC"), (0.8, "cannot say: AUROC"), (0.78, "worth it:")]
)
def test_a_wanted_auroc_decides_in_place_of_the_loss(wanted: float, begins: str) -> None:
    assert verdict_of(Question(auroc=wanted), 3.0, 10, AtEpsilon(3.0, AUROC, LARGE), None).startswith(begins)


def test_an_interval_is_students(worth: Worth) -> None:
    assert of([1.0, 2.0, 3.0, 4.0]) == Interval(2.5, 0.4457, 4.5543)  # t = 3.182, s = 1.291, n = 4


# The command


def written(folder: Path, here: Study, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(dump_yaml(here.to_dict() | changes))
    return path


def test_the_command_prints_one_json_object_with_progress_beside_it(
    tmp_path: Path, small: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, small)
    assert main(["plan", str(path), "--worth", "--json", "--repetitions", "1"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["worth"]["verdict"].startswith("cannot say: 1 made-up worlds")
    assert found["sites"][0]["site"] == "brest"
    assert "made-up worlds, by epsilon" in err


def test_the_command_prints_what_was_assumed_the_tables_and_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, here({"brest": 60}, 1.0))
    assert main(["plan", str(path), "--worth", "--repetitions", "3", "--signal", "0.8", "--seconds", "500"]) == 0
    out = capsys.readouterr().out
    for text in ("no patient was read", "a perfect model reaches AUROC 0.8", "loss by epsilon", "by hospitals"):
        assert text in out
    assert "recommended: " in out
    assert "cheapest epsilon for a loss of at most 0.02: " in out


def test_a_plan_without_the_flag_simulates_nothing(
    tmp_path: Path, small: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(written(tmp_path, small))]) == 0
    assert "worth" not in capsys.readouterr().out


REGRESSION = {"task": {"type": "regression", "target": "crp", "range": [0, 300]}, "model": {"name": "linear"}}


@pytest.mark.parametrize(
    ("flags", "changes", "told"),
    [
        (["--auroc", "0.9"], {}, "auroc: expected above 0.5 and below 0.85, which a perfect model is assumed to reach"),
        (["--signal", "1.2"], {}, "signal: expected 0.55 to 0.99, got 1.2"),
        (["--outcomes", "0"], {}, "outcomes: expected 0.01 to 0.99, got 0"),
        (["--within", "-1"], {}, "within: expected 0.001 to 0.4 of AUROC, got -1"),
        ([], {"privacy": {"mode": "none"}}, "privacy.mode: expected local, found none; without privacy there is no"),
        ([], {"privacy": {"mode": "local", "epsilon": 0, "delta": 1e-5, "clip_norm": 1}}, "privacy.epsilon: expected"),
        (
            [],
            {**REGRESSION, "evaluation": {"test_fraction": 0.0, "metrics": ["mae"]}},
            "task.type: expected binary or multiclass",
        ),
    ],
)
def test_what_cannot_be_asked_is_told_before_anything_is_printed(
    tmp_path: Path, small: Study, capsys: pytest.CaptureFixture[str], flags: list[str], changes: Any, told: str
) -> None:
    assert main(["plan", str(written(tmp_path, small, **changes)), "--worth", *flags]) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert out == ""


def test_a_study_that_announces_no_cohort_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = {**QUICK, "strategy": {"name": "fedavg"}, "quorum": 1, "weights": "uniform"}
    path = written(tmp_path, study(), cohort={}, training=training)
    assert main(["plan", str(path), "--worth"]) == 2
    assert "cohort: expected each hospital's announced patients, found nothing; add it" in capsys.readouterr().err
