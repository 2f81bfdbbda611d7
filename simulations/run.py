"""A whole simulated study: check, train, compare, measure, write down.

>>> sorted(name for name in PHASES)
['federated', 'federated_without_privacy', 'local_only', 'pooled']
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from client.ledger import Ledger
from client.patients import Split
from configs.errors import RunError
from configs.journal import Journal
from configs.load import load_study
from configs.paths import require_short
from configs.records.run_journal import Judged, Measured
from configs.schema import CohortMember, Study
from configs.strict_yaml import dump_yaml
from server.app import Conducted, Observer, RoundRecord, make_app
from server.checkpoint import Checkpoint, Checkpoints, write_tensors
from server.files import write_atomically
from server.papers import write_papers
from server.recorded import Recorded, new_folder
from server.run import begin, epsilons, facts, require_arithmetic, sha256, site_facts
from simulations.counting_run import count
from simulations.display import Display, Options, Phase
from simulations.engines import run_engine
from simulations.evaluate import curve_value, evaluate, evaluate_local, headline
from simulations.hospitals import FromSources, Hospitals, load_all
from simulations.kept import Kept
from simulations.resume import Earlier, require_booked
from strategies.data.base import TrainablePatients, concatenate
from strategies.exchange.arrays import Arrays
from strategies.learning import learning_of
from strategies.privacy.modes.none import without_privacy
from strategies.privacy.modes.registry import plans_of
from strategies.privacy.plan import PrivacyPlan

PHASES = {
    "federated": "together, with privacy",
    "federated_without_privacy": "together, without privacy",
    "local_only": "each hospital alone",
    "pooled": "all data in one place",
}
log = logging.getLogger("archipel.data")  # what is odd about the researcher's own copies
CURVE_POINTS = 60  # of a long study: each is an evaluation on all test patients


def simulate(study: Study, out: Path, options: Options, display: Display) -> Path:
    """Simulate a study in a new folder under `out`, and return that folder.

    Raises:
        ArchipelError: the data, the plan or the machine do not allow it; nothing is left behind if nothing was trained.
        KeyboardInterrupt: with the folder, if there is one.
    """
    patients, _ = check(study)
    for site, people in patients.items():
        for oddity in people.oddities:
            log.warning("%s: %s", site, oddity)
    for site in study.sites:
        longest = out.resolve() / f"20260101T000000Z-{study.name}"
        require_short(longest, Path(f"sites/{site}/ledger.sqlite"))
    run = new_folder(out, study.name)
    document = study.to_dict() | {"simulation": {"sites": _sources(study)}}
    write_atomically(run / "study.yaml", dump_yaml(document).encode())
    _latest(out, run)
    with _named_if_interrupted(run):
        return _carry_out(study, run, options, display, Earlier())


def resume(run: Path, options: Options, display: Display) -> bool:
    """Go on with a run that was interrupted, from its newest checkpoint; False where it was complete already.

    A complete run is left as it is. Only papers that are gone are written again.

    Raises:
        RunError: the folder is no run, or its ledgers hold less than what left. CheckpointError: its checkpoint cannot
            be used. JournalError: its journal was changed.
    """
    if not (run / "study.yaml").is_file():
        raise RunError(f"{run}: expected a run's folder with study.yaml, found none; give a folder under runs/")
    run, study = run.resolve(), load_study(run / "study.yaml")
    _, plans = check(study)
    Journal(run / "journal.jsonl", durable=False)  # drops half a record that a kill left at its end
    earlier = Earlier.of(run)
    complete = earlier.is_complete(run, study)
    if not complete and study.trains:
        require_arithmetic(run)
    checkpoint = _checkpoints(study, run).load(any_arithmetic=complete)
    require_booked(study, run, plans, earlier, checkpoint.round if checkpoint else 0)
    del checkpoint  # a large model is held once
    if not complete:
        with _named_if_interrupted(run):
            _carry_out(study, run, options, display, earlier)
        return True
    if not all((run / name).is_file() for name in ("report.html", *(["model_card.md"] if study.trains else []))):
        write_papers(run)
    return False


@contextmanager
def _named_if_interrupted(run: Path) -> Iterator[None]:
    """Ctrl-C in a run that has begun carries its folder, so that the command can say how it goes on.

    Raises:
        RunError: memory does not suffice.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(run) from None
    except MemoryError:
        made = (
            "the model and the rounds are there" if (run / "model.safetensors").is_file() else "checkpoints are there"
        )
        raise RunError(
            f"{run}: this machine's memory does not suffice; {made}, and `archipel simulate --resume` does the rest: "
            "close other programs, take a larger machine, or leave the baselines out (--no-baselines)"
        ) from None


def check(study: Study) -> tuple[dict[str, Split], dict[str, PrivacyPlan]]:
    """Every hospital's data and plan, before anything is written or trained.

    Raises:
        DataError, PrivacyError: with every hospital's problems.
    """
    patients = load_all(study)
    return patients, plans_of(study, {site: people.train.count for site, people in patients.items()})


