"""Is it worth it: answered without a patient, repeatably, and with the answer that must come where one must."""

import itertools
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.schema import CsvFile, Study
from configs.strict_yaml import dump_yaml
from simulations.cli import main
from simulations.display import Phase
from simulations.worth import synthetic
from simulations.worth.answer import AtEpsilon, Recommended, Worth
from simulations.worth.question import Question
from simulations.worth.search import Settings
from simulations.worth.synthetic import Assumed
from simulations.worth.verdict import verdict_of
from simulations.worth.weigh import weigh
from simulations.worth.worlds import Bench, Interval, at, t_interval
from tests.builders import study

QUICK: dict[str, Any] = {"rounds": 3, "local": {"epochs": 1, "batch_size": "full", "learning_rate": 4.0}}


@pytest.fixture(scope="module", autouse=True)
def few_test_patients() -> Iterator[None]:
    """Judging on fewer is quicker and hardly less exact, as chances are judged and no drawn outcomes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "TEST_PATIENTS", 600)
        yield


class Silent:
    def phase(self, title: str, total: int) -> AbstractContextManager[Phase]:
        return nullcontext(self)

    def advance(self, note: str = "") -> None:
        pass


MANY = 16  # repetitions: enough for what must come out to come out


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
    return asked(small, MANY)


def test_no_patient_file_is_read(small: Study, worth: Worth) -> None:
    nowhere = tuple((site, CsvFile(Path("/nowhere"))) for site in small.sites)
    assert asked(replace(small, simulation=nowhere), MANY) == worth


@pytest.fixture(scope="module")
def searched() -> Worth:
    return asked(here({"brest": 60}, 1.0), search=True)


def test_the_same_seed_gives_the_same_answer_and_recommendation(searched: Worth) -> None:
    assert asked(here({"brest": 60}, 1.0), search=True) == searched


def test_less_privacy_never_loses_more_beyond_the_intervals(worth: Worth) -> None:
    losses = [row.loss for row in worth.by_epsilon]
    assert [row.epsilon for row in worth.by_epsilon] == [0.5, 1.0, 3.0, 8.0]
    for stricter, looser in itertools.pairwise(losses):
        assert stricter.high is not None
        assert looser.low is not None
        assert looser.low <= stricter.high
    assert losses[0].mean > losses[-1].mean + 0.02  # 60 patients at epsilon 0.5: noise decides


def test_more_hospitals_lose_less_at_each_epsilon_where_noise_decides(worth: Worth) -> None:
    one, half, every = worth.by_hospitals
    assert (one.hospitals, half.hospitals, every.hospitals) == (1, 2, 3)
    assert (one.patients, every.patients) == (60, 180)
    assert list(one.losses) == [0.5, 1.0, 3.0, 8.0]
    for epsilon in (0.5, 1.0):
        assert one.losses[epsilon].mean > every.losses[epsilon].mean + 0.01
    assert every.losses == {row.epsilon: row.loss for row in worth.by_epsilon}


def test_what_noise_costs_and_what_clipping_costs_make_up_the_loss(worth: Worth) -> None:
    assert worth.clipping is not None
    for row in worth.by_epsilon:
        assert row.noise.mean + worth.clipping.loss.mean == pytest.approx(row.loss.mean, abs=2e-4)


def test_the_noise_takes_less_as_epsilon_grows_and_clipping_costs_the_same_at_any(small: Study, worth: Worth) -> None:
    noise = [row.noise.mean for row in worth.by_epsilon]
    assert noise[0] > 0.02 > noise[-1] > -0.01
    assert asked(at(small, 8.0), MANY).clipping == worth.clipping


def test_a_clip_that_is_far_too_small_for_rare_outcomes_costs_by_clipping_and_not_by_noise() -> None:
    features = {f"number {i}": {"type": "number", "range": [0, 1]} for i in range(6)}
    many = study(
        cohort={"brest": 4000},
        features=features,
        training=QUICK,
        privacy={"epsilon": 8.0, "delta": 1e-5, "clip_norm": 0.01},
    )
    found = asked(many, assumed=Assumed(outcomes=0.15))
    assert found.clipping is not None
    assert found.clipping.loss.mean > 0.02 > 4 * abs(found.by_epsilon[-1].noise.mean)
    assert "of it the noise costs" in found.verdict


def test_without_noise_a_study_of_so_much_epsilon_that_there_is_next_to_none_learns_the_same() -> None:
    study_ = at(here({"brest": 60}, 3.0), 1e6)
    bench = Bench(study_, Question().assumed, 1e6)
    assert bench.judged(study_, 0).auroc == pytest.approx(bench.judged(study_, 0, noise=False).auroc, abs=1e-3)


def test_all_patients_in_one_place_for_longer_are_a_reference(worth: Worth) -> None:
    assert worth.converged is not None
    assert worth.without_privacy is not None
    assert worth.converged.auroc.mean > worth.without_privacy.mean - 0.02


def test_a_hopeless_study_is_not_worth_it() -> None:
    assert asked(here({"brest": 20}, 0.1), MANY).verdict.startswith("not worth it: privacy at epsilon 0.1 costs")


def test_an_easy_study_is_worth_it_and_could_do_with_less_epsilon() -> None:
    easy = asked(here({"brest": 5000, "lille": 5000}, 8.0, clip_norm=2.0), search=True)
    assert easy.verdict.startswith("worth it: privacy at epsilon 8 costs")
    assert easy.cheapest is not None
    assert easy.cheapest.epsilon is not None
    assert easy.cheapest.epsilon < 1
    assert easy.cheapest.loss is not None
    assert easy.cheapest.loss.high is not None
    assert easy.cheapest.loss.high <= 0.02


def test_the_cheapest_epsilon_for_an_auroc_reaches_it_with_the_whole_interval_or_none_is_named() -> None:
    found = asked(here({"brest": 400, "lille": 400}, 3.0, clip_norm=2.0), search=True, auroc=0.76).cheapest
    assert found is not None
    assert found.wanted == "AUROC 0.76"
    assert found.epsilon is not None
    assert found.epsilon < 1  # the wish is modest, these hospitals are large
    assert found.auroc is not None
    assert found.auroc.low is not None
    assert found.auroc.low >= 0.76
    none = asked(here({"brest": 100}, 3.0), search=True, auroc=0.84).cheapest
    assert none is not None
    assert (none.wanted, none.tried, none.epsilon) == ("AUROC 0.84", 8.0, None)


def test_the_cheapest_epsilon_was_seen_to_reach_the_wish_or_none_is_named(searched: Worth) -> None:
    found = searched.cheapest
    assert found is not None
    assert found.epsilon is None or (found.loss is not None and (found.loss.high or 1) <= searched.within)
    assert searched.recommended is not None
    assert found.recommended == searched.recommended.better


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


def row(loss: Interval) -> AtEpsilon:
    return AtEpsilon(3.0, AUROC, loss, TINY, 0.1)


def test_settings_that_are_surely_better_have_the_verdict_and_the_studys_own_loss_is_told_beside() -> None:
    better = Recommended(Settings(None, 20, 0.7, 4.0), 9, AUROC, TINY, ABOUT, None, better=True)
    told = verdict_of(Question(), 3.0, 10, row(LARGE), None, better)
    assert told.startswith("worth it with the recommended settings: privacy at epsilon 3 costs 0.002")
    assert told.endswith("with the study's own it costs 0.100 (0.095 to 0.105)")
    unsure = replace(better, better=False)
    assert verdict_of(Question(), 3.0, 10, row(LARGE), None, unsure).startswith("not worth it: privacy")


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
    assert verdict_of(Question(), 3.0, 10, row(loss), above).startswith(begins)


@pytest.mark.parametrize(
    ("wanted", "begins"), [(0.82, "not worth it: AUROC"), (0.8, "cannot say: AUROC"), (0.78, "worth it:")]
)
def test_a_wanted_auroc_decides_in_place_of_the_loss(wanted: float, begins: str) -> None:
    assert verdict_of(Question(auroc=wanted), 3.0, 10, row(LARGE), None).startswith(begins)


def test_an_interval_is_students(worth: Worth) -> None:
    assert t_interval([1.0, 2.0, 3.0, 4.0]) == Interval(2.5, 0.4457, 4.5543)  # t = 3.182, s = 1.291, n = 4


# The command


def written(folder: Path, here: Study, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(dump_yaml(here.to_dict() | changes))
    return path


def test_the_command_prints_one_json_object_with_progress_beside_it(
    tmp_path: Path, small: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, small)
    assert main(["plan", str(path), "--worth", "--json", "--repetitions", "3"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["worth"]["repetitions"] == 3
    assert found["worth"]["verdict"]
    assert found["sites"][0]["site"] == "brest"
    assert "made-up worlds, by epsilon" in err


def test_the_command_prints_what_was_assumed_the_tables_and_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, here({"brest": 60}, 1.0))
    assert main(["plan", str(path), "--worth", "--repetitions", "3", "--signal", "0.8", "--seconds", "500"]) == 0
    out = capsys.readouterr().out
    told = ["no patient was read", "a perfect model reaches AUROC 0.8", "of it noise", "clipping alone", "in one place"]
    told += ["loss by epsilon and hospitals", "epsilon: per patient, add or remove one", "recommended: "]
    for text in told:
        assert text in out
    assert "cheapest epsilon for a loss of at most 0.02" in out


def test_a_plan_without_the_flag_simulates_nothing(
    tmp_path: Path, small: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(written(tmp_path, small))]) == 0
    assert "worth" not in capsys.readouterr().out


@pytest.mark.parametrize("option", ["within", "auroc", "signal", "outcomes", "differences", "repetitions", "seconds"])
def test_an_option_of_worth_without_it_is_refused_and_not_ignored(
    tmp_path: Path, small: Study, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(["plan", str(written(tmp_path, small)), f"--{option}", "1"]) == 2
    out, err = capsys.readouterr()
    assert f"--{option}: expected only beside --worth" in err
    assert out == ""


def test_repetitions_that_allow_no_verdict_are_refused_before_anything_is_simulated(
    tmp_path: Path, small: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(written(tmp_path, small)), "--worth", "--repetitions", "2"]) == 2
    out, err = capsys.readouterr()
    assert "repetitions: expected at least 3 made-up worlds, as fewer allow no verdict, got 2" in err
    assert out == ""


def test_two_wishes_at_once_are_refused(tmp_path: Path, small: Study, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", str(written(tmp_path, small)), "--worth", "--within", "0.01", "--auroc", "0.8"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_study_of_several_classes_is_weighed_by_the_mean_auroc_of_its_classes() -> None:
    several = study(
        cohort={"brest": 60},
        task={"type": "multiclass", "classes": ["a", "b", "c"]},
        training=QUICK,
        evaluation={"test_fraction": 0.0, "metrics": ["auroc"]},
    )
    found = asked(several)
    assert found.without_privacy is not None
    assert 0.5 < found.by_epsilon[-1].auroc.mean < found.without_privacy.mean + 0.02 < 0.87


def test_of_several_classes_no_share_of_outcomes_is_asked_or_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"type": "multiclass", "target": "disease", "classes": ["a", "b", "c"]}
    path = written(tmp_path, here({"brest": 60}, 3.0), task=task)
    assert main(["plan", str(path), "--worth", "--outcomes", "0.3"]) == 2
    assert "--outcomes: expected only for a binary task" in capsys.readouterr().err
    assert main(["plan", str(path), "--worth", "--repetitions", "3"]) == 0
    out = capsys.readouterr().out
    assert "the 3 classes, each judged against the rest, are equally frequent" in out
    assert "of patients have the outcome" not in out


REGRESSION = {"task": {"type": "regression", "target": "crp", "range": [0, 300]}, "model": {"name": "linear"}}


@pytest.mark.parametrize(
    ("flags", "changes", "told"),
    [
        (["--auroc", "0.9"], {}, "auroc: expected above 0.5 and below 0.85, which a perfect model is assumed to reach"),
        (["--signal", "1.2"], {}, "signal: expected 0.55 to 0.99, got 1.2"),
        (["--outcomes", "0"], {}, "outcomes: expected 0.01 to 0.99, got 0"),
        (["--within", "-1"], {}, "within: expected 0.001 to 0.4 of AUROC, got -1"),
        (["--signal", "0.9", "--auroc", "0.95"], {}, "auroc: expected above 0.5 and below 0.9"),
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
    assert (
        "cohort: expected each hospital's announced patients, found nothing; noise, rate and steps"
        in capsys.readouterr().err
    )
