"""An intercept of each hospital's own: it never leaves, and a round that is repeated begins where it began."""

import stat
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.ledger import Ledger
from client.personal import Personal
from client.site import Site
from configs.errors import ConfigError
from configs.schema import Study
from server.app import make_app
from server.checkpoint import Checkpoints
from server.outcome import Outcome
from simulations.engines import run_engine
from simulations.hospitals import Hospitals
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.learning import learning_of
from strategies.models.registry import personal_parameters, shared_parameters, study_parameters
from strategies.releases.plausible import Plausibility
from strategies.releases.registry import arrays_of
from tests.builders import patients, plain, same_bits, study

OWN: dict[str, Any] = {"model": {"name": "logistic", "site_intercept": True}}
TRAINING: dict[str, Any] = {"rounds": 4, "local": {"epochs": 1, "batch_size": "full", "learning_rate": 1.0}}
SHARES = {"brest": 0.1, "lille": 0.5, "lyon": 0.9}  # of patients who are ill


def with_own(**changes: Any) -> Study:
    return study(**(OWN | {"training": TRAINING} | changes))


def people(chosen: Study) -> dict[str, TablePatients]:
    return {site: patients(40 + 10 * i, seed=i) for i, site in enumerate(chosen.sites)}


def run_of(chosen: Study, folder: Path | None = None, stop_after: int = 99) -> Outcome:
    """Run a federation; with a folder, on disk: a second run of the same folder goes on."""
    checkpoints = None if folder is None else Checkpoints(folder / "checkpoints", chosen.sha256, durable=False)

    def observer(record: Any, _model: Arrays) -> None:
        if record.round == stop_after:
            raise InterruptedError

    hospitals = Hospitals(chosen, people(chosen).__getitem__, folder and folder / "sites")
    made = lambda done: make_app(chosen, checkpoints=checkpoints, observer=observer, done=done)  # noqa: E731
    try:
        return run_engine("inprocess", hospitals, made)
    finally:
        hospitals.close()


def booked(ledger: Ledger) -> int:
    return sum(getattr(event, "steps", 0) for event in ledger.events("lille"))


def kept(folder: Path, chosen: Study, site: str) -> Personal:
    return Personal(chosen, site, folder / "sites" / site / "personal")


@pytest.mark.parametrize(
    ("model", "name"),
    [({"name": "logistic"}, "0.bias"), ({"name": "mlp", "hidden": [4]}, "2.bias")],
)
def test_neither_instruction_nor_reply_holds_the_hospitals_own_array(model: dict[str, Any], name: str) -> None:
    chosen = study(model=model | {"site_intercept": True})
    assert list(personal_parameters(chosen)) == [name]
    assert {*shared_parameters(chosen), name} == set(study_parameters(chosen))
    for form in ("train", "train reply"):
        assert set(arrays_of(form, chosen)) == set(shared_parameters(chosen))


def test_a_study_without_one_keeps_its_digest_and_every_array_is_shared() -> None:
    without = study()
    assert study(model={"name": "logistic", "site_intercept": False}).sha256 == without.sha256
    assert "site_intercept" not in without.canonical
    assert shared_parameters(without) == study_parameters(without)
    assert personal_parameters(without) == {}


def test_a_truth_value_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"model\.site_intercept: expected true or false, found 'yes'"):
        study(model={"name": "logistic", "site_intercept": "yes"})


def test_an_audit_watches_the_model_with_every_array_shared() -> None:
    own = learning_of(with_own()).architecture
    assert learning_of(study(model={"name": "logistic"})).architecture.section == own.all_shared


@pytest.mark.parametrize("make", [study, plain])
def test_a_round_is_the_joint_clipped_noised_step_of_all_arrays(make: Any) -> None:
    """What is sent and what is kept are, together, the bits that the usual model has from the same start."""
    own, usual = make(training=TRAINING, **OWN), make(training=TRAINING)
    start = learning_of(own).initial(0)
    site = Site("lille", own, people(own)["lille"], Ledger.in_memory(), seeded=True)
    sent = site.fit(1, {name: start[name] for name in shared_parameters(own)})
    both = {**sent, **site.personal.before(2)}
    whole = Site("lille", usual, people(usual)["lille"], Ledger.in_memory(), seeded=True).fit(1, start)
    assert same_bits({name: both[name] for name in whole}, whole)


