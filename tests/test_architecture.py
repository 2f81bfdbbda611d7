"""The house, executable: who may import whom, and where the network and the patients may be touched."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.recorded import _RELEASES

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("configs", "strategies", "client", "server", "simulations")
MAY_IMPORT = {
    "configs": set(),
    "strategies": {"configs"},
    "client": {"strategies", "configs"},
    "server": {"strategies", "configs"},
    "simulations": {"client", "server", "strategies", "configs"},
}
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "requirements.lock"),
    *(".gitignore", ".ci", ".github", ".pre-commit-config.yaml", "tests", *ROOMS),
}
NETWORK = {
    "socket",
    "ssl",
    "http",
    "urllib",
    "httpx",
    "requests",
    "grpc",
    "asyncio",
    "ftplib",
    "smtplib",
    "socketserver",
    "psycopg",
}
NO_SIDE_EFFECTS = NETWORK | {"os", "shutil", "subprocess", "pathlib", "tempfile", "sqlite3", "time", "datetime"}
UPLINK = "client/uplink/"  # the one folder of client/ that talks to the coordinator
MAX_LINES = 400
FORWARDER = "client/forwarder.py"  # the one that carries the worker's connections to listed data bases; sees no patient


PUBLIC_FLOWER = {"app", "clientapp", "serverapp", "serverapp.strategy", "simulation"}
FLOWERS_INSIDE = (  # each with a contract test
    "strategies/exchange/flower.py",
    "client/uplink/flower.py",
    "server/superlink/flower_inside.py",
)


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every imported module, with its line; a relative import is an error of its own."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno}: write absolute imports"
            yield node.lineno, node.module or ""


def offences(room: str, forbidden: set[str], allowed_under: tuple[str, ...] = ()) -> list[str]:
    found = []
    for path in sources(room):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(allowed_under):
            continue
        found += [f"{name}:{line} imports {m}" for line, m in imports(path) if m.partition(".")[0] in forbidden]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    assert offences(room, set(ROOMS) - MAY_IMPORT[room] - {room}) == []


def test_the_contract_needs_only_the_standard_library_and_pyyaml() -> None:
    allowed = set(sys.stdlib_module_names) | {"yaml", "configs"}
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources("configs")
        for line, module in imports(path)
        if module.partition(".")[0] not in allowed
    ]
    assert found == []


EXTRAS = {  # file -> what its users install as an extra
    "client/connectors/arrow.py": {"pyarrow"},
    "client/connectors/parquet.py": {"pyarrow"},
    "client/connectors/oracle.py": {"oracledb"},
    "client/connectors/sql_server.py": {"mssql_python"},
    "simulations/data/brains/make_up.py": {"nibabel"},
    "simulations/drafting/headers.py": {"pyarrow"},
    "simulations/tuning/cluster.py": {"ray"},
    "server/export/onnx_file.py": {"onnx"},
    "strategies/data/readers/png.py": {"PIL"},
    "strategies/data/readers/dicom.py": {"pydicom"},
    "strategies/data/readers/nifti.py": {"nibabel"},
}


def test_what_is_imported_or_asked_for_is_installed_without_the_extras_of_the_tests() -> None:
    """`make demo` and a hospital install the dependencies alone; benchmarks and the Ray engine name what they need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.split(r"[\[<>=]", requirement)[0] for requirement in project["dependencies"]}
    brought = {"starlette", "uvloop"}  # with Flower's uvicorn; without uvloop the gateway goes on
    modules = {"pyyaml": "yaml", "grpcio": "grpc", "grpcio-health-checking": "grpc_health"}
    allowed = set(sys.stdlib_module_names) | set(ROOMS) | {modules.get(name, name) for name in declared} | brought
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for room in ROOMS
        for path in sources(room)
        if "benchmarks" not in path.parts
        for line, module in imports(path)
        if module.partition(".")[0] not in allowed | EXTRAS.get(path.relative_to(ROOT).as_posix(), set())
    ]
    assert found == []
    assert set(_RELEASES) - {"archipel"} <= declared


def test_the_science_touches_no_disk_no_socket_and_no_clock() -> None:
    assert offences("strategies", NO_SIDE_EFFECTS) == []


def test_only_few_modules_know_flowers_inside() -> None:
    """What an upgrade of Flower may break; the others import what Flower promises to applications."""
    found = []
    for room in ROOMS:
        for path in sources(room):
            name = path.relative_to(ROOT).as_posix()
            private = {m for _, m in imports(path) if m.startswith("flwr.") and m[5:] not in PUBLIC_FLOWER}
            found += [f"{name} imports {module}" for module in sorted(private) if not name.startswith(FLOWERS_INSIDE)]
    assert found == []


