"""`archipel-site rehearse`: a whole study on this hospital's own data, before anybody approves it.

    python -m client.rehearsal FOLDER NAME    # what is asked (`asked`) on standard input; 0: prints one JSON record

A person asks; the process leaves the network and is fenced as the worker is. It makes every release that the study asks
for, with the study's noise, as the only hospital, and a second training without noise. The ledger is one in memory, so
nothing is booked; the arrays that a hospital keeps are in memory too, so nothing is left behind. The figures are shown
to the person who asked and to nobody else: they are exact, and no epsilon covers them.
"""

import base64
import json
import resource
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING

from client.data_check import START_TIMEOUT_S, apart
from client.isolation import die_with_parent, worker_variables
from client.kit_served import serve_kit
from configs.commands import prepare
from configs.errors import PolicyError, RunError, reason_of
from configs.load import study_from
from configs.parts import run
from configs.records import fields
from configs.records.rehearsal import Compared, Leaving, Rehearsal
from configs.schema import Study
from configs.schema.kit import start_file
from configs.site import SiteConfig

if TYPE_CHECKING:  # PyTorch and Flower start threads, which a process must not have when it leaves the network
    from client.patients import Split
    from strategies.exchange.arrays import Arrays
    from strategies.releases.base import Release, Request
    from strategies.tasks.metrics import Floats

TRAININGS = 2  # with noise and without


def asked(study: Study, folder: Path | None = None) -> str:
    """Return what the process is asked: a study, with the file in a folder that a kit's model begins from."""
    path = None if folder is None else folder / start_file(study.name)
    start = path.read_bytes() if path is not None and path.is_file() else b""
    return json.dumps({"study": study.canonical, "start": base64.b64encode(start).decode("ascii")})


def rehearsed(config: SiteConfig, study: Study, request: str) -> Rehearsal:
    """Return what a study would be here, for the person who asked.

    Args:
        request: as `asked` returns it.

    Raises:
        RunError: it fails, with the reason, or does not end in the time that its own rounds may take.
    """
    from client.prospects import obstacle, spending
    from strategies.releases.registry import MODEL_UPDATE

    dataset = config.dataset(study.name)
    if dataset is None:
        raise RunError(f"site.yaml names no data set for {study.name} (datasets)")
    rounds = study.training.rounds if MODEL_UPDATE.is_asked(study) else 1
    timeout_s = (
        START_TIMEOUT_S
        + dataset.source.reading_time_s
        + dataset.source.records_time_s
        + TRAININGS * rounds * study.training.round_timeout_s
    )
    folder, also = config.folder, worker_variables(config)
    arguments = (str(folder), study.name)
    try:
        done = run("client.rehearsal", *arguments, folder=folder, also=also, timeout_s=timeout_s, given=request)
    except TimeoutExpired:
        raise RunError(f"{study.name}: the rehearsal did not end in {timeout_s} s, which its rounds may take") from None
    if done.returncode:
        why = done.stdout.strip() if done.returncode == 3 else f"the process ended with exit code {done.returncode}"
        raise RunError(f"{study.name}: the rehearsal failed: {why}")
    rehearsal = fields.read(Rehearsal, json.loads(done.stdout))
    policy, why = config.policy, obstacle(config, study)
    budgeted = study.privacy.keys.budgeted
    cost = spending(config, study) if budgeted and not why else None
    return replace(
        rehearsal,
        obstacle=why,
        spent=cost.spent if cost else 0.0,
        after=cost.after if cost else 0.0,
        max_epsilon=policy.max_epsilon if budgeted else 0.0,
    )


class Stage:
    """One hospital, with patients in memory and a ledger that ends with the process."""

    def __init__(self, config: SiteConfig, study: Study, people: "Split") -> None:
        from client.ledger import Ledger
        from client.site import Site

        self.study, self.people = study, people
        self.site: Site = Site(
            config.site, study, lambda: people, Ledger.in_memory(), seeded=False, policy=config.policy
        )
        self._failures: list[Exception] = []
        self.site.on_failure = self._failures.append
        self._seconds: dict[str, list[float]] = {}
        self._bytes: dict[str, int] = {}
        self._refused: dict[str, str] = {}

    def release(self, kind: "Release", request: "Request") -> "Arrays":
        """Make a release and note its size and time.

        Raises:
            RunError: making it failed: a node would send noise alone in its place. ArchipelError: it may not be made.
        """
        started = time.monotonic()
        try:
            arrays = self.site.release(kind.name, request)
        finally:
            if self._failures:  # noise alone was made in its place, or not even that
                words, why = kind.words(request.round), reason_of(self._failures[0])
                raise RunError(f"{words} could not be made ({why}); the node would send noise alone in its place")
        self._seconds.setdefault(kind.name, []).append(time.monotonic() - started)
        self._bytes[kind.name] = sum(array.nbytes for array in arrays.values())
        return arrays

    def ask_once(self, kind: "Release", request: "Request") -> None:
        """Make a release that the site's policy may refuse.

        Raises:
            RunError: as `release`.
        """
        try:
            self.release(kind, request)
        except PolicyError as error:
            self._refused[kind.name] = str(error)

    @property
    def leaving(self) -> tuple[Leaving, ...]:
        """Return each kind of message that would leave, or be refused."""
        made = [
            Leaving(
                name=name,
                times=len(seconds),
                bytes=self._bytes[name],
                seconds=statistics.median(seconds),
                slowest=max(seconds),
            )
            for name, seconds in self._seconds.items()
        ]
        refused = [Leaving(name=name, times=0, bytes=0, seconds=0.0, why=why) for name, why in self._refused.items()]
        return (*made, *refused)


