"""The search for better settings among a few moves: batch, rounds, clip norm, learning rate.

It begins at the study's own settings. Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): every single
move is judged a little; the best three and their pairs are judged more. The settings that one starts from are always
among them and give way only to a move that is better by .001; from there the search goes on once more. What judges is a
function, so nothing here trains or draws patients.

A move keeps learning rate times clip norm times steps as it was, so that the model can travel as far as before; the
learning rate's own moves change just that.

>>> Move("rounds", rounds=2.0).applied(_EXAMPLE)
Settings(batch=None, rounds=40, clip_norm=0.5, learning_rate=1.0)
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from configs.errors import PrivacyError
from configs.schema import CohortMember, Evaluation, Local, Model, Privacy, Strategy, Study, Task, Training
from strategies.privacy.modes.registry import mode_of

KEPT = 3  # single moves that are judged again, with their pairs
TOLERANCE = 0.001  # AUROC by which a move must beat where it starts
GENERATIONS = 2  # searches in all, each from what the one before found

FEW, MANY = 2, 4  # worlds that judge the single moves, and the finalists
# The mean AUROC of each study, over so many worlds; None where the time is over.
Judge = Callable[[Sequence[Study], int], list[float] | None]

_EXAMPLE = Study(
    name="example",
    purpose="Show what a move is",
    task=Task("binary", "disease"),
    features=(),
    model=Model("logistic"),
    training=Training(Strategy("fedavg"), rounds=20, local=Local(None, learning_rate=2.0), quorum=1),
    privacy=Privacy("local", epsilon=3.0, delta=1e-5, clip_norm=0.5),
    evaluation=Evaluation(),
    cohort=(CohortMember("lille", 100),),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that the search moves. `batch` None is everybody."""

    batch: int | None
    rounds: int
    clip_norm: float
    learning_rate: float

    @classmethod
    def of(cls, study: Study) -> "Settings":
        """Return a study's own."""
        local = study.training.local
        return cls(local.batch_size, study.training.rounds, study.privacy.clip_norm, local.learning_rate)

    def put_into(self, study: Study) -> Study:
        """Return the study with these."""
        local = replace(study.training.local, batch_size=self.batch, learning_rate=self.learning_rate)
        training = replace(study.training, local=local, rounds=self.rounds)
        return replace(study, training=training, privacy=replace(study.privacy, clip_norm=self.clip_norm))


@dataclass(frozen=True, slots=True)
class Move:
    """Factors on a study's settings; `batch` is the batch itself, used by the move that is called so."""

    what: str
    batch: int | None = None
    rounds: float = 1.0
    clip_norm: float = 1.0
    learning_rate: float = 1.0

    def applied(self, study: Study) -> Settings:
        """Return the settings after the move."""
        current = Settings.of(study)
        moved = Settings(
            self.batch if self.what == "batch" else current.batch,
            max(1, round(current.rounds * self.rounds)),
            current.clip_norm * self.clip_norm,
            current.learning_rate,
        )
        as_far = _way(study) / _way(moved.put_into(study))
        return replace(moved, learning_rate=float(f"{current.learning_rate * as_far * self.learning_rate:.3g}"))


@dataclass(frozen=True, slots=True)
class Sought:
    """The best settings, and how many were tried, the study's own among them."""

    settings: Settings
    tried: int


def moves(study: Study) -> list[Move]:
    """Return the single moves: half and double of each setting; everybody, and a smaller and a larger batch."""
    batch, smallest = study.training.local.batch_size, min(_sizes(study))
    batches: list[int | None] = (
        [None, max(1, smallest // 2)] if batch is None else [None, max(1, batch // 2), batch * 2]
    )
    return [
        *(Move("rounds", rounds=by) for by in (0.5, 2.0)),
        *(Move("clip norm", clip_norm=by) for by in (0.5, 2.0)),
        *(Move("learning rate", learning_rate=by) for by in (0.5, 2.0)),
        *(Move("batch", batch=b) for b in dict.fromkeys(batches) if b != batch and (b is None or b <= smallest)),
    ]


def best_settings(study: Study, judge: Judge) -> Sought | None:
    """Search; None where the time does not last for the first single moves."""
    tried: set[Settings] = {Settings.of(study)}
    current = _better(study, judge, tried)
    if current is None:
        return None
    for _ in range(GENERATIONS - 1):
        further = _better(current, judge, tried) if current != study else None
        if further is None or further == current:
            break
        current = further
    return Sought(Settings.of(current), len(tried))


def _better(study: Study, judge: Judge, tried: set[Settings]) -> Study | None:
    """Return the best a move or two away; the study itself where none is better, None where the time is over."""
    single = {move: moved for move in moves(study) if (moved := _moved(study, [move])) is not None}
    first = judge([study, *single.values()], FEW)
    if first is None:
        return None
    ranked = sorted(zip(single, first[1:], strict=True), key=lambda scored: -scored[1])
    best = [move for move, _ in ranked[:KEPT]]
    pairs = [_moved(study, pair) for pair in itertools.combinations(best, 2) if pair[0].what != pair[1].what]
    finalists = [study, *(single[move] for move in best), *(pair for pair in pairs if pair is not None)]
    second = judge(finalists, MANY)
    tried |= {Settings.of(trial) for trial in (*single.values(), *(finalists if second is not None else ()))}
    if second is None:
        finalists, second = [study, *single.values()], first
    winner = max(range(len(second)), key=second.__getitem__)
    return finalists[winner] if second[winner] > second[0] + TOLERANCE else study


def _moved(study: Study, pair: Sequence[Move]) -> Study | None:
    """Return the study after one move or two; None where it has no plan then."""
    moved = study
    for move in pair:
        moved = move.applied(moved).put_into(moved)
    try:
        require_plans(moved)
    except PrivacyError:
        return None
    return moved


def require_plans(study: Study) -> None:
    """Require that every hospital has a plan.

    Raises:
        PrivacyError: one has none.
    """
    for site in study.sites:
        mode_of(study).plan(study, site)


def _sizes(study: Study) -> list[int]:
    return [study.announced_train_patients(site) or 1 for site in study.sites]


def _way(study: Study) -> float:
    """Return how far a model can travel at the largest hospital: learning rate times clip norm times steps."""
    local = study.training.local
    steps = local.steps_per_round(max(_sizes(study))) * study.training.rounds
    return local.learning_rate * study.privacy.clip_norm * steps
