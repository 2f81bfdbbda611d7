"""Any part of Archipel in a process where toy kinds are installed, and so in every part that it starts.

    python -P -E tests/kits/installed.py ordinal,time_to_event MODULE ARGUMENTS

Each kind's file has a function `install` that registers it. No installed command can do this.
"""

import importlib.util
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from configs import parts

FOLDER = Path(__file__).resolve().parent


def install(kits: str) -> None:
    """Register the kinds of these files in this process."""
    for name in kits.split(","):
        spec = importlib.util.spec_from_file_location(f"kits.{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
        spec.loader.exec_module(module)
        module.install()


def command_with(kits: str) -> Callable[..., list[str]]:
    """Return what takes the place of `parts.command`."""
    return partial(_command, kits)


def _command(kits: str, module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-E", str(FOLDER / "installed.py"), kits, module, *arguments]


if __name__ == "__main__":
    parts.command = command_with(sys.argv[1])
    install(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
