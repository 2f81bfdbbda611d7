"""A plan comes from public numbers alone, and is the plan that a run then follows."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import ConfigError, PrivacyError
from configs.load import load_study
from configs.schema import CohortMember, CsvFile, EvaluationRelease, Privacy, Study
from configs.strict_yaml import dump_yaml, read_yaml
from simulations.cli import main
from simulations.planning import plan_study

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(PRESET)


def test_a_plan_needs_no_data(study: Study) -> None:
    nowhere = tuple((site, CsvFile(Path("/nowhere"))) for site, _ in study.simulation)
    assert plan_study(replace(study, simulation=nowhere)).sites == plan_study(study).sites


def test_the_plan_is_what_the_run_follows(study: Study, tmp_path: Path) -> None:
    planned = plan_study(study)
    assert main(["simulate", str(PRESET), "--no-baselines", "--out", str(tmp_path)]) == 0
    ran = {s["site"]: s for s in json.loads((tmp_path / "latest" / "metrics.json").read_text())["sites"]}
    for site in planned.sites:
        assert ran[site.site]["noise_multiplier"] == site.noise_multiplier
        assert (ran[site.site]["steps"], ran[site.site]["sampling_rate"]) == (site.steps, site.sampling_rate)
        assert ran[site.site]["epsilon"] < (site.epsilon or 0.0) <= study.privacy.epsilon  # no spare release was needed


def test_a_hospital_too_small_to_help_is_named_and_the_others_are_not(study: Study) -> None:
    verdicts = {site.site: site.verdict for site in plan_study(study).sites}
    assert [site for site, verdict in verdicts.items() if "too small to help" in verdict] == ["switzerland"]


def test_equal_hospitals_all_help(study: Study) -> None:
    cohort = tuple(CohortMember(site, 200) for site in study.sites)
    assert all(site.verdict.startswith("helps") for site in plan_study(replace(study, cohort=cohort)).sites)


def test_the_curve_rises_through_the_budget_at_the_planned_rounds(study: Study) -> None:
    curve = dict(plan_study(study).curve)
    values = [curve[rounds][0] for rounds in sorted(curve)]
    assert values == sorted(values)
    assert curve[study.training.rounds][0] < 3.0
    no_spare = replace(study, privacy=replace(study.privacy, spare=0))
    assert 2.99 < dict(plan_study(no_spare).curve)[study.training.rounds][0] <= 3.0
    assert max(curve) == 2 * study.training.rounds


def test_without_a_cohort_and_privacy_the_simulations_own_copies_are_counted_and_that_is_said(study: Study) -> None:
    training = replace(study.training, weights="uniform")
    plan = plan_study(replace(study, cohort=(), training=training, privacy=Privacy("none")))
    assert {site.site: site.patients for site in plan.sites}["cleveland"] == round(303 * 0.66)
    assert any("no cohort is announced" in note for note in plan.notes)


def test_without_a_cohort_no_private_plan_is_made_of_what_was_counted(study: Study) -> None:
    with pytest.raises(PrivacyError, match="cohort: expected cleveland with its announced patients") as told:
        plan_study(replace(study, cohort=(), training=replace(study.training, weights="uniform")))
    assert "200" not in str(told.value)


def test_without_a_cohort_and_without_data_there_is_no_plan(study: Study) -> None:
    with pytest.raises(ConfigError, match="cohort: expected each hospital's announced patients"):
        plan_study(replace(study, cohort=(), simulation=()))


def test_a_budget_that_no_noise_reaches_is_told(study: Study) -> None:
    training = replace(study.training, rounds=100_000, local=replace(study.training.local, epochs=10_000))
    privacy = replace(copy.copy(study.privacy), epsilon=0.01)
    with pytest.raises(PrivacyError, match="ask for fewer steps or more epsilon"):
        plan_study(replace(study, training=training, privacy=privacy))


def test_a_plan_says_what_an_evaluation_costs_beside_the_training(study: Study) -> None:
    asking = replace(study, evaluation=replace(study.evaluation, release=EvaluationRelease(epsilon=0.5, bins=10)))
    before, after = plan_study(study), plan_study(asking)
    assert any(note.startswith("evaluation: 20 noisy counts") and "epsilon 0.5" in note for note in after.notes)
    for one, other in zip(before.sites, after.sites, strict=True):
        assert one.epsilon is not None
        assert other.epsilon is not None
        assert one.epsilon < other.epsilon < one.epsilon + 0.5


def test_a_plan_says_what_spare_releases_cost_and_how_much_more_is_trained_without(study: Study) -> None:
    first, second = plan_study(study).notes[-2:]
    assert (
        first == "spare: each hospital can make up to 2 lost releases anew; for that its noise is 4.9% larger at most"
    )
    assert second == "where none is lost, the rounds cost epsilon 2.84 per patient, add or remove one"
    without = replace(study, privacy=replace(study.privacy, spare=0))
    before, after = plan_study(without).sites[0], plan_study(study).sites[0]
    assert before.noise_multiplier is not None
    assert after.noise_multiplier is not None
    assert round(after.noise_multiplier / before.noise_multiplier - 1, 3) == 0.049
    assert not [note for note in plan_study(without).notes if note.startswith("spare")]


@pytest.mark.parametrize(
    ("spare", "quorum", "private", "warned"),
    [(0, 4, True, True), (1, 4, True, False), (0, 3, True, False), (0, 4, False, False), (2, 1, True, False)],
)
def test_a_study_that_one_lost_release_ends_is_warned_of(
    study: Study,
    spare: int,
    quorum: int,
    private: bool,
    warned: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = copy.deepcopy(read_yaml(PRESET))
    document["training"] |= {"quorum": quorum, "rounds": 1}
    document["privacy"] = {**document["privacy"], "spare": spare} if private else {"mode": "none"}
    for source in document["simulation"]["sites"].values():
        source["path"] = str((PRESET.parent / source["path"]).resolve())
    path = tmp_path / "study.yaml"
    path.write_text(dump_yaml(document))
    assert main(["plan", str(path)]) == 0
    assert ("ends the study for ever" in " ".join(capsys.readouterr().out.split())) is warned
    assert main(["simulate", str(path), "--no-baselines", "--out", str(tmp_path / "runs")]) == 0
    assert ("ends the study for ever; write privacy.spare: 2" in capsys.readouterr().err) is warned