def _carry_out(study: Study, run: Path, options: Options, display: Display, earlier: Earlier) -> Path:
    if not study.trains:
        return count(study, run, options, display, earlier)
    started, clock = datetime.now(UTC), time.monotonic()
    patients, plans = check(study)
    journal = Journal(run / "journal.jsonl", durable=False)
    begin(journal, study, options.engine, noise="seeded")
    curves: dict[str, list[dict[str, float]]] = {}
    curve = _Curve(study, patients, curves, "federated", journal, earlier.curve)
    conducted = _federate(study, run, journal, options, display, curve)
    write_tensors(run / "model.safetensors", conducted.model)

    def write_down(scores: Mapping[str, dict[str, Any] | None]) -> str:
        result = _metrics(study, run, options, conducted, patients, plans, scores, curves)
        result |= earlier.times(started, time.monotonic() - clock)
        write_atomically(run / "metrics.json", (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
        return str(result["model_sha256"])

    write_down(dict.fromkeys(PHASES))  # what the rounds made is on disk before anything else is computed
    kept = Kept(run / "baselines", study.sha256)
    models = baselines(study, patients, options, display, curves, kept) if options.baselines else {}
    model_sha256 = write_down(score(study, conducted.model, models, patients))
    journal.write(Measured(metrics_sha256=sha256(run / "metrics.json"), model_sha256=model_sha256))
    write_papers(run)
    kept.drop()
    return run


class _Curve:
    """Watches a federation's rounds: one point of the curve each, or every few rounds of a long study.

    With a journal each point is kept there, and a run that goes on has the `earlier` ones again.
    """

    def __init__(
        self,
        study: Study,
        patients: dict[str, Split],
        curves: dict[str, list[dict[str, float]]],
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
        return self._judge(record.round, model)

    def go_on(self, checkpoint: Checkpoint) -> None:
        """The points up to a checkpoint; its own may be missing, as a kill can come between the two."""
        self.points += [{"round": n, "value": v} for n, v in sorted(self.earlier.items()) if n <= checkpoint.round]
        if checkpoint.round not in self.earlier:
            self._judge(checkpoint.round, checkpoint.model)

    def _judge(self, number: int, model: Arrays) -> str:
        if number % self.every and number != self.study.training.rounds:
            return ""
        value = curve_value(self.study, self.task, model, self.test)
        if value is None:
            return ""
        self.points.append({"round": number, "value": value})
        if self.journal:
            self.journal.write(Judged(round=number, value=value))
        return f"{headline(self.study).name.upper()} {value:.3f}"


def _checkpoints(study: Study, run: Path) -> Checkpoints:
    return Checkpoints(run / "checkpoints", study.sha256, durable=False)


def _federate(
    study: Study, run: Path, journal: Journal, options: Options, display: Display, curve: _Curve
) -> Conducted:
    """The federation itself, on the chosen engine, with checkpoints."""
    checkpoints = _checkpoints(study, run)
    hospitals = Hospitals(study, FromSources(study), run / "sites", FromSources(study, "test"))
    done = 0
    if checkpoint := checkpoints.load():
        curve.go_on(checkpoint)
        done = checkpoint.round
    del checkpoint  # a large model is held once
    title = PHASES["federated" if study.privacy.keys.budgeted else "federated_without_privacy"]
    with closing(hospitals), display.phase(title, study.training.rounds) as phase:
        for _ in range(done):
            phase.advance("from the checkpoint")

        def observer(record: RoundRecord, model: Arrays) -> None:
            phase.advance(curve(record, model))

        make = partial(_server, study, checkpoints, journal, observer)
        return run_engine(options.engine, hospitals, make, workers=options.workers)


def _server(
    study: Study,
    checkpoints: Checkpoints | None,
    journal: Journal | None,
    observer: Observer,
    done: Callable[[Conducted], None],
) -> Any:
    return make_app(study, checkpoints=checkpoints, journal=journal, observer=observer, done=done)


def baselines(
    study: Study,
    patients: dict[str, Split],
    options: Options,
    display: Display,
    curves: dict[str, list[dict[str, float]]],
    kept: Kept | None = None,
) -> dict[str, Any]:
    """The same study without privacy, at each hospital alone, and on all training patients in one place.

    Args:
        kept: where those that are done are found again after an interruption.
    """
    plain = without_privacy(study)
    train = {site: p.train for site, p in patients.items()}

    def together() -> dict[str, Arrays]:
        curve = _Curve(plain, patients, curves, "federated_without_privacy")
        with display.phase(PHASES["federated_without_privacy"], plain.training.rounds) as phase:
            return {"": _train_plainly(plain, train, lambda record, model: phase.advance(curve(record, model)))}

    def alone() -> dict[str, Arrays]:
        with display.phase(PHASES["local_only"], len(patients) * plain.training.rounds) as phase:
            return {site: _train_plainly(_only(plain, site), {site: t}, _advance(phase)) for site, t in train.items()}

    def pooled() -> dict[str, Arrays]:
        with display.phase(PHASES["pooled"], plain.training.rounds) as phase:
            everybody = {"pooled": concatenate(list(train.values()))}
            return {"": _train_plainly(_pooled(plain), everybody, _advance(phase))}

    makers = {"federated_without_privacy": together} if study.privacy.keys.budgeted else {}
    makers |= {"local_only": alone, "pooled": pooled}
    models = {key: _kept_or_made(key, make, curves, kept) for key, make in makers.items()}
    return {key: found if key == "local_only" else found[""] for key, found in models.items()}


def _kept_or_made(
    key: str, make: Callable[[], dict[str, Arrays]], curves: dict[str, list[dict[str, float]]], kept: Kept | None
) -> dict[str, Arrays]:
    """One baseline's models by hospital; made, and kept, where an earlier leg of the run did not."""
    if kept is None:
        return make()
    if (found := kept.load(key)) is not None:
        models, curve = found
        if curve:
            curves[key] = curve
        return models
    models = make()
    kept.keep(key, models, curves.get(key, ()))
    return models


def _advance(phase: Phase) -> Observer:
    """One step of the display a round, with the hospital that trained."""
    return lambda record, model: phase.advance(", ".join(record.contributed))


def _train_plainly(study: Study, train: dict[str, TrainablePatients], observer: Observer) -> Arrays:
    """One baseline is a federation too: the same apps in this process, with one hospital or all of them."""
    make = partial(_server, study, None, None, observer)
    with closing(Hospitals(study, train.__getitem__)) as hospitals:
        return run_engine("inprocess", hospitals, make).model


def _only(study: Study, site: str) -> Study:
    """The study with one hospital."""
    return replace(
        study,
        cohort=tuple(member for member in study.cohort if member.site == site),
        simulation=tuple(entry for entry in study.simulation if entry[0] == site),
        training=replace(study.training, quorum=1),
    )


def _pooled(study: Study) -> Study:
    """The study with one hospital that has everybody."""
    everybody = sum(member.patients for member in study.cohort)
    return replace(
        study,
        cohort=(CohortMember("pooled", everybody),) if everybody else (),
        simulation=(("pooled", study.simulation[0][1]),),
        training=replace(study.training, quorum=1),
    )


def score(
    study: Study, federated: Arrays, models: dict[str, Any], patients: dict[str, Split]
) -> dict[str, dict[str, Any] | None]:
    """How good each model is on the test patients, all together and at each hospital; the `models` of metrics.json."""
    task, test = learning_of(study), {site: p.test for site, p in patients.items()}
    scores: dict[str, dict[str, Any] | None] = {"federated": evaluate(study, task, federated, test)}
    for key in ("federated_without_privacy", "pooled"):
        scores[key] = evaluate(study, task, models[key], test) if key in models else None
    if not study.privacy.keys.budgeted:
        scores["federated_without_privacy"] = scores["federated"]
    local = models.get("local_only")
    scores["local_only"] = evaluate_local(study, task, local, test) if local else None
    return scores


def _metrics(
    study: Study,
    run: Path,
    options: Options,
    conducted: Conducted,
    patients: dict[str, Split],
    plans: dict[str, PrivacyPlan],
    scores: Mapping[str, dict[str, Any] | None],
    curves: dict[str, list[dict[str, float]]],
) -> dict[str, Any]:
    recorded = Recorded.of(run)
    noise = "seeded: repeatable, for simulations only"
    return facts(study, run, recorded, conducted.rounds, engine=options.engine, noise=noise, plans=plans) | {
        "primary_metric": headline(study).name,
        "sites": [
            _site(study, run, site, patients[site], plans.get(site)) | recorded.traffic(site)
            for site in sorted(patients)
        ],
        "models": dict(scores),
        "released": conducted.released.to_dict() if conducted.released else None,
        "convergence": curves,
        "epsilon_by_round": {
            site: epsilons(plan, recorded.rounds_of(site, conducted.rounds.done)) for site, plan in plans.items()
        },
    }


def _site(study: Study, run: Path, site: str, patients: Split, plan: PrivacyPlan | None) -> dict[str, Any]:
    spent = None
    if plan is not None:
        with closing(Ledger.open(run / "sites" / site / "ledger.sqlite", durable=False)) as ledger:
            spent = ledger.spent(site, delta=plan.delta, study=study.sha256)
    return site_facts(study, site, plan, study.training.rounds * _plain_steps(study, site, patients)) | {
        "patients_train": patients.train.count,
        "patients_test": patients.test.count,
        "epsilon": spent,
        "values_clipped": dict(patients.clipped),
    }


def _plain_steps(study: Study, site: str, patients: Split) -> int:
    return study.training.local.steps_per_round(study.announced_train_patients(site) or patients.train.count)


def _latest(out: Path, run: Path) -> None:
    """Point `latest` at the run, in one step; a plain file or folder of that name is left alone."""
    link, fresh = out / "latest", out / f".latest.{os.getpid()}"
    if link.exists() and not link.is_symlink():
        return
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(run.name)
    fresh.replace(link)


def _sources(study: Study) -> dict[str, dict[str, Any]]:
    return {site: source.to_dict() for site, source in study.simulation}
