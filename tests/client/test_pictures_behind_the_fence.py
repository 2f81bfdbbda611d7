"""Images in a real worker: read behind its fence, with the simulation's bits, and nothing beside them opens."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from client.admission import Admissions
from client.connectors import probe
from client.connectors.notes import Notes
from client.ledger import Ledger
from client.looking import page_of
from client.patients import load_patients
from client.site import Site
from client.surroundings import Surroundings
from client.views.study_rows import rows_of
from client.worker_process import WorkerProcess
from configs import wire
from configs.errors import DataError, SourceError
from configs.frame import Frame
from configs.schema import Study
from configs.site import SiteConfig, load_site
from configs.strict_yaml import dump_yaml
from simulations.benchmarks.textures import study_of, write_hospital
from strategies.data.readers.registry import READERS
from strategies.exchange.messages import content, received, to_frame
from tests import builders
from tests.client.test_fence import fenced

SEEDED = "import sys; from client.worker import main; sys.exit(main([sys.argv[1]], seeded=True))"
NIFTI: Any = nibabel.Nifti1Image
DEEDS = """
import numpy as np
from client.connectors.files import Below
from configs.schema import Image as Column
from strategies.data.decode import Unread, decoded
for reader, size, text in (('png', (4, 4), '0.png'), ('dicom', (4, 4), 'ct.dcm'), ('dicom', (4, 4), 'j2k.dcm'),
                           ('dicom', (4, 4), 'rle.dcm'), ('nifti', (2, 2, 2), 'd.nii.gz'), ('npy', (4, 4), 'e.npy')):
    unread, column = Unread(), Column('scan', 'image', reader=reader, size=size)
    assert decoded(Below(str(here / 'north')), text, column, unread) is not None, (text, unread)
assert decoded(Below(str(here / 'north')), 'out.png', Column('scan', 'image', reader='png', size=(4, 4))) is None
try:
    open(here / 'east' / '0.png')
    raise AssertionError('another hospital')
except PermissionError:
    pass
"""


@pytest.fixture
def here() -> Iterator[Path]:
    """A machine with a hospital's folder, its pictures, and another folder of pictures."""
    with TemporaryDirectory(prefix="pictures-", dir="/var/tmp") as folder:
        here = Path(folder)
        (here / "index").mkdir()
        for site, count in (("north", 12), ("east", 1)):
            write_hospital(here, site, count, 0)
        (here / "north.csv").rename(here / "index" / "north.csv")
        (here / "north" / "out.png").symlink_to(here / "east" / "0.png")
        (here / "hospital" / "keys").mkdir(parents=True)
        dataset = {"connector": "csv", "path": "../index/north.csv", "root": "../north", "identity": "pictures"}
        document: dict[str, Any] = {
            "site": "north",
            "coordinator": "coord.example.org:8443",
            "datasets": {name: dict(dataset) for name in ("textures", "network")},
        }
        document["policy"] = {"max_epsilon": 10.0, "min_patients": 10}
        (here / "hospital" / "site.yaml").write_text(dump_yaml(document))
        yield here


def test_every_reader_works_inside_the_fence_and_no_other_folder_is_open(here: Path) -> None:
    for name, text in (("CT_small.dcm", "ct.dcm"), ("JPEG2000.dcm", "j2k.dcm"), ("MR_small_RLE.dcm", "rle.dcm")):
        (here / "north" / text).write_bytes(Path(str(get_testdata_file(name))).read_bytes())
    nibabel.save(NIFTI(np.arange(27.0).reshape(3, 3, 3), np.eye(4)), here / "north" / "d.nii.gz")
    np.save(here / "north" / "e.npy", np.arange(16.0).reshape(4, 4))
    done = fenced(here, DEEDS)
    assert done.stdout.endswith("done\n"), done.stderr


@pytest.fixture
def worker(here: Path) -> Iterator[WorkerProcess]:
    """A real worker whose noise is drawn from a seed."""
    config = load_site(here / "hospital")
    Ledger.open(config.ledger).close()
    started = WorkerProcess(config, [sys.executable, "-P", "-c", SEEDED, str(config.folder)])
    yield started
    started.stop()


