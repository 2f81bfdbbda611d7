"""Is it worth it: what was cut off is never "not worth it", and a model that calls everybody ill never "worth it"."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.errors import RunError
from configs.schema import Study
from configs.strict_yaml import dump_yaml
from simulations import cli
from simulations.cli import main
from simulations.worth import synthetic, weigh
from simulations.worth.answer import AtEpsilon, Probabilities, Recommended, Worth
from simulations.worth.effort import limit_s, trainings
from simulations.worth.outcomes import released_share
from simulations.worth.question import Question
from simulations.worth.search import Settings
from simulations.worth.synthetic import Assumed
from simulations.worth.verdict import verdict_of
from simulations.worth.worlds import Interval
from tests.builders import study
from tests.simulations.test_worth import Silent

COUNTED = Path(__file__).resolve().parents[1] / "configs" / "written" / "simulated_statistics"
LARGE, TINY, FAR = (Interval(m, m - 0.005, m + 0.005) for m in (0.1, 0.002, 0.2))
AUROC = Interval(0.8, 0.79, 0.81)
ROW = AtEpsilon(3.0, AUROC, TINY, TINY, 0.1)
BETTER = Recommended(Settings(None, 20, 0.7, 4.0), 9, AUROC, LARGE, LARGE, None, better=True)
CUT = "it was cut off after 9 settings, none of them judged to the end; --seconds 240 would finish it"


@pytest.fixture(scope="module", autouse=True)
def few_test_patients() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "TEST_PATIENTS", 600)
        yield


def hopeless(clip_norm: float = 0.5, patients: int = 20, epsilon: float = 0.1) -> Study:
    training = {"rounds": 3, "local": {"epochs": 1, "batch_size": "full", "learning_rate": 4.0}}
    privacy = {"epsilon": epsilon, "delta": 1e-5, "clip_norm": clip_norm}
    return study(cohort={"brest": patients}, privacy=privacy, training=training)


def asked(here: Study, **question: Any) -> Worth:
    return weigh.weigh(here, Question(repetitions=3, **question), Silent())


def test_the_seconds_grow_with_the_answer_and_are_twice_what_is_expected() -> None:
    few, many = (trainings(repetitions=3, sizes=sizes, epsilons=4, search=True) for sizes in (1, 3))
    assert few < many
    assert [limit_s(seconds) for seconds in (1.0, 100.0, 501.0)] == [60, 200, 1010]


def test_a_search_that_was_cut_off_is_never_not_worth_it() -> None:
    row = replace(ROW, loss=LARGE)
    verdict = verdict_of(Question(), 3.0, 10, row, None, None, CUT)
    assert verdict.startswith(
        f"cannot say yet: {CUT}; so far with the study's own settings, privacy at epsilon 3 costs"
    )
    assert verdict_of(Question(), 3.0, 10, row, None, BETTER, CUT).startswith(
        f"cannot say yet: {CUT}; so far with the "
    )
    assert verdict_of(Question(), 3.0, 10, row, LARGE, None).startswith("not worth it")
    assert verdict_of(Question(), 3.0, 10, ROW, LARGE, None, CUT).startswith("worth it")


def test_a_hopeless_study_whose_search_had_no_time_has_no_verdict_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weigh, "SEARCH", 0.0)
    answer = asked(hopeless(), seconds=1e6)
    begin = "cannot say yet: it was cut off after 3 of 3 made-up worlds, before other settings were tried; --seconds 60"
    assert answer.verdict.startswith(f"{begin} would finish it; so far")
    assert answer.cut_off in answer.verdict


def test_seconds_that_nobody_set_are_told_before_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(dump_yaml(hopeless().to_dict()))
    assert main(["plan", str(path), "--worth", "--json", "--repetitions", "3", "--outcomes-from", str(COUNTED)]) == 0
    out, err = capsys.readouterr()
    first = err.splitlines()[2]
    assert first.startswith("made-up worlds, to see how long it takes: 3/3  about ")
    assert first.endswith(" s at most; --seconds sets another limit")
    worth = json.loads(out)["worth"]
    assert worth["seconds"] >= 60
    assert worth["outcomes_of"] == f"released to {COUNTED}"
    assert worth["assumed"]["outcomes"] == pytest.approx(released_share(COUNTED, hopeless()))


def test_the_share_that_a_study_announces_is_assumed_unless_another_is_given() -> None:
    announced = study(task={"outcome_share": 0.2})
    for words, outcomes, source in (([], 0.2, "announced in the study"), (["--outcomes", "0.5"], 0.5, "")):
        question = cli._question(cli._parser().parse_args(["plan", "study.yaml", "--worth", *words]), announced)
        assert (question.assumed.outcomes, question.outcomes_of) == (outcomes, source)


def seen(off: Interval, called: float) -> AtEpsilon:
    return replace(ROW, probabilities=Probabilities(TINY, off, called))


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (seen(TINY, 0.4), "worth it: privacy"),
        (seen(TINY, 1.0), "not worth it: the model calls 100.0% of patients ill, whoever"),
        (seen(FAR, 0.9), "not worth it: the mean predicted probability is off by 0.200 .*, more than 0.05"),
        (seen(Interval(0.06, 0.03, 0.09), 0.4), "cannot say: the mean predicted probability is off by 0.060"),
    ],
)
def test_probabilities_are_judged_too(row: AtEpsilon, verdict: str) -> None:
    assert re.match(verdict, verdict_of(Question(), 3.0, 10, row, None))


def test_settings_that_call_everybody_ill_are_not_worth_it_whatever_their_auroc() -> None:
    short = hopeless(clip_norm=0.05, patients=4000, epsilon=8.0)
    answer = asked(short, seconds=1e6, search=False, within=0.4, assumed=Assumed(outcomes=0.9, differences=0.0))
    judged = answer.by_epsilon[-1].probabilities
    assert judged is not None
    assert judged.called == 1.0
    assert answer.verdict.startswith("not worth it: the model calls 100.0% of patients ill, whoever they are")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"task": {"target": "death"}}, "expected counts of death with its outcome 1, found those of disease"),
        ({"task": {"classes": ["no", "yes"]}}, "expected counts of disease with its outcome yes"),
    ],
)
def test_a_run_about_something_else_gives_no_share(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(RunError, match=problem):
        released_share(COUNTED, study(**change))


def test_a_share_that_the_noise_hides_or_that_is_none_is_refused(tmp_path: Path) -> None:
    document = json.loads((COUNTED / "metrics.json").read_text())
    for outcome, problem in (
        (None, "found that the noise hides it; say it by --outcomes"),
        ({"value": 1.02, "low": 0.9, "high": 1.1}, "expected a share of outcomes from 0.01 to 0.99, found 1.020"),
    ):
        document["statistics"]["together"]["outcome"] = outcome
        (tmp_path / "metrics.json").write_text(json.dumps(document))
        with pytest.raises(RunError, match=problem):
            released_share(tmp_path, study())
    with pytest.raises(RunError, match=r"expected a run of task.type: statistics with released counts, found another"):
        released_share(COUNTED.parent / "simulated_private", study())
