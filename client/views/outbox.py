"""The messages that left, and the content of one of them."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from client.audit import Outgoing
from client.egress import SENTENCES
from client.folder import SiteFolder
from configs import wire
from configs.frame import Frame
from configs.site import SiteConfig
from strategies.data.columns import layout_of
from strategies.exchange.messages import from_frame, read
from strategies.releases.registry import arrays_of

WIDTH = 100


@dataclass(frozen=True, slots=True)
class Departure:
    """A message that left, with its sentence where it is a refusal.

    Equal refusals that follow each other are one departure; `more` counts the others, the last left at `until`.
    """

    time: str
    message: str
    study: str
    round: int
    kind: str
    bytes: int
    sha256: str
    answer: str = ""
    more: int = 0
    until: str = ""


@dataclass(frozen=True, slots=True)
class OpenedArray:
    """An array of a message, with its first and last values as text."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    values: str


@dataclass(frozen=True, slots=True)
class OpenedMessage:
    """A message that left: its fields, and its arrays or, of statistics, each column's counts by label."""

    message: str
    form: str
    sha256: str
    fields: Mapping[str, str | int]
    arrays: tuple[OpenedArray, ...] = ()
    counts: Mapping[str, Mapping[str, float]] | None = None


def departures(config: SiteConfig, outgoing: Iterable[Outgoing]) -> Iterator[Departure]:
    """Yield what left, oldest first."""
    answers = _answers()

    def group(o: Outgoing) -> object:
        return o.study, o.round, o.form, o.sha256, "" if o.sha256 in answers else o

    for _, neighbours in itertools.groupby(outgoing, group):
        first, *others = neighbours
        frame = config.outbox / f"{first.message}.frame"
        kind, answer = answers.get(first.sha256, (first.form, ""))
        yield Departure(
            first.time,
            first.message,
            first.study,
            first.round,
            kind,
            frame.stat().st_size if frame.exists() else first.bytes,
            first.sha256,
            answer,
            len(others),
            others[-1].time if others else "",
        )


def opened(folder: SiteFolder, message: str) -> OpenedMessage:
    """Return one message that left with all of its fields and arrays.

    Raises:
        RunError, JournalError: there is no such message, or it is not what the journal says.
    """
    audit = folder.audit
    frame = audit.show(message)
    departure = next(o for o in audit.outgoing() if o.message.startswith(message))
    view = OpenedMessage(departure.message, frame.form, frame.sha256, dict(frame.fields))
    if not frame.arrays:
        return view
    study = folder.study(departure.study).study
    expected = arrays_of(frame.form, study)
    arrays = read(frame.form, from_frame(frame.form, frame, expected), expected).arrays
    if frame.form == "statistics reply":
        numbers = iter(arrays[wire.COUNTS].tolist())
        counts = {h.column.name: {label: next(numbers) for label in h.labels} for h in layout_of(study)}
        return OpenedMessage(view.message, view.form, view.sha256, view.fields, counts=counts)
    shown = tuple(
        OpenedArray(
            name,
            array.shape,
            str(array.dtype),
            np.array2string(array.ravel(), precision=4, threshold=16, edgeitems=6, max_line_width=WIDTH),
        )
        for name, array in arrays.items()
    )
    return OpenedMessage(view.message, view.form, view.sha256, view.fields, shown)


def _answers() -> dict[str, tuple[str, str]]:
    """Return every refusal that can leave, by the digest of its frame: its kind, and its sentence."""
    return {
        Frame("refusal", {"code": code, "reason": reason}).sha256: (
            "not yet" if code == wire.WAITING_FOR_APPROVAL else "refusal",
            f"answered: {reason}",
        )
        for code, reason in SENTENCES.items()
    }
