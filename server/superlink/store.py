"""The SuperLink's store of message parts.

The large ones lie in files once they are many (the others: spool.py). Nothing is left behind: the files go with the
messages, and those of a process that was killed when the next one starts.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.memory import Tidy
from server.superlink.flower_inside import InMemoryObjectStore
from server.superlink.spool import LARGE_BYTES

KEPT_BYTES = 128_000_000  # of parts that stay in memory: for models that are not large, a file is slower


class SpooledStore(InMemoryObjectStore):
    """Flower's store of message parts in memory, with the large ones in a folder of its own once they are many."""

    def __init__(self, folder: Path, kept_bytes: int = KEPT_BYTES, noted: Callable[[], object] = lambda: None) -> None:
        """Empty the folder.

        Args:
            noted: called when a part has come.
        """
        super().__init__()
        self._kept_bytes, self._noted = kept_bytes, noted
        folder.mkdir(mode=0o700, exist_ok=True)
        for leftover in folder.iterdir():  # by a process that was killed
            leftover.unlink()
        self._folder, self._numbers, self._tidy = folder, itertools.count(), Tidy()

    def put(self, object_id: str, object_content: bytes) -> None:
        """Keep a part that was announced."""
        super().put(object_id, object_content)
        self._noted()
        self._tidy.passed(len(object_content))
        if len(object_content) >= LARGE_BYTES:
            with self.lock_store:
                entry: Any = self.store.get(object_id)
                stored = sum(len(other.content) for other in self.store.values() if isinstance(other.content, bytes))
                if stored <= self._kept_bytes:
                    return
                if entry is not None and entry.content is object_content:
                    entry.content = _OnDisk(self._folder / str(next(self._numbers)), object_content)

    def get(self, object_id: str) -> bytes | None:
        """Return a part, None if it was not announced, empty if it has not come."""
        content: Any = super().get(object_id)
        part: bytes | None = content.read() if isinstance(content, _OnDisk) else content
        self._tidy.passed(len(part or b""))
        return part


class _OnDisk:
    """A part in a file, which goes when nothing refers to it any more."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        path.write_bytes(content)

    def read(self) -> bytes:
        """Return the whole content."""
        return self._path.read_bytes()

    def __del__(self) -> None:
        self._path.unlink(missing_ok=True)
