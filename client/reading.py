"""The last whole reading of a study's patients, refreshed between rounds.

Reading is apart from refusing. `probe` and `require` look at no row and may refuse; `patients` looks at rows, and in a
private study whatever fails in it leaves as noise alone (client/site.py).

When a patient's row, or the whole file, is removed, the patient must be gone from the next round on. So a round uses
the last complete reading, and never one that is older than site.yaml's `reread_s`, a public number. A reading is
renewed by `renew_if_due`, which a thread of the worker calls: at half that age, at once when the source changed
(`client.connectors.stamp_of`, which costs nothing) and when a person asks (`archipel-site reread`). A file that changes
while it is read is no complete reading: what was read is dropped, and read anew.

The rows' source is read from site.yaml each time (`source`), so a query that was corrected there is followed without a
restart; the identity that the budget follows is not.

What happens if it cannot be read any more? Until it is too old the last reading serves, as the source may be back in a
minute; a person who asks for a reading (`archipel-site reread`) ends that at once. Then `require` looks, before the
booking, whether the source opens: a file that is gone as a whole, or a data base that is down, is not a row, so that is
a refusal (SourceError) like the one of a proposal. That a source opens and then cannot be read is not reported: the
round is noise alone. Nor is it tried again while an answer is waited for, as a reading that is made is not either: how
long each answer takes would tell that a row cannot be read. The thread tries again, and at once when something changes.

The same reading gives the same bits; its keyed digest is in the journal beside each answer that was made of it.
"""

import contextlib
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from client.connectors import probe, stamp_of
from client.patients import Split, load_patients
from configs.errors import ConfigError, SourceError, reason_of
from configs.schema import DataSource, Study
from configs.site import SITE_FILE, SiteConfig, load_site
from strategies.kits.shelf import SHELF

REREAD_S = 3600
RETRY_S = 60.0  # after a reading that failed, unless something changes before
EARLY = 0.5  # part of the age at which a reading is renewed, so that no round has to wait for one
log = logging.getLogger("archipel.worker")


@dataclass(frozen=True)
class _Complete:
    """A reading that ended; `since` is of the clock, when it began."""

    patients: Split
    since: float
    stamps: tuple[object, object]


@dataclass(frozen=True)
class _Failed:
    """A reading that failed at this time of the clock; `opens`: the source itself opened, so it is the rows' doing."""

    stamps: tuple[object, object]
    at: float
    opens: bool


