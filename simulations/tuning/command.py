"""The command `archipel tune`; nothing heavy is imported until it runs."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ArchipelError
from simulations.kits.command import add_option
from simulations.numbers import positive, seeds_of

if TYPE_CHECKING:
    from simulations.tuning.tune import Tuning


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `tune` to the commands."""
    tune = commands.add_parser("tune", help="choose a study's settings on validation patients; no epsilon covers this")
    tune.add_argument("study", type=Path, metavar="STUDY", help="a study file")
    tune.add_argument(
        "--validation",
        type=_share,
        default=0.2,
        metavar="SHARE",
        help="of training patients, as judges (default 0.2)",
    )
    tune.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=V,V,...",
        help="values of a key to try, as training.local.learning_rate=1,2,4; again for more keys (default: clip norm, "
        "learning rate and rounds around the study's own)",
    )
    tune.add_argument("--search", choices=("grid", "halving"), default="grid", help="default: grid")
    tune.add_argument(
        "--seeds",
        default="3",
        metavar="N|A,B,...",
        help="validation splits, each with its own noise (default 3)",
    )
    tune.add_argument("--by", metavar="METRIC", help="what chooses (default: log loss of an outcome in words)")
    tune.add_argument("--workers", type=positive, default=1, help="processes (default 1)")
    tune.add_argument("--engine", choices=("inprocess", "ray"), default="inprocess", help="default: inprocess")
    tune.add_argument("--address", metavar="HOST:PORT", help="of your own Ray cluster (default: Ray on this machine)")
    tune.add_argument("--yes", action="store_true", help="start a search of more than ten minutes")
    tune.add_argument("--out", type=Path, default=Path("tuned.yaml"), help="the study to write (default tuned.yaml)")
    add_option(tune)
    tune.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Tune one study.

    Raises:
        ArchipelError: the study, an option or the data do not allow it.
    """
    from simulations.complete import load_completed

    if arguments.address and arguments.engine != "ray":
        raise ArchipelError("--address: expected only beside --engine ray, whose cluster it is; add that")
    study = load_completed(arguments.study)
    seeds = seeds_of(arguments.seeds, study.seed, least=1)
    from simulations.tuning.tune import Tuning, Wish

    wish = Wish(
        out=arguments.out,
        validation=arguments.validation,
        asked=tuple(arguments.set),
        search=arguments.search,
        seeds=seeds,
        by=arguments.by,
        yes=arguments.yes,
    )
    return _carry_out(Tuning(study, wish), arguments)


def _carry_out(tuning: "Tuning", arguments: argparse.Namespace) -> int:
    from configs.records.result import TunedOn
    from simulations.display import PlainDisplay, TerminalDisplay
    from simulations.tuning.cluster import Cluster
    from simulations.tuning.pool import pool_of
    from simulations.tuning.table import print_settings, verdict

    display = TerminalDisplay() if sys.stdout.isatty() else PlainDisplay()
    try:
        with pool_of(arguments.engine, arguments.workers, arguments.address) as pool:
            print(tuning.begin(pool), flush=True)
            ranked = tuning.run(pool, display)
    except KeyboardInterrupt:
        print_settings(tuning, sorted(tuning.begun, key=tuning.score))
        kept = f"{tuning.done:,} trainings are kept in {tuning.wish.trials}"
        print(f"\narchipel: interrupted; {kept}; the same command goes on", file=sys.stderr)
        return 130
    print_settings(tuning, ranked)
    if isinstance(pool, Cluster):
        nodes = ", ".join(f"{count:,}" for count in sorted(pool.trials_by_node.values()))
        print(f"trainings by node of the cluster: {nodes}")
    tuning.write(ranked[0])
    print(verdict(tuning, ranked[0]))
    print(f"{TunedOn.warning}; the figures above are of the judges who chose, hence flattered")
    print(f"{tuning.wish.out}: written; what it is worth: archipel simulate {tuning.wish.out}")
    return 0


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 0.95:
        raise argparse.ArgumentTypeError(f"expected a share above 0, at most 0.95, found {text[:40]!r}")
    return value
