"""The common part of `site.yaml` and `coordinator.yaml`.

It holds how they are opened, addresses, and commands for a folder.
"""

import hashlib
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import ConfigError
from configs.keys.declare import declaration_of, read_keys
from configs.keys.values import Place, Text
from configs.sections import Section
from configs.slips import slips
from configs.strict_yaml import read_marked

FOLDERS = {"archipel-site": "ARCHIPEL_SITE", "archipel-coordinator": "ARCHIPEL_COORDINATOR"}  # variables that name one
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]{2,39}\]"
ADDRESS = re.compile(rf"({_HOST}):([0-9]{{1,5}})")
Config = TypeVar("Config")


@dataclass(frozen=True)
class Address(Text):
    """A host and a port."""

    expected: str = "host:port"
    pattern: re.Pattern[str] | None = ADDRESS
    shown: bool = False

    def read(self, at: Place) -> str:
        """Return the address, an empty text in place of a mistake."""
        text = Text.read(self, at)
        if text and not 0 < split_address(text)[1] < 65_536:
            at.problem("a port from 1 to 65535", "correct it", found=text)
        return text


def load_folder(kind: type[Config], folder: Path, name: str, **around: Any) -> Config:
    """Read a folder's file of that name, as the dataclass declares it; its fields `folder` and `sha256` are filled too.

    Raises:
        ConfigError: the file cannot be read or holds mistakes; all of them are listed.
    """
    path = folder / name
    top = _open(path, kind)
    facts = {"folder": folder.resolve(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    values = {name: facts[name] for name in facts if name in kind.__dataclass_fields__}  # type: ignore[attr-defined]
    config = read_keys(declaration_of(kind), top, facts | around, values)
    if top.problems:
        raise ConfigError(str(path), top.problems)
    return config  # type: ignore[no-any-return]


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port`, the brackets of an IPv6 host taken off.

    >>> split_address("[::1]:8443")
    ('::1', 8443)
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def typed(program: str, folder: Path, command: str) -> str:
    """Return a command as somebody types it for a folder: with -C, unless it is meant without.

    >>> typed("archipel-site", Path("/srv/a hospital"), "check")
    "archipel-site -C '/srv/a hospital' check"
    >>> typed("archipel-site", Path(), "check")
    'archipel-site check'
    """
    meant = Path(os.environ.get(FOLDERS[program], "."))
    where = "" if folder.resolve() == meant.resolve() else f"-C {shlex.quote(str(folder))} "
    return f"{program} {where}{command}"


def _open(path: Path, kind: type) -> Section:
    try:
        path.stat()
    except FileNotFoundError:
        raise ConfigError(str(path), ["expected the file, found none; name its folder: -C FOLDER"]) from None
    except PermissionError:
        problem = "expected a folder that this user may open; run the command as its owner, for instance with runuser"
        raise ConfigError(str(path), [problem]) from None
    marks = read_marked(path)
    if not isinstance(marks.document, dict):
        raise ConfigError(str(path), ["expected a mapping of keys; see the README"])
    return Section(marks.document, "", slips(marks.document, declaration_of(kind).children, marks), marks)
