"""The conductor: one run between machines, in a process of its own.

It runs the ServerApp of a simulation over a sealed grid.

    python -m server.conductor FOLDER RUN    # started by server/coordinator.py, ends when its standard input is closed

It leaves what a simulation leaves (study.yaml, model.safetensors, metrics.json, model_card.md, report.html, the journal
and the checkpoints), without the figures that need patients: of those only what hospitals released, with noise.
"""

import logging
import os
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs import journal as journals
from configs.coordinator import CoordinatorConfig, load_coordinator
from configs.errors import ArchipelError, PrivacyError
from configs.journal import Journal
from configs.load import load_study
from configs.memory import return_large_blocks
from configs.parts import end_with_owner
from configs.records.models import WRITTEN, ComparedModel
from configs.records.result import ModelResult, Result, TrainedSite, TrainingResult
from configs.records.run_journal import Begin, Measured, Postponed, Received
from configs.schema import Study
from server.app import conduct
from server.bundle import build_bundle
from server.checkpoint import Checkpoints, write_tensors
from server.ends import owe_end
from server.gathering import Patience
from server.logs import write_lines
from server.membership import Membership
from server.outcome import Outcome, PostponedError, RoundRecord
from server.papers import write_papers
from server.pki import Pki
from server.procedures.registry import procedure_of
from server.recorded import Recorded
from server.run import (
    begin,
    epsilons_reported,
    primary_metric,
    released_histograms,
    released_model,
    sha256,
    statistics_result,
    trained_site,
    training_result,
    write_result,
)
from server.session import Deployment
from server.shelf import FOLDER, Shelf
from server.sockets import SUPERLINK_SOCKET
from server.starts import provide_start
from server.superlink.assignment import Directory, Sender, Watch
from server.superlink.client import SuperLinkClient
from server.superlink.sealed_grid import SealedGrid
from strategies.exchange.arrays import Arrays
from strategies.privacy.modes.registry import mode_of
from strategies.privacy.plan import PrivacyPlan
from strategies.releases.registry import SCORE_HISTOGRAM

log = logging.getLogger("archipel.conductor")
ENGINE = "deployed"
NOISE = "from each hospital's operating system"
HANDED_OVER_S = 60.0  # for hospitals that take part to say so again, beyond the time after which one is absent
MEMBERS_S = 0.5  # how old the list of members may be while many messages are sealed and opened


def carry_out(config: CoordinatorConfig, name: str) -> str:
    """Conduct a submitted run to its end, from its newest checkpoint if there is one; the outcome."""
    run = config.runs / name
    study = load_study(run / "study.yaml")
    provide_start(study, run)
    key = Pki(config.pki).load_signing_key()
    members = Membership.open(config.database)
    clock = time.monotonic()
    journal = Journal(run / "journal.jsonl", sign=key.sign)
    begin(journal, study, ENGINE)
    link = SuperLinkClient(config.sockets / SUPERLINK_SOCKET, spool=run)
    shelf = Shelf(config.folder / FOLDER, name)
    try:
        with link.run(*build_bundle(study)) as grid:
            sealed_grid = SealedGrid(
                grid,
                Directory(_Recent(link.nodes), members.members, members.talks(), members.statements),
                Sender(name, study, key, journal),
                watch=Watch(
                    lambda site, epsilon: members.set_presence(name, site, "takes part", epsilon),
                    lambda: _asked_to_stop(members, name),
                    members.set_talk,
                    members.set_statement,
                ),
                absent_after_s=config.absent_after_s,
                shelf=shelf,
            )
            outcome = _conduct(config, run, study, sealed_grid, journal, members)
    except PostponedError as error:
        journal.write(Postponed(why=str(error)))
        members.submit(name)
        return "QUEUED"
    finally:
        link.close()
        shelf.clear()
    if outcome.rounds.done or outcome.rounds.outcome == "COMPLETE":
        result = write_down(run, study, outcome, time.monotonic() - clock)
        if isinstance(result, TrainingResult):
            journal.write(Measured(model_sha256=result.model_sha256))
        else:
            journal.write(Measured(metrics_sha256=sha256(run / "metrics.json")))
    rounds = outcome.rounds
    owe_end(config, name, rounds.outcome, rounds.code, rounds.done)
    members.set_state(name, rounds.outcome, rounds.why)
    return outcome.rounds.outcome


