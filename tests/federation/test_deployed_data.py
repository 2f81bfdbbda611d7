"""Every kind of a hospital's own data between real processes over TLS: reviewed, trained, with its simulation's bits.

Two hospitals have a coordinator, and studies of tables, images and series follow one another. What a study costs is in
the ledger as it was planned, and the journal verifies.
"""

import contextlib
import csv
import datetime
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from client import cli as client_cli
from client.patients import load_patients
from configs.load import load_study
from configs.schema import CsvFile
from configs.strict_yaml import dump_yaml, read_yaml
from server import cli as server_cli
from simulations.benchmarks.textures import write_hospital
from simulations.data.omop_made_up import rebuild
from simulations.data.omop_made_up.cdm import made_cdm
from simulations.federation import Federation
from simulations.planning import plan_study
from tests import postgresql
from tests.federation.deployed import DATA, PRESET, SEEDED_NODE, model, reserved, simulated, until

SITES = {"north": "nord", "east": "sud"}  # and whose made-up CDM is theirs
CAREFUL = "north"  # where a person approves
ROUNDS, SIDE, LENGTH, DELTA = 2, 12, 24, 1e-5
KEYS = ("task", "features", "model", "patient_id")
ADMISSION = datetime.date(2020, 6, 15)

Source = dict[str, Any]
Sources = dict[str, Source]


@dataclass(frozen=True)
class Data:
    """A study's own keys, and where the patients are: at the hospitals, and for the simulation."""

    keys: dict[str, Any]
    deployed: Sources
    simulated: Sources
    reviewed: str  # on the page that a hospital's people read before they approve
    shown: str  # in the report


def csv_of(path: Path, **more: Any) -> Source:
    return {"connector": "csv", "path": str(path), **more}


def heart() -> dict[str, Any]:
    document = read_yaml(PRESET)
    return {key: document[key] for key in KEYS} | {"cohort": {"north": 300, "east": 290}}