def test_a_killed_simulation_that_goes_on_has_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    chosen = with_own()
    whole = run_of(chosen, tmp_path / "whole").model
    with pytest.raises(InterruptedError):
        run_of(chosen, tmp_path / "killed", stop_after=2)
    assert same_bits(run_of(chosen, tmp_path / "killed").model, whole)
    assert same_bits(run_of(chosen).model, whole)  # in memory
    for site in chosen.sites:
        assert same_bits(
            kept(tmp_path / "killed", chosen, site).final(), kept(tmp_path / "whole", chosen, site).final()
        )
    lille, lyon = (kept(tmp_path / "whole", chosen, site).final()["0.bias"].item() for site in ("lille", "lyon"))
    assert lille != lyon
    assert whole["0.bias"].tolist() == [0.0]  # where it began: nobody was told more


def test_files_are_the_owners_alone_and_one_for_each_round(tmp_path: Path) -> None:
    chosen = with_own()
    run_of(chosen, tmp_path)
    files = sorted((tmp_path / "sites" / "lille" / "personal" / chosen.sha256).iterdir())
    assert [file.name for file in files] == [f"{number}.safetensors" for number in (1, 2, 3, 4)]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.fixture(name="two")
def _two(tmp_path: Path) -> Personal:
    chosen = with_own()
    personal = Personal(chosen, "lille", tmp_path)
    for number in (1, 2):
        personal.keep(number, {"0.bias": np.full(1, number, np.float32)})
    return personal


def test_a_repeated_round_begins_where_it_began_and_its_later_arrays_are_not_looked_at(two: Personal) -> None:
    assert two.before(2)["0.bias"].item() == 1.0
    two.keep(2, {"0.bias": np.full(1, 7.0, np.float32)})
    assert [two.before(number)["0.bias"].item() for number in (2, 3, 4)] == [1.0, 7.0, 7.0]


