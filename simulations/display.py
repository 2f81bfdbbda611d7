"""Progress of a run: live in a terminal, plain lines elsewhere.

>>> with PlainDisplay().phase("together", 20) as phase:
...     for number in range(20):
...         phase.advance(f"AUROC 0.{80 + number}")
together: 5/20  AUROC 0.84
together: 10/20  AUROC 0.89
together: 15/20  AUROC 0.94
together: 20/20  AUROC 0.99
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

PLAIN_LINES = 4  # of each phase


class Phase(Protocol):
    """One bar of the display."""

    def advance(self, note: str = "") -> None:
        """Count one more step as done."""


class Display(Protocol):
    """A display of progress; `simulations/cli.py` has one for terminals and one for plain lines."""

    def phase(self, title: str, total: int) -> AbstractContextManager[Phase]:
        """Open a bar of so many steps."""


@dataclass(frozen=True)
class Options:
    """The options of a simulation. None of them changes the federated model's bits."""

    engine: str = "inprocess"
    baselines: bool = True
    workers: int = 1
    leave_one_out: bool = False


class TerminalDisplay:
    """One bar a phase, with rounds done, time left and the newest figure."""

    @contextmanager
    def phase(self, title: str, total: int) -> "Iterator[_Bar]":
        """Open a bar."""
        columns = (
            TextColumn("{task.description:<42}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns) as progress:
            yield _Bar(progress, progress.add_task(title, total=total, note=""))


@dataclass
class _Bar:
    progress: Progress
    task: TaskID

    def advance(self, note: str = "") -> None:
        self.progress.advance(self.task)
        if note:
            self.progress.update(self.task, note=note)


class PlainDisplay:
    """A few lines a phase, for logs and pipes; on standard output unless another is given."""

    def __init__(self, to: TextIO | None = None) -> None:
        self._to = to

    @contextmanager
    def phase(self, title: str, total: int) -> "Iterator[_Lines]":
        """Begin a phase."""
        yield _Lines(title, total, self._to)


@dataclass
class _Lines:
    title: str
    total: int
    to: TextIO | None = None
    done: int = 0
    note: str = ""

    def advance(self, note: str = "") -> None:
        self.done, self.note = self.done + 1, note or self.note
        every = max(1, self.total // PLAIN_LINES)
        if self.done % every == 0 or self.done == self.total:
            print(f"{self.title}: {self.done}/{self.total}  {self.note}".rstrip(), file=self.to, flush=True)
