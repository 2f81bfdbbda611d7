"""A release that is lost between real processes: made anew where the study has spare, the end of the run where not.

A node that is killed takes its worker with it, as a power cut does: what was booked is spent and nothing was kept.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from client.ledger import Ledger
from configs.load import load_study
from simulations.federation import Federation
from strategies.privacy.modes.local import plan_for
from tests.federation.deployed import (
    SITES,
    STAGED_NODE,
    await_held,
    hospitals,
    kill,
    records,
    reserved,
    run_journal,
    until,
    write_study,
)

STUDIES = ("spared", "unspared")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with hospitals(tmp_path_factory.mktemp("fed"), STUDIES, node=STAGED_NODE) as running:
        yield running


def test_killed_nodes_cost_a_study_of_all_hospitals_a_spare_release_each_and_no_more(
    federation: Federation, tmp_path: Path
) -> None:
    path = write_study(tmp_path, "spared", private=True, spare=1, held={"hungary": 1, "cleveland": 2})
    study, run = load_study(path), federation.submit(path)
    await_held(federation, "hungary")
    kill(federation, "hungary")
    federation.start_site("hungary")
    await_held(federation, "cleveland")
    assert reserved(federation, "cleveland", study) == [(1, "committed"), (2, "reserved")]
    kill(federation, "cleveland")
    federation.start_site("cleveland")
    federation.await_state(run, "COMPLETE")
    rounds = records(run_journal(federation, run), "round")
    assert [sorted(facts["contributed"]) for facts in rounds] == [sorted(SITES)] * 2
    assert [facts.get("attempts") for facts in rounds] == [{"hungary": 1}, {"cleveland": 1}]
    assert [facts["missing"] for facts in rounds] == [{}, {}]
    assert reserved(federation, "hungary", study) == [(1, "reserved"), (1, "committed"), (2, "committed")]
    assert reserved(federation, "cleveland", study) == [(1, "committed"), (2, "reserved"), (2, "committed")]
    assert reserved(federation, "long_beach_va", study) == [(1, "committed"), (2, "committed")]
    again = records(run_journal(federation, run), "again")
    assert [(facts["site"], facts["round"], facts["attempt"]) for facts in again] == [
        ("hungary", 1, 1),
        ("cleveland", 2, 1),
    ]
    for site in SITES:
        ledger = Ledger.open(federation.site_folder(site) / "ledger.sqlite")
        assert ledger.spent(f"spared-{site}", delta=1e-5) <= plan_for(study, site).epsilon() <= 3.0
        ledger.close()


def test_without_spare_one_killed_node_ends_the_run_and_each_resume_says_so_by_itself(
    federation: Federation, tmp_path: Path
) -> None:
    path = write_study(tmp_path, "unspared", private=True, held={"hungary": 1})
    study, run = load_study(path), federation.submit(path)
    await_held(federation, "hungary")
    kill(federation, "hungary")
    federation.start_site("hungary")
    federation.await_state(run, "INCOMPLETE")

    def ended_more_often_than(times: int) -> bool:
        return len(records(run_journal(federation, run), "end")) > times

    for resumed in (1, 2):
        federation.consortium("resume", run)
        until(partial(ended_more_often_than, resumed), "the resumed run to end")
        line = federation.await_state(run, "INCOMPLETE")
        assert "the release of hungary is lost and the study has none spare: nothing more can be done" in line
    assert reserved(federation, "hungary", study) == [(1, "reserved")]
    assert reserved(federation, "cleveland", study) == [(1, "committed")]
