"""Any part of Archipel in a process where toy kinds are installed, and so in every part that it starts.

    python -P -E tests/kits/installed.py ordinal,time_to_event MODULE ARGUMENTS

Each kind's file has a function `install` that registers it. No installed command can do this. The kinds are registered
when the process reads its first study: a worker has left the network by then, which a process of several threads cannot
do, and may read no file but the installation's.
"""

import runpy
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

from configs import load, parts

FOLDER = Path(__file__).resolve().parent


class Kit(SourceFileLoader):
    """A kind's file, which is read at once."""

    def __init__(self, name: str) -> None:
        super().__init__(f"kits.{name}", str(FOLDER / f"{name}.py"))
        self._source = (FOLDER / f"{name}.py").read_bytes()

    def path_stats(self, path: str) -> Any:
        """Say that no compiled form is kept."""
        raise OSError(path)

    def get_data(self, path: str) -> bytes:
        """Return the source that was read."""
        if path != self.path:
            raise OSError(path)
        return self._source

    def install(self) -> None:
        """Register the kind in this process."""
        spec = spec_from_loader(self.name, self)
        assert spec is not None
        module = sys.modules.setdefault(self.name, module_from_spec(spec))
        self.exec_module(module)
        module.install()


def command_with(kits: str) -> Callable[..., list[str]]:
    """Return what takes the place of `parts.command`."""
    return partial(_command, kits)


def _command(kits: str, module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-E", str(FOLDER / "installed.py"), kits, module, *arguments]


def install_with_the_first_study(kits: str) -> None:
    """Register the kinds of these files once `study_from` is called."""
    files, study_from = [Kit(name) for name in kits.split(",")], load.study_from

    @cache
    def install() -> None:
        for file in files:
            file.install()

    def with_kinds(*given: Any, **options: Any) -> Any:
        install()
        return study_from(*given, **options)

    load.study_from = with_kinds


if __name__ == "__main__":
    parts.command = command_with(sys.argv[1])
    install_with_the_first_study(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