def rehearse(folder: Path, name: str, request: str) -> Rehearsal:
    """Leave the network, put up the fence, read the patients, and make everything that the study asks for.

    Raises:
        ArchipelError: the study cannot be carried out on these data.
    """
    config, dataset = apart(folder, name)
    from safetensors.numpy import load

    from client.patients import load_patients
    from client.timing import quantum_s
    from strategies.exchange.flower import identify
    from strategies.kits.shelf import SHELF
    from strategies.one_hospital import NODE
    from strategies.releases.base import Request
    from strategies.releases.registry import STATISTICS, releases_after_training

    identify(node_id=NODE)  # both sides of every message are this process
    document = json.loads(request)
    study = study_from(json.loads(document["study"]))
    serve_kit(config, study)
    if start := base64.b64decode(document["start"]):
        SHELF.begin_from(load(start))  # a wrong one is as none
    people = load_patients(dataset.source, study, config.site)
    stage, metrics, rounds = Stage(config, study, people), dict[str, Compared](), 0
    if not study.trains_at(config.site):
        raise RunError("expected a study that trains here, found one in which this hospital only tests")
    if stage.site.parameters:
        model, metrics = _trained(config, stage)
        rounds = study.training.rounds
        for kind in releases_after_training(study):
            stage.ask_once(kind, Request(model))
    else:
        stage.ask_once(STATISTICS, Request())
    return Rehearsal(
        name=study.name,
        study=study.sha256,
        train=people.train.count,
        test=people.test.count,
        rounds=rounds,
        memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        leaving=stage.leaving,
        answer_s=quantum_s(study, config.site, config.kit_run),
        metrics=metrics,
        oddities=people.oddities,
    )


def _trained(config: SiteConfig, stage: Stage) -> "tuple[Arrays, dict[str, Compared]]":
    """Return the study's model of this hospital alone, and its figures beside those of a training without noise."""
    from client.kits import standing_of
    from strategies.privacy.modes.none import without_privacy

    people, unprotected = stage.people, without_privacy(stage.study)
    model, at_home = trained(stage)
    plain = None
    if stage.study.privacy.keys.budgeted and people.train.count and standing_of(config, unprotected) is None:
        _, plain = trained(Stage(config, unprotected, people))
    return model, compared(stage.study, people, at_home, plain)


def trained(stage: Stage) -> "tuple[Arrays, Arrays]":
    """Return the shared model after all rounds, and the same with what stays at the hospital."""
    from strategies.one_hospital import trained_alone
    from strategies.releases.base import Request
    from strategies.releases.registry import MODEL_UPDATE

    def update(number: int, sent: "Arrays") -> "Arrays":
        return stage.release(MODEL_UPDATE, Request(sent, number))

    model = trained_alone(stage.study, stage.site.name, update)
    return model, {**model, **stage.site.personal.final()}


def compared(study: Study, people: "Split", noisy: "Arrays", plain: "Arrays | None") -> dict[str, Compared]:
    """Return the metrics on the test patients, with noise, without, and of a constant; none without patients."""
    from strategies.learning import learning_of
    from strategies.tasks.metrics import interval, resampled

    learning, test = learning_of(study), people.test
    if not test.count:
        return {}
    objective = learning.objective
    asked = objective.metrics_of([objective.metrics[0].name, *study.evaluation.metrics])
    y = objective.in_unit(test.outcomes)

    def figures(predictions: "Floats | None") -> "dict[str, Floats]":
        return {} if predictions is None else resampled(asked, y, [predictions], test.owners, seed=study.seed)

    predicted = learning.predictions(noisy, test)
    of_noisy = figures(predicted)
    of_plain = figures(None if plain is None else learning.predictions(plain, test))
    of_constant = figures(_constant(study, people, predicted.shape[1]))
    guesses = {metric.name: metric.chance for metric in asked} | {asked[0].name: objective.guess(y) or asked[0].chance}
    return {
        metric.name: Compared(
            noisy=interval(of_noisy.get(metric.name)),
            plain=interval(of_plain.get(metric.name)),
            constant=float(of_constant[metric.name][0]) if metric.name in of_constant else guesses[metric.name],
            lower_is_better=metric.lower_is_better,
        )
        for metric in asked
    }


def _constant(study: Study, people: "Split", width: int) -> "Floats | None":
    """Return (test rows, classes) the shares of the training patients' outcomes, None of an outcome without classes."""
    import numpy as np

    train, test = people.train, people.test
    if width != len(study.task.classes) or not train.count or np.ndim(train.outcomes) != 1:
        return None
    shares = np.bincount(np.asarray(train.outcomes, np.int64), minlength=width) / len(train.outcomes)
    return np.tile(shares, (len(test.outcomes), 1))


def main(arguments: list[str]) -> int:
    """`FOLDER NAME`."""
    die_with_parent()
    prepare(alone=True)
    folder, name = arguments
    try:
        rehearsal = rehearse(Path(folder), name, sys.stdin.read())
    except Exception as error:  # whatever it is, the person is told, without a value
        print(reason_of(error))
        return 3
    print(json.dumps(fields.plain(rehearsal)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
