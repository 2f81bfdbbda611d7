"""A study's kit in a hospital's worker: the same bits in children as together and as simulated, and no code here."""

import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from client.admission import Admissions
from client.children.limits import can_confine
from client.kits import Kits
from client.site_file import load_site
from client.worker import Worker
from client.worker_process import WorkerProcess
from configs import wire
from configs.frame import Frame
from configs.kit import About, KitFiles
from configs.schema import Study
from configs.site import SiteConfig
from configs.strict_yaml import dump_yaml
from strategies.exchange.messages import content, received, to_frame
from strategies.kits.shelf import SHELF
from strategies.models.registry import study_parameters
from strategies.releases.registry import arrays_of
from tests.builders import study
from tests.faulty_models import FAULTY, INPUTS, SOUND, SOURCE

pytestmark = pytest.mark.skipif(not can_confine(), reason="needs seccomp")
WORKER = Path(__file__).with_name("unpaced_worker.py")
KIT = KitFiles(
    About("faulty", "1.0.0", models={name: f"archipel_kit_faulty:{name}" for name in (*FAULTY, *SOUND)}),
    {"archipel_kit_faulty.py": SOURCE.encode()},
)
NAMES = ("age", "bmi", "glucose", "pressure")
Arrays = Mapping[str, NDArray[np.float32]]


def rows() -> str:
    chance = random.Random(5)
    lines = [",".join(str(chance.randint(1, 99)) for _ in range(INPUTS)) + f",{n % 2}" for n in range(20)]
    return "\n".join([",".join((*NAMES, "disease")), *lines, ""])


@pytest.fixture(scope="module")
def here() -> Iterator[Path]:
    """A hospital with an approved kit and data."""
    with TemporaryDirectory(prefix="kit-", dir="/var/tmp") as name:
        here = Path(name)
        for folder in ("hospital/keys", "data"):
            (here / folder).mkdir(parents=True)
        (here / "data" / "lille.csv").write_text(rows())
        write_site(here, "forked")
        kits = Kits(load_site(here / "hospital"))
        (here / KIT.wheel_name).write_bytes(KIT.wheel)
        kits.add(here / KIT.wheel_name)
        kits.approve(KIT.sha256, "a person")
        yield here


def write_site(here: Path, run: str) -> SiteConfig:
    document = {
        "site": "lille",
        "coordinator": "coord.example.org:8443",
        "datasets": {"test-study": {"connector": "csv", "path": str(here / "data" / "lille.csv")}},
        "policy": {
            "kits": "approved",
            "allow_privacy_none": True,
            "metrics": "noisy",
            "max_epsilon": 8.0,
            "min_patients": 20,
        },
        "kit_run": run,
    }
    (here / "hospital" / "site.yaml").write_text(dump_yaml(document))
    (here / "hospital" / "ledger.sqlite").unlink(missing_ok=True)
    return load_site(here / "hospital")


def asked(model: str, arrays: Mapping[str, list[int]], **changes: Any) -> Study:
    features = {name: {"type": "number", "range": [0, 100]} for name in NAMES}
    kit = {"name": "faulty", "version": "1.0.0", "sha256": KIT.sha256, "patient_s": 60}
    return study(
        task={"type": "own", "target": "disease"},
        features=features,
        cohort={"lille": 20},
        kit=kit,
        arrays=arrays,
        model={"name": f"faulty/{model}", "start": {"sha256": "0" * 64}},
        evaluation={"test_fraction": 0.2, "release": {"epsilon": 1.0, "bins": 5}},
        **changes,
    )


LAYERS = {"0.bias": [6], "0.weight": [6, INPUTS], "3.bias": [1], "3.weight": [1, 6]}
DROPOUT = asked("dropout", LAYERS)


def frames(study: Study) -> Iterator[Frame]:
    """The coordinator's messages of one round."""
    specs = study_parameters(study)
    start = {name: np.full(shape, 0.1, np.float32) for name, (shape, _) in specs.items()}
    fields = {"study_sha256": study.sha256}
    yield Frame("hello", {"protocol": wire.PROTOCOL, "study": study.canonical})
    yield to_frame("train", content("train", {**fields, "round": 1}, start, specs), specs)
    yield to_frame("evaluate", content("evaluate", fields, start, specs), specs)


def approve(config: SiteConfig, study: Study) -> None:
    admissions = Admissions.open(config.admissions)
    admissions.propose(study.sha256, study.name, study.canonical)
    admissions.decide(study.sha256, "approved")


def arrays(study: Study, reply: Frame) -> Arrays:
    assert reply.form.endswith("reply"), reply.fields
    return received(reply.form, reply, arrays_of(reply.form, study)).arrays


def of_process(config: SiteConfig, study: Study) -> list[Arrays]:
    approve(config, study)
    worker = WorkerProcess(config, [sys.executable, "-P", str(WORKER), str(config.folder)])
    try:
        return [arrays(study, worker.ask(frame, 1_000_000)[1]) for frame in frames(study)]
    finally:
        worker.stop()


def simulated(config: SiteConfig, study: Study) -> list[Arrays]:
    """In this process, as a simulation has it."""
    SHELF.clear()
    SHELF.finder = lambda _: KIT
    try:
        worker = Worker(config, seeded=True)
        return [arrays(study, worker.answer(frame)[1]) for frame in frames(study)]
    finally:
        SHELF.clear()


def test_children_make_the_bits_that_a_simulation_has(here: Path) -> None:
    forked = of_process(write_site(here, "forked"), DROPOUT)
    expected = simulated(write_site(here, "together"), DROPOUT)
    assert [list(reply) for reply in forked] == [list(reply) for reply in expected]
    for deployed, in_process in zip(forked, expected, strict=True):
        assert all(deployed[name].tobytes() == in_process[name].tobytes() for name in deployed)
    assert not np.array_equal(forked[1]["3.weight"], np.full((1, 6), 0.1, np.float32))
