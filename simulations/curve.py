"""The learning curve of a simulated federation.

It is judged on every hospital's test patients while the federation trains.
"""

from collections.abc import Mapping

from client.patients import Split
from configs.journal import Journal
from configs.records.result import Point
from configs.records.run_journal import Judged
from configs.schema import Study
from server.checkpoint import Checkpoint
from server.outcome import RoundRecord
from simulations.evaluate import curve_value, headline
from strategies.data.base import concatenate
from strategies.exchange.arrays import Arrays
from strategies.learning import learning_of

CURVE_POINTS = 60  # of a long study: each is an evaluation on all test patients


class Curve:
    """Watch a federation's rounds: one point of the curve each, or every few rounds of a long study.

    With a journal each point is kept there, and a run that goes on has the `earlier` ones again.
    """

    def __init__(
        self,
        study: Study,
        patients: dict[str, Split],
        curves: dict[str, list[Point]],
        key: str,
        journal: Journal | None = None,
        earlier: Mapping[int, float] | None = None,
    ) -> None:
        self.study, self.task = study, learning_of(study)
        self.test = concatenate([p.test for p in patients.values()])
        self.points = curves.setdefault(key, [])
        self.every = max(1, study.training.rounds // CURVE_POINTS)
        self.journal, self.earlier = journal, earlier or {}

    def __call__(self, record: RoundRecord, model: Arrays) -> str:
        """Judge a round's model where it has a point; return what a progress bar says of it."""
        return self._judge(record.round, model)

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Take the points up to a checkpoint; its own may be missing, as a kill can come between the two."""
        self.points += [Point(n, v) for n, v in sorted(self.earlier.items()) if n <= checkpoint.round]
        if checkpoint.round not in self.earlier:
            self._judge(checkpoint.round, checkpoint.model)

    def _judge(self, number: int, model: Arrays) -> str:
        if number % self.every and number != self.study.training.rounds:
            return ""
        value = curve_value(self.study, self.task, model, self.test)
        if value is None:
            return ""
        self.points.append(Point(number, value))
        if self.journal:
            self.journal.write(Judged(round=number, value=value))
        return f"{headline(self.study).label} {value:.3f}"
