"""`open_kit`, the only function that executes the code of a study kit.

It is called in the child of a hospital's worker, and in a simulation; the commands, the process that talks to the
network and the coordinator never call it. What is executed are the very bytes that were hashed: they are imported from
memory, under the kit's one name, and the kit's folder joins no search path. So nothing of a kit can shadow another
package, no bytecode is read or written, and a file that changes afterwards changes nothing.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

from configs.errors import KitError
from configs.kit import Folder, KitFiles, require_digest
from strategies.kit import Model, Reader


@dataclass(frozen=True)
class Kit:
    """An opened kit: its models and readers by name."""

    name: str
    version: str
    sha256: str
    models: Mapping[str, Model]
    readers: Mapping[str, Reader]

    def model(self, name: str) -> Model:
        """Return the model of that name, with or without the kit's own before it.

        Raises:
            KitError: there is none.
        """
        return self._part(self.models, name, "model")  # type: ignore[no-any-return]

    def reader(self, name: str) -> Reader:
        """Return the reader of that name, with or without the kit's own before it.

        Raises:
            KitError: there is none.
        """
        return self._part(self.readers, name, "reader")  # type: ignore[no-any-return]

    def _part(self, parts: Mapping[str, Any], name: str, kind: str) -> Any:
        try:
            return parts[name.removeprefix(f"{self.name}/")]
        except KeyError:
            known = ", ".join(f"{self.name}/{part}" for part in parts) or "none"
            raise KitError(f"kit {self.name}: expected a {kind} of {known}, found {name!r}; correct it") from None


def open_kit(folder: Folder, sha256: str) -> Kit:
    """Execute the kit in a folder, once its files were hashed.

    Raises:
        KitError: they are not those of the digest, or what they declare is missing. Anything: the kit's own failure.
    """
    return open_files(require_digest(folder, sha256), folder)


def open_files(kit: KitFiles, folder: Folder | None = None) -> Kit:
    """Execute a kit whose digest was compared.

    Args:
        folder: where its files lie, for the kit's own `__file__`.

    Raises:
        KitError: what it declares is missing. Anything: the kit's own failure.
    """
    sys.dont_write_bytecode = True  # of what the kit imports beside itself
    _forget(kit.about.package)
    finder = _Finder(kit, folder)
    sys.meta_path.insert(0, finder)
    about = kit.about
    models = {name: _attribute(about.name, entry, Model) for name, entry in about.models.items()}
    readers = {name: _attribute(about.name, entry, Reader) for name, entry in about.readers.items()}
    return Kit(about.name, about.version, kit.sha256, models, readers)


def _forget(package: str) -> None:
    """Forget a kit of this name that was opened before."""
    sys.meta_path[:] = [f for f in sys.meta_path if not (isinstance(f, _Finder) and f.package == package)]
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


def _attribute(kit: str, entry: str, kind: type) -> Any:
    module, _, name = entry.partition(":")
    attribute = getattr(importlib.import_module(module), name, None)
    if not isinstance(attribute, kind):
        raise KitError(f"kit {kit}: expected a {kind.__name__} of strategies.kit at {entry}, found none; write one")
    return attribute


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads the modules of one kit, from memory."""

    def __init__(self, kit: KitFiles, folder: Folder | None) -> None:
        self.package, self._sources = kit.about.package, kit.sources
        self._folder = "kit" if folder is None else str(folder)

    def _path(self, name: str) -> str | None:
        stem = name.replace(".", "/")
        return next((path for path in (f"{stem}/__init__.py", f"{stem}.py") if path in self._sources), None)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where a module of the kit is; None of any other."""
        del path, target
        if fullname.partition(".")[0] != self.package or (found := self._path(fullname)) is None:
            return None
        origin = f"{self._folder}/{found}"
        spec = importlib.util.spec_from_loader(fullname, self, origin=origin)
        if spec is not None:
            spec.has_location = True
            if self.is_package(fullname):
                spec.submodule_search_locations = [f"{self._folder}/{self.package}"]
        return spec

    def is_package(self, fullname: str) -> bool:
        """Return whether a module has others below it."""
        return (self._path(fullname) or "").endswith("/__init__.py")

    def get_code(self, fullname: str) -> CodeType:
        """Return a module compiled under its path in the kit, which a failure then names."""
        return self.source_to_code(self.get_source(fullname), f"{self._folder}/{self._path(fullname)}")

    def get_source(self, fullname: str) -> str:
        """Return a module's text."""
        path = self._path(fullname)
        if path is None:
            raise ImportError(f"no module {fullname!r} in the kit")
        return importlib.util.decode_source(self._sources[path])
