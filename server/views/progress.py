"""The lines that follow a run's journal as it grows."""

from collections.abc import Iterator
from pathlib import Path

from configs.journal import read
from configs.records.run_journal import Begin, Gathered, Joined, Postponed, Received, Refused, Resumed, Round
from configs.schema import Study
from server.views import text


class Progress:
    """The content of a run's journal so far. `gathered` is whether rounds have begun since the last start."""

    def __init__(self, study: Study, journal: Path) -> None:
        self._study, self._journal, self._seen = study, journal, 0
        self._epsilons: dict[str, str] = {}
        self.gathered = False

    def lines(self) -> Iterator[str]:
        """Yield the lines of records that came since the last call."""
        for record in list(read(self._journal))[self._seen :] if self._journal.exists() else []:
            self._seen += 1
            entry = record.of(Begin, Received, Gathered, Joined, Postponed, Refused, Resumed, Round)
            began = isinstance(entry, Gathered | Round | Resumed)
            self.gathered = began or (self.gathered and not isinstance(entry, Begin))
            if isinstance(entry, Received) and entry.epsilon:
                self._epsilons[entry.site] = entry.epsilon
            study = self._study
            if line := text.progress(entry, study.training.rounds, study.privacy.epsilon, self._epsilons):
                yield line
