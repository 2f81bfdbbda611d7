"""Settings are chosen on validation patients of the training part, never on test patients; what is written says so."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from configs.errors import ArchipelError
from configs.load import load_study
from configs.records.result import TunedOn
from configs.schema.sites import Tuned
from configs.strict_yaml import dump_yaml
from simulations import cli
from simulations.hospitals import load_all
from simulations.tuning import pool, search, space
from simulations.tuning.table import difference, verdict
from simulations.tuning.trial import Figures, Trial, figures, parts_of
from simulations.tuning.tune import Tuning, Wish
from strategies.data.split import in_test

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"
RATES = "training.local.learning_rate=0.01,2"
SITES = ("cleveland", "hungary")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preset with three rounds and the two largest hospitals; an id tells who a patient is."""
    folder, document = tmp_path_factory.mktemp("study"), load_study(PRESET).to_file()
    document["cohort"] = {site: document["cohort"][site] for site in SITES}
    document["training"] |= {"rounds": 3, "quorum": 2}
    document["patient_id"] = "patient"
    for site in SITES:
        with Path(document["simulation"]["sites"][site]["path"]).open(newline="") as file:
            head, *rows = csv.reader(file)
        write(folder / f"{site}.csv", ["patient", *head], [[f"p{n}", *row] for n, row in enumerate(rows)])
    document["simulation"] = {"sites": {site: {"connector": "csv", "path": f"{site}.csv"} for site in SITES}}
    (folder / "study.yaml").write_text(dump_yaml(document))
    return folder / "study.yaml"


