"""A simulated study of statistics: the deployment's own code on an engine, as a training runs (simulations/run.py)."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.serverapp import ServerApp

from client.ledger import Ledger
from configs.journal import Journal
from configs.records.run_journal import Measured
from configs.schema import Study
from server.app import make_app
from server.outcome import Observer, Outcome, RoundRecord
from server.papers import write_papers
from server.recorded import Recorded
from server.run import begin, sha256, statistics_result, write_result
from simulations.engines import run_engine
from simulations.hospitals import FromSources, Hospitals
from simulations.resume import Earlier
from strategies.exchange.arrays import Arrays

if TYPE_CHECKING:
    from simulations.display import Display, Options

NOISE = "seeded: repeatable, for simulations only"


def count(study: Study, run: Path, options: "Options", display: "Display", earlier: Earlier) -> Path:
    """Let every hospital release its statistics, and write down what is known of them."""
    started, clock = datetime.now(UTC), time.monotonic()
    journal = Journal(run / "journal.jsonl", durable=False)
    begin(journal, study, options.engine, noise="seeded")
    hospitals = Hospitals(study, FromSources(study), run / "sites")
    with closing(hospitals), display.phase("statistics of each hospital", 1) as phase:

        def observer(record: RoundRecord, _model: Arrays) -> None:
            phase.advance(", ".join(record.contributed))

        make = partial(_server, study, journal, observer)
        outcome = run_engine(options.engine, hospitals, make, workers=options.workers)
    spent = {site: _spent(study, run, site) for site in study.sites}
    result = statistics_result(study, Recorded.of(run), outcome, engine=options.engine, noise=NOISE, spent=spent)
    write_result(run, replace(result, **earlier.times(started, time.monotonic() - clock)))
    journal.write(Measured(metrics_sha256=sha256(run / "metrics.json")))
    write_papers(run)
    return run


def _server(study: Study, journal: Journal, observer: Observer, done: Callable[[Outcome], None]) -> ServerApp:
    return make_app(study, journal=journal, observer=observer, done=done)


def _spent(study: Study, run: Path, site: str) -> float:
    with closing(Ledger.open(run / "sites" / site / "ledger.sqlite", durable=False)) as ledger:
        return ledger.spent(site, delta=study.privacy.delta, study=study.sha256)
