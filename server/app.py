"""The coordinator's Flower ServerApp: one study, carried out by its procedure.

The procedures stand in server/procedures/. The study comes in, models or figures go out; what a hospital replies is
checked against configs/wire.py before anything uses it. `conduct` takes any Flower `Grid`, so a simulation and a
deployment run these very lines.
"""

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from configs.journal import Journal
from configs.schema import Study
from server.checkpoint import Checkpoints
from server.outcome import Observer, Outcome
from server.procedures.registry import procedure_of
from server.session import Deployment, Session
from strategies.exchange.arrays import Arrays


def make_app(
    study: Study,
    *,
    checkpoints: Checkpoints | None = None,
    journal: Journal | None = None,
    observer: Observer = lambda *_: None,
    initial: Arrays | None = None,
    done: Callable[[Outcome], None] = lambda *_: None,
) -> ServerApp:
    """Make a ServerApp that conducts one study and hands the outcome to `done`."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _context: Context) -> None:
        done(conduct(grid, study, checkpoints=checkpoints, journal=journal, observer=observer, initial=initial))

    return app


def conduct(
    grid: Grid,
    study: Study,
    *,
    checkpoints: Checkpoints | None = None,
    journal: Journal | None = None,
    observer: Observer = lambda *_: None,
    initial: Arrays | None = None,
    deployment: Deployment | None = None,
) -> Outcome:
    """Run a study to its end, from its newest checkpoint if there is one.

    Args:
        initial: another starting point than the study's own, for comparisons that must begin where another began.
        deployment: between machines; without it every hospital is there at once and answers at once.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        PostponedError: hospitals that were ready are not there.
    """
    session = Session(
        grid,
        study,
        checkpoints=checkpoints,
        journal=journal,
        observer=observer,
        initial=initial,
        deployment=deployment,
    )
    return procedure_of(study).run(session)
