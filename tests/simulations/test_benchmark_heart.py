"""The heart disease benchmarks: FLamby's numbers come out, pairing is sound, test patients choose nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.errors import RunError
from simulations.benchmarks import flamby_heart, heart_utility
from simulations.benchmarks import utility as by_epsilon
from simulations.benchmarks.heart import preset, train
from simulations.hospitals import load_all
from strategies.data.base import concatenate

SITES = {"cleveland", "hungary", "switzerland", "long_beach_va"}


def test_the_preset_scales_as_flamby_does_and_clips_nothing() -> None:
    study = preset("flamby_heart")
    assert set(study.inputs) == set(flamby_heart.FLAMBY_INPUTS)
    for member in study.cohort:
        patients = load_all(study)[member.site]
        assert patients.clipped == {}
        assert patients.train.count == member.patients  # FLamby weighs hospitals by their training patients
        x = patients.train.x
        np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-5)
        constant = [study.inputs[i] for i in np.flatnonzero(x.std(axis=0) == 0)]
        assert constant == (["chol"] if member.site == "switzerland" else [])
        np.testing.assert_allclose(x.std(axis=0, ddof=1)[x.std(axis=0) > 0], 1.0, rtol=1e-4)


def test_flambys_start_is_pytorchs_with_each_weight_at_its_own_column() -> None:
    study = preset("flamby_heart")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        theirs = torch.nn.Linear(13, 1)  # FLamby's Baseline, the first draw after its seed
    start = flamby_heart.flamby_start(study, 42)
    ours = dict(zip(study.inputs, start["0.weight"][0], strict=True))
    assert [ours[name] for name in flamby_heart.FLAMBY_INPUTS] == theirs.weight[0].tolist()
    assert start["0.bias"].tolist() == theirs.bias.tolist()


def test_fedavg_comes_out_as_flamby_published_it() -> None:
    row = next(flamby_heart.flamby_rows())
    assert row["strategy"] == "fedavg"
    assert row["within_one_std"]
    assert row["accuracy"] == pytest.approx(0.6850, abs=0.005)  # a fifth of the published standard deviation
    assert row["std"] == pytest.approx(0.0253, abs=0.003)


def test_flambys_table_has_every_row_and_names_each_hospital() -> None:
    rows = list(flamby_heart.flamby_rows(seeds=[42]))
    assert [row["strategy"] for row in rows] == [
        *("fedavg", "fedprox", "fedadam", "fedyogi", "fedadagrad", "fedavg, from zeros"),
        *("local cleveland", "local hungary", "local long_beach_va", "local switzerland"),
        *("pooled", "pooled, judged as trained"),
    ]
    for row in rows:
        assert set(row) == {
            *("strategy", "accuracy", "std", "runs", "published", "published_std", "within_one_std", "per_centre")
        }
        assert set(row["per_centre"]) == SITES


def test_our_presets_reach_flambys_pooled_model_within_an_epsilon_that_the_ledger_shows() -> None:
    rows = list(flamby_heart.our_rows(noise_seeds=1))
    summary = flamby_heart._summary([], rows)
    assert summary["beats_fedavg"]
    assert summary["reaches_pooled"]
    private = {row["epsilon"]: row["delta"] for row in rows if "epsilon" in row}
    assert [pytest.approx(asked, abs=0.001) for asked in flamby_heart.EPSILONS] == list(private)
    assert set(private.values()) == {1e-5}


def test_flambys_nominal_epsilon_is_more_than_it_says_at_every_hospital() -> None:
    row = flamby_heart.flamby_epsilons()
    expected = {"cleveland": 1.30, "hungary": 1.41, "long_beach_va": 2.06, "switzerland": 3.73}
    assert row["epsilon_if_poisson"] == {site: pytest.approx(value, abs=0.01) for site, value in expected.items()}
    assert min(row["epsilon_shuffled"].values()) > 12


@pytest.fixture(scope="module")
def utility() -> list[heart_utility.Row]:
    return list(heart_utility.rows(range(2), epsilons=(3.0, 1.0)))


def test_utility_prints_each_system_and_judges_the_three_targets(utility: list[heart_utility.Row]) -> None:
    assert [(row["system"], row["epsilon"]) for row in utility[:-1]] == [
        ("pooled", None),
        ("pooled_same_settings", None),
        ("local_only", None),
        ("best_local", None),
        ("federated_without_privacy", None),
        ("federated_without_privacy_same_settings", None),
        ("federated", 3.0),
        ("federated", 1.0),
    ]
    wanted = {"system", "epsilon", "splits", "auroc", "standard_error"}
    paired = {"reference", "difference", "difference_low", "difference_high", "target", "meets_target"}
    assert all(wanted <= set(row) for row in utility[:-1])
    assert all(paired <= set(row) for row in utility[1:-1])
    assert {row["target"] for row in utility[1:-1]} == {None, -0.005, -0.015, -0.025}
    assert isinstance(utility[-1]["meets_every_target"], bool)


def test_no_system_spends_more_than_asked_for(utility: list[heart_utility.Row]) -> None:
    for row in utility[:-1]:
        if row["epsilon"] is not None:
            assert row["epsilon"] - 0.001 < row["epsilon_spent"] <= row["epsilon"]


def test_switzerlands_own_auroc_is_not_printed(utility: list[heart_utility.Row]) -> None:
    assert all(row.get("site") != "switzerland" for row in utility)
    assert "per_site" not in json.dumps(utility)


def test_the_presets_with_and_without_privacy_differ_in_training_and_privacy_alone() -> None:
    private, none = preset("heart_disease"), preset("heart_disease_none")
    names = {"name", "training", "privacy"}
    assert replace(none, **{name: getattr(private, name) for name in names}) == private


def test_validation_patients_are_training_patients_of_the_split_and_nobody_is_lost() -> None:
    study = replace(preset("heart_disease"), seed=7)
    for site, patients in heart_utility.validation_split(study).items():
        found = concatenate([patients.train, patients.test])
        expected = load_all(study)[site].train
        assert 0 < patients.test.count < patients.train.count
        assert sorted(map(bytes, found.x)) == sorted(map(bytes, expected.x))


def test_selection_prints_the_grid_the_nested_choice_and_the_rule() -> None:
    *table, fixed, nested, summary = heart_utility.selection(range(2), grid=[(0.35, 2.0), (0.35, 0.01)])
    assert [(row["clip_norm"], row["learning_rate"]) for row in table] == [(0.35, 2.0), (0.35, 0.01)]
    assert sum(row["chosen"] for row in table) == 1
    assert (fixed["system"], nested["system"], nested["reference"]) == ("preset", "nested", "preset")
    assert sum(choice["splits"] for choice in nested["chosen"]) == 2
    assert set(summary["choice"]) == set(summary["preset"]) == {"clip_norm", "learning_rate"}


def test_a_benchmark_never_goes_on_with_a_federation_that_lacks_a_hospital() -> None:
    study = preset("heart_disease_none")
    three = {site: p.train for site, p in load_all(study).items() if site != "hungary"}
    with pytest.raises(RunError, match="the study asks for 4"):
        train(study, three)


@pytest.mark.parametrize("arguments", [["--splits", "1"], ["--noise-seeds", "0"], ["--splits", "many"]])
def test_a_number_that_makes_no_sense_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        heart_utility.main(arguments)
    assert stopped.value.code == 2
    assert "--" in capsys.readouterr().err


def test_utility_by_epsilon_is_heart_utilitys_with_a_paired_difference_against_every_reference(
    utility: list[heart_utility.Row],
) -> None:
    found = list(by_epsilon.rows(range(2), epsilons=(3.0, 1.0)))
    references = ["federated_without_privacy", "clipping_alone", "pooled", "local_only", "best_local"]
    assert [row["system"] for row in found] == [*references, "federated", "federated"]
    theirs = {(row["system"], row["epsilon"]): row for row in utility[:-1]}
    for row in found[-2:]:
        same = theirs[row["system"], row["epsilon"]]
        assert row["auroc"] == same["auroc"]
        assert row["against_federated_without_privacy"]["difference"] == same["difference"]
        for name, reference in zip(references, found, strict=False):
            against = row[f"against_{name}"]
            assert against["difference_low"] <= against["difference"] <= against["difference_high"]
            assert against["difference"] == pytest.approx(row["auroc"] - reference["auroc"], abs=0.00011)