def round_of(config: SiteConfig, worker: WorkerProcess, study: Study, start: builders.Arrays) -> builders.Arrays:
    """What the worker answers to a round."""
    admissions = Admissions.open(config.admissions)
    admissions.propose(study.sha256, study.name, study.canonical)
    admissions.decide(study.sha256, "approved")
    shapes = {name: (array.shape, "float32") for name, array in start.items()}
    _, hello = worker.ask(Frame("hello", {"protocol": wire.PROTOCOL, "study": study.canonical}), 1_000_000)
    assert hello.form == "hello reply", hello.fields
    fields: dict[str, str | int] = {"study_sha256": study.sha256, "round": 1}
    _, reply = worker.ask(to_frame("train", content("train", fields, start, shapes), shapes), 1_000_000)
    assert reply.form == "train reply", reply.fields
    return received("train reply", reply, shapes).arrays


def test_a_round_of_a_real_worker_is_the_simulations_to_the_bit(here: Path, worker: WorkerProcess) -> None:
    """Numbers that an encoder makes go to a logistic regression, the pictures themselves to a network."""
    config = load_site(here / "hospital")
    picture = {"type": "image", "reader": "png", "size": [16, 16]}
    network: dict[str, Any] = {"features": {"scan": picture}, "model": {"name": "resnet", "width": 4}}
    for study in (study_of(12, 4.0), study_of(12, 4.0, name="network", **network)):
        check_a_round(config, worker, study)


def check_a_round(config: SiteConfig, worker: WorkerProcess, study: Study) -> None:
    people = load_patients(config.datasets[0].source, study, "north").train
    site = Site("north", study, people, Ledger.in_memory(), seeded=True)
    start = builders.random_arrays(site.parameters, scale=0.1)
    simulated = site.fit(1, start)
    assert builders.flat(simulated).std() > 0
    assert builders.same_bits(round_of(config, worker, study, start), simulated)


def test_the_page_to_approve_says_how_images_are_read(here: Path) -> None:
    picture = {"type": "image", "reader": "png", "size": [16, 16], "window": [0, 255]}
    study = study_of(12, 4.0, features={"scan": picture}, model={"name": "resnet", "width": 4})
    text = "paths of image records below root, read by png as 1 x 16 x 16 numbers, scaled by"
    assert f"'scan': {text} the range 0 to 255" in str(rows_of(load_site(here / "hospital"), study))
    made = f"'scan': {text.replace('16', '33')} their own range; texture makes 189 numbers of each"
    assert made in str(rows_of(load_site(here / "hospital"), study_of(12, 4.0)))


def test_a_replaced_folder_of_pictures_is_noticed(here: Path) -> None:
    around = Surroundings(load_site(here / "hospital"), {})
    assert around.replaced() == ""
    (here / "north").rename(here / "before")
    (here / "north").mkdir()
    assert around.replaced().endswith("/north")


def test_the_hospitals_own_page_counts_records_that_cannot_be_read_and_names_none(here: Path) -> None:
    (here / "north" / "3.png").unlink()
    (here / "north" / "4.png").write_bytes((here / "north" / "5.png").read_bytes()[:80])
    index = here / "index" / "north.csv"
    index.write_text(index.read_text().replace("p5,5.png", "p5,../east/0.png"))
    study, notes = study_of(12, 8.0), Notes(thorough=True)
    people = load_patients(load_site(here / "hospital").datasets[0].source, study, "north", notes)
    (finding,) = [each for each in page_of(study, notes, people).findings if each.column == "scan"]
    assert finding.text == (
        "3 of 12 rows are no record that can be read; it is unknown; of these 1: no such file; "
        "of these 1: outside of the folder root; of these 1: broken, not whole, or of another format"
    )
    assert people.train.count + people.test.count == 12


def test_without_a_root_or_a_library_it_is_refused_before_any_row_is_read(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, source = study_of(12, 8.0), load_site(here / "hospital").datasets[0].source
    with pytest.raises(DataError, match="'scan': expected the folder that its paths begin in, found none; write root"):
        probe(replace(source, root=None), study)
    with pytest.raises(SourceError, match="expected the folder of images or series, found none; check root"):
        probe(replace(source, root=here / "nowhere"), study)
    probe(source, study)
    monkeypatch.setattr(READERS["png"].__class__, "needs", ("no_such_library",))
    with pytest.raises(DataError, match=r"reader png: expected the library no_such_library.*'archipel\[images\]'"):
        probe(source, study)
