"""The fence around the worker: what the process that reads patients may open.

It holds whatever foreign code the process would be made to run. Beside the network that it left (client/isolation.py),
where the kernel allows it:

* no picture of its memory on disk (RLIMIT_CORE, PR_SET_DUMPABLE), and no new privileges;
* Landlock (Linux 5.13; TCP from 6.7 on): it reads the installation, the folders of its data paths and the hospital's
  records, never a key; it writes the ledger and the list of approved studies, and creates files in `personal` alone;
* seccomp: it starts no program, looks into no other process, opens no Unix socket. Landlock knows no rule for a socket
  that has a path; without seccomp such sockets, a desktop's or a container engine's, stay reachable.

The folder of a data path is opened, not the file: an export that is replaced by renaming is another file. Where a
component of the path is a link, so is the link's own folder. SQLite's journal beside a data base must exist before,
since no file can be made later: `fence` makes it, and both data bases keep theirs (`PRAGMA journal_mode = TRUNCATE`).

No package: those on PyPI (landlock 1.0.0.dev5, landlockpy, py-landlock) are young, of one person each, and bring less
than the three calls and the list of paths below. Landlock binds the thread that calls and those that it starts, so
`fence` is called before others run; the filter of seccomp binds all.
"""

import contextlib
import ctypes
import ctypes.util
import importlib.util
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.folder import split_address
from configs.site import Dataset, SiteConfig

if TYPE_CHECKING:
    from client.connectors.base import Connector

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
# Landlock (include/uapi/linux/landlock.h)
CREATE, ADD, RESTRICT = 444, 445, 446  # system calls, the same numbers on every processor
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1, 2, 4, 8, 1 << 14
REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 5, 1 << 7, 1 << 8
READ, WRITE = READ_FILE | READ_DIR, READ_FILE | WRITE_FILE | TRUNCATE
CREATE_FILES = READ | WRITE | REMOVE_FILE | MAKE_DIR | MAKE_REG
IOCTL_DEV = 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # what a rule of a file, not of a folder, may say
HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}  # by version of Landlock
BENEATH, PORT, BIND_TCP, CONNECT_TCP, ALL_TCP, ALL_SCOPES = 1, 2, 1, 2, 3, 3
ROOMS = ("client", "strategies", "configs")
SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc", "/nix/store", "/proc/self", "/proc/sys", "/proc/cpuinfo", "/proc/meminfo"),
    *("/proc/stat", "/proc/filesystems", "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm"),
    *("/dev/urandom", "/dev/random", "/dev/zero"),
)
OF_A_GPU = ("/proc/driver/nvidia", "/sys/bus/pci", "/sys/devices")  # read where site.yaml says device: cuda
LANDLOCK, SECCOMP = "Landlock", "seccomp"
ROOT, MAX_LINKS = Path("/"), 8


@dataclass(frozen=True, slots=True)
class Fence:
    """What holds on this kernel: the version of Landlock (0: none), and whether seccomp's filter is in force."""

    landlock: int = 0
    filtered: bool = False

    def __str__(self) -> str:
        parts = [f"{LANDLOCK} {self.landlock}"] if self.landlock else []
        return " and ".join([*parts, *([SECCOMP] if self.filtered else [])]) or "nothing"


