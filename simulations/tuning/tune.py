"""The whole of `archipel tune`: what is tried, how long it takes, the search, and the study that is written.

The choice is by the metric that the task names for it: of an outcome in words the log loss, as AUROC does not see a
model that calls everybody ill. The chosen figure is the best of many, hence flattered; what the study is worth is what
its simulation says on test patients.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from configs.errors import ArchipelError, RunError
from configs.files import write_atomically
from configs.schema import Study
from configs.schema.sites import Tuned
from configs.strict_yaml import dump_yaml
from simulations.display import Display
from simulations.tuning import search, space
from simulations.tuning.pool import Here, Pool
from simulations.tuning.store import Store
from simulations.tuning.trial import Trial, parts_of
from strategies.releases.registry import MODEL_UPDATE
from strategies.tasks.base import Objective
from strategies.tasks.metrics import Metric
from strategies.tasks.registry import objective_of

LONG_S = 600  # more needs --yes
_SHORT_S = 5.0  # a first training that took less is timed again: it has loaded what all others find there


@dataclass(frozen=True)
class Wish:
    """What a researcher asked: how to try which settings, and where the best ones go."""

    out: Path
    validation: float = 0.2
    asked: tuple[str, ...] = ()
    search: str = "grid"
    seeds: tuple[int, ...] = ()
    by: str | None = None
    yes: bool = False

    @property
    def trials(self) -> Path:
        """Return the file of finished trials, beside the study that is written."""
        return self.out.with_suffix(".trials.jsonl")


class Tuning:
    """One search over the settings of a study, with whatever of it is done."""

    def __init__(self, study: Study, wish: Wish) -> None:
        """Judge what is asked; nothing is trained.

        Raises:
            ArchipelError: the study, an option or the data do not allow it.
        """
        _require_tunable(study, wish)
        self.study, self.wish = study, wish
        self.seeds = wish.seeds or tuple(range(study.seed, study.seed + 3))
        self.by, self.headline = _metrics(objective_of(study), wish.by)
        self._axes = space.axes_of(study, wish.asked)
        self.candidates = [space.Candidate((), study)]
        self._store = Store(wish.trials, self._context())

    def begin(self, pool: Pool) -> str:
        """Time one training of the study's own settings, and return what the search will take, in words.

        Raises:
            ArchipelError: that is too much.
        """
        seconds = self._seconds()
        settings = space.count(self._axes)
        if settings <= space.MOST:
            self.candidates = space.candidates(self.study, self._axes)
            settings = len(self.candidates)
        steps = search.rungs(self.wish.search, settings, len(self.seeds))
        trainings = search.trainings(steps)
        rounds = sum(each.study.training.rounds for each in self.candidates) / len(self.candidates)
        whole_s = trainings * seconds * rounds / self.study.training.rounds / pool.workers
        tried = f"{settings:,} settings, {len(self.seeds)} seeds: {trainings:,} trainings"
        about = f"{tried}, about {whole_s:,.0f} s{f', {pool.workers} at once' if pool.workers > 1 else ''}"
        if settings > space.MOST:
            raise RunError(f"{about}; expected at most {space.MOST:,} settings; name fewer values (--set)")
        if whole_s > LONG_S and not self.wish.yes:
            raise RunError(f"{about}; add --yes to start that, --workers, or --search halving; or name fewer values")
        return about

    def run(self, pool: Pool, display: Display) -> list[int]:
        """Carry out the search, and return the settings of its last step, the best first."""
        steps = search.rungs(self.wish.search, len(self.candidates), len(self.seeds))
        with display.phase("settings on validation patients", search.trainings(steps)) as phase:
            counted: set[tuple[int, int]] = set()  # a later step names pairs again

            def train(pairs: Sequence[tuple[int, int]]) -> None:
                trials = {}
                for i, place in pairs:
                    study, seed = self.candidates[i].study, self.seeds[place]
                    if (study.sha256, seed) not in self._store.figures:
                        trials[study.sha256, seed] = self._trial(study, seed)
                for _ in range(len(set(pairs) - counted) - len(trials)):
                    phase.advance()
                for (digest, seed), figures in pool.run(trials):
                    self._store.add(digest, seed, figures)
                    phase.advance()
                counted.update(pairs)

            ranked = search.search(steps, len(self.candidates), train, self.score)
        if self.score(ranked[0]) == float("inf"):
            raise RunError(
                f"{self.study.name}: expected validation patients for whom {self.by.label} is defined, found none with "
                "any setting; raise --validation, or see what diverges"
            )
        return ranked

    def score(self, candidate: int) -> float:
        """Return a setting's score by what is trained of it, the lower the better."""
        return search.mean_score(self.values(candidate, self.by), lower_is_better=self.by.lower_is_better)

    def values(self, candidate: int, metric: Metric) -> dict[int, float | None]:
        """Return a metric of one setting by seed, as far as it is trained."""
        digest, done = self.candidates[candidate].study.sha256, self._store.figures
        return {seed: done[digest, seed].get(metric.name) for seed in self.seeds if (digest, seed) in done}

    @property
    def done(self) -> int:
        """Return the number of finished trainings of this search's settings."""
        return sum(len(self.values(i, self.by)) for i in range(len(self.candidates)))

    @property
    def begun(self) -> list[int]:
        """Return the settings of which a training is finished, the study's own first."""
        return [i for i in range(len(self.candidates)) if i == 0 or self.values(i, self.by)]

    def write(self, candidate: int) -> None:
        """Write a setting's study, which says from now on that it was chosen on real patients."""
        tuned = Tuned(len(self.candidates), len(self.seeds), self.wish.validation, self.study.seed)
        study = replace(self.candidates[candidate].study, tuned=tuned)
        write_atomically(self.wish.out, dump_yaml(study.to_file()).encode())

    def _trial(self, study: Study, seed: int) -> Trial:
        return Trial.of(study, self.study, seed, self.wish.validation)

    def _seconds(self) -> float:
        """Return the seconds of one training of the study's own settings, which is kept."""
        seconds = 0.0
        for _ in range(2):
            trial, started = self._trial(self.study, self.seeds[0]), time.perf_counter()
            ((_, figures),) = Here().run({0: trial})
            seconds = time.perf_counter() - started
            if seconds > _SHORT_S:
                break
        if (self.study.sha256, self.seeds[0]) not in self._store.figures:
            self._store.add(self.study.sha256, self.seeds[0], figures)
        return seconds

    def _context(self) -> str:
        """Return a digest of what figures depend on beside the study: the share, the split, and the patients."""
        parts = parts_of(self._trial(self.study, self.seeds[0]).data, self.seeds[0], self.wish.validation)
        digest = sha256(f"{self.wish.validation} {self.study.seed}".encode())
        for site in sorted(parts):
            digest.update(site.encode() + parts[site].train.digest + parts[site].test.digest)
        return digest.hexdigest()


def _require_tunable(study: Study, wish: Wish) -> None:
    if not MODEL_UPDATE.is_asked(study):
        raise ArchipelError(f"{study.name}: tune: expected a study that trains a model, found one of statistics")
    if not study.simulation:
        raise ArchipelError(
            f"{study.name}: simulation.sites: expected each hospital's data to tune on, found none; add them"
        )
    if wish.out.exists() or not wish.out.resolve().parent.is_dir():
        raise ArchipelError(f"--out: expected a new file in a folder that is there, found {wish.out}; give another")


def _metrics(objective: Objective, by: str | None) -> tuple[Metric, Metric]:
    """Return the metric that chooses, and the headline.

    Raises:
        ArchipelError: the task has no such metric.
    """
    metrics: Mapping[str, Metric] = {metric.name: metric for metric in objective.metrics}
    headline = objective.metrics[0]
    if by is not None and by not in metrics:
        raise ArchipelError(f"--by: expected one of {', '.join(metrics)}, found {by[:40]!r}; name a metric of the task")
    return metrics.get(by or objective.tuned_by, headline), headline
