"""A hospital's study kits: what is added, shown, approved, refused, and what the node decides of it."""

import io
import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from client.cli import main
from client.doctor import examine
from client.enrol import enrol
from client.kit_probe import probed
from client.kits import Kits, standing
from client.site_file import load_site
from configs.errors import KitError
from configs.kit import SIGNATURES, About, KitFiles
from configs.kit_rules import require_kit
from configs.schema.kit import KitKeys
from simulations.kits.signing import sign_wheel

SOURCE = b"""
from torch import nn
from strategies.kit import Model

net = Model(build=lambda inputs: nn.Linear(inputs, 1), loss=lambda out, y: ((out[:, 0] - y) ** 2),
            score=lambda out, y: float(out.detach().sigmoid().mean()))
"""
NAME = "archipel_kit_toy-1.0.0-py3-none-any.whl"


def kit(version: str = "1.0.0", source: bytes = SOURCE, requires: tuple[str, ...] = ()) -> KitFiles:
    about = About("toy", version, requires=requires, models={"net": "archipel_kit_toy:net"})
    return KitFiles(about, {"archipel_kit_toy.py": source})


def keys_of(kit: KitFiles) -> KitKeys:
    return KitKeys(kit.about.name, kit.about.version, kit.sha256)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site.yaml").write_text(
        "site: lille\ncoordinator: localhost:8443\npolicy: {kits: approved}\nkit_run: together\n"
    )
    enrol(load_site(tmp_path))
    return tmp_path


def write(folder: Path, kit: KitFiles) -> Path:
    path = folder / kit.wheel_name
    path.write_bytes(kit.wheel)
    return path


def run(folder: Path, *words: str) -> int:
    return main(["-C", str(folder), "kit", *words])


def test_a_kit_is_added_shown_approved_and_withdrawn_and_each_step_is_journaled(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = kit()
    assert run(folder, "add", str(write(folder, toy))) == 0
    config = load_site(folder)
    denial = standing(config, keys_of(toy))
    assert denial is not None
    assert denial.code == 124
    source = config.kits / toy.sha256 / "archipel_kit_toy.py"
    assert stat.S_IMODE(source.stat().st_mode) == 0o444
    assert run(folder, "show", "toy") == 0
    page = capsys.readouterr().out
    assert toy.sha256 in page
    assert "toy/net: none of the checks (a) to (e) warns" in page
    assert run(folder, "approve", toy.sha256[:12]) == 0
    assert standing(config, keys_of(toy)) is None
    assert run(folder, "withdraw", toy.sha256[:12], "--why", "a doubt") == 0
    assert standing(config, keys_of(toy)).code == 124  # type: ignore[union-attr]
    records = [json.loads(line) for line in config.journal.read_text().splitlines()]
    assert [record["kind"] for record in records] == ["kit added", "kit approved", "kit withdrawn"]


def test_what_stands_in_the_way_of_a_study_has_a_code_of_its_own(folder: Path) -> None:
    toy, newer = kit(), kit("1.1.0")
    config = load_site(folder)
    assert standing(config, keys_of(toy)).code == 122  # type: ignore[union-attr]
    run(folder, "add", str(write(folder, toy)))
    assert standing(config, keys_of(newer)).code == 123  # type: ignore[union-attr]
    run(folder, "approve", toy.sha256[:12])
    assert standing(config, keys_of(toy)) is None
    source = config.kits / toy.sha256 / "archipel_kit_toy.py"
    source.chmod(0o600)
    source.write_bytes(SOURCE + b"#")
    denial = standing(config, keys_of(toy))
    assert denial is not None
    assert denial.code == 123
    with pytest.raises(KitError, match="then remove its folder and add the wheel again"):
        Kits(config).files(keys_of(toy))
    (finding,) = [finding for finding in examine(folder) if finding.check == "kits"]
    assert finding.verdict == "WRONG"
    assert "its files are not those that were added" in finding.text
    (folder / "site.yaml").write_text("site: lille\ncoordinator: localhost:8443\n")
    assert standing(load_site(folder), keys_of(toy)).code == 124  # type: ignore[union-attr]


def _written(place: Path) -> None:
    source = place / "archipel_kit_toy.py"
    source.chmod(0o600)
    source.write_bytes(SOURCE + b"#")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte": _written,
    "a file more": lambda place: (place / "more.py").write_bytes(b""),
    "a file less": lambda place: (place / "archipel_kit_toy.py").unlink(),
    "a link": lambda place: (place / "link.py").symlink_to("/etc/hostname"),
    "another whole kit": lambda place: [_written(place), write_tree(kit("1.0.0", SOURCE + b"#"), place)],
}


