"""Budget never comes back: a real node whose ledger was deleted, and whose folder was put back from a backup."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from client.ledger import Ledger
from configs import wire
from configs.errors import RunError
from configs.load import load_study
from configs.strict_yaml import dump_yaml
from simulations.federation import Federation
from tests.federation.deployed import (
    SITES,
    finished,
    hospitals,
    kill,
    records,
    reserved,
    site_document,
    site_journal,
    until,
    write_study,
)

STUDIES = ("first", "second", "third", "fourth")
DELTA = 1e-6
ONE = "cleveland"


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Three hospitals, of which cleveland has one budget for all studies."""
    with hospitals(tmp_path_factory.mktemp("fed"), STUDIES, start=False) as running:
        document = site_document(ONE, running.address, STUDIES, require_approval=False, max_epsilon=50.0)
        for dataset in document["datasets"].values():
            dataset["identity"] = ONE
        (running.site_folder(ONE) / "site.yaml").write_text(dump_yaml(document))
        for site in SITES:
            running.start_site(site)
        yield running


def spent(federation: Federation) -> float:
    with closing(Ledger.open(federation.site_folder(ONE) / "ledger.sqlite")) as ledger:
        return ledger.spent(ONE, delta=DELTA)


def submitted(federation: Federation, folder: Path, name: str) -> tuple[str, Path]:
    path = write_study(folder, name, private=True, rounds=2)
    return federation.submit(path), path


def refused(federation: Federation, study: Path) -> None:
    """Wait until cleveland has refused a study because a person must settle its records."""
    journal, digest = site_journal(federation, ONE), load_study(study).sha256

    def told() -> bool:
        asked = {r["message"] for r in records(journal, "received") if r["study"] == digest}
        refusals = [r for r in records(journal, "refused") if r["code"] == wire.UNSETTLED]
        return any(r["message"] in asked for r in refusals)

    until(told, "the node to refuse until its records are settled")
    assert reserved(federation, ONE, load_study(study)) == []
    assert "WARNING  nothing trains here" in federation.hospital(ONE, "ledger")
    assert "archipel-site -C" in federation.hospital(ONE, "review")
    with pytest.raises(RunError, match="nothing trains here"):
        federation.hospital(ONE, "check")


def settled(federation: Federation) -> None:
    with pytest.raises(RunError, match="stop it first"):
        federation.hospital(ONE, "settle", "--yes")
    federation.end(ONE)
    federation.hospital(ONE, "settle", "--yes")
    federation.start_site(ONE)


def test_a_deleted_ledger_stops_all_training_until_a_person_has_settled_it(
    federation: Federation, tmp_path: Path
) -> None:
    finished(federation, write_study(tmp_path, "first", private=True, rounds=2))
    before = spent(federation)
    kill(federation, ONE)
    for path in federation.site_folder(ONE).glob("ledger.sqlite*"):
        path.unlink()
    federation.start_site(ONE)
    run, second = submitted(federation, tmp_path, "second")
    refused(federation, second)
    settled(federation)
    federation.await_state(run, "COMPLETE")
    assert spent(federation) > before


def test_a_folder_from_a_backup_stops_all_training_until_a_person_has_settled_it(
    federation: Federation, tmp_path: Path
) -> None:
    folder = federation.site_folder(ONE)
    backup = tmp_path / "backup"
    shutil.copytree(folder, backup)  # while the node runs
    finished(federation, write_study(tmp_path, "third", private=True, rounds=2))
    before = spent(federation)
    kill(federation, ONE)
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    assert spent(federation) < before
    federation.start_site(ONE)
    run, fourth = submitted(federation, tmp_path, "fourth")
    refused(federation, fourth)
    settled(federation)
    federation.await_state(run, "COMPLETE")
    assert spent(federation) > before
