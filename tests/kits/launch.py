"""Start one of Archipel's modules with toy kinds registered; every process that it starts has them too.

    python -P -E tests/kits/launch.py KIT[,KIT] MODULE ARGUMENTS...

A kit is a file of this folder with a function `install()`. No installed command can do this: what a hospital runs is
what it installed.
"""

import importlib.util
import os
import runpy
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from configs import parts

FOLDER = Path(__file__).resolve().parent
_NO_KINDS = ("server.gateway", "server.superlink", "client.forwarder", "client.isolation")  # they know no study


def command(kits: str, module: str, *arguments: str) -> list[str]:
    """Return the command that runs an installed module with these kits."""
    return [sys.executable, "-P", "-E", str(Path(__file__).resolve()), kits, module, *arguments]


def of_a_hospital(kits: str) -> str:
    """Return the kits without those that draw reports: a hospital may not read the code that does."""
    named = kits.split(",")
    return ",".join(kit for kit in named if "from server." not in (FOLDER / f"{kit}.py").read_text("utf-8"))


def read(kits: str) -> list[tuple[ModuleSpec, CodeType]]:
    """Return each kit's code, by its file: with tests/ on the path, tests/strategies would stand for strategies."""
    codes = []
    for kit in kits.split(","):
        spec = importlib.util.spec_from_file_location(f"kits.{kit}", FOLDER / f"{kit}.py")
        assert spec
        code = SourceFileLoader(spec.name, str(FOLDER / f"{kit}.py")).get_code(spec.name)
        assert code
        codes.append((spec, code))
    return codes


def register(codes: list[tuple[ModuleSpec, CodeType]]) -> None:
    """Register each kit's kinds in this process."""
    for spec, code in codes:
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        exec(code, vars(module))
        module.install()


def work(kits: str) -> None:
    """Run a hospital's worker: its kits are read before it may open no more files, and begin once it left the network.

    A kit's imports may start threads, and a process with threads cannot leave it. A connector begins at once: site.yaml
    names it, and is read before.
    """
    from client import worker

    named = kits.split(",")
    at_once = [kit for kit in named if "client.connectors" in (FOLDER / f"{kit}.py").read_text("utf-8")]
    later = [code for kit in named if kit not in at_once for code in read(kit)]
    if at_once:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        register(read(",".join(at_once)))

    class WithKits(worker.Worker):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            register(later)
            super().__init__(*arguments, **options)

    worker.Worker = WithKits  # type: ignore[misc]
    sys.exit(worker.main(sys.argv[1:]))


def main(kits: str, module: str, arguments: list[str]) -> None:
    """Run a module as `python -m` does."""
    parts.command = lambda named, *words: command(kits, named, *words)
    sys.argv = [module, *arguments]
    kits = of_a_hospital(kits) if module.startswith("client.") else kits
    if module == "client.worker":
        work(kits)
    if not module.startswith(_NO_KINDS):
        register(read(kits))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
