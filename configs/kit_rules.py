"""The rules of a kit's wheel, checked before a byte of it is unpacked; nothing of it is executed.

 1. It has at most 2 MB of files, 500 of them, stored without compression, encryption or a comment.
 2. Every name is relative and plain: letters, digits, `_`, `-`, `.` between slashes, no `..`, no backslash.
 3. No two names are the same, in whatever case or Unicode form.
 4. Everything is a plain file: no link, no device, no folder entry.
 5. Beside its metadata it holds one top-level name, `archipel_kit_NAME`; Archipel's own packages cannot be shadowed.
 6. Its files are Python sources and plain text: no machine code, no bytecode, no `.pth`.
 7. Its metadata are METADATA, WHEEL, RECORD and entry_points.txt, of models and readers: no script, no plugin, no data.
 8. What it requires is written as `name` or `name>=1.2,<3`: no address, no marker, no extra.
 9. It is the one wheel of its files, to the byte: RECORD is right, and nothing stands before, between or after.

>>> require_kit(b"PK", "archipel_kit_retina-1.2.0-py3-none-any.whl")
Traceback (most recent call last):
    ...
configs.errors.KitError: archipel_kit_retina-1.2.0-py3-none-any.whl: expected a wheel, found another file; build it ...
"""

import io
import re
import stat
import unicodedata
import zipfile
from collections.abc import Sequence

from configs.errors import KitError
from configs.kit import ENTRIES, MAX_BYTES, MAX_FILES, METADATA, PREFIX, RECORD, WHEEL, KitFiles
from configs.shown import shown

REBUILD = "build it with archipel kit build"
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
SUFFIXES = (".py", ".pyi", ".txt", ".md", ".json", ".csv", ".typed")
MAX_OVERHEAD = 400 * MAX_FILES  # bytes of a wheel beside its files
MAX_REQUIRED = 20
INFO_FILES = {METADATA, WHEEL, RECORD, ENTRIES}
_REQUIREMENT = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,60}[A-Za-z0-9])?)\s*(.*)")
_BOUND = re.compile(r"\s*(>=|<=|==|!=|<|>)\s*([0-9]{1,6}(?:\.[0-9]{1,6}){0,3})\s*")


def require_kit(wheel: bytes, name: str) -> KitFiles:
    """Return the kit of a wheel that keeps every rule.

    Args:
        name: the file's.

    Raises:
        KitError: names the first rule that is broken, and what to do.
    """
    if len(wheel) > MAX_BYTES + MAX_OVERHEAD:
        raise _flaw(name, f"a wheel of at most {MAX_BYTES // 1_000_000} MB", "a larger one", "make it smaller")
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            entries = archive.infolist()
            _require_sizes(entries, name)
            _require_names([entry.filename for entry in entries], name)
            for entry in entries:
                _require_plain(entry, name)
            _require_places([entry.filename for entry in entries], name)
            kit = KitFiles.of_files({entry.filename: archive.read(entry) for entry in entries})
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError):
        raise _flaw(name, "a wheel", "another file", REBUILD) from None
    if len(kit.about.requires) > MAX_REQUIRED:
        raise _flaw(name, f"at most {MAX_REQUIRED} required distributions", "more", "leave some out")
    for requirement in kit.about.requires:
        require_requirement(requirement)
    if kit.wheel_name != name:
        raise _flaw(name, f"the name {kit.wheel_name}", "another", "rename it back")
    if kit.wheel != wheel:
        raise _flaw(name, "the one wheel of its files, RECORD and all", "other bytes", REBUILD)
    return kit


def _flaw(name: str, expected: str, found: str, todo: str) -> KitError:
    return KitError(f"{name}: expected {expected}, found {found}; {todo}")


def _require_sizes(entries: Sequence[zipfile.ZipInfo], name: str) -> None:
    if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_BYTES:
        limit = f"at most {MAX_FILES} files and {MAX_BYTES // 1_000_000} MB when unpacked"
        raise _flaw(name, limit, "more", "make it smaller")
    for entry in entries:
        if entry.flag_bits & 0x1:
            raise _flaw(name, "no encryption", f"it at {shown(entry.filename)}", REBUILD)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise _flaw(name, "files without compression", f"it at {shown(entry.filename)}", REBUILD)


def _require_names(names: Sequence[str], name: str) -> None:
    seen: dict[str, str] = {}
    for path in names:
        if path.startswith("/") or ".." in path.split("/") or "\\" in path or ":" in path:
            raise _flaw(name, "paths within the kit", shown(path), "it would be written elsewhere: do not install it")
        alike = unicodedata.normalize("NFKC", path).casefold()
        if alike in seen:
            two = f"{shown(seen[alike])} and {shown(path)}"
            raise _flaw(name, "names that differ, whatever their case and form", two, "rename one")
        seen[alike] = path
        if not PLAIN_NAME.fullmatch(path.removesuffix("/")):
            raise _flaw(name, "names of letters, digits, _, - and .", shown(path), "rename it")


def _require_plain(entry: zipfile.ZipInfo, name: str) -> None:
    mode = entry.external_attr >> 16
    if entry.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
        raise _flaw(name, "plain files", f"a link, folder or device at {shown(entry.filename)}", REBUILD)


def _require_places(names: Sequence[str], name: str) -> None:
    for path in names:
        top, _, rest = path.partition("/")
        if top.endswith(".data"):
            raise _flaw(name, "no data and no scripts of a wheel", shown(path), "a kit installs nothing: remove it")
        if top.endswith(".dist-info"):
            if rest not in INFO_FILES:
                raise _flaw(name, f"metadata of {', '.join(sorted(INFO_FILES))}", shown(path), "remove it")
        elif top.removesuffix(".py") != name.partition("-")[0] or not top.startswith(PREFIX):
            only = name.partition("-")[0] if name.startswith(PREFIX) else f"{PREFIX}NAME"
            raise _flaw(name, f"the one top-level name {only}", shown(top), "move it below, or remove it")
        elif not path.endswith(SUFFIXES):
            kinds = f"Python sources and plain text ({', '.join(SUFFIXES)})"
            raise _flaw(name, kinds, shown(path), "a kit has no machine code, bytecode or .pth: remove it")


def require_requirement(text: str) -> tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]:
    """Return a required distribution's name and the bounds of its version: (">=", (1, 2)).

    Raises:
        KitError: it is written in another way.
    """
    match = _REQUIREMENT.fullmatch(text.strip())
    bounds = [_BOUND.fullmatch(part) for part in match[2].split(",")] if match and match[2] else []
    if match is None or not all(bounds) or len(text) > 200:
        raise KitError(
            f"kit: expected a requirement such as tifffile>=2024.1, found {shown(text)}; "
            "write it without an address, a marker or an extra"
        )
    return match[1], tuple((bound[1], _numbers(bound[2])) for bound in bounds if bound)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def is_met(bounds: Sequence[tuple[str, tuple[int, ...]]], version: str) -> bool:
    """Return whether an installed version is within the bounds; what follows its numbers is not looked at.

    >>> is_met([(">=", (1, 2)), ("<", (3,))], "2.13.0+cpu"), is_met([("==", (1, 2))], "1.2.0"), is_met([], "x")
    (True, True, True)
    """
    numbers = re.match(r"[0-9]{1,9}(\.[0-9]{1,9})*", version)
    installed = _numbers(numbers[0]) if numbers else ()
    for sign, bound in bounds:
        width = max(len(installed), len(bound))
        a, b = (each + (0,) * (width - len(each)) for each in (installed, bound))
        holds = {">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, "<": a < b, ">": a > b}[sign]
        if not holds:
            return False
    return True