def test_only_the_uplink_the_forwarder_and_the_connectors_of_a_hospital_may_use_a_network_library() -> None:
    assert offences("client", NETWORK, (UPLINK, FORWARDER, "client/connectors/")) == []


def test_the_forwarder_which_has_a_network_imports_nothing_that_reads_patients_or_talks_to_the_coordinator() -> None:
    ours = {module for _, module in imports(ROOT / FORWARDER) if module.partition(".")[0] in ROOMS}
    assert ours == {"client.isolation", "configs.commands", "configs.errors", "configs.folder", "configs.parts"}


def test_our_own_modules_are_started_in_one_place_which_takes_code_from_the_installation_alone() -> None:
    """Benchmarks measure other systems too, and the demo's data were rebuilt once, by hand."""
    aside = ("simulations/benchmarks/", "simulations/data/", "configs/parts.py")
    named = [
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in sources(room)
        if re.search(r"sys\.executable|os\.(exec|spawn|system|popen)", path.read_text("utf-8"))
    ]
    assert [name for name in named if not name.startswith(aside)] == []


def test_nothing_is_evaluated_or_unpickled_anywhere() -> None:
    risky = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    assert [line for room in ROOMS for line in offences(room, risky)] == []
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno} calls {node.func.id}"
        for room in ROOMS
        for path in sources(room)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec", "compile")
    ]
    assert calls == []


def test_no_module_is_named_so_that_flower_would_leave_it_out_of_a_bundle() -> None:
    names = [path.name for room in ROOMS for path in sources(room)]
    assert [name for name in names if name.startswith("test_") or name.endswith("_test.py")] == []


def test_the_top_level_holds_the_five_folders_and_what_tools_demand() -> None:
    tracked = {path.name for path in ROOT.iterdir()}
    generated = {
        ".git",
        ".venv",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
        "runs",
        "build",
        "dist",
        ".coverage",
    }
    extra = {name for name in tracked - TOP_LEVEL - generated if not name.endswith(".egg-info")}
    assert extra == set()


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in sources(room)
        if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


def test_no_two_test_files_have_the_same_name() -> None:
    """pytest imports the second under the first one's name, in a run of both alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def imported_files() -> dict[str, set[str]]:
    """Each product file with the product files that it imports, inside functions and for types too."""
    files = {path.relative_to(ROOT).as_posix(): path for room in ROOMS for path in sources(room)}
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in files}
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {modules.get(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inside = {modules.get(f"{node.module}.{alias.name}") for alias in node.names}
                targets |= inside | ({modules.get(node.module or "")} if None in inside else set())
        graph[name] = {target for target in targets if target} - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of names that reach one another (strongly connected components of two or more)."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in graph[waiting.pop()] - seen:
                seen.add(target)
                waiting.append(target)
        return seen

    reached = {name: reach(name) for name in graph}
    groups = {frozenset({name, *(other for other in reached[name] if name in reached[other])}) for name in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def test_no_file_of_the_product_is_longer_than_one_can_read_at_a_time() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for room in ROOMS for path in sources(room)}
    too_long = {path.relative_to(ROOT).as_posix(): n for path, n in lengths.items() if n > MAX_LINES}
    assert too_long == {}, f"expected at most {MAX_LINES} lines; split the file by what it is about"


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circles(imported_files()) == []


def test_no_folders_import_one_another_in_a_circle() -> None:
    """A file beside folders counts as its own; a folder's `__init__.py` counts as the folder."""
    graph = imported_files()
    tied = []
    for parent in sorted({Path(name).parent.as_posix() for name in graph} | {"."}):
        depth = 0 if parent == "." else len(Path(parent).parts)
        siblings: dict[str, set[str]] = {}
        for name, targets in graph.items():
            if parent != "." and not name.startswith(f"{parent}/"):
                continue
            own = "/".join(name.split("/")[: depth + 1])
            near = {"/".join(t.split("/")[: depth + 1]) for t in targets if parent == "." or t.startswith(f"{parent}/")}
            siblings.setdefault(own, set()).update(near - {own})
        for targets in siblings.values():
            targets &= siblings.keys()
        tied += circles(siblings)
    assert [group for group in tied if not group[0].endswith(".py")] == []


def test_the_search_for_circles_finds_them() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