@dataclass
class Reading:
    """The data set of one study at one hospital.

    `source` says where the rows are at present; `asked` is a file that `archipel-site reread` touches; `key` is that
    of the digests in the journal.
    """

    source: Callable[[], DataSource]
    study: Study
    site: str
    reread_s: float = REREAD_S
    asked: Path | None = None
    key: bytes = b""
    clock: Callable[[], float] = time.monotonic
    _last: _Complete | None = field(default=None, repr=False)
    _used: _Complete | None = field(default=None, repr=False)  # by the newest answer
    _failed: _Failed | None = field(default=None, repr=False)  # the newest reading, where it failed
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def probe(self) -> None:
        """See whether the source opens and has the study's columns, whatever its rows hold.

        Raises:
            SourceError: it does not open. DataError: a column is missing.
        """
        probe(self.source(), self.study)

    def require(self) -> None:
        """See, before a booking, that there is something to train on: a reading young enough, or a source that opens.

        Raises:
            SourceError, DataError: neither.
        """
        if self._fresh() is None and not self._unreadable():
            self.probe()

    @property
    def serves(self) -> bool:
        """Return whether the last complete reading may be used by a round now."""
        return self._fresh() is not None

    def patients(self) -> Split:
        """Return the patients of the last complete reading; they are read now if it is too old.

        Raises:
            SourceError, DataError: they cannot be read. Exception: what else reading raises.
        """
        self._used = None
        if (last := self._fresh()) is None:
            self._require_readable()
            with self._lock:  # a reading that is under way is waited for
                if (last := self._fresh()) is None:
                    self._require_readable()
                    last = self._read()
        self._used = last
        return last.patients

    def renew_if_due(self) -> bool:
        """Read again if it is time, or if the source changed; return whether a complete reading was made.

        What fails is logged, without a value, and the last reading stays.
        """
        if not self._due():
            return False
        with self._lock:
            if not self._due():
                return False
            before = self._last
            try:
                self._read(complete=True)
                return self._last is not before
            except Exception as error:
                why = reason_of(error)
                log.error("%s: not read again: %s", self.study.name, why)
                return False

    @property
    def digest(self) -> str:
        """Return a keyed digest of what `patients` returned last, for the hospital's journal; empty if nothing."""
        if self._used is None or not self.key:
            return ""
        people = self._used.patients
        return hmac.digest(self.key, people.train.digest + people.test.digest, hashlib.sha256).hex()[:32]

    def _fresh(self) -> _Complete | None:
        """Return the last reading, unless it is too old or a person has asked for another since."""
        last = self._last
        fresh = last is not None and self.clock() - last.since <= self.reread_s and last.stamps[1] == self._wish()
        return last if fresh else None

    def _due(self) -> bool:
        last, stamps = self._last, self._stamps()
        failed = self._failed
        if failed is not None and failed.stamps == stamps and self.clock() - failed.at < RETRY_S:
            return False
        return last is None or self.clock() - last.since > EARLY * self.reread_s or last.stamps != stamps

    def _unreadable(self) -> bool:
        """Return whether the source opened and its rows could not be read, a short time ago and nothing changed since.

        Twice the time after which the thread tries again: where it runs, no answer has to.
        """
        failed = self._failed
        if failed is None or not failed.opens or self.clock() - failed.at > 2 * RETRY_S:
            return False
        return failed.stamps == self._stamps()

    def _require_readable(self) -> None:
        if self._unreadable():
            raise SourceError(f"{self.study.name}: its rows could not be read a moment ago; the log says why")

    def _opens(self) -> bool:
        try:
            self.probe()
        except Exception:
            return False
        return True

    def _stamps(self) -> tuple[object, object]:
        """Return what changes with the source, and with a person's wish; both are cheap to look at."""
        source = self.source()
        return (source, stamp_of(source)), self._wish()

    def _wish(self) -> int | None:
        try:
            return self.asked.stat().st_mtime_ns if self.asked else None
        except OSError:
            return None

    def _read(self, *, complete: bool = False) -> _Complete:
        """Read; what changed meanwhile is kept where somebody waits for it, and else left for the next time."""
        since, stamps, turn = self.clock(), self._stamps(), SHELF.turn
        try:
            people = load_patients(self.source(), self.study, self.site)
            reading = _Complete(people, since, stamps)
            _ = people.train.digest, people.test.digest  # now: of records it takes a while, and no answer waits for it
        except Exception:
            self._failed = _Failed(stamps, self.clock(), self._opens())
            raise
        self._failed = None
        of_its_kit = self.study.kit is None or turn == SHELF.turn  # else another study's kit was asked to read records
        if of_its_kit and (not complete or stamps == self._stamps()):
            self._last = reading
        return reading


def source_in(config: SiteConfig, study: str) -> Callable[[], DataSource]:
    """Return the source of a study's rows: from site.yaml as it is now, as far as it can be read.

    A data set that is gone from it, or that has another identity, leaves the source as it was: that is for a restart.
    """
    dataset = config.dataset(study)
    assert dataset is not None
    path = config.folder / SITE_FILE
    sources: list[Any] = [None, dataset.source]

    def source() -> DataSource:
        with contextlib.suppress(OSError, ConfigError):
            stamp = path.stat().st_mtime_ns
            if stamp != sources[0]:
                sources[0] = stamp
                now = load_site(config.folder).dataset(study)
                if now is not None and now.identity == dataset.identity:
                    sources[1] = now.source
        return cast(DataSource, sources[1])

    return source


def watch(
    current: Callable[[], Reading | None], every_s: float = 1.0, wake: threading.Event | None = None
) -> threading.Thread:
    """Start a thread that renews the reading which `current` names, for as long as the process lives.

    Args:
        wake: set it to have the source looked at at once.
    """
    wake = wake or threading.Event()

    def renew_for_ever() -> None:
        while True:
            try:
                if (reading := current()) is not None:
                    reading.renew_if_due()
            except Exception as error:  # whatever it is, the next look may go well
                log.error("not read again: unexpected %s", type(error).__name__)
            wake.wait(every_s)
            wake.clear()

    thread = threading.Thread(target=renew_for_ever, name="reading", daemon=True)
    thread.start()
    return thread
