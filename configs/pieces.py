"""Several texts packed as one, so that a message with its parts travels in one request.

>>> split(join([b"a", b"", b"bc"]))
[b'a', b'', b'bc']
>>> split(b"\\x00\\x00\\x00\\x09a")
Traceback (most recent call last):
    ...
configs.errors.WireError: pieces: expected as many bytes as announced, found fewer or more
"""

import json
import struct
from collections.abc import Iterable, Mapping

from configs.errors import WireError

HOLD_PATH, REPLY_PATH = "/v1/archipel/receive", "/v1/archipel/reply"  # a hospital's node, from protocol 2 on
FETCH_PATH, STORE_PATH = "/v1/archipel/fetch", "/v1/archipel/store"  # large messages, a window at a time
WINDOW = 4_000_000  # bytes of a large message in one request
MEDIA_TYPE = "application/protobuf"  # the one that the door lets through; the messages inside are Flower's
MAX_HOLD_S = 50.0  # a request for the next message is held so long at most; proxies often cut after a minute
MAX_INLINE = 2_000_000  # bytes of a message's parts that travel with it; the parts of a larger one are asked for apart
MAX_PIECES = 1_000  # of one message
_LENGTH = struct.Struct(">I")


def join(pieces: Iterable[bytes]) -> bytes:
    """Return the pieces as one, each with its length before it."""
    joined = bytearray()
    for piece in pieces:
        joined += _LENGTH.pack(len(piece))
        joined += piece
    return bytes(joined)


def split(data: bytes, most: int = MAX_PIECES) -> list[bytes]:
    """Return the pieces again.

    Raises:
        WireError: they are none, or more than `most`.
    """
    pieces: list[bytes] = []
    position = 0
    while position < len(data):
        if len(pieces) >= most:
            raise WireError(f"pieces: expected at most {most}, found more")
        start = position + _LENGTH.size
        position = start + (_LENGTH.unpack_from(data, position)[0] if start <= len(data) else len(data))
        if position > len(data):
            raise WireError("pieces: expected as many bytes as announced, found fewer or more")
        pieces.append(data[start:position])
    return pieces


def fields_of(piece: bytes, form: Mapping[str, type]) -> dict[str, object]:
    """Return the JSON object in a piece, with the keys and types of `form`.

    Raises:
        WireError: it is another.
    """
    try:
        fields = json.loads(piece) if len(piece) <= 1_000_000 else None
    except (ValueError, RecursionError):
        fields = None
    good = isinstance(fields, dict) and set(fields) == set(form)
    if not good or not isinstance(fields, dict) or any(type(fields[n]) is not kind for n, kind in form.items()):
        raise WireError(f"pieces: expected an object of {', '.join(sorted(form))}, found something else")
    return fields
