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
from client.connectors.notes import Notes
from client.kit_served import serve_kit
from client.kits import Kits
from client.patients import load_patients
from client.site_file import load_site
from client.worker import Worker
from client.worker_process import WorkerProcess
from configs import wire
from configs.frame import Frame
from configs.kit import About, KitFiles
from configs.schema import Study
from configs.site import SiteConfig
from configs.strict_yaml import dump_yaml
from strategies.data.source import Why
from strategies.exchange.messages import content, received, to_frame
from strategies.kits.shelf import SHELF
from strategies.learning import learning_of
from strategies.models.registry import study_parameters
from strategies.releases.registry import arrays_of
from tests.builders import study
from tests.faulty_models import FAULTY, INPUTS, SOUND, SOURCE

pytestmark = pytest.mark.skipif(not can_confine(), reason="needs seccomp")
WORKER = Path(__file__).with_name("unpaced_worker.py")
SIDE, UNREADABLE = 6, 3
READER = f"""
import numpy as np
from torch import nn
from strategies.kit import ImageInput, Model, Reader

SHAPE = (1, {SIDE}, {SIDE})


def read_picture(path):
    with open(path, "rb") as file:
        return np.frombuffer(file.read(), np.uint8).reshape(SHAPE).astype(np.float32) / 255


def darkness(outputs, mask):
    return ((outputs.sigmoid() - mask) ** 2).flatten(1).mean(1)


picture = Reader(read_picture, shape=SHAPE)
of_picture = Model(build=lambda: nn.Sequential(nn.Flatten(), nn.Linear({SIDE * SIDE}, 1)), input=ImageInput(SHAPE),
                   loss=lambda outputs, y: F.binary_cross_entropy_with_logits(outputs[:, 0], y, reduction="none"),
                   score=lambda outputs, y: float(outputs.sigmoid().mean()))
of_mask = Model(build=lambda: nn.Conv2d(1, 1, 3, padding=1), loss=darkness, target=ImageInput(SHAPE),
                score=lambda outputs, mask: float(1 - darkness(outputs, mask).mean()), input=ImageInput(SHAPE))
"""
MODELS = (*FAULTY, *SOUND, "of_picture", "of_mask")
KIT = KitFiles(
    About(
        "faulty",
        "1.0.0",
        models={name: f"archipel_kit_faulty:{name}" for name in MODELS},
        readers={"picture": "archipel_kit_faulty:picture"},
    ),
    {"archipel_kit_faulty.py": (SOURCE + READER).encode()},
)
NAMES = ("age", "bmi", "glucose", "pressure")
Arrays = Mapping[str, NDArray[np.float32]]


def rows() -> str:
    chance = random.Random(5)
    lines = [
        ",".join(str(chance.randint(1, 99)) for _ in range(INPUTS)) + f",{n % 2},{n}.raw,{n + 1}.raw" for n in range(20)
    ]
    return "\n".join([",".join((*NAMES, "disease", "scan", "mask")), *lines, ""])


def write_pictures(folder: Path) -> None:
    """Files that the kit alone reads; one of them is cut short."""
    chance = random.Random(6)
    for n in range(21):
        (folder / f"{n}.raw").write_bytes(chance.randbytes(SIDE * SIDE - (n == UNREADABLE)))


@pytest.fixture(scope="module")
def here() -> Iterator[Path]:
    """A hospital with an approved kit and data."""
    with TemporaryDirectory(prefix="kit-", dir="/var/tmp") as name:
        here = Path(name)
        for folder in ("hospital/keys", "data"):
            (here / folder).mkdir(parents=True)
        (here / "data" / "lille.csv").write_text(rows())
        write_pictures(here / "data")
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
        "datasets": {
            "test-study": {
                "connector": "csv",
                "path": str(here / "data" / "lille.csv"),
                "root": str(here / "data"),
            }
        },
        "policy": {
            "kits": "approved",
            "allow_privacy_none": True,
            "metrics": "noisy",
            "max_epsilon": 40.0,
            "min_patients": 20,
        },
        "kit_run": run,
    }
    (here / "hospital" / "site.yaml").write_text(dump_yaml(document))
    (here / "hospital" / "ledger.sqlite").unlink(missing_ok=True)
    return load_site(here / "hospital")


def asked(model: str, arrays: Mapping[str, list[int]], **changes: Any) -> Study:
    features = {name: {"type": "number", "range": [0, 100]} for name in NAMES}
    own = {"arrays": arrays, "model": {"name": f"faulty/{model}", "start": {"sha256": "0" * 64}}} if model else {}
    common: dict[str, Any] = {
        "task": {"type": "own", "target": "disease"},
        "features": features,
        "cohort": {"lille": 20},
        "kit": {"name": "faulty", "version": "1.0.0", "sha256": KIT.sha256, "patient_s": 60},
        "evaluation": {"test_fraction": 0.2, "release": {"epsilon": 1.0, "bins": 5}},
    }
    return study(**common | own | changes)


