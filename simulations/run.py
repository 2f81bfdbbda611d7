"""A whole simulated study: check, train, compare, measure, write."""

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from client.ledger import Ledger
from client.patients import Split
from client.personalise import personalised
from configs.errors import RunError
from configs.files import write_atomically
from configs.journal import Journal
from configs.load import load_study
from configs.paths import require_short
from configs.records.models import WRITTEN, ComparedModel
from configs.records.result import LeftOut, ModelResult, Point, TrainedSite, TrainingResult
from configs.records.run_journal import Measured
from configs.schema import Study
from configs.strict_yaml import dump_yaml
from server.checkpoint import Checkpoints, write_tensors
from server.outcome import Outcome, RoundRecord
from server.papers import write_papers
from server.procedures.registry import procedure_of
from server.recorded import Recorded, new_folder
from server.run import (
    begin,
    epsilons,
    released_histograms,
    released_model,
    require_arithmetic,
    sha256,
    trained_site,
    training_result,
    write_result,
)
from simulations.baselines import baselines, score, server_app
from simulations.counting_run import NOISE, count
from simulations.curve import Curve
from simulations.described import described
from simulations.display import Display, Options
from simulations.engines import run_engine
from simulations.evaluate import headline
from simulations.hospitals import FromSources, Hospitals, load_all
from simulations.kept import Kept
from simulations.leave_one_out import FOLDER, leave_one_out
from simulations.resume import Earlier, require_booked
from strategies.exchange.arrays import Arrays
from strategies.models.registry import personal_parameters
from strategies.privacy.modes.registry import plans_of
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.registry import RELEASES, SCORE_HISTOGRAM

log = logging.getLogger("archipel.data")  # what is odd about the researcher's own copies


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
    write_atomically(run / "study.yaml", dump_yaml(study.to_file()).encode())
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
    if not complete and procedure_of(study).makes_model:
        require_arithmetic(run)
    checkpoint = _checkpoints(study, run).load(any_arithmetic=complete)
    require_booked(study, run, plans, earlier, checkpoint.round if checkpoint else 0)
    del checkpoint  # a large model is held once
    if not complete:
        with _named_if_interrupted(run):
            _carry_out(study, run, options, display, earlier)
        return True
    if not all(
        (run / name).is_file()
        for name in ("report.html", *(["model_card.md", "tripod.md"] if procedure_of(study).makes_model else []))
    ):
        write_papers(run)
    return False


