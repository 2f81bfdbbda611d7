"""Assembly of a message from Flower's inflatable objects without holding a part twice.

A message is a tree: Message, RecordDict, ArrayRecord, Array, and each array's bytes as ArrayChunks of some megabytes.
Flower's own assembly holds every part until the last is in place, three models for one; and it repeats a chunk as often
as the array's description says, so that a few kilobytes can become terabytes. Here a chunk is let go of once it was
copied, and what the arrays will need is added up before. What a part says of itself is hostile until it was checked.

>>> parts = Parts(max_bytes=4)
>>> parts.add("ab", b"12345")
Traceback (most recent call last):
    ...
configs.errors.WireError: message: expected at most 4 bytes, found more; it is not read
"""

import json
from collections import Counter
from collections.abc import Sequence

from flwr.app import Array, ArrayRecord, Message

from configs.errors import WireError
from configs.frame import Buffer
from strategies.exchange.arrays import array_of
from strategies.exchange.flower import InflatableObject, children_of, inflate_object_from_contents

ARRAY, CHUNK = b"Array ", b"ArrayChunk "  # how such a part begins
_DIVIDER = b"\x00"  # between a part's head and its body


class Parts:
    """A message on its way. `max_bytes` bounds its parts together, and its arrays once they are put together."""

    in_order = False  # whether parts should come in Flower's order

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._contents: dict[str, bytes] = {}

    def add(self, object_id: str, content: bytes) -> None:
        """Keep one part.

        Raises:
            WireError: the parts are too large together.
        """
        self._bytes += len(content)
        if self._bytes > self._max_bytes:
            self.forget()
            raise WireError(f"message: expected at most {self._max_bytes} bytes, found more; it is not read")
        self._keep(object_id, content)

    def message(self, object_id: str) -> Message:
        """Return the message that the parts make, and drop the parts.

        Raises:
            WireError: they make none, or one that is too large.
        """
        try:
            arrays = self._arrays()
            # Flower's constructors take arrays of `bytes` alone: each goes through them under its own name.
            named: dict[str, InflatableObject] = {
                name: Array(array.dtype, array.shape, array.stype, name.encode()) for name, array in arrays.items()
            }
            inflated = inflate_object_from_contents(object_id, self._contents, objects=named)
        except WireError:
            raise
        except Exception:  # Flower's parsers raise many kinds on bytes that are not theirs
            raise WireError("message: expected Flower's objects, found something else") from None
        finally:
            self.forget()
        if not isinstance(inflated, Message):
            raise WireError("message: expected Flower's message, found another object")
        if inflated.has_content():
            for record in inflated.content.values():  # not `array_records`: Flower's views hold on to what they show
                for array in record.values() if isinstance(record, ArrayRecord) else ():
                    array.data = arrays[array.data.decode()].data
        return inflated

    def forget(self) -> None:
        """Let go of every part."""
        self._contents.clear()

    def _arrays(self) -> dict[str, Array]:
        """Return every array by its id; what is left of the parts is small."""
        descriptions = {name: _Description(part) for name, part in self._contents.items() if part.startswith(ARRAY)}
        uses = Counter(chunk for array in descriptions.values() for chunk in array.chunks)
        if sum(count * len(self._body(chunk)) for chunk, count in uses.items()) > self._max_bytes:
            raise WireError(f"message: expected arrays of at most {self._max_bytes} bytes, found larger ones")
        arrays = {}
        for name, description in descriptions.items():
            arrays[name] = array_of((description.shape, description.dtype), self._joined(description.chunks, uses))
            arrays[name].stype = description.stype
        return arrays

    def _joined(self, chunks: Sequence[str], uses: Counter[str]) -> Buffer:
        """Return the bytes of these chunks, one after the other; a chunk is dropped after its last use."""
        joined, position = bytearray(sum(len(self._body(chunk)) for chunk in chunks)), 0
        for chunk in chunks:
            body = self._body(chunk)
            joined[position : position + len(body)] = body
            position += len(body)
            uses[chunk] -= 1
            if not uses[chunk]:
                self._contents.pop(chunk, None)
        return joined

    def _keep(self, object_id: str, content: bytes) -> None:
        self._contents[object_id] = content

    def _body(self, chunk: str) -> memoryview:
        """Return what a chunk holds.

        Raises:
            KeyError: it never came. ValueError: it is none.
        """
        return chunk_body(self._contents[chunk])


class _Description:
    """An array as its part describes it.

    Raises:
        ValueError, KeyError, IndexError, TypeError: that is not how an array is described.
    """

    def __init__(self, part: bytes) -> None:
        children = children_of(part)
        fields = json.loads(part[part.index(_DIVIDER) + 1 :])
        self.dtype, self.stype = str(fields["dtype"]), str(fields["stype"])
        self.shape = tuple(int(length) for length in fields["shape"])
        self.chunks = [children[number] for number in fields["arraychunk_ids"]]


def chunk_body(part: bytes) -> memoryview:
    """Return the bytes that an array's chunk carries.

    Raises:
        ValueError: the part is no chunk.
    """
    if not part.startswith(CHUNK):
        raise ValueError
    return memoryview(part)[part.index(_DIVIDER) + 1 :]
