"""A run's folder and its journal, of a simulation or of the coordinator.

Commands read it, so nothing heavy is imported.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     new_folder(Path(folder), "heart", stamp="20260101T000000Z").name
'20260101T000000Z-heart'
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from configs import journal as journals
from configs.errors import RunError
from configs.records.kinds import Kind
from configs.records.run_journal import Again, Evaluated, Gathered, Joined, Refused, Round

_RELEASES = ("archipel", "flwr", "opacus", "torch", "numpy", "scipy")


def new_folder(out: Path, study: str, stamp: str | None = None) -> Path:
    """Return a folder for a run, named by the time (UTC) and the study.

    Raises:
        RunError: there is no such folder and none can be made, or no name is free.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise RunError(f"{out}: expected a folder for runs, found a file or a broken link; give another") from None
    stamp = stamp or datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for attempt in range(1000):
        run = out / f"{stamp}-{study}{f'-{attempt + 1}' if attempt else ''}"
        try:
            run.mkdir(parents=True)
            return run.resolve()
        except FileExistsError:
            continue
    raise RunError(f"{out}: a thousand runs began in this second; give another folder")


def versions() -> dict[str, str]:
    """Return the releases of the libraries that decide a run's bits."""
    return {name: metadata.version(name) for name in _RELEASES}


@dataclass(frozen=True)
class Recorded:
    """The content of a run's journal, the time before an interruption included.

    `rounds` are in order, `hello` the bytes of each time that hospitals were gathered, `once` the bytes of what they
    released after the training, by release and hospital, `reasons` the newest one of each hospital that was away,
    `made_anew` the attempts at lost releases.
    """

    rounds: Sequence[Round]
    hello: Sequence[Mapping[str, int]]
    once: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    made_anew: Sequence[Again] = ()

    @classmethod
    def of(cls, run: Path) -> "Recorded":
        """Read it from a run's folder.

        Raises:
            JournalError: the journal was changed.
        """
        rounds: dict[int, Round] = {}
        hello: list[Mapping[str, int]] = []
        once: dict[str, dict[str, int]] = {}
        reasons: dict[str, str] = {}
        made_anew: list[Again] = []
        for record in journals.read(run / "journal.jsonl"):
            entry = record.of(Round, Gathered, Joined, Evaluated, Refused, Again)
            reasons |= _reasons(entry)
            match entry:
                case Round():
                    rounds[entry.round] = entry
                case Gathered() | Joined():
                    hello.append(entry.bytes)
                case Evaluated():
                    once.setdefault(entry.release or "score histogram", {}).update(entry.contributed)
                case Again():
                    made_anew.append(entry)
        return cls([rounds[number] for number in sorted(rounds)], hello, once, reasons, made_anew)

    def rounds_of(self, site: str, done: int) -> list[int]:
        """Return the rounds that count, up to number `done`, to which a hospital contributed."""
        return [entry.round for entry in self.rounds if entry.round <= done and site in entry.contributed]

    def absences(self, sites: Sequence[str], done: int) -> dict[str, str]:
        """Return the hospitals that contributed to no round that counts, each with the newest recorded reason."""
        absent = {site: "it had not answered when the study began" for site in sites if not self.rounds_of(site, done)}
        return {site: self.reasons.get(site) or unknown for site, unknown in absent.items()}

    def bytes_of(self, site: str) -> int:
        """Return the number of bytes of models that a hospital sent."""
        return sum(entry.contributed.get(site, 0) for entry in self.rounds)

    def traffic(self, site: str) -> dict[str, int]:
        """Return how many bytes and messages a hospital sent, by their names in metrics.json."""
        return {
            "bytes_sent": self.bytes_of(site)
            + sum(hello.get(site, 0) for hello in self.hello)
            + sum(sent.get(site, 0) for sent in self.once.values()),
            "messages_sent": sum(site in entry.contributed for entry in self.rounds)
            + sum(site in hello for hello in self.hello)
            + sum(site in sent for sent in self.once.values()),
        }


def _reasons(entry: Kind | None) -> Mapping[str, str]:
    """Return what a record says of hospitals that did not take part: hospital -> reason."""
    if isinstance(entry, Refused) and entry.site:
        return {entry.site: entry.reason or entry.why}
    return entry.missing if isinstance(entry, Gathered | Round) else {}
