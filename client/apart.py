"""Large messages, apart from their seals: files that pass the door in windows, and go on where they were cut off.

Nothing here is believed: a file is read no further than its announced size, and what it holds is compared with the hash
in the seal by whoever reads it.
"""

import json
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from configs.errors import WireError
from configs.frame import MappedFile
from configs.pieces import FETCH_PATH, STORE_PATH, WINDOW, join

ATTEMPTS, PAUSE_S = 5, 0.5  # for one window, and how much longer each pause is
Ask = Callable[[str, bytes], bytes]  # a path of the coordinator's and a body -> the answer


def fetch(ask: Ask, unreachable: type[Exception], run: str, message: str, size: int, folder: Path) -> MappedFile:
    """Return a message of so many bytes, in a file without a name.

    Raises:
        WireError: it is shorter or longer than it says. Exception: `unreachable` again and again, or what `ask` raises.
        OSError: the disk is full.
    """
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        start = 0
        while start < size:
            body = join([_asked(run, message, start)])
            window = _again(ask, FETCH_PATH, body, unreachable)
            if not 0 < len(window) <= min(size - start, WINDOW):
                raise WireError("message: expected as many bytes as its seal says, found fewer or more")
            start += _write(file.fileno(), window)
        return MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)


def store(ask: Ask, unreachable: type[Exception], run: str, message: str, path: Path) -> int:
    """Send a file in answer to a message, and return its size.

    Raises:
        WireError: the coordinator's answer is none. Exception: as for `fetch`.
    """
    with path.open("rb", buffering=0) as file:
        size, start = os.fstat(file.fileno()).st_size, 0
        for _ in range(2 * (size // WINDOW + ATTEMPTS)):
            window = os.pread(file.fileno(), WINDOW, start)
            body = join([_asked(run, message, start), window])
            answer = _again(ask, STORE_PATH, body, unreachable)
            if not answer.isdigit() or int(answer[:20]) > size:
                raise WireError("reply: expected the coordinator to say how much it has, found something else")
            start = int(answer[:20])
            if start == size:
                return size
    raise WireError("reply: expected the coordinator to keep it, it did not")


def _asked(run: str, message: str, start: int) -> bytes:
    return json.dumps({"run": run, "message": message, "start": start}).encode()


def _again(ask: Ask, path: str, body: bytes, unreachable: type[Exception]) -> bytes:
    for attempt in range(ATTEMPTS):
        try:
            return ask(path, body)
        except unreachable:
            if attempt + 1 == ATTEMPTS:
                raise
            time.sleep(PAUSE_S * (attempt + 1))
    raise AssertionError


def _write(descriptor: int, data: bytes) -> int:
    view = memoryview(data)
    while len(view):
        view = view[os.write(descriptor, view) :]
    return len(data)
