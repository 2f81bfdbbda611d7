"""Files that are whole or absent, and folders that nobody else can enter."""

from pathlib import Path

import pytest

from configs.coordinator import CoordinatorConfig
from configs.errors import RunError
from server.files import private_folder


def test_a_socket_fits_its_path_wherever_the_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    near, far = (CoordinatorConfig(folder, "", ()) for folder in (Path("/srv/c"), Path("/srv") / ("é" * 60)))
    assert near.sockets == Path("/srv/c/sockets")
    assert far.sockets.parent == Path("/run/user/1000")
    assert len(bytes(far.sockets / "superlink.sock")) <= 107


def test_a_socket_fits_its_path_where_the_runtime_directory_is_far_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/" + "x" * 100)
    assert CoordinatorConfig(Path("/srv") / ("x" * 120), "", ()).sockets.parent == Path("/tmp")


def test_two_folders_never_share_their_sockets() -> None:
    folders = [Path("/srv") / ("x" * 120) / name for name in ("a", "b")]
    assert len({CoordinatorConfig(folder, "", ()).sockets for folder in folders}) == 2


def test_a_private_folder_is_the_owners_alone(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "sockets")
    assert made.stat().st_mode & 0o777 == 0o700
    assert private_folder(made) == made


@pytest.mark.parametrize("mode", [0o750, 0o707, 0o777])
def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "sockets").mkdir()
    (tmp_path / "sockets").chmod(mode)
    with pytest.raises(RunError, match="of this user alone"):
        private_folder(tmp_path / "sockets")


def test_a_link_in_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "sockets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="of this user alone"):
        private_folder(tmp_path / "sockets")