@contextmanager
def _named_if_interrupted(run: Path) -> Iterator[None]:
    """Add the run's folder to a Ctrl-C, so that the command can say how to resume the run.

    Raises:
        RunError: memory does not suffice.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(run) from None
    except MemoryError:
        state = (
            "the model and the rounds are there" if (run / "model.safetensors").is_file() else "checkpoints are there"
        )
        raise RunError(
            f"{run}: this machine's memory does not suffice; {state}, and `archipel simulate --resume` does the rest: "
            "close other programs, take a larger machine, or leave the baselines out (--no-baselines)"
        ) from None


def check(study: Study) -> tuple[dict[str, Split], dict[str, PrivacyPlan]]:
    """Return every hospital's data and plan, before anything is written or trained.

    Raises:
        DataError, PrivacyError: with every hospital's problems.
    """
    patients = load_all(study)
    return patients, plans_of(study, {site: people.train.count for site, people in patients.items()})


def _carry_out(study: Study, run: Path, options: Options, display: Display, earlier: Earlier) -> Path:
    if not procedure_of(study).makes_model:
        return count(study, run, options, display, earlier)
    started, clock = datetime.now(UTC), time.monotonic()
    patients, plans = check(study)
    journal = Journal(run / "journal.jsonl", durable=False)
    begin(journal, study, options.engine, noise="seeded")
    if options.leave_one_out:
        (run / FOLDER).mkdir(exist_ok=True)  # a run that is resumed goes on with it
    left_out: dict[str, LeftOut] = {}
    curves: dict[str, list[Point]] = {}
    curve = Curve(study, patients, curves, ComparedModel.FEDERATED, journal, earlier.curve)
    outcome = _federate(study, run, journal, options, display, curve)
    write_tensors(run / "model.safetensors", outcome.model)

    def write_down(scores: Mapping[str, ModelResult | None]) -> str:
        result = _result(study, run, options, outcome, patients, plans)
        convergence = {key: tuple(points) for key, points in curves.items()}
        times = earlier.times(started, time.monotonic() - clock)
        write_result(run, replace(result, models=scores, convergence=convergence, left_out=left_out, **times))
        return result.model_sha256

    write_down(dict.fromkeys(WRITTEN))  # what the rounds made is on disk before anything else is computed
    store = Kept(run / "baselines", study.sha256)
    models = baselines(study, patients, display, curves, store) if options.baselines else {}
    if (run / FOLDER).is_dir():
        left_out = leave_one_out(study, patients, display, run)
    model_sha256 = write_down(score(study, outcome.model, models, patients, _at_home(study, run, outcome.model)))
    journal.write(Measured(metrics_sha256=sha256(run / "metrics.json"), model_sha256=model_sha256))
    write_papers(run)
    store.drop()
    shutil.rmtree(run / FOLDER, ignore_errors=True)
    return run


def _checkpoints(study: Study, run: Path) -> Checkpoints:
    return Checkpoints(run / "checkpoints", study.sha256, durable=False)


def _federate(study: Study, run: Path, journal: Journal, options: Options, display: Display, curve: Curve) -> Outcome:
    """Run the federation itself, on the chosen engine, with checkpoints."""
    checkpoints = _checkpoints(study, run)
    hospitals = Hospitals(study, FromSources(study), run / "sites", FromSources(study, "test"))
    done = 0
    if checkpoint := checkpoints.load():
        curve.go_on(checkpoint)
        done = checkpoint.round
    del checkpoint  # a large model is held once
    title = (ComparedModel.FEDERATED if study.privacy.keys.budgeted else ComparedModel.WITHOUT_PRIVACY).words
    with closing(hospitals), display.phase(title, study.training.rounds) as phase:
        for _ in range(done):
            phase.advance("from the checkpoint")

        def observer(record: RoundRecord, model: Arrays) -> None:
            phase.advance(curve(record, model))

        make = partial(server_app, study, checkpoints, journal, observer)
        return run_engine(options.engine, hospitals, make, workers=options.workers)


def _at_home(study: Study, run: Path, model: Arrays) -> dict[str, Arrays]:
    """Return each hospital's own version of the last model; none where the study has no such."""
    if study.training.personalise is None and not personal_parameters(study):
        return {}
    with closing(Hospitals(study, FromSources(study), run / "sites")) as hospitals:
        return {site: personalised(hospitals.site(site), model) for site in study.sites}


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


def _result(
    study: Study,
    run: Path,
    options: Options,
    outcome: Outcome,
    patients: dict[str, Split],
    plans: dict[str, PrivacyPlan],
) -> TrainingResult:
    """Return what is known of a run before its models are judged."""
    recorded, histograms = Recorded.of(run), outcome.released.get(SCORE_HISTOGRAM.name)
    result = training_result(study, run, recorded, outcome, engine=options.engine, noise=NOISE, plans=plans)
    return replace(
        result,
        primary_metric=headline(study).name,
        patients=described(study, patients),
        sites=tuple(_site(study, run, site, patients[site], plans.get(site), recorded) for site in sorted(patients)),
        released=released_histograms(study, histograms),
        rehearsed=released_model(study, histograms, study.sites),
        releases={
            name: RELEASES[name].rehearsed(
                study, told, outcome.model, [patients[s] for s in outcome.released[name].arrays]
            )
            for name, told in result.releases.items()
        },
        epsilon_by_round={
            site: epsilons(plan, recorded.rounds_of(site, outcome.rounds.done)) for site, plan in plans.items()
        },
    )


def _site(
    study: Study, run: Path, site: str, patients: Split, plan: PrivacyPlan | None, recorded: Recorded
) -> TrainedSite:
    spent = None
    if plan is not None:
        with closing(Ledger.open(run / "sites" / site / "ledger.sqlite", durable=False)) as ledger:
            spent = ledger.spent(site, delta=plan.delta, study=study.sha256)
    part = trained_site(study, site, plan, study.training.rounds * _plain_steps(study, site, patients), recorded)
    return replace(
        part,
        patients_train=patients.train.count,
        patients_test=patients.test.count,
        epsilon=spent,
        values_clipped=dict(patients.clipped),
    )


def _plain_steps(study: Study, site: str, patients: Split) -> int:
    return study.training.local.steps_per_round(study.announced_train_patients(site) or patients.train.count)