def write_tree(toy: KitFiles, place: Path) -> None:
    for name, content in toy.files.items():
        (place / name).chmod(0o600)
        (place / name).write_bytes(content)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_was_changed_the_cure_that_is_named_works(
    folder: Path, change: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    toy, config = kit(), load_site(folder)
    wheel = write(folder, toy)
    assert run(folder, "add", str(wheel)) == 0
    place = config.kits / toy.sha256
    change(place)
    (finding,) = [finding for finding in examine(folder) if finding.check == "kits"]
    assert "remove its folder and add the wheel again" in finding.todo
    assert run(folder, "add", str(wheel)) == 2  # nothing is repaired unseen
    shutil.rmtree(place)
    assert run(folder, "add", str(wheel)) == 0
    assert [finding for finding in examine(folder) if finding.check == "kits"] == []


def test_every_reviewer_of_site_yaml_must_have_signed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = kit()
    wheel = write(folder, toy)
    _, first = sign_wheel(wheel, folder / "first.pem")
    text = (folder / "site.yaml").read_text()
    _, second = sign_wheel(write(folder, kit("9.0.0")), folder / "second.pem")
    (folder / "site.yaml").write_text(f"{text}kit_signers: [{first}, {second}]\n")
    run(folder, "add", str(wheel))
    assert run(folder, "approve", toy.sha256[:12]) == 2
    assert f"found none by {second[:16]}" in capsys.readouterr().err
    sign_wheel(wheel, folder / "second.pem")
    run(folder, "add", str(wheel))
    assert run(folder, "approve", toy.sha256[:12]) == 0
    forged = (folder / f"{wheel.name}{SIGNATURES}").read_text().replace(second, first[::-1])
    (load_site(folder).kits / f"{toy.sha256}{SIGNATURES}").write_text(forged)
    assert standing(load_site(folder), keys_of(toy)).code == 124  # type: ignore[union-attr]


def test_what_a_kit_requires_must_be_installed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for requirement, found in (("no-such-distribution>=2", "none"), ("numpy<1", "2.")):
        assert run(folder, "add", str(write(folder, kit(requires=(requirement,))))) == 2
        error = capsys.readouterr().err
        assert f"it needs {requirement}, found {found}" in error
        assert f"pip install '{requirement}'" in error
    assert list(Kits(load_site(folder)).all()) == []


def test_what_changed_since_another_version_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, "add", str(write(folder, kit())))
    newer = kit("1.1.0", SOURCE.replace(b"sigmoid", b"tanh"))
    run(folder, "add", str(write(folder, newer)))
    capsys.readouterr()
    assert run(folder, "show", newer.sha256[:12], "--diff", "1.0.0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines if "detach" in line] == ["-", "+"]


def zipped(*files: tuple[str, bytes], mode: int = 0o100644, method: int = zipfile.ZIP_STORED) -> bytes:
    """Write the toy's wheel with further files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in (*kit().files.items(), *files):
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = mode << 16, method
            archive.writestr(entry, content)
    return buffer.getvalue()


def encrypted() -> bytes:
    wheel = bytearray(kit().wheel)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = wheel.find(magic)
        wheel[place + offset] |= 1
    return bytes(wheel)


def with_file(name: str, content: bytes = b"x") -> Callable[[], bytes]:
    return lambda: zipped((name, content))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: b"no wheel", "expected a wheel"),
        (with_file("archipel_kit_toy/fast.so"), "no machine code, bytecode or .pth"),
        (with_file("archipel_kit_toy/__pycache__/a.cpython-311.pyc"), "no machine code, bytecode or .pth"),
        (with_file("archipel_kit_toy.pth"), "one top-level name"),
        (with_file("configs/__init__.py"), "one top-level name archipel_kit_toy, found 'configs'"),
        (with_file("client.py"), "one top-level name"),
        (with_file("/etc/cron.d/x"), "paths within the kit"),
        (with_file("archipel_kit_toy/../../x.py"), "paths within the kit"),
        (with_file("archipel_kit_toy\\x.py"), "paths within the kit"),
        (with_file("C:/x.py"), "paths within the kit"),
        (with_file("ARCHIPEL_KIT_TOY.py"), "names that differ"),
        (with_file("archipel_kit_toy/\ufb01.py"), "letters, digits"),
        (with_file("archipel_kit_toy-1.0.0.data/scripts/run.py"), "no data and no scripts"),
        (with_file("archipel_kit_toy-1.0.0.dist-info/direct_url.json"), "metadata of"),
        (with_file("archipel_kit_toy/data.csv", b"0" * 2_000_001), "2 MB"),
        (lambda: zipped(mode=0o120777), "plain files, found a link"),
        (lambda: zipped(method=zipfile.ZIP_DEFLATED), "without compression"),
        (lambda: zipped(("archipel_kit_toy/x.txt", b"0" * 2_000_000), method=zipfile.ZIP_DEFLATED), "2 MB"),
        (encrypted, "no encryption"),
        (lambda: kit().wheel + b"more", "the one wheel of its files"),
        (lambda: b"MZ" + kit().wheel, "the one wheel of its files"),
        (lambda: kit().wheel.replace(b"net = Model", b"met = Model"), "expected a wheel"),
        (lambda: zipped(("archipel_kit_toy/more.py", b"")), "the one wheel of its files"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_wheel_is_refused_in_a_sentence_and_nothing_is_left(
    folder: Path, capsys: pytest.CaptureFixture[str], make: Callable[[], bytes], sentence: str
) -> None:
    (folder / NAME).write_bytes(make())
    assert run(folder, "add", str(folder / NAME)) == 2
    assert sentence in capsys.readouterr().err
    kits = load_site(folder).kits
    assert not kits.exists() or list(kits.iterdir()) == []


def test_a_duplicate_a_console_script_and_a_link_to_a_wheel_are_refused(folder: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped(("archipel_kit_toy.py", b"import os\n"))
    with pytest.raises(KitError, match="names that differ"):
        require_kit(twice, NAME)
    files = dict(kit().files)
    files["archipel_kit_toy-1.0.0.dist-info/entry_points.txt"] += b"[console_scripts]\nx = archipel_kit_toy:net\n"
    with pytest.raises(KitError, match="a kit installs no command"):
        KitFiles.of_files(files)
    write(folder, kit()).rename(folder / "real.whl")
    (folder / NAME).symlink_to(folder / "real.whl")
    assert run(folder, "add", str(folder / NAME)) == 2


@pytest.mark.parametrize("said", [b"5", b"[" * 60_000, b'"page"', b"\xff"], ids=["number", "deep", "text", "bytes"])
def test_what_a_kits_code_says_in_the_probes_place_is_a_sentence_of_ours_or_escaped(said: bytes) -> None:
    lying = f"import os\nos.write(4, {said!r}.ljust(1 << 16))\nos._exit(0)\n"
    assert probed(kit(source=lying.encode())).startswith("it did not end well")


@pytest.mark.parametrize("summary", ["two\n lines", "\x1b[2J", "\u202egnp"])
def test_a_summary_that_speaks_to_a_terminal_is_refused(summary: str) -> None:
    toy = KitFiles(About("toy", "1.0.0", summary, models={"net": "archipel_kit_toy:net"}), {"archipel_kit_toy.py": b""})
    with pytest.raises(KitError, match="one line of plain text"):
        require_kit(toy.wheel, toy.wheel_name)
