"""A release of its own, with both halves, its keys and its forms, is one file and its registration."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from client.ledger import Ledger
from client.patients import Split
from client.site import Site
from client.timing import quantum_s
from configs import wire
from configs.errors import BudgetError, ConfigError, KindError, RunError, WireError
from configs.frame import Frame
from configs.load import study_from
from configs.records.fields import plain
from configs.records.result import TrainingResult, read_result
from configs.schema import Study
from configs.schema.releases import RELEASE_KEYS, ReleaseKeys
from configs.site import Policy
from configs.strict_yaml import dump_yaml, read_yaml
from server.papers import write_papers
from server.report.released.registry import RENDERERS
from simulations import cli
from simulations.planning import plan_study
from strategies.exchange.messages import from_frame, read, received
from strategies.models.registry import study_parameters
from strategies.privacy.accounting import epsilon
from strategies.privacy.modes.registry import mode_of
from strategies.releases.base import Request
from strategies.releases.registry import RELEASES, register, study_bytes
from tests.builders import patients, random_arrays, study
from tests.kits import count_renderer
from tests.kits.column_count import ARRAY, COLUMN_COUNT, FORM, NAME, ColumnCount, Counted, Keys, install

PRESET = Path(__file__).resolve().parents[2] / "configs" / "presets" / "heart_disease.yaml"
DELTA = 1e-5


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (RELEASES, RELEASE_KEYS, RENDERERS):
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    for table in ("ASKS", "FORMS"):
        monkeypatch.setattr(wire, table, dict(getattr(wire, table)))
    install()
    count_renderer.install()


@pytest.fixture
def document() -> dict[str, Any]:
    made: dict[str, Any] = read_yaml(PRESET)
    made["training"] |= {"rounds": 2}
    for source in made["simulation"]["sites"].values():
        source["path"] = str((PRESET.parent / source["path"]).resolve())
    return made | {"releases": {NAME: {"epsilon": 1.0, "column": "sex", "value": "male"}}}


@pytest.fixture
def run(document: dict[str, Any], tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(dump_yaml(document))
    assert cli.main(["simulate", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "runs")]) == 0
    (made,) = (path for path in (tmp_path / "runs").iterdir() if not path.is_symlink())
    return made


def chosen(document: dict[str, Any]) -> Study:
    return study_from(document)


def test_a_study_without_one_keeps_its_digest_and_one_with_it_has_another(document: dict[str, Any]) -> None:
    plain = {name: value for name, value in document.items() if name != "releases"}
    assert "releases" not in study_from(plain).canonical
    assert study_from(document).sha256 != study_from(plain).sha256


def test_its_epsilon_is_in_the_plan_beside_the_trainings(document: dict[str, Any]) -> None:
    one = chosen(document)
    plan = mode_of(one).plan(one, one.sites[0])
    assert plan is not None
    event = COLUMN_COUNT.event(plan)
    assert event is not None
    assert 0.99 < epsilon([event] * (1 + plan.spare), plan.delta) <= 1.0
    assert plan.whole_epsilon() > plan.epsilon()


def test_it_is_planned_in_words(document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.yaml").write_text(dump_yaml(document))
    assert cli.main(["plan", str(tmp_path / "study.yaml")]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "column count: epsilon 1 beside the training's" in words


def test_a_simulation_releases_books_and_reports_it(run: Path, document: dict[str, Any]) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["outcome"] == "COMPLETE"
    (entry,) = [left for left in metrics["left"] if left["what"] == COLUMN_COUNT.what]
    sites = [site["site"] for site in metrics["sites"]]
    assert (entry["messages"], entry["fields"]) == (len(sites), ["count [1] float32"])
    assert COLUMN_COUNT.what in (run / "report.html").read_text()
    one = chosen(document)
    for site in sites:
        ledger = Ledger.open(run / "sites" / site / "ledger.sqlite", durable=False)
        assert ledger.booked(site, one.sha256, 0, release=NAME)
        assert not ledger.booked(site, one.sha256, 0, release="score histogram")
        plan = mode_of(one).plan(one, site)
        assert plan is not None
        event = COLUMN_COUNT.event(plan)
        assert event is not None
        released = [plan.round_event, plan.round_event, event]
        assert ledger.spent(site, delta=plan.delta) == pytest.approx(epsilon(released, plan.delta))
        ledger.close()


def test_its_result_is_a_record_of_the_run_and_a_section_of_report_and_card(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    result = read_result(metrics)
    assert isinstance(result, TrainingResult)
    counted = result.releases[NAME]
    assert isinstance(counted, Counted)
    assert counted.together.value == sum(counted.sites.values()) == pytest.approx(390, abs=60)
    assert counted.together.low < counted.together.value < counted.together.high
    assert json.dumps(plain(result), indent=1) + "\n" == (run / "metrics.json").read_text()
    sentence = f"About {counted.together.value:,.0f} patients have the value"
    page, card = (run / "report.html").read_text(), (run / "model_card.md").read_text()
    assert sentence in page
    assert 'id="release-column-count"' in page
    assert "How many have the value?" in page
    assert f"## Column count\n\n{sentence}" in card


def test_without_a_renderer_or_even_the_kind_its_fields_are_a_table(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (RENDERERS, RELEASE_KEYS):
        monkeypatch.delitem(registry._kinds, NAME)
        write_papers(run)
        page = (run / "report.html").read_text()
        assert "together, low" in page
        assert "sites, cleveland" in page
        assert "Four hospitals released the column count." in page
        assert "Column count" in (run / "model_card.md").read_text()


def test_a_result_of_another_form_is_refused_with_its_place(run: Path) -> None:
    path = run / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["releases"][NAME]["together"]["low"] = "<b>"
    path.write_text(json.dumps(metrics))
    with pytest.raises(RunError, match=r"releases\.column count\.together\.low: expected a finite number, found text"):
        write_papers(run)


def test_hospitals_that_released_none_are_named_with_the_reason(run: Path) -> None:
    path = run / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["releases"]
    metrics["releases_missing"] = {NAME: {"hungary": "its policy lets no such <b> leave"}}
    path.write_text(json.dumps(metrics))
    write_papers(run)
    page = (run / "report.html").read_text()
    assert "No hospital released anything." in page
    assert "its policy lets no such &lt;b&gt; leave" in page


def test_an_audit_finds_it_booked_with_its_own_event(run: Path, document: dict[str, Any]) -> None:
    from simulations.audit import ledger_replay
    from simulations.audit.subject import Subject

    one = chosen(document)
    plans = {site: mode_of(one).plan(one, site) for site in one.sites}
    replays, journal = ledger_replay.replay_run(Subject(), run, one, plans)  # type: ignore[arg-type]
    assert journal.passed
    assert [check.name for replay in replays for check in replay.checks if not check.passed] == []
    left = ledger_replay.releases_left(run / "journal.jsonl")
    assert all(NAME in [one.release for one in departures] for departures in left.values())


def test_it_is_made_once_and_only_where_the_study_has_trained(document: dict[str, Any]) -> None:
    one = chosen(document)
    site_name = one.sites[0]
    people = patients(30, inputs=len(one.inputs))
    site = Site(site_name, one, people, Ledger.in_memory(), seeded=False, policy=Policy())
    with pytest.raises(WireError, match="has trained here before"):
        site.release(NAME, Request())
    site.fit(1, random_arrays(study_parameters(one)))
    count = site.release(NAME, Request())[ARRAY]
    assert (count.shape, count.dtype.name) == ((1,), "float32")
    assert count == np.rint(count)
    with pytest.raises(BudgetError):
        site.release(NAME, Request())


def test_it_is_given_nobody_who_was_kept_aside(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    one, given = chosen(document), list[tuple[int, int]]()
    make = ColumnCount.make

    def watched(self: ColumnCount, hospital: Any, people: Any, request: Request, chance: Any) -> Any:
        given.append((people.train.count, people.test.count))
        return make(self, hospital, people, request, chance)

    monkeypatch.setattr(ColumnCount, "make", watched)
    train, test = (patients(number, inputs=len(one.inputs)) for number in (30, 12))
    site = Site(one.sites[0], one, Split(train, test, {}), Ledger.in_memory(), seeded=False, policy=Policy())
    site.fit(1, random_arrays(study_parameters(one)))
    site.release(NAME, Request())
    assert given == [(30, 0)]


def test_a_hospital_is_not_asked_by_a_study_without_it() -> None:
    site = Site("lille", study(), patients(20), Ledger.in_memory(), seeded=True)
    with pytest.raises(WireError, match="asks for it"):
        site.release(NAME, Request())


def test_what_no_noise_explains_is_refused(document: dict[str, Any]) -> None:
    judge = COLUMN_COUNT.judge(one := chosen(document), {}, lambda _: {})
    judge.require(one.sites[0], {ARRAY: np.array([12.0], np.float32)})
    for wrong in (0.5, -1e6, 1e8):
        with pytest.raises(WireError):
            judge.require(one.sites[0], {ARRAY: np.array([wrong], np.float32)})


def test_a_form_that_is_not_registered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(wire.FORMS, f"{FORM} reply")
    for read_again in (received, from_frame):  # as the outbox does of what left while the kind was installed
        with pytest.raises(WireError, match="no such form"):
            read_again(f"{FORM} reply", Frame(f"{FORM} reply", {}, {ARRAY: b""}))
    with pytest.raises(WireError, match="no such form"):
        read(f"{FORM} reply", RecordDict())
    with pytest.raises(WireError, match="no such form"):
        wire.check(f"{FORM} reply", {}, {}, {})


def test_an_unknown_release_and_one_with_anothers_form_are_errors(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ConfigError,
        match=r"releases\.count them: unknown release; registered: inference, subgroups, .*, column count",
    ):
        study_from(document | {"releases": {"count them": {"epsilon": 1.0}}})
    with pytest.raises(KindError, match="expected names of its own"):
        wire.register("train", "training", wire.FORMS["train"], wire.FORMS["train reply"])


def test_the_trainings_epsilon_is_not_called_the_whole_studys(document: dict[str, Any]) -> None:
    one = chosen({**document, "evaluation": {"test_fraction": 0.25}})
    assert one.evaluation.release is None
    assert "for the whole training" in mode_of(one).review(one)
    assert any("for the whole training" in note for note in plan_study(one).notes)
    plain = chosen({name: value for name, value in document.items() if name != "releases"})
    assert "for the whole study" in mode_of(plain).review(plain)


def test_without_a_hospitals_noise_it_cannot_be_asked(document: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"releases: expected none where privacy\.mode is none"):
        chosen({**document, "privacy": {"mode": "none"}})


def test_a_release_larger_than_the_model_counts_for_the_policy(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = chosen(document)
    small, quantum = study_bytes(one), quantum_s(one, one.sites[0])
    monkeypatch.setattr(ColumnCount, "arrays", lambda _self, _study: {ARRAY: ((1_000_000,), "float32")})
    assert (small, study_bytes(one)) == (4 * sum(map(math.prod, (s for s, _ in study_parameters(one).values()))), 4e6)
    assert quantum_s(one, one.sites[0]) == quantum


def test_a_kind_needs_a_form_and_a_cost_of_its_own() -> None:
    class Same(ColumnCount):
        name = "model update again"
        message_type = "query.train"

    class Free:
        pass

    instruction, reply = wire.FORMS["train"], wire.FORMS["train reply"]
    before = dict(wire.ASKS), RELEASES.names, RELEASE_KEYS.names
    with pytest.raises(KindError, match="found that of 'model update'"):
        register(Same(), ReleaseKeys(Same.name, Keys, Counted), instruction, reply)
    with pytest.raises(KindError, match="found no epsilon"):
        register(Same(), ReleaseKeys(Same.name, dataclass(frozen=True)(Free), Counted), instruction, reply)
    assert (dict(wire.ASKS), RELEASES.names, RELEASE_KEYS.names) == before
