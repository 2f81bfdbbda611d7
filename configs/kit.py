"""A study kit as a file and as a folder: names, contents, the one wheel that both are, and its digest.

A kit is a wheel of plain Python sources in one form: files sorted, stored without compression, with a fixed date and
mode. So the same files make the same wheel, bit for bit, on every machine, and the folder that a hospital unpacked can
be made into that wheel again: its SHA-256 is the kit's digest, the one that a study names and `sha256sum` prints.

Nothing of a kit is executed here. What a wheel from elsewhere must not hold stands in configs/kit_rules.py.

>>> about = About("retina", "1.2.0", models={"small_unet": "archipel_kit_retina:small_unet"})
>>> kit = KitFiles(about, {"archipel_kit_retina.py": b"small_unet = None"})
>>> kit.wheel_name, kit.sha256 == KitFiles.of_wheel(kit.wheel).sha256
('archipel_kit_retina-1.2.0-py3-none-any.whl', True)
"""

import ast
import base64
import configparser
import contextlib
import hashlib
import io
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email.parser import HeaderParser
from functools import cached_property
from pathlib import Path

from configs.errors import KitError

PREFIX, PROJECT = "archipel_kit_", "archipel-kit-"
NAME = re.compile(r"[a-z][a-z0-9_]{0,38}")
PART = re.compile(r"[a-z][a-z0-9_]{0,38}/[A-Za-z_][A-Za-z0-9_]{0,62}")  # what a study calls a kit's model or reader
VERSION = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5}){0,3}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MODELS, READERS = "archipel.models", "archipel.readers"  # the two groups of entry points
ENTRY = re.compile(rf"{PREFIX}[A-Za-z0-9_]+(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")
TO_MEND = "find out who changed it, then remove its folder and add the wheel again"  # a kit that was added
MAX_BYTES, MAX_FILES = 2_000_000, 500
DATE, MODE = (2000, 1, 1, 0, 0, 0), stat.S_IFREG | 0o644
RECORD, METADATA, WHEEL, ENTRIES = "RECORD", "METADATA", "WHEEL", "entry_points.txt"
SIGNATURES = ".sig"  # what a wheel's name ends with where reviewers signed it: lines of public key and signature
Folder = Path  # for rooms that open no file by themselves
_WHEEL = "Wheel-Version: 1.0\nGenerator: archipel-kit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class About:
    """What a kit says of itself. `models` and `readers`: name -> module:attribute; `requires`: `name>=1.2,<3`."""

    name: str
    version: str
    summary: str = ""
    requires: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    readers: Mapping[str, str] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """Return the only top-level name that the kit may have."""
        return PREFIX + self.name

    @property
    def info(self) -> str:
        """Return the name of the folder with its metadata."""
        return f"{self.package}-{self.version}.dist-info"

    @property
    def wheel_name(self) -> str:
        """Return the name of its wheel."""
        return f"{self.package}-{self.version}-py3-none-any.whl"

    @property
    def metadata(self) -> Mapping[str, bytes]:
        """Return the files of its metadata, without the record of hashes."""
        lines = ["Metadata-Version: 2.1", f"Name: {PROJECT}{self.name.replace('_', '-')}", f"Version: {self.version}"]
        lines += [f"Summary: {self.summary}"] if self.summary else []
        lines += [f"Requires-Dist: {requirement}" for requirement in self.requires]
        groups = {MODELS: self.models, READERS: self.readers}
        entries = [
            "\n".join([f"[{group}]", *(f"{name} = {entry}" for name, entry in sorted(entries.items()))])
            for group, entries in groups.items()
            if entries
        ]
        texts = {METADATA: "\n".join(lines), WHEEL: _WHEEL.rstrip(), ENTRIES: "\n\n".join(entries)}
        return {f"{self.info}/{name}": f"{text}\n".encode() for name, text in texts.items()}


def about_of(info: str, metadata: str, entries: str) -> About:
    """Return what a kit says of itself, from the name of its metadata's folder, METADATA and entry_points.txt.

    Raises:
        KitError: they are not of a kit.
    """
    package, _, version = info.removesuffix(".dist-info").rpartition("-")
    headers = HeaderParser().parsestr(metadata)
    if (headers["Name"] or "").replace("-", "_") != package or headers["Version"] != version:
        raise KitError(f"kit: expected METADATA of {package} {version}, found another name or version; build it anew")
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, default_section="\n")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(entries)
    except configparser.Error:
        raise KitError("kit: expected entry points in entry_points.txt, found another text; build it anew") from None
    groups = {group: dict(parser[group]) for group in parser.sections()}
    if strange := sorted(set(groups) - {MODELS, READERS}):
        raise KitError(
            f"kit: expected entry points of {MODELS} and {READERS} alone, found {strange[0]!r}; "
            "a kit installs no command and no plugin: remove it"
        )
    return checked(
        About(
            package.removeprefix(PREFIX) if package.startswith(PREFIX) else "",
            version,
            headers["Summary"] or "",
            tuple(headers.get_all("Requires-Dist") or ()),
            groups.get(MODELS, {}),
            groups.get(READERS, {}),
        )
    )


