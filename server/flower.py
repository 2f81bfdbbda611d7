"""The coordinator's ServerApp for a stock `flower-superlink`.

The rounds are the same, without the gateway and the seals. The study comes in the run's settings, as a bundle of
`python -m server.bundle` carries it; what a run leaves is written below the folder that `ARCHIPEL_RUNS` names (`runs`
unless it is set).
"""

import json
import os
import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from configs.files import write_atomically
from configs.journal import Journal
from configs.load import study_from
from configs.strict_yaml import dump_yaml
from server.app import conduct
from server.checkpoint import Checkpoints
from server.conductor import write_down
from server.gathering import Patience
from server.proposals import GridPost
from server.recorded import new_folder
from server.run import begin
from server.session import Deployment

RUNS = "ARCHIPEL_RUNS"
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct the run's study."""
    study = study_from(json.loads(str(context.run_config["study"])), source="run config")
    run = new_folder(Path(os.environ.get(RUNS, "runs")), study.name)
    write_atomically(run / "study.yaml", dump_yaml(study.to_dict()).encode())
    journal, clock = Journal(run / "journal.jsonl"), time.monotonic()
    begin(journal, study, "flower")
    outcome = conduct(
        grid,
        study,
        checkpoints=Checkpoints(run / "checkpoints", study.sha256),
        journal=journal,
        deployment=Deployment(GridPost(grid), Patience(study.training.round_timeout_s)),
    )
    write_down(run, study, outcome, time.monotonic() - clock, engine="flower")