def write(path: Path, head: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def tune(study: Path, *options: str) -> int:
    return cli.main(["tune", str(study), "--set", RATES, "--seeds", "2", *options])


@pytest.fixture(scope="module")
def tuned(study: Path) -> Path:
    """What a search over two rates wrote, in two processes."""
    out = study.parent / "tuned.yaml"
    assert tune(study, "--out", str(out), "--workers", "2") == 0
    return out


def trials(out: Path) -> dict[tuple[str, int], Any]:
    """The figures of every trial; the context differs with the patients' files, which is looked at elsewhere."""
    lines = [json.loads(line) for line in out.with_suffix(".trials.jsonl").read_text().splitlines()]
    return {(line["study"], line["seed"]): line["figures"] for line in lines}


def test_the_best_settings_are_written_as_a_finished_study_that_says_how_it_was_tuned(study: Path, tuned: Path) -> None:
    own, best = load_study(study), load_study(tuned)
    assert best.training.local.learning_rate == 2.0
    assert best.tuned is not None
    assert best.tuned == Tuned(settings=2, seeds=2, validation=0.2, seed=0)
    assert best.sha256 == own.sha256, "the study's own settings were the better ones"
    assert dict(best.simulation)["hungary"].path == study.parent / "hungary.csv"
    assert len(trials(tuned)) == 4


def test_validation_patients_are_cut_out_of_the_training_part_patient_by_patient(study: Path) -> None:
    own = load_study(study)
    for site, parts in parts_of(own, 7, 0.2).items():
        train = load_all(own)[site].train
        assert 0.1 < parts.test.count / train.count < 0.3
        assert sorted(map(bytes, [*parts.train.x, *parts.test.x])) == sorted(map(bytes, train.x))
        assert parts_of(own, 8, 0.2)[site].test.digest != parts.test.digest


def test_test_patients_are_never_read_for_a_choice(study: Path, tuned: Path, tmp_path: Path) -> None:
    own = load_study(study)
    for site in SITES:
        with (study.parent / f"{site}.csv").open(newline="") as file:
            head, *rows = csv.reader(file)
        fraction = own.evaluation.test_fraction
        test = in_test([row[0] for row in rows], site=site, seed=own.seed, fraction=fraction)
        for n in np.flatnonzero(test):
            rows[n][head.index("disease")] = {"0": "1", "1": "0"}[rows[n][head.index("disease")]]
            rows[n][head.index("age")] = "20"
        write(tmp_path / f"{site}.csv", head, rows)
    poisoned = tmp_path / "study.yaml"
    poisoned.write_text(study.read_text())
    for site in SITES:
        assert load_all(load_study(poisoned))[site].test.digest != load_all(own)[site].test.digest
        assert load_all(load_study(poisoned))[site].train.digest == load_all(own)[site].train.digest
    assert tune(poisoned, "--out", str(tmp_path / "tuned.yaml")) == 0
    assert trials(tmp_path / "tuned.yaml") == trials(tuned)


class Interrupted(pool.Here):
    """A pool in which somebody presses Ctrl-C after two trials."""

    def run(self, trials: Mapping[Any, Trial]) -> Iterator[tuple[Any, Figures]]:
        for number, done in enumerate(super().run(trials)):
            if len(trials) > 1 and number == 2:
                raise KeyboardInterrupt
            yield done


def test_an_interrupted_search_prints_its_table_and_goes_on(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tuned.yaml"
    with monkeypatch.context() as patch:
        patch.setattr(pool, "Here", Interrupted)
        assert tune(study, "--out", str(out)) == 130
    shown = capsys.readouterr()
    assert "3 trainings are kept in" in shown.err
    assert "(the study)" in shown.out
    assert not out.exists()
    with out.with_suffix(".trials.jsonl").open("a") as file:
        file.write('{"half a li')
    before = trials_done(out)
    assert tune(study, "--out", str(out)) == 0
    assert trials_done(out) == before + 1, "what was kept was trained again"


def trials_done(out: Path) -> int:
    return out.with_suffix(".trials.jsonl").read_text().count('"figures"')


def test_settings_that_hardly_learn_are_replaced_and_the_verdict_says_that_it_is_no_chance(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = load_study(study).to_file()
    document["training"]["local"]["learning_rate"] = 0.01
    (tmp_path / "study.yaml").write_text(dump_yaml(document))
    options = ["--search", "halving", "--seeds", "3", "--out", str(tmp_path / "tuned.yaml")]
    assert cli.main(["tune", str(tmp_path / "study.yaml"), "--set", RATES, *options]) == 0
    assert load_study(tmp_path / "tuned.yaml").training.local.learning_rate == 2.0
    shown = capsys.readouterr().out
    assert "chosen: learning_rate 2; better than the study's own beyond chance" in shown
    assert TunedOn.warning in shown


def test_differences_to_the_studys_own_settings_are_paired_seed_by_seed(
    study: Path, tuned: Path, tmp_path: Path
) -> None:
    wish = Wish(tmp_path / "again.yaml", asked=(RATES,), seeds=(0, 1))
    wish.trials.write_bytes(tuned.with_suffix(".trials.jsonl").read_bytes())
    tuning = Tuning(load_study(study), wish)
    tuning.begin(pool.Here())
    assert tuning.done == 4
    own, other = (np.array(list(tuning.values(i, tuning.by).values())) for i in range(2))
    low, high = stats.t.interval(0.95, 1, np.mean(other - own), stats.sem(other - own))
    found = difference(tuning, 1)
    assert found is not None
    np.testing.assert_allclose((found.low, found.mean, found.high), (low, np.mean(other - own), high))
    assert (tuning.by.name, tuning.headline.name) == ("log_loss", "auroc")
    assert verdict(tuning, 0) == "no setting is better than the study's own"
    assert "learning_rate 0.01; perhaps no better" in verdict(tuning, 1)


def test_a_trial_is_the_same_wherever_it_runs(study: Path) -> None:
    own = load_study(study)
    trial = Trial.of(own, own, 3, 0.2)
    assert figures(trial) == figures(trial, parts_of(trial.data, 3, 0.2))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", "training.local.learning_rat=1,2"], "unknown key; did you mean 'learning_rate'"),
        (["--set", "training.local.learning_rate=1,x"], "training.local.learning_rate: expected a number"),
        (["--set", "privacy.epsilon=3,30"], "expected a key of training, model, features, privacy"),
        (["--set", "evaluation.test_fraction=.1"], "expected a key of training, model, features, privacy"),
        (["--set", "training.rounds"], "expected KEY=VALUE,VALUE"),
        (["--set", "training.rounds=1", "--set", "training.rounds=2"], "expected each key once"),
        (["--set", "training.rounds.deep=1"], "expected a key of a section"),
        (["--by", "mae"], "--by: expected one of auroc"),
        (["--address", "localhost:1"], "expected only beside --engine ray"),
        (["--seeds", "0"], "--seeds: expected a number from 1"),
        (["--validation", "1"], "expected a share above 0"),
        (["--out", "."], "--out: expected a new file"),
        (["--out", "no/such/folder.yaml"], "--out: expected a new file"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    out = ["--out", str(tmp_path / "tuned.yaml")]
    try:
        code = cli.main(["tune", str(study), *out, *options])
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "tuned.yaml").exists()


def test_more_than_ten_thousand_settings_are_refused_with_their_seconds(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = ",".join(str(n / 100) for n in range(1, 202))
    many = ["--set", f"training.local.learning_rate={rates}", "--set", f"privacy.clip_norm={rates}"]
    assert cli.main(["tune", str(study), *many, "--out", str(tmp_path / "tuned.yaml")]) == 2
    shown = capsys.readouterr().err
    assert "40,401 settings, 3 seeds: 121,203 trainings, about " in shown
    assert "expected at most 10,000 settings" in shown


def test_a_long_search_needs_a_word(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = Wish(tmp_path / "tuned.yaml", asked=(RATES,), seeds=(0, 1))
    monkeypatch.setattr(Tuning, "_seconds", lambda _: 301.0)
    with pytest.raises(ArchipelError, match="about 1,204 s; add --yes"):
        Tuning(load_study(study), wish).begin(pool.Here())


def test_a_study_of_statistics_has_nothing_to_tune(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    statistics = PRESET.with_name("heart_statistics.yaml")
    assert cli.main(["tune", str(statistics), "--out", str(tmp_path / "tuned.yaml")]) == 2
    assert "expected a study that trains a model" in capsys.readouterr().err


def test_without_options_settings_around_the_studys_own_are_tried() -> None:
    own = load_study(PRESET)
    axes = space.axes_of(own, ())
    assert axes["training.rounds"] == [10, 20, 40]
    assert axes["privacy.clip_norm"] == [0.175, 0.35, 0.7, 1.4]
    made = space.candidates(own, axes)
    assert len(made) == len({each.study.sha256 for each in made}) == 36
    assert made[0].study == own
    assert "privacy.clip_norm" not in space.axes_of(load_study(PRESET.with_name("heart_disease_none.yaml")), ())


def test_halving_trains_the_better_half_with_more_seeds_and_keeps_the_study() -> None:
    done: list[tuple[int, int]] = []

    def train(pairs: Any) -> None:
        done.extend(pair for pair in pairs if pair not in done)

    steps = search.rungs("halving", 8, 4)
    ranked = search.search(steps, 8, train, score=lambda i: float(-i))  # the study's own is the worst
    assert ranked == [7, 0]
    assert len(done) == search.trainings(steps) == 8 + 4 + 2 * 2
    assert {place for i, place in done if i == 0} == {0, 1, 2, 3}