def _conduct(
    config: CoordinatorConfig, run: Path, study: Study, sealed_grid: SealedGrid, journal: Journal, members: Membership
) -> Outcome:
    def observer(record: RoundRecord, _model: Arrays) -> None:
        members.set_state(run.name, "RUNNING")
        for site, why in record.missing.items():
            members.set_presence(run.name, site, why)
        for site in record.contributed:
            members.set_presence(run.name, site, "takes part")
        count = len(record.contributed)
        hospitals = f"{count} hospital{'' if count == 1 else 's'}"
        log.info("round %d: %s, %.2f s", record.round, hospitals, record.seconds)

    return conduct(
        sealed_grid,
        study,
        checkpoints=Checkpoints(run / "checkpoints", study.sha256),
        journal=journal,
        observer=observer,
        deployment=Deployment(
            post=sealed_grid,
            patience=Patience(HANDED_OVER_S + config.absent_after_s, config.absent_after_s, config.absent_after_s),
            ready=members.ready(run.name),
            presence=lambda site, state: members.set_presence(run.name, site, state),
            stopped=sealed_grid.stopped,
        ),
    )


class _Recent:
    """A list that is asked for more often than it changes."""

    def __init__(self, ask: Any) -> None:
        self._ask, self._then, self._known = ask, -MEMBERS_S, None

    def __call__(self) -> Any:
        if self._known is None or time.monotonic() - self._then > MEMBERS_S:
            self._known, self._then = self._ask(), time.monotonic()
        return self._known


def _asked_to_stop(members: Membership, name: str) -> bool:
    run = members.run(name)
    return run is not None and run.state == "STOPPING"


def write_down(run: Path, study: Study, outcome: Outcome, seconds: float, engine: str = ENGINE) -> Result:
    """Leave a run's model, figures, card and report in its folder; or its statistics and the report."""
    if not procedure_of(study).makes_model:
        return _write_statistics(run, study, outcome, seconds, engine)
    write_tensors(run / "model.safetensors", outcome.model)
    recorded = Recorded.of(run)
    reported = _reported(run)
    plans = {site: plan for site in study.sites if (plan := _plan(study, site))}
    sites = study.sites or sorted({site for entry in recorded.rounds for site in entry.contributed})
    result = training_result(study, run, recorded, outcome, engine=engine, noise=NOISE, plans=plans)
    models: dict[str, ModelResult | None] = dict.fromkeys(WRITTEN)
    models[ComparedModel.FEDERATED] = released_model(study, outcome.released.get(SCORE_HISTOGRAM.name), sites)
    result = replace(
        result,
        primary_metric=primary_metric(study),
        sites=tuple(_site(study, site, plans.get(site), reported.get(site), recorded) for site in sites),
        models=models,
        released=released_histograms(study, outcome.released.get(SCORE_HISTOGRAM.name)),
        epsilon_by_round=epsilons_reported(run),
        seconds=round(seconds, 3),
        started=_started(run),
    )
    write_result(run, result)
    write_papers(run)
    return result


def _write_statistics(run: Path, study: Study, outcome: Outcome, seconds: float, engine: str) -> Result:
    spent = {site: float(epsilon) for site, epsilon in _reported(run).items()}
    result = statistics_result(study, Recorded.of(run), outcome, engine=engine, noise=NOISE, spent=spent)
    result = replace(result, seconds=round(seconds, 3), started=_started(run))
    write_result(run, result)
    write_papers(run)
    return result


def _started(run: Path) -> str:
    records = list(journals.read(run / "journal.jsonl"))
    started = next((record.time for record in records if record.of(Begin)), records[0].time)
    return datetime.fromisoformat(started).astimezone(UTC).isoformat(timespec="seconds")


def _site(study: Study, site: str, plan: PrivacyPlan | None, epsilon: str | None, recorded: Recorded) -> TrainedSite:
    announced = study.announced_train_patients(site)
    steps = study.training.rounds * study.training.local.steps_per_round(announced) if announced else None
    part = trained_site(study, site, plan, steps, recorded)
    return replace(part, epsilon=float(epsilon) if epsilon else None)


def _plan(study: Study, site: str) -> PrivacyPlan | None:
    """Return what anybody can compute of a hospital's plan."""
    try:
        return mode_of(study).plan(study, site)
    except PrivacyError:
        return None  # the hospital has said so itself


def _reported(run: Path) -> dict[str, str]:
    """Return the epsilon that each hospital last reported, as it signed it."""
    entries = (record.of(Received) for record in journals.read(run / "journal.jsonl"))
    return {entry.site: entry.epsilon for entry in entries if entry and entry.epsilon}


def main(arguments: list[str]) -> int:
    """Conduct one run. Exit codes: 0 it ended, COMPLETE or not; 2 an error that is explained."""
    os.umask(0o077)
    write_lines()
    return_large_blocks()
    end_with_owner()
    try:
        outcome = carry_out(load_coordinator(Path(arguments[0])), arguments[1])
    except ArchipelError as error:
        print(error, file=sys.stderr)
        return 2
    log.info("%s: %s", arguments[1], outcome)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
