"""The files of records: images and series below one folder, found by the texts of a hospital's rows.

A text is a path below `root`, with slashes of either kind between folders. It never leads out of it: not by `..`, not
as an absolute path, not through a link. What is found is a regular file, or a folder of them (a series of slices), of a
public size at most; nothing else is opened, as a pipe would be waited for.

A text is a patient's value: no message here holds one.
"""

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from strategies.data.source import Located, UnreadError, Why

MAX_BYTES = 1 << 30  # of one record, all its files together
MAX_FILES = 4096  # of one record
_PIECE = 1 << 20
_Stamp = tuple[str, int, int, int]  # of a file: path, size, time of change, inode


@dataclass
class Below:
    """Records below a folder; see strategies/data/source.py for what `find` and `digest` promise."""

    root: str
    _digests: dict[tuple[_Stamp, ...], bytes] = field(default_factory=dict, repr=False)

    def find(self, text: str) -> Located:
        """Return where a record lies.

        Raises:
            UnreadError: it is not there, it lies elsewhere, or it is nothing that is opened.
        """
        path = self._real(text)
        status = _status(path)
        if stat.S_ISDIR(status.st_mode):
            return Located(path, tuple(self._within(path)))
        _check([status])
        return Located(path, (path,))

    def digest(self, text: str) -> bytes:
        """Return the SHA-256 of a record's files; a file that has not changed since is not read again.

        A record that cannot be read has the digest of nothing.
        """
        try:
            stamps = tuple((path, *_stamp(_status(path))) for path in self.find(text).files)
            if stamps not in self._digests:
                self._digests[stamps] = _hashed(path for path, *_ in stamps)
            return self._digests[stamps]
        except (UnreadError, OSError):
            return hashlib.sha256().digest()

    def _real(self, text: str) -> str:
        """Return the path that a text leads to: as it is, or with slashes or accents written otherwise."""
        if not text:
            raise UnreadError(Why.UNKNOWN)
        if text.startswith(("/", "\\")) or ".." in text.replace("\\", "/").split("/") or "\0" in text:
            raise UnreadError(Why.OUTSIDE)
        root, slashed = os.path.realpath(self.root), text.replace("\\", "/")
        forms = (text, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")), slashed)
        for form in dict.fromkeys(forms):
            try:
                path = os.path.realpath(os.path.join(root, form), strict=True)
            except (OSError, ValueError):
                continue
            return _below(root, path)
        raise UnreadError(Why.MISSING)

    def _within(self, folder: str) -> Iterator[str]:
        """Yield the files of a folder in the order of their names; hidden ones and folders in it are left out."""
        root, statuses = os.path.realpath(self.root), []
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in islice(entries, MAX_FILES + 1))
        except OSError:
            raise UnreadError(Why.UNREADABLE) from None
        if len(names) > MAX_FILES:
            raise UnreadError(Why.TOO_LARGE)
        for name in names:
            path = os.path.realpath(os.path.join(folder, name))
            status = _status(_below(root, path))
            if not name.startswith(".") and not stat.S_ISDIR(status.st_mode):
                statuses.append(status)
                yield path
        _check(statuses)


@lru_cache(16)
def below(root: str) -> Below:
    """Return the records below a folder, the same each time, so that what it knows of unchanged files is kept."""
    return Below(root)


def _below(root: str, path: str) -> str:
    if os.path.commonpath([root, path]) != root:
        raise UnreadError(Why.OUTSIDE)
    return path


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError:
        raise UnreadError(Why.MISSING) from None


def _check(statuses: list[os.stat_result]) -> None:
    """Check that these are regular files, and not too large together.

    Raises:
        UnreadError: they are not.
    """
    if not all(stat.S_ISREG(status.st_mode) for status in statuses):
        raise UnreadError(Why.NO_FILE)
    if sum(status.st_size for status in statuses) > MAX_BYTES:
        raise UnreadError(Why.TOO_LARGE)
    if not statuses:
        raise UnreadError(Why.MISSING)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _hashed(paths: Iterator[str]) -> bytes:
    """Return the SHA-256 of files, each with its length."""
    whole = hashlib.sha256()
    for path in paths:
        one = hashlib.sha256()
        with open(path, "rb") as file:
            while piece := file.read(_PIECE):
                one.update(piece)
        whole.update(one.digest())
    return whole.digest()