def tables(folder: Path) -> Data:
    """A laboratory's export at one hospital, a Parquet file at the other; the simulation reads that one's CSV.

    The export has semicolons, decimal commas, local names, words, a code for unknown, a unit and dates.
    """
    with (DATA / "cleveland.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"sex": "Sexe", "chol": "Cholestérol", "trestbps": "Tension", "exang": "Angor d'effort"}
    words = {"sex": {"H": "male", "F": "female"}, "exang": {"oui": "yes", "non": "no"}}
    theirs = {column: {word: local for local, word in words[column].items()} for column in words}
    with (folder / "export.csv").open("w", encoding="cp1252", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow([names.get(name, name) for name in rows[0] if name != "age"] + ["Naissance", "Entrée"])
        for row in rows:
            row["oldpeak"] = row["oldpeak"].replace(".", ",")
            row["trestbps"] = f"{float(row['trestbps']) / 10:.1f}".replace(".", ",") if row["trestbps"] else "NR"
            row |= {column: theirs[column].get(row[column], "") for column in words}
            born = ADMISSION.replace(year=ADMISSION.year - int(row["age"]))
            cells = [cell for name, cell in row.items() if name != "age"]
            writer.writerow([*cells, f"{born:%d/%m/%Y}", f"{ADMISSION:%d/%m/%Y}"])
    mapping = {
        "dialect": "french",
        "columns": names,
        "words": words,
        "missing": ["NR"],
        "units": {"trestbps": {"from": "cmHg", "to": "mmHg", "times": 10}},
        "dates": {"age": {"from": "Naissance", "to": "Entrée", "format": "DD/MM/YYYY", "unit": "whole years"}},
    }
    export, typed, text = csv_of(folder / "export.csv", **mapping), folder / "east.parquet", DATA / "hungary.csv"
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(text), typed)
    deployed = {"north": export, "east": {"connector": "parquet", "path": str(typed)}}
    return Data(heart(), deployed, {"north": export, "east": csv_of(text)}, "Cholestérol", "2 hospitals")


def texture(folder: Path) -> Data:
    """Pictures that a fixed encoder makes numbers of."""
    scan = {"type": "image", "reader": "png", "size": [SIDE, SIDE], "encoder": "texture"}
    keys = {"task": {"type": "binary", "target": "ill"}, "features": {"scan": scan}, "patient_id": "patient"}
    sources = {site: write_hospital(folder, site, 24, 0).to_dict() for site in SITES}
    return Data(
        keys | {"model": {"name": "logistic"}}, sources, sources, "texture makes 189 numbers", "[1, 189] float32"
    )


def series(folder: Path) -> Data:
    """Vital signs over time, to a convolution, by book-keeping."""
    vitals = {"type": "series", "reader": "csv", "channels": 2, "length": LENGTH, "window": [-3, 3]}
    keys = {"task": {"type": "binary", "target": "ill"}, "features": {"vitals": vitals}}
    sources: Sources = {}
    for seed, site in enumerate(SITES):
        rng, root = np.random.default_rng(seed), folder / site
        root.mkdir()
        index = ["vitals,ill"]
        for number in range(24):
            values = rng.normal(number % 2, 1.0, (LENGTH - number % 5, 2))
            np.savetxt(root / f"{number}.csv", values, "%.3f", ",", header="pulse,pressure", comments="")
            index.append(f"{number}.csv,{number % 2}")
        (folder / f"{site}.csv").write_text("\n".join(index) + "\n")
        sources[site] = csv_of(folder / f"{site}.csv", root=str(root))
    return Data(keys | {"model": {"name": "conv1d", "width": 8}}, sources, sources, "read by csv", "[8, 2, 7] float32")


def masks(folder: Path) -> Data:
    """Bright discs on noise and where they are, one patient at a time; the mean score leaves with noise."""
    scan = {"type": "image", "reader": "npy", "size": [SIDE, SIDE], "window": [-1, 1]}
    task = {"type": "segmentation", "target": "mask", "reader": "npy", "size": [SIDE, SIDE]}
    keys: dict[str, Any] = {"task": task, "features": {"scan": scan}}
    keys |= {"model": {"name": "unet", "width": 4, "depth": 1}, "releases": {"score_sum": {"epsilon": 2.0}}}
    down, right = np.mgrid[:SIDE, :SIDE]
    sources: Sources = {}
    for seed, site in enumerate(SITES):
        rng, root = np.random.default_rng(seed), folder / site
        root.mkdir()
        index = ["scan,mask"]
        for number in range(24):
            centre, radius = rng.uniform(3, SIDE - 3, 2), rng.uniform(2, 4)
            disc = ((down - centre[0]) ** 2 + (right - centre[1]) ** 2 < radius**2).astype(np.uint8)
            np.save(root / f"{number}.npy", (rng.normal(0, 0.2, disc.shape) + disc - 0.5).astype(np.float32))
            np.save(root / f"mask-{number}.npy", disc)
            index.append(f"{number}.npy,mask-{number}.npy")
        (folder / f"{site}.csv").write_text("\n".join(index) + "\n")
        sources[site] = csv_of(folder / f"{site}.csv", root=str(root))
    return Data(keys, sources, sources, "segmentation", "Dice")


def omop(folder: Path) -> Data:
    """An OMOP CDM in a PostgreSQL at each hospital; the simulation reads the CDMs' extracts."""
    del folder
    document = read_yaml(PRESET.with_name("omop_risk.yaml"))
    cohort = {site: document["cohort"][name] for site, name in SITES.items()}
    keys = {key: document[key] for key in KEYS} | {"cohort": cohort}
    extracts = {
        site: document["simulation"]["sites"][name] | {"path": str(rebuild.FOLDER / f"{name}.csv")}
        for site, name in SITES.items()
    }
    cdms = {site: rebuild.source_of(name).to_dict() for site, name in SITES.items()}
    return Data(keys, cdms, extracts, "haemoglobin", "2 hospitals")


KINDS: dict[str, Callable[[Path], Data]] = {kind.__name__: kind for kind in (tables, texture, series, masks, omop)}


def write_study(folder: Path, name: str, data: Data) -> Path:
    """A private study of two rounds; for its simulation, where that reads the patients."""
    local = {"batch_size": "full", "learning_rate": 0.5}
    document = {
        "name": name,
        "purpose": f"Learn from a hospital's own {name}",
        "patient_id": None,
        "cohort": dict.fromkeys(SITES, 24),
        **data.keys,
        "training": {"strategy": {"name": "fedavg"}, "rounds": ROUNDS, "local": local, "quorum": 2},
        "privacy": {"mode": "local", "epsilon": 5.0, "delta": DELTA, "clip_norm": 1.0},
        "evaluation": {"test_fraction": 0.25},
        "simulation": {"sites": data.simulated},
    }
    path = folder / f"{name}.yaml"
    path.write_text(dump_yaml(document))
    return path


@dataclass(frozen=True)
class Deployed:
    """What people saw: the page before they approved, how each run ended, and the ledger afterwards."""

    data: Mapping[str, Data]
    studies: Mapping[str, Path]
    page: str
    runs: Mapping[str, str]
    states: Mapping[str, str]
    ledgers: Mapping[str, str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Data]:
    """Every kind's files; OMOP where PostgreSQL is."""
    kinds = [kind for kind in KINDS if kind != "omop" or postgresql.programs()]
    if "omop" in kinds:
        server = request.getfixturevalue("server")
        for name in SITES.values():
            rebuild.load(server.url(postgresql.USER), f"cdm_{name}", made_cdm(name), postgresql.READER)
    return {kind: KINDS[kind](tmp_path_factory.mktemp(kind)) for kind in kinds}


@pytest.fixture(scope="module")
def federation(
    data: dict[str, Data], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Federation]:
    """A coordinator and two hospitals with data for every study, each study's patients with a budget of their own."""
    base: dict[str, Any] = {}
    variables: dict[str, str] = {}
    if "omop" in data:
        server = request.getfixturevalue("server")
        base["worker_network"] = [f"localhost:{server.port}"]
        variables[rebuild.VARIABLE] = server.url()
    with Commands(tmp_path_factory.mktemp("federation"), node=SEEDED_NODE, environment=variables) as started:
        started.init()
        started.start_coordinator()
        for site in SITES:
            datasets = {kind: each.deployed[site] | {"identity": f"{kind}-{site}"} for kind, each in data.items()}
            policy = {
                "max_epsilon": 20.0,
                "min_patients": 10,
                "delta": DELTA,
                "metrics": "noisy",
                "require_approval": site == CAREFUL,
            }
            document = {"site": site, "coordinator": started.address, "datasets": datasets, "policy": policy}
            started.enrol(site, base | document)
            started.start_site(site)
        yield started


@pytest.fixture(scope="module")
def deployed(data: dict[str, Data], federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Submit every study, review and approve each, and wait for all to end."""
    folder = tmp_path_factory.mktemp("studies")
    studies = {kind: write_study(folder, kind, each) for kind, each in data.items()}
    runs = {kind: federation.submit(path) for kind, path in studies.items()}

    def reviewed() -> str:
        page = " ".join(federation.hospital(CAREFUL, "review").split())
        return page if all(f"{kind}: waiting" in page for kind in studies) else ""

    try:
        page = until(reviewed, "all studies to arrive")
        for path in studies.values():
            federation.hospital(CAREFUL, "approve", load_study(path).sha256)
        states = {kind: federation.await_state(run, "COMPLETE", "INCOMPLETE") for kind, run in runs.items()}
    finally:
        print(*(federation.log(name) for name in ("coordinator", *SITES)), sep="\n")  # shown where it fails
    ledgers = {site: " ".join(federation.hospital(site, "ledger").split()) for site in SITES}
    return Deployed(data, studies, page, runs, states, ledgers)


class Commands(Federation):
    """A federation whose people type their commands in this process: what each would load anew is loaded once."""

    def _command(self, module: str, folder: Path, *arguments: str) -> str:
        main = {"server.cli": server_cli.main, "client.cli": client_cli.main}[module]
        umask, heard = os.umask(0o077), io.StringIO()
        try:
            with contextlib.redirect_stdout(heard):
                assert main(["-C", str(folder), *arguments]) == 0, f"{module} {arguments}"
        finally:
            os.umask(umask)
        return heard.getvalue()


def needed(deployed: Deployed, kind: str) -> None:
    if kind not in deployed.data:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_deployed_study_ends_with_the_bits_of_its_simulation(
    federation: Federation, deployed: Deployed, kind: str, tmp_path: Path
) -> None:
    needed(deployed, kind)
    assert deployed.states[kind].split("  ", 1)[1].startswith("COMPLETE"), federation.log("coordinator")
    assert model(federation, deployed.runs[kind]) == simulated(deployed.studies[kind], tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_people_are_shown_the_data_before_and_the_report_and_the_card_afterwards(
    federation: Federation, deployed: Deployed, kind: str
) -> None:
    needed(deployed, kind)
    assert deployed.data[kind].reviewed in deployed.page
    folder = federation.coordinator / "runs" / deployed.runs[kind]
    assert deployed.data[kind].shown in (folder / "report.html").read_text()
    assert f"Learn from a hospital's own {kind}" in (folder / "model_card.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_ledger_holds_what_was_planned(federation: Federation, deployed: Deployed, kind: str) -> None:
    needed(deployed, kind)
    study = load_study(deployed.studies[kind])
    for row in plan_study(study).sites:
        booked = [number for number, state in reserved(federation, row.site, study) if state == "committed"]
        assert sorted(booked) == [0] * len(study.releases) + list(range(1, ROUNDS + 1))
        ledger = deployed.ledgers[row.site]
        assert f"{kind} {study.sha256[:20]}: epsilon {row.epsilon:.3f}, {ROUNDS} rounds" in ledger
        assert row.epsilon == pytest.approx(study.privacy.epsilon, abs=0.6)


@pytest.mark.slow
def test_the_mean_score_left_with_noise(federation: Federation, deployed: Deployed) -> None:
    found = federation.metrics(deployed.runs["masks"])["releases"]["score_sum"]
    assert found["score"] == "Dice coefficient"
    assert found["sites"].keys() == set(SITES)
    assert found["noise_multiplier"] > 0
    assert "exact" not in found
    page = (federation.coordinator / "runs" / deployed.runs["masks"] / "report.html").read_text()
    assert "How good it is was not measured" not in page


def test_the_export_and_the_plain_file_are_the_same_patients(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, "tables", tables(tmp_path)))
    sources = dict(study.simulation)["north"], CsvFile(DATA / "cleveland.csv")
    (x, y), (plain_x, plain_y) = (load_patients(source, study, "north").train.take() for source in sources)
    np.testing.assert_allclose(x, plain_x, atol=1e-6)
    np.testing.assert_array_equal(y, plain_y)
