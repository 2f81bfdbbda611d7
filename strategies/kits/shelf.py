"""The study kits that this process can open, and how it runs them.

Whoever starts a process says where its kits are: a hospital's worker those that were approved, a laptop those that are
installed there. A kit is found by what a study says of it, its files are hashed once, and it is opened where it is
first used, which under `kit_run: forked` is in a child alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from configs.errors import KitError
from configs.kit import KitFiles
from configs.schema.kit import KitKeys
from strategies.exchange.tensors import digest
from strategies.kits.children import Children
from strategies.kits.opened import Kit, open_files

Arrays = Mapping[str, NDArray[np.float32]]
Finder = Callable[[KitKeys], KitFiles]
Run = Literal["together", "forked"]


@dataclass
class Shelf:
    """The kits of one process.

    Args:
        finder: returns the files of the kit that a study names; it raises KitError where there is none.
        run: whether a kit sees one patient in a process of its own, or runs in this one.
        children: the processes of their own, in a process that forks them.
    """

    finder: Finder | None = None
    run: Run = "together"
    children: Children | None = None
    turn: int = 0  # counts how often another kit, or none, took the place of the one before
    _files: dict[str, KitFiles] = field(default_factory=dict)
    _opened: dict[str, Kit] = field(default_factory=dict)
    _named: dict[str, KitKeys] = field(default_factory=dict)
    _starts: dict[str, Arrays] = field(default_factory=dict)
    _newest: KitKeys | None = None

    def files(self, keys: KitKeys) -> KitFiles:
        """Return the files of a kit; nothing of them is executed.

        Raises:
            KitError: it is not here, or not the one that the study names.
        """
        if keys.sha256 not in self._files:
            if self.finder is None:
                raise KitError(
                    f"kit {keys.name} {keys.version}: expected it here, found none: this process opens no kit"
                )
            kit = self.finder(keys)
            if (kit.about.name, kit.about.version, kit.sha256) != (keys.name, keys.version, keys.sha256):
                raise KitError(
                    f"kit {keys.name}: expected version {keys.version} with the digest {keys.sha256[:12]}, found "
                    f"{kit.about.name} {kit.about.version} with {kit.sha256[:12]}; install the one that the study names"
                )
            self._files[keys.sha256] = kit
        return self._files[keys.sha256]

    def opened(self, keys: KitKeys) -> Kit:
        """Return a kit, opened in this process.

        Raises:
            KitError: as `files`. Anything: the kit's own failure.
        """
        if keys.sha256 not in self._opened:
            self._opened[keys.sha256] = open_files(self.files(keys))
        return self._opened[keys.sha256]

    def hold(self, keys: KitKeys | None) -> None:
        """Let readers of records find a study's kit by its name; the newest of a name holds."""
        if keys != self._newest:
            self._newest, self.turn = keys, self.turn + 1
        if keys is not None:
            self._named[keys.name] = keys

    def of_name(self, name: str) -> Kit:
        """Return the kit of that name, opened in this process.

        Raises:
            KitError: no study that names it was held. Anything: the kit's own failure.
        """
        return self.opened(self._keys(name))

    def require_reader(self, name: str) -> None:
        """Check that a kit is here and declares a reader, KIT/NAME; nothing of it is executed.

        Raises:
            KitError: it is not, or does not.
        """
        kit, _, reader = name.partition("/")
        readers = self.files(self._keys(kit)).about.readers
        if reader not in readers:
            known = ", ".join(f"{kit}/{known}" for known in readers) or "none"
            raise KitError(f"kit {kit}: expected a reader of {known}, found {name!r}; correct it")

    def _keys(self, name: str) -> KitKeys:
        if name not in self._named:
            raise KitError(f"kit {name}: expected a study with kit: {{name: {name}, ...}}, found none; add it")
        return self._named[name]

    def begin_from(self, arrays: Arrays) -> str:
        """Keep initial values, and return their digest: that of their safetensors file."""
        sha256 = digest(arrays)
        self._starts[sha256] = arrays
        return sha256

    def start(self, sha256: str) -> Arrays | None:
        """Return initial values, None where nobody gave them."""
        return self._starts.get(sha256)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}, "children": None}

    def follow(self, other: "Shelf") -> None:
        """Find what another process's shelf finds."""
        self.__dict__.update(other.__dict__)

    def clear(self) -> None:
        """Forget every kit."""
        self.hold(None)
        self.finder, self.run, self.children = None, "together", None
        self._files, self._opened, self._starts, self._named = {}, {}, {}, {}


SHELF = Shelf()
