"""The errors that Archipel raises on purpose.

::

    ArchipelError            message for people: what was expected, what was found, what to do
    ├── ConfigError          a study, site or coordinator file is wrong; holds every problem of the file
    ├── DataError            a hospital's data do not fit the study; never holds a patient's value
    │   └── SourceError      they cannot be read: no such file, no data base
    ├── PrivacyError         no plan gives the guarantee that was asked for
    │   └── BudgetError      the ledger refuses: the release would pass the budget
    ├── WireError            a message is not what configs/wire.py lists
    │   ├── ReleaseError     a message is of a release that this one does not know: somebody must upgrade
    │   └── SealError        a message is not what the other side signed, or not for this one
    ├── AdmissionError       the hospital has not approved a study, or has refused it; `waiting` says which
    ├── PolicyError          the hospital's policy does not allow a study, even if it is approved
    ├── UnsettledError       a hospital's ledger, journal, outbox and the coordinator's record contradict each other
    ├── JournalError         a journal was changed, cut or reordered
    ├── KitError             a study kit is not what a kit may be, or not the one that was approved
    ├── RecordError          a file that was written down is not of its form; holds every problem of the file
    ├── CheckpointError      a checkpoint is unreadable, truncated or of another study
    └── RunError             a run's folder or a federation cannot go on

Command lines print the message and exit with 2; a traceback means a bug.

>>> raise ConfigError("study.yaml", ["seed: expected an integer, got 'x'; write a number"])
Traceback (most recent call last):
    ...
configs.errors.ConfigError: study.yaml: seed: expected an integer, got 'x'; write a number
"""

from collections.abc import Sequence


class ArchipelError(Exception):
    """The root of all errors that are meant for people."""


def reason_of(error: Exception) -> str:
    """Return an error's text where it is meant for people; of any other its kind alone: its text may hold a value."""
    return str(error) if isinstance(error, ArchipelError) else f"unexpected {type(error).__name__}"


class Problem(str):
    """A problem of a file in words, with its line and column for a message; empty where they are unknown."""

    __slots__ = ("place",)
    place: str

    def __new__(cls, text: str, place: str = "") -> "Problem":
        """Return the text with its place."""
        problem = super().__new__(cls, text)
        problem.place = place
        return problem


class ConfigError(ArchipelError):
    """Every problem of one configuration file, each with its path in the file."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        lines = [f"{getattr(problem, 'place', '')}{problem}" for problem in problems]
        head, *rest = lines if len(lines) == 1 else (f"{len(lines)} problems", *lines)
        super().__init__("\n  ".join([f"{source}: {head}", *rest]))


class DataError(ArchipelError):
    """The hospital's data do not fit the study. The text names columns and rows, never values."""


class SourceError(DataError):
    """The hospital's data cannot be read at present, whatever they hold."""


class PrivacyError(ArchipelError):
    """No plan gives the guarantee that was asked for."""


class BudgetError(PrivacyError):
    """The privacy ledger refuses a release: nothing was trained and nothing was spent."""


class BegunError(BudgetError):
    """This very release was begun before: it counts as spent, however it ended, and is not made twice."""


class SpareError(BudgetError):
    """The study has no spare release left at this hospital: what was lost cannot be made anew."""


class WireError(ArchipelError):
    """A message holds something that `configs/wire.py` does not list, or lacks something that it does."""


class ImplausibleError(WireError):
    """A hospital's update is further from the shared model than an honest one can be."""


class ReleaseError(WireError):
    """The other side's release asks for what this one does not know; nothing is wrong but the releases."""


class SealError(WireError):
    """A signature does not hold, or a message was changed, repeated or sent to another address."""


class AdmissionError(ArchipelError):
    """The hospital has not approved the study. `waiting` is True while it may still do so."""

    def __init__(self, text: str, *, waiting: bool) -> None:
        super().__init__(text)
        self.waiting = waiting


class PolicyError(ArchipelError):
    """The hospital's policy denies a study. `code` is what the coordinator learns (client/egress.py)."""

    def __init__(self, text: str, *, code: int) -> None:
        super().__init__(text)
        self.code = code


class UnsettledError(ArchipelError):
    """A hospital's records contradict each other: nothing trains there until a person has settled them."""


class JournalError(ArchipelError):
    """A journal's hash chain does not hold."""


class KitError(ArchipelError):
    """A study kit breaks a rule, was changed, or is not here. The text holds nothing of a patient."""


class RecordError(ArchipelError):
    """Every problem of what was written down, each with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        """Hold the problems, a line each."""
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class CheckpointError(ArchipelError):
    """A checkpoint is missing, truncated, altered, or belongs to another study."""


class RunError(ArchipelError):
    """A run's folder cannot be read or written, or a federation cannot go on."""


class KindError(ArchipelError):
    """A kind of task, model, connector, ... is unknown, is registered twice, or lacks a part."""
