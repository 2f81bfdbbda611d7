"""The result of a run in memory: how it ended, the shared model, the hospitals' releases."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from configs.errors import RunError
from server.rounds import Rounds
from strategies.exchange.arrays import Arrays


@dataclass(frozen=True)
class RoundRecord:
    """The result of one round: bytes that each hospital sent, and a plain reason for each that did not.

    `missing` names every hospital of the study that did not contribute, those that never took part or were away too. So
    it stands in the journal (kind `round`) and in metrics.json (`rounds`, a list: `round`, `contributed`, `missing`,
    `seconds`); why a hospital did not take part at the start stands in the journal (`gathered`, its `missing`) and in
    metrics.json (`absent`).
    `attempts` names the hospitals whose release was lost and asked for anew, with the last attempt; the journal has it
    where there were any.
    """

    round: int
    contributed: Mapping[str, int]
    missing: Mapping[str, str]
    seconds: float
    attempts: Mapping[str, int] = field(default_factory=dict)


Observer = Callable[[RoundRecord, Arrays], None]


@dataclass(frozen=True)
class Released:
    """The releases that hospitals were asked for once, and why others released nothing."""

    arrays: Mapping[str, Arrays]  # hospital -> the arrays of its release
    missing: Mapping[str, str]


@dataclass
class Outcome:
    """The end of a run. `model` is the shared model after the last round, or the average the study asks for.

    `released` has what was asked for once, by the name of its kind.
    """

    rounds: Rounds
    model: Arrays
    records: list[RoundRecord] = field(default_factory=list)
    hello_bytes: Mapping[str, int] = field(default_factory=dict)
    released: Mapping[str, Released] = field(default_factory=dict)


class PostponedError(RunError):
    """A run's hospitals are not there now: it is for another time."""