def no_dumps() -> None:
    """Let no picture of this process's memory be written, and let it gain no privilege (Linux)."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _control(PR_SET_DUMPABLE, 0)
    _control(PR_SET_NO_NEW_PRIVS, 1)


def fence(config: SiteConfig, *, books: bool) -> Fence:
    """Put up the fence, for good; what the kernel does not know is left out.

    To be called after the network was left and before a patient is read, by the only thread of Python's.

    Args:
        books: whether this process writes the ledger.

    Raises:
        OSError: the ledger or the list of approved studies cannot be opened.
    """
    no_dumps()
    for database in (config.admissions, config.ledger) if books else (config.admissions,):
        for name in (database.name, f"{database.name}-journal"):
            _make(database.with_name(name))
    ctypes.util.find_library = _loaded  # the standard library's own starts ldconfig and a compiler
    ports = [split_address(address)[1] for address in config.worker_network]
    landlock = _landlock(_rules(config, books=books), _of_ports(config, ports))
    return Fence(landlock, _filter(unix_sockets=_talks_to_a_socket(config)))


# Which paths


def folders_of(path: Path) -> set[Path]:
    """Return the folders from which a file can be read even when it is replaced.

    It may be replaced by renaming, by moving a link that leads to it, or by mounting its folder anew. `/` is never one
    of them.
    """
    absolute = path.absolute()
    folders = {absolute.parent, path.resolve().parent}
    for part in (absolute, *absolute.parents):
        for _ in range(MAX_LINKS):
            if not part.is_symlink():
                break
            folders.add(part.parent)
            part = part.parent / os.readlink(part)
    return {lasting for folder in folders if (lasting := _lasting(folder)) != ROOT}


def named_once(config: SiteConfig, environment: Mapping[str, str]) -> set[Path]:
    """Return the paths that the fence opens as they are when the worker starts, and not as they are replaced.

    That is folders of data (not the files in them), and files of data bases.

    Args:
        environment: the worker's.
    """
    return _folders(config) | set(_of_drivers(config, environment))


def _folders(config: SiteConfig) -> set[Path]:
    """Return the folders of all data: those of the files with rows, and those below which records lie."""
    sources = [dataset.source for dataset in config.datasets]
    paths = [source.path for source in sources if source.path is not None]
    paths += [source.root / "record" for source in sources if source.root is not None]
    return {folder for path in paths for folder in folders_of(path)}


def _lasting(folder: Path) -> Path:
    """Return the folder, or the one above where it is mounted or is not there yet."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    above = there.parent if there != folder or there.is_mount() else there
    return there if above == ROOT else above


def _rules(config: SiteConfig, *, books: bool) -> Iterator[tuple[Path, int]]:
    """Yield each path with what may be done beneath it."""
    for path in _installation():
        yield path, READ
    yield Path("/dev/null"), READ | WRITE
    if config.device == "cuda":
        yield from ((Path(path), READ) for path in OF_A_GPU)
        yield from ((path, READ | WRITE_FILE | IOCTL_DEV) for path in sorted(Path("/dev").glob("nvidia*")))
    yield from ((folder, READ) for folder in _folders(config))
    yield from ((path, READ) for path in _of_drivers(config, os.environ))
    with contextlib.suppress(OSError):
        for entry in config.folder.iterdir():
            written = (config.admissions.name, config.ledger.name) if books else (config.admissions.name,)
            if entry == config.ids and entry.is_dir() and not entry.is_symlink():
                yield entry, WRITE | READ
            elif books and entry == config.personal and entry.is_dir() and not entry.is_symlink():
                yield entry, CREATE_FILES
            elif entry.name != config.keys.name and not entry.is_symlink():
                yield entry, WRITE if entry.name.startswith(written) else READ


def _installation() -> set[Path]:
    """Return where Python, Archipel and the system's libraries lie."""
    named = [sys.prefix, sys.base_prefix, sys.exec_prefix, *(entry for entry in sys.path if entry), *SYSTEM]
    named += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        named += list(spec.submodule_search_locations or ()) if spec else []
    with contextlib.suppress(OSError):  # libraries that are loaded lie beside those that will be
        lines = Path("/proc/self/maps").read_text().splitlines()
        named += [os.path.dirname(line[line.index("/") :]) for line in lines if ".so" in line and "/" in line]
    return {Path(name) for name in named if name and os.path.realpath(name) != "/"}


