"""A kit's reader in children: it sees the bytes of one record, under its path, and no other."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.children.limits import can_confine
from client.children.of_kits import KitWork
from client.children.slots import Slots
from client.children.zygote import Work, Zygote
from client.patients import load_patients
from configs.errors import KitError
from configs.kit import About, KitFiles
from configs.schema import CsvFile
from configs.schema.kit import KitKeys
from configs.schema.records import Image
from strategies.data.decode import Unread, decoded
from strategies.data.readers.of_a_kit import KitReader
from strategies.data.source import Located, Why
from strategies.kits.probed import preload
from strategies.kits.shelf import SHELF

pytestmark = pytest.mark.skipif(not can_confine(), reason="needs seccomp")
SOURCE = """
import os, pathlib
import numpy as np
from strategies.kit import Reader

seen = []


def plain(path):
    return np.frombuffer(open(path, "rb").read(), np.uint8).reshape(1, 2, 2)


def saved(path):
    return np.load(path)


def texts(path):
    seen.append(path)
    assert len(seen) == 1 and pathlib.Path(path).exists() and os.path.getsize(path) > 0
    return np.array(pathlib.Path(path).read_text().split(), np.float32).reshape(1, 2, 2)


def thief(path):
    for name in ("0", "1"):
        try:
            return plain(path[:-1] + name) if name != path[-1] else 1 / 0
        except (OSError, ZeroDivisionError):
            continue


def low_thief(path):
    other = os.open(path[:-1] + ("0" if path.endswith("1") else "1"), os.O_RDONLY)
    return np.frombuffer(os.read(other, 4), np.uint8).reshape(1, 2, 2)


def listing(path):
    return np.full((1, 2, 2), len(os.listdir(os.path.dirname(path))))


def writing(path):
    open(path, "wb").write(b"1111")
    return plain(path)


READERS = {f.__name__: Reader(f, (1, 2, 2)) for f in (plain, saved, texts, thief, low_thief, listing, writing)}
globals().update({f"read_{name}": reader for name, reader in READERS.items()})
read_large = Reader(lambda path: np.zeros((1, 4, 4)), (1, 4, 4))
"""
NAMES = ("plain", "saved", "texts", "thief", "low_thief", "listing", "writing", "large")
KIT = KitFiles(
    About("ours", "1.0.0", readers={name: f"archipel_kit_ours:read_{name}" for name in NAMES}),
    {"archipel_kit_ours.py": SOURCE.encode()},
)
KEYS = KitKeys("ours", "1.0.0", KIT.sha256)
SCAN = Image("scan", "image", reader="ours/plain", size=(2, 2))


def prepare(described: bytes) -> Work:
    del described
    preload(KIT.modules)
    return KitWork(None)


@pytest.fixture(scope="module")
def shelf() -> Iterator[None]:
    SHELF.clear()
    SHELF.finder, SHELF.run = lambda _: KIT, "forked"
    SHELF.hold(KEYS)
    with Zygote(prepare) as zygote:
        zygote.prepare(b"")
        SHELF.children = Slots(zygote, 20.0, paced=False)
        yield
    SHELF.clear()


class Folder:
    """Records of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, text: str) -> Located:
        path = str(self.folder / text)
        return Located(path, (path,))

    def digest(self, text: str) -> bytes:
        return text.encode()


@pytest.fixture
def files(tmp_path: Path, shelf: None) -> Folder:
    del shelf
    for number in range(2):
        (tmp_path / f"{number}").write_bytes(bytes([number, 7, 8, 9]))
        (tmp_path / f"text{number}").write_text(f"{number} 7 8 9")
        np.save(tmp_path / f"saved{number}.npy", np.array([[[number, 7], [8, 9]]], np.float32))
    return Folder(tmp_path)


def read(files: Folder, reader: str, text: str) -> object:
    unread = Unread()
    record = decoded(files, text, Image("scan", "image", reader=f"ours/{reader}", size=(2, 2)), unread)
    return unread.why if record is None else record.reshape(-1).tolist()


@pytest.mark.parametrize(("reader", "text"), [("plain", "{}"), ("texts", "text{}"), ("saved", "saved{}.npy")])
def test_each_record_is_decoded_from_its_bytes_alone(files: Folder, reader: str, text: str) -> None:
    assert [read(files, reader, text.format(n)) for n in range(2)] == [[0.0, 7.0, 8.0, 9.0], [1.0, 7.0, 8.0, 9.0]]


@pytest.mark.parametrize("reader", ["thief", "low_thief", "listing", "writing", "large"])
def test_what_a_reader_may_not_is_a_record_that_is_unknown(files: Folder, reader: str) -> None:
    assert read(files, reader, "1") == {Why.UNREADABLE: 1}
    assert (files.folder / "1").read_bytes() == bytes([1, 7, 8, 9])


def test_that_a_reader_is_there_is_known_without_executing_it(shelf: None) -> None:
    del shelf
    KitReader("ours/plain").require()
    with pytest.raises(KitError, match=r"expected a reader of ours/plain, .* found 'ours/other'"):
        KitReader("ours/other").require()


class Zygotes:
    """Stands in for a zygote: notes what it is asked."""

    def __init__(self) -> None:
        self.lock, self.asked = threading.RLock(), 0

    def ask(self, patient: bytes | None, size: int, *, until: float) -> bytes | None:
        del patient, until
        self.asked += 1
        return bytes(size)


def test_a_reading_beside_a_step_has_children_of_its_own() -> None:
    steps, readings = Zygotes(), Zygotes()
    slots = Slots(steps, 1.0, paced=False, readings=readings)  # type: ignore[arg-type]

    def question() -> bytes:
        thread = threading.Thread(target=slots.record, args=("ours/plain", "/a", b"", 4))
        thread.start()
        thread.join()
        return slots.record("ours/plain", "/a", b"", 4) or b""

    assert list(slots.answers([question], 4)) == [(0, bytes(4))]
    assert (steps.asked, readings.asked) == (2, 1)


def test_a_reading_during_which_another_kit_came_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from client import reading
    from tests.builders import study

    (tmp_path / "a.csv").write_text("age,sex,disease\n30,male,1\n40,female,0\n")
    kits = {"name": "ours", "version": "1.0.0", "sha256": KIT.sha256}
    held = reading.Reading(lambda: CsvFile(tmp_path / "a.csv"), study(kit=kits), "lille")

    def during(*arguments: Any) -> Any:
        SHELF.hold(KitKeys("ours", "2.0.0", "ab" * 32))
        return load_patients(*arguments)

    SHELF.hold(KEYS)
    monkeypatch.setattr(reading, "load_patients", during)
    assert not held.renew_if_due()
    SHELF.hold(KEYS)
    monkeypatch.setattr(reading, "load_patients", load_patients)
    assert held.renew_if_due()
