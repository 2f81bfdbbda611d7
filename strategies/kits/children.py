"""The interface of processes that each run a kit for one patient: client/children has them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

Question = Callable[[], bytes]  # returns one patient's rows, read when it is that patient's turn


class Children(Protocol):
    """Processes that each work for one patient, and end."""

    def load(self, shared: bytes) -> None:
        """Give what all children get: what they are to do, and the parameters."""

    def answers(
        self, questions: Sequence[Question], size: int, *, expected: float | None = None
    ) -> Iterator[tuple[int, bytes | None]]:
        """Yield each question's number and what its child says, in any order: `size` bytes, or None.

        Args:
            questions: what each child is given.
            size: of an answer in bytes; any other answer is None.
            expected: how many questions there are by public numbers; without it, those of the test patients.
        """

    def record(self, reader: str, path: str, content: bytes, size: int) -> bytes | None:
        """Return what a child decodes of one record: `size` bytes, or None.

        Args:
            reader: of the study's kit, KIT/NAME.
            path: of the record's file, which the child sees and opens as such.
            content: of that file.
        """