def _of_drivers(config: SiteConfig, environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files of data bases' passwords, certificates and services that their drivers read."""
    for dataset in _in_bases(config):
        yield from _connector(dataset).files(dataset.source, environment)


def _talks_to_a_socket(config: SiteConfig) -> bool:
    """Return whether a data base is reached through a Unix socket of this machine."""
    return any(_connector(dataset).has_socket(dataset.source, os.environ) for dataset in _in_bases(config))


def _of_ports(config: SiteConfig, ports: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield each port of TCP with what may be done: to connect to those listed.

    A driver may bind its own end to port 0, which is any that is free, before it connects.
    """
    yield from ((port, CONNECT_TCP) for port in ports)
    if any(_connector(dataset).binds(dataset.source) for dataset in _in_bases(config)):
        yield 0, BIND_TCP


def _in_bases(config: SiteConfig) -> Iterator[Dataset]:
    return (dataset for dataset in config.datasets if dataset.source.secrets)


def _connector(dataset: Dataset) -> "Connector":
    from client.connectors.registry import CONNECTORS  # needs numpy: loaded where there is a data base

    return CONNECTORS[dataset.source.connector]


def _make(path: Path) -> None:
    """Make a file that is not there yet, its owner's alone."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


# The kernel


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _loaded(name: str) -> str | None:
    """Return the C library's name where it is asked for, as packages do that look for loaded libraries."""
    for candidate in ("libc.so.6", f"libc.musl-{platform.machine()}.so.1") if name == "c" else ():
        with contextlib.suppress(OSError):
            ctypes.CDLL(candidate, mode=os.RTLD_NOLOAD)
            return candidate
    return None


def _control(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        _libc().prctl(option, value, 0, 0, 0)


def _call(number: int, *arguments: object) -> int:
    try:
        return int(_libc().syscall(ctypes.c_long(number), *arguments))
    except (OSError, AttributeError):  # not Linux
        return -1


def _landlock(rules: Iterable[tuple[Path, int]], ports: Iterable[tuple[int, int]]) -> int:
    """Restrict this thread and those that it starts; return the version of Landlock, 0 where there is none.

    Args:
        rules: paths, and what may be done beneath them.
        ports: numbers of TCP, and what may be done with them.
    """
    version = _call(CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return 0
    handled = HANDLED[max(release for release in HANDLED if release <= version)]
    attributes = struct.pack("QQQ", handled, ALL_TCP if version >= 4 else 0, ALL_SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _call(CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return 0
    try:
        for path, access in rules:
            _allow(ruleset, path, access & handled)
        for port, access in ports if version >= 4 else ():
            _add(ruleset, PORT, struct.pack("QQ", access, port))
        return version if _call(RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0 else 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # it is not there, and stays out of reach
    try:
        _add(ruleset, BENEATH, struct.pack("=Qi", access if path.is_dir() else access & OF_FILES, opened))
    finally:
        os.close(opened)


def _add(ruleset: int, kind: int, attributes: bytes) -> None:
    _call(ADD, ctypes.c_int(ruleset), ctypes.c_int(kind), attributes, ctypes.c_uint32(0))


# seccomp: what no part of training needs (numbers: x86_64, aarch64)
PROCESSORS = {"x86_64": (0xC000003E, 317, 41), "aarch64": (0xC00000B7, 277, 198)}  # the ABI, seccomp, socket
FORBIDDEN = {
    **{"execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117), "kcmp": (312, 272), "chroot": (161, 51)},
    **{"process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438)},
    **{"io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "mount": (165, 40)},
    **{"umount2": (166, 39), "pivot_root": (155, 41), "unshare": (272, 97), "setns": (308, 268)},
}
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, DENY = 0x7FFF0000, 0x00050001  # EPERM
SET_MODE_FILTER, ALL_THREADS, AF_UNIX, OTHER_ABI = 1, 1, 1, 0x40000000


def _filter(*, unix_sockets: bool) -> bool:
    """Forbid system calls, in all threads; return whether the kernel took it."""
    processor = platform.machine()
    if processor not in PROCESSORS or sys.byteorder != "little":
        return False
    abi, _, socket = PROCESSORS[processor]
    numbers = [pair[processor == "aarch64"] for pair in FORBIDDEN.values()]
    sockets = [] if unix_sockets else [(EQUAL, "socket", socket)]
    tests = [(AT_LEAST, "deny", OTHER_ABI), *((EQUAL, "deny", number) for number in numbers), *sockets]
    places = {"deny": 3 + len(tests) + 1, "socket": 3 + len(tests) + 2}
    code = [(LOAD, 0, 0, 4), (EQUAL, 0, places["deny"] - 2, abi), (LOAD, 0, 0, 0)]
    for test, target, value in tests:
        code.append((test, places[target] - len(code) - 1, 0, value))
    code += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, DENY)]
    code += [(LOAD, 0, 0, 16), (EQUAL, 0, 1, AF_UNIX), (RETURN, 0, 0, DENY), (RETURN, 0, 0, ALLOW)]
    return install(code)


def install(code: Sequence[tuple[int, int, int, int]]) -> bool:
    """Put a filter in force, in all threads, for good; return whether the kernel took it."""
    if platform.machine() not in PROCESSORS:
        return False
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in code))
    described = struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
    seccomp = PROCESSORS[platform.machine()][1]
    return _call(seccomp, ctypes.c_uint(SET_MODE_FILTER), ctypes.c_uint(ALL_THREADS), described) == 0