LAYERS = {"0.bias": [6], "0.weight": [6, INPUTS], "3.bias": [1], "3.weight": [1, 6]}
DROPOUT = asked("dropout", LAYERS)
IMAGE = {"reader": "faulty/picture", "size": [SIDE, SIDE]}
SCAN = {"scan": {"type": "image", **IMAGE}}
TEXTURE = {"scan": {"type": "image", **IMAGE, "encoder": "texture"}}
STUDIES = {
    "rows": DROPOUT,
    "pictures": asked("of_picture", {"1.bias": [1], "1.weight": [1, SIDE * SIDE]}, features=SCAN),
    "masks": asked(
        "of_mask",
        {"bias": [1], "weight": [1, 1, 3, 3]},
        features=SCAN,
        task={"type": "own_mask", "target": "mask", **IMAGE},
        evaluation={"test_fraction": 0.2},
        releases={"score_sum": {"epsilon": 1}},
    ),
    "textures": asked("", {}, features=TEXTURE, task={"type": "binary", "target": "disease"}),
}


def frames(study: Study) -> Iterator[Frame]:
    """The coordinator's messages of one round."""
    specs = study_parameters(study)
    start = {name: np.full(shape, 0.1, np.float32) for name, (shape, _) in specs.items()}
    fields = {"study_sha256": study.sha256}
    yield Frame("hello", {"protocol": wire.PROTOCOL, "study": study.canonical})
    yield to_frame("train", content("train", {**fields, "round": 1}, start, specs), specs)
    form = "evaluate" if study.evaluation.release else "score_sum"
    yield to_frame(form, content(form, fields, start, specs), specs)


def approve(config: SiteConfig, study: Study) -> None:
    admissions = Admissions.open(config.admissions)
    admissions.propose(study.sha256, study.name, study.canonical)
    admissions.decide(study.sha256, "approved")


def arrays(study: Study, reply: Frame) -> Arrays:
    assert reply.form.endswith("reply"), reply.fields
    return received(reply.form, reply, arrays_of(reply.form, study)).arrays


def of_process(config: SiteConfig, studies: Mapping[str, Study]) -> dict[str, list[Arrays]]:
    worker = WorkerProcess(config, [sys.executable, "-P", str(WORKER), str(config.folder)])
    try:
        return {
            name: [arrays(study, worker.ask(frame, 1_000_000)[1]) for frame in frames(study)]
            for name, study in studies.items()
        }
    finally:
        worker.stop()


def simulated(config: SiteConfig, studies: Mapping[str, Study]) -> dict[str, list[Arrays]]:
    """In this process, as a simulation has it."""
    SHELF.clear()
    SHELF.finder = lambda _: KIT
    try:
        worker = Worker(config, seeded=True)
        return {
            name: [arrays(study, worker.answer(frame)[1]) for frame in frames(study)] for name, study in studies.items()
        }
    finally:
        SHELF.clear()


@pytest.fixture(scope="module")
def replies(here: Path) -> dict[str, tuple[list[Arrays], list[Arrays]]]:
    """What one worker answered with each patient in a child, and what a simulation does, study by study."""
    for each in STUDIES.values():
        approve(load_site(here / "hospital"), each)
    forked = of_process(write_site(here, "forked"), STUDIES)
    expected = simulated(write_site(here, "together"), STUDIES)
    return {name: (forked[name], expected[name]) for name in STUDIES}


@pytest.mark.parametrize("name", STUDIES)
def test_children_make_the_bits_that_a_simulation_has(
    replies: dict[str, tuple[list[Arrays], list[Arrays]]], name: str
) -> None:
    forked, expected = replies[name]
    assert [list(reply) for reply in forked] == [list(reply) for reply in expected]
    for deployed, in_process in zip(forked, expected, strict=True):
        assert all(deployed[part].tobytes() == in_process[part].tobytes() for part in deployed)
    assert not all(np.array_equal(array, np.full(array.shape, 0.1, np.float32)) for array in forked[1].values())


def test_what_a_person_starts_reads_and_scores_in_children_too(here: Path) -> None:
    config, asked_for, predictions = write_site(here, "forked"), STUDIES["pictures"], []
    start = {name: np.full(shape, 0.1, np.float32) for name, (shape, _) in study_parameters(asked_for).items()}
    dataset = config.dataset(asked_for.name)
    assert dataset is not None
    for run in ("forked", "together"):
        SHELF.clear()
        serve_kit(write_site(here, run), asked_for)
        assert (SHELF.children is not None) == (run == "forked")
        notes = Notes(thorough=True)
        people = load_patients(dataset.source, asked_for, "lille", notes)
        predictions.append(learning_of(asked_for).predictions(start, people.train))
        assert f"scan: of these 1: {Why.UNREADABLE.value}" in notes.oddities()
    SHELF.clear()
    assert np.array_equal(predictions[0], predictions[1])
    assert len(np.unique(predictions[0])) > 10