@pytest.mark.parametrize("content", [b"", b"torn", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_torn_file_is_left_aside_with_its_name(
    two: Personal, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (file,) = tmp_path.glob("*/2.safetensors")
    file.write_bytes(content)
    assert two.before(3)["0.bias"].item() == 1.0
    assert str(file) in caplog.text


def test_where_none_is_kept_it_begins_from_the_start_and_says_so(
    two: Personal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in tmp_path.glob("*/*"):
        file.unlink()
    assert two.before(1)["0.bias"].item() == 0.0
    assert not caplog.records
    assert two.before(3)["0.bias"].item() == 0.0
    assert "round 3: no arrays of its own (0.bias) are kept from an earlier round" in caplog.text


def test_the_last_models_intercept_is_the_mean_of_the_rounds_that_the_model_is_the_mean_of(tmp_path: Path) -> None:
    chosen = with_own(training=TRAINING | {"average_last": 0.5})
    personal = Personal(chosen, "lille", tmp_path)
    for number in (1, 2, 3, 4):
        personal.keep(number, {"0.bias": np.full(1, number, np.float32)})
    assert personal.final()["0.bias"].item() == 3.5


def test_a_release_of_other_own_arrays_is_another_release() -> None:
    """Seeded noise is repeated under a name; a ledger that took two releases for one would count too little."""
    chosen = with_own()
    ledger = Ledger.in_memory()
    site = Site("lille", chosen, people(chosen)["lille"], ledger, seeded=True)
    start = {name: learning_of(chosen).initial(0)[name] for name in shared_parameters(chosen)}
    site.fit(1, start)
    first = site.fit(2, start)
    assert same_bits(site.fit(2, start), first)
    assert booked(ledger) == 2
    site.personal.keep(1, {"0.bias": np.ones(1, np.float32)})
    assert not same_bits(site.fit(2, start), first)
    assert booked(ledger) == 3


def test_another_attempt_at_a_round_begins_where_the_first_did_with_other_noise() -> None:
    chosen = with_own(privacy={"spare": 1})
    site = Site("lille", chosen, people(chosen)["lille"], Ledger.in_memory(), seeded=True)
    start = {name: learning_of(chosen).initial(0)[name] for name in shared_parameters(chosen)}
    site.fit(1, start)
    before = site.personal.before(2)
    first, first_own = site.fit(2, start), site.personal.before(3)
    assert same_bits(site.personal.before(2), before)
    again = site.fit(2, start, attempt=1)
    assert not same_bits(again, first)
    assert not same_bits(site.personal.before(3), first_own)  # the attempt that was sent is the one that goes on


def test_noise_alone_changes_nothing_that_is_kept() -> None:
    chosen = with_own()

    def broken() -> Any:
        raise MemoryError

    site = Site("lille", chosen, broken, Ledger.in_memory(), seeded=False)
    site.on_failure = lambda _: None
    start = {name: learning_of(chosen).initial(0)[name] for name in shared_parameters(chosen)}
    assert list(site.fit(1, start)) == list(start)
    assert site.personal.before(2)["0.bias"].tolist() == [0.0]


@pytest.mark.parametrize("model", [{"name": "logistic"}, {"name": "mlp", "hidden": [4]}])
def test_the_coordinator_bounds_updates_without_knowing_the_intercept(model: dict[str, Any]) -> None:
    for make in (study, plain):
        chosen = make(model=model | {"site_intercept": True}, training=TRAINING)
        start = {name: learning_of(chosen).initial(0)[name] for name in shared_parameters(chosen)}
        site = Site("lille", chosen, people(chosen)["lille"], Ledger.in_memory(), seeded=True)
        bounds = Plausibility(chosen, start)
        bounds.require("lille", site.fit(1, start))
        assert np.isfinite(bounds.bound("lille"))


def _app(chosen: Study, done: Any) -> Any:
    return make_app(chosen, done=done)


def shifted(chosen: Study) -> dict[str, TablePatients]:
    """Return hospitals with one effect of the inputs, other shares of the outcome, and other patients."""
    made = {}
    for place, site in enumerate(chosen.sites):
        rng = np.random.default_rng(place)
        x = (rng.normal(size=(200, 2)) * 0.5 + [0.8 * (place - 1), 0.0]).astype(np.float32)
        chance = 1 / (1 + np.exp(-(-2.0 * x[:, 0] + 1.5 * x[:, 1] + 4.0 * (place - 1))))
        made[site] = TablePatients(x, (rng.random(200) < chance).astype(np.float32), np.arange(200), np.arange(201))
    return made


def test_where_shares_of_the_outcome_differ_it_wins_over_fedavg() -> None:
    local = {"epochs": 1, "batch_size": "full", "learning_rate": 4.0}
    losses, slopes = {}, {}
    for name, model in (("fedavg", {"name": "logistic"}), ("own", OWN["model"])):
        chosen = study(model=model, training={"rounds": 20, "local": local}, cohort=dict.fromkeys(SHARES, 200))
        data = shifted(chosen)
        hospitals = Hospitals(chosen, data.__getitem__)
        shared = run_engine("inprocess", hospitals, partial(_app, chosen)).model
        each = []
        for site, of in data.items():
            model_here = {**shared, **hospitals.site(site).personal.final()}
            predicted = learning_of(chosen).predict(model_here, of.x)[np.arange(of.rows), of.y.astype(int)]
            each.append(-np.log(predicted).mean())
        losses[name], slopes[name] = float(np.mean(each)), shared["0.weight"][0, 0]
    assert losses["own"] < losses["fedavg"] - 0.05
    assert slopes["own"] < 0 < slopes["fedavg"]  # a hospital's share is taken for the input's effect


def test_with_scaffold_nothing_corrects_the_hospitals_own_array() -> None:
    local = {"steps": 4, "batch_size": "full", "learning_rate": 0.5}
    three = {"type": "multiclass", "target": "disease", "classes": ["a", "b", "c"]}
    chosen = plain(training={"strategy": {"name": "scaffold"}, "rounds": 3, "local": local}, task=three, **OWN)
    assert "correction/0.bias" not in arrays_of("train", chosen)
    outcome = run_of(chosen)
    assert outcome.rounds.outcome == "COMPLETE"