def checked(about: About) -> About:
    """Return the same where its names, version and entry points are those of a kit.

    Raises:
        KitError: names the first that is not.
    """
    if not NAME.fullmatch(about.name):
        raise KitError(
            f"kit: expected the name {PROJECT}NAME, NAME of a-z, 0-9 and _, found another; rename the project"
        )
    if not VERSION.fullmatch(about.version):
        raise KitError(f"kit {about.name}: expected a version such as 1.2.0, found {about.version[:40]!r}; correct it")
    if not about.summary.isprintable():
        raise KitError(f"kit {about.name}: expected a summary of one line of plain text, found others; rewrite it")
    if not about.models and not about.readers:
        raise KitError(
            f"kit {about.name}: expected an entry point of {MODELS} or {READERS}, found none; add it to pyproject.toml"
        )
    for name, entry in (*about.models.items(), *about.readers.items()):
        module = entry.partition(":")[0].partition(".")[0]
        if not PART.fullmatch(f"kit/{name}") or not ENTRY.fullmatch(entry) or module != about.package:
            raise KitError(
                f"kit {about.name}: expected the entry point {name[:40]!r} as {about.package}:ATTRIBUTE, "
                f"found {entry[:80]!r}; correct it"
            )
    return about


@dataclass(frozen=True)
class KitFiles:
    """A kit: what it says of itself, and its sources by path (`archipel_kit_retina/nets.py`)."""

    about: About
    sources: Mapping[str, bytes]

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """Return every file of the wheel by its path, in the wheel's order."""
        files = {name: self.sources[name] for name in sorted(self.sources)} | dict(self.about.metadata)
        record = f"{self.about.info}/{RECORD}"
        lines = [f"{name},sha256={_hash(content)},{len(content)}" for name, content in files.items()]
        return files | {record: "\n".join([*lines, f"{record},,", ""]).encode()}

    @property
    def wheel_name(self) -> str:
        """Return the name of its wheel."""
        return self.about.wheel_name

    @cached_property
    def wheel(self) -> bytes:
        """Return the wheel: the same bytes for the same files, whatever the clock, the umask and the machine."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, content in self.files.items():
                entry = zipfile.ZipInfo(name, DATE)
                entry.create_system, entry.external_attr = 3, MODE << 16
                archive.writestr(entry, content)
        return buffer.getvalue()

    @cached_property
    def sha256(self) -> str:
        """Return the kit's digest: SHA-256 of its wheel."""
        return hashlib.sha256(self.wheel).hexdigest()

    @property
    def lines(self) -> int:
        """Return how many lines of source it has."""
        return sum(content.count(b"\n") for content in self.sources.values())

    @property
    def imports(self) -> tuple[str, ...]:
        """Return the top-level names that its sources import, sorted; a source that is no Python has none."""
        return tuple(sorted({name.partition(".")[0] for name in self.modules}))

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Return every name that its sources import, sorted; of `from a import b` it is not said whether b is one."""
        names: set[str] = set()
        for path, content in self.sources.items():
            if path.endswith(".py"):
                with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
                    names.update(_imported(ast.parse(content)))
        return tuple(sorted(names))

    @classmethod
    def of_files(cls, files: Mapping[str, bytes]) -> "KitFiles":
        """Return the kit of such files, metadata among them; RECORD is worked out anew.

        Raises:
            KitError: they are no kit's.
        """
        infos = {name.partition("/")[0] for name in files if name.partition("/")[0].endswith(".dist-info")}
        if len(infos) != 1:
            raise KitError(f"kit: expected one folder .dist-info, found {len(infos)}; build it with archipel kit build")
        (info,) = infos
        try:
            metadata, entries = (files[f"{info}/{name}"].decode() for name in (METADATA, ENTRIES))
        except KeyError as missing:
            raise KitError(f"kit: expected the file {missing.args[0]!r}, found none; build it anew") from None
        except UnicodeDecodeError:
            raise KitError("kit: expected metadata in UTF-8, found other bytes; build it anew") from None
        sources = {name: content for name, content in files.items() if not name.startswith(f"{info}/")}
        return cls(about_of(info, metadata, entries), sources)

    @classmethod
    def of_wheel(cls, wheel: bytes) -> "KitFiles":
        """Return the kit of a wheel that was checked (configs/kit_rules.py)."""
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            return cls.of_files({entry.filename: archive.read(entry) for entry in archive.infolist()})


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def statement_of(sha256: str) -> bytes:
    """Return what a reviewer signs: the digest, and that it is a kit's."""
    return f"archipel-kit/1 {sha256}".encode()


def tree_of(folder: Path) -> Mapping[str, bytes]:
    """Return every file below a folder, by its path with slashes.

    Raises:
        KitError: there are links, devices, or more than a kit may have. OSError: it cannot be read.
    """
    files: dict[str, bytes] = {}
    total = 0
    for path in sorted(_walk(folder)):
        information = path.lstat()
        total += information.st_size
        if not stat.S_ISREG(information.st_mode) or total > 2 * MAX_BYTES or len(files) > MAX_FILES:
            raise KitError(f"kit: expected plain files of at most {MAX_BYTES} bytes, found others; remove what is none")
        files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def _walk(folder: Path) -> Iterable[Path]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


def kit_in(folder: Path) -> KitFiles:
    """Return the kit that was unpacked into a folder, to the byte.

    Raises:
        KitError: it is none: a file is missing, was added or changed. The digest is for the caller to compare.
    """
    try:
        files = tree_of(folder)
    except OSError as error:
        raise KitError(f"kit: its folder cannot be read: {error.strerror}; {TO_MEND}") from None
    kit = KitFiles.of_files(files)
    if kit.files != files:
        raise KitError(f"kit {kit.about.name}: expected the files as they were added, found others; {TO_MEND}")
    return kit


def require_digest(folder: Path, sha256: str) -> KitFiles:
    """Return the kit in a folder where it is the one of this digest.

    Raises:
        KitError: it is not, to the byte.
    """
    kit = kit_in(folder)
    if kit.sha256 != sha256:
        raise KitError(
            f"kit {kit.about.name}: expected the files of digest {sha256[:12]}, found others ({kit.sha256[:12]}); "
            f"{TO_MEND}"
        )
    return kit
