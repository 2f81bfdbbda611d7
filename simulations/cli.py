"""`archipel`, the command of the researcher.

Nothing heavy is imported until a command needs it.

>>> main(["plan", "no-such-study.yaml"])
2
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from configs.commands import fail, run
from configs.errors import ArchipelError
from simulations.drafting import command as new
from simulations.drafting import data
from simulations.kits import command as kit
from simulations.kits.failure import explained as kit_failure
from simulations.numbers import integer, positive, seed, seeds_of
from simulations.tuning import command as tune

if TYPE_CHECKING:
    from configs.schema import Study
    from simulations.display import PlainDisplay, TerminalDisplay
    from simulations.worth.question import Question

FILES = ("study", "site", "coordinator")
ASSUMED = ("signal", "outcomes", "differences")  # options of `plan --worth`, None where not given
WORTH = ("within", "auroc", *ASSUMED, "repetitions", "seconds")  # and --outcomes-from


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Exit codes: 0 done, 1 the study ended INCOMPLETE or an audit FAILED, 2 an error that is explained, 130 Ctrl-C.
    """
    try:
        return run(_parser, argv, guard=False, beside="; what was finished before is whole", interrupted=_interrupted)
    except Exception as error:
        failure = kit_failure(error)
        if failure is None:
            raise
        return fail("archipel", str(failure))


def _interrupted(stop: KeyboardInterrupt) -> None:
    """Say how to resume a run, with its folder if it has begun."""
    hint = f"; go on with: archipel simulate --resume {shlex.quote(str(stop.args[0]))}" if stop.args else ""
    print(f"\narchipel: interrupted{hint}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="archipel",
        description="Simulate a federated study on this machine, with the very code that hospitals run.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _simulate_parser(commands)
    _plan_parser(commands)
    complete = commands.add_parser("complete", help="write out the settings that a study leaves open (training: auto)")
    complete.add_argument("study", type=Path, metavar="STUDY", help="a study file")
    complete.add_argument("--out", type=Path, metavar="FILE", help="the finished file (default: STUDY itself)")
    kit.add_option(complete)
    complete.set_defaults(command=_complete)
    tune.add_parser(commands)
    kit.add_parser(commands)
    new.add_parser(commands)
    data.add_parser(commands)
    compare = commands.add_parser("compare", help="runs side by side")
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs")
    compare.set_defaults(command=_compare)
    report = commands.add_parser("report", help="write a run's report.html, model_card.md and tripod.md again")
    report.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    about = "a run of statistics on the same hospitals: Table 1 is of its released counts (default: none)"
    report.add_argument("--statistics", type=Path, metavar="RUN", help=about)
    report.add_argument("--figures", type=Path, metavar="DIR", help="also write each chart there (default: no)")
    report.set_defaults(command=_report)
    export = commands.add_parser("export", help="write a run's final model with its preprocessing, for other software")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    export.add_argument("--format", choices=("onnx", "safetensors"), required=True, help="onnx needs archipel[onnx]")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the model and model.json")
    export.add_argument("--anyway", action="store_true", help="though the run is INCOMPLETE; the file says so")
    export.set_defaults(command=_export)
    _audit_parser(commands)
    _reference_parsers(commands)
    return parser


def _reference_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    schema = commands.add_parser("schema", help="print the JSON Schema of a file, for editors")
    schema.add_argument("file", choices=FILES, nargs="?", default="study", help="default: study")
    schema.set_defaults(command=_schema)
    explain = commands.add_parser("explain", help="say what a key of a study, site or coordinator file is")
    explain.add_argument("key", nargs="?", metavar="KEY", help="its path; left out: all paths")
    explain.add_argument("--markdown", action="store_true", help="the reference page of all keys")
    explain.set_defaults(command=_explain)


def _audit_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    audit = commands.add_parser("audit", help="check that what trains protects patients as its ledger claims")
    audit.add_argument("study", type=Path, metavar="STUDY", help="a study file, or the folder of a simulated run")
    audit.add_argument("--seed", type=seed, help="repeatable chance (default: the operating system's)")
    audit.add_argument("--out", type=Path, help="where the audit is written (default: runs, or the run's folder)")
    kit.add_option(audit)
    audit.set_defaults(command=_audit)


def _simulate_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    simulate = commands.add_parser("simulate", help="run a whole study, with baselines, and write a report")
    what = simulate.add_mutually_exclusive_group(required=True)
    what.add_argument("study", type=Path, nargs="?", metavar="STUDY", help="a study file")
    what.add_argument("--resume", type=Path, metavar="RUN", help="go on with an interrupted run (default: a new one)")
    simulate.add_argument("--engine", choices=("inprocess", "ray"), default="inprocess", help="default: inprocess")
    simulate.add_argument("--workers", type=positive, default=1, help="processes of the inprocess engine (default 1)")
    chance = simulate.add_mutually_exclusive_group()
    chance.add_argument("--seed", type=seed, help="of chance (default: the study's own)")
    chance.add_argument(
        "--seeds",
        metavar="N|A,B,...",
        help="one run for each of N seeds from the study's own on, or of these seeds (default: one run)",
    )
    simulate.add_argument("--out", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")
    simulate.add_argument(
        "--baselines",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also train alone, pooled and without privacy, for comparison (default: yes)",
    )
    simulate.add_argument(
        "--leave-one-out",
        action="store_true",
        help="also train all hospitals but one, for each, and judge it on the patients of the one left out",
    )
    kit.add_option(simulate)
    simulate.set_defaults(command=_simulate)


def _plan_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    plan = commands.add_parser("plan", help="noise, steps and epsilon at each hospital, without looking at patients")
    plan.add_argument("study", type=Path, metavar="STUDY", help="a study file")
    plan.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    worth = plan.add_argument_group("is it worth it", "simulated on made-up patients: a planning aid, no promise")
    worth.add_argument("--worth", action="store_true", help="also what privacy costs, by epsilon and hospitals")
    wish = worth.add_mutually_exclusive_group()
    wish.add_argument("--within", type=float, metavar="LOSS", help="AUROC to give up (default 0.02)")
    wish.add_argument("--auroc", type=float, metavar="AUROC", help="an AUROC to reach instead (default: none)")
    worth.add_argument("--signal", type=float, metavar="AUROC", help="what a perfect model would reach (default 0.85)")
    share = worth.add_mutually_exclusive_group()
    share.add_argument(
        "--outcomes",
        type=float,
        metavar="SHARE",
        help="share of patients with the outcome (default: the study's outcome_share, else 0.4)",
    )
    share.add_argument(
        "--outcomes-from",
        type=Path,
        metavar="RUN",
        help="the same, as a run of a study of statistics released it (default: none)",
    )
    worth.add_argument(
        "--differences", type=float, metavar="SD", help="between hospitals, in patients' SD (default 0.4)"
    )
    worth.add_argument("--repetitions", type=positive, help="made-up worlds (default 8)")
    worth.add_argument(
        "--seconds",
        type=_seconds,
        help="of computing on one core, at most (default: twice what the first trainings lead to expect, told then)",
    )
    kit.add_option(plan)
    plan.set_defaults(command=_plan)


def _seconds(text: str) -> int:
    return integer(text, 1, 1_000_000)


def _complete(arguments: argparse.Namespace) -> int:
    from simulations.complete import write_completed

    print(write_completed(arguments.study, arguments.out or arguments.study))
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    from simulations.complete import load_completed

    study = None if arguments.resume else load_completed(arguments.study)
    if arguments.resume and (arguments.seed is not None or arguments.seeds is not None):
        raise ArchipelError("--seed, --seeds: expected none with --resume; a resumed run keeps its seed")
    seeds = seeds_of(arguments.seeds, study.seed) if study and arguments.seeds is not None else ()
    display = _display()
    from simulations.cautions import warnings_of
    from simulations.display import Options
    from simulations.leave_one_out import require_several
    from simulations.run import resume, simulate
    from simulations.tables import print_run

    options = Options(arguments.engine, arguments.baselines, arguments.workers, arguments.leave_one_out)
    if study is not None and arguments.leave_one_out:
        require_several(study)
    if study is None:
        run = arguments.resume.resolve()
        if not resume(run, options, display):
            print(f"{run}: complete already, nothing was done again")
        return print_run(run)
    for warning in warnings_of(study):
        print(warning, file=sys.stderr)
    seeded = [replace(study, seed=seed) for seed in seeds or [study.seed if arguments.seed is None else arguments.seed]]
    runs = []
    for number, each in enumerate(seeded, 1):
        if len(seeded) > 1:
            print(f"seed {each.seed}, run {number} of {len(seeded)}", flush=True)
        runs.append(simulate(each, arguments.out, options, display))
    if len(runs) == 1:
        return print_run(runs[0])
    from simulations.paired import print_seeds

    return print_seeds(runs)


def _plan(arguments: argparse.Namespace) -> int:
    if not arguments.worth and (alone := _given(arguments)):
        raise ArchipelError(f"{', '.join(alone)}: expected only beside --worth, which answers it; add --worth")
    from simulations.complete import load_completed
    from strategies.releases.registry import MODEL_UPDATE

    study = load_completed(arguments.study)
    if not MODEL_UPDATE.is_asked(study):
        return _plan_statistics(arguments, study)
    from simulations.planning import plan_study
    from simulations.tables import print_json, print_plan

    question = _question(arguments, study) if arguments.worth else None
    plan = plan_study(study)
    if not arguments.json:
        print_plan(plan)
    worth = None
    if question is not None:
        from simulations.worth.weigh import weigh

        worth = weigh(study, question, _quiet_display() if arguments.json else _display())
    if arguments.json:
        print_json(plan, worth)
    elif worth is not None:
        from simulations.worth.tables import print_worth

        print_worth(worth)
    return 0


def _given(arguments: argparse.Namespace) -> list[str]:
    """Return the options of `--worth` that were given."""
    names = [name for name in (*WORTH, "outcomes_from") if getattr(arguments, name) is not None]
    return [f"--{name.replace('_', '-')}" for name in names]


def _plan_statistics(arguments: argparse.Namespace, study: "Study") -> int:
    if arguments.worth:
        raise ArchipelError(
            f"{study.name}: --worth: expected a study that trains a model, found one of statistics; leave it out"
        )
    from simulations.counting_plan import plan_statistics
    from simulations.counting_tables import print_plan

    print_plan(plan_statistics(study), as_json=arguments.json)
    return 0


def _question(arguments: argparse.Namespace, study: "Study") -> "Question":
    """Return what `--worth` asks, judged before anything is printed."""
    from simulations.worth.question import Question
    from simulations.worth.synthetic import Assumed
    from simulations.worth.weigh import require_weighable
    from strategies.tasks.registry import objective_of

    require_weighable(study)
    run = arguments.outcomes_from
    if (arguments.outcomes is not None or run is not None) and objective_of(study).outcome is None:
        option = "--outcomes" if run is None else "--outcomes-from"
        raise ArchipelError(
            f"{option}: expected only for a binary task; the classes of a {study.task.type} one are made up equally "
            "frequent"
        )
    options = {name: value for name in WORTH if (value := getattr(arguments, name)) is not None}
    assumed = {name: options.pop(name) for name in ASSUMED if name in options}
    if run is not None:
        from simulations.worth.outcomes import released_share

        assumed["outcomes"], options["outcomes_of"] = released_share(run, study), f"released to {run}"
    elif study.task.outcome_share is not None and "outcomes" not in assumed:
        assumed["outcomes"], options["outcomes_of"] = study.task.outcome_share, "announced in the study"
    return Question(assumed=Assumed(**assumed), **options)


def _compare(arguments: argparse.Namespace) -> int:
    from simulations.paired import print_paired
    from simulations.tables import print_comparison

    print_comparison(arguments.runs)
    print_paired(arguments.runs)
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    import json

    from configs.reference import json_schema

    print(json.dumps(json_schema(arguments.file), indent=1, ensure_ascii=False))
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from configs import reference

    page = reference.page() if arguments.markdown else ""
    print(page or (reference.explain(arguments.key) if arguments.key else reference.listed()), end="" if page else "\n")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from server.figures import write_figures
    from server.papers import write_papers

    print(write_papers(arguments.run, arguments.statistics))
    if arguments.figures is not None:
        paths = write_figures(arguments.run, arguments.figures, arguments.statistics)
        print(f"{len(paths)} files in {arguments.figures}: {', '.join(path.name for path in paths)}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from server.export.command import export

    path = export(arguments.run, arguments.format, arguments.out, anyway=arguments.anyway)
    print(f"{path}; what it reads and what it says stands in {path.with_name('model.json')}")
    return 0


def _audit(arguments: argparse.Namespace) -> int:
    run = arguments.study if arguments.study.is_dir() else None
    if run is not None and not (run / "study.yaml").is_file():
        raise ArchipelError(f"{run}: expected a study file or a run's folder with study.yaml, found none")
    from simulations.complete import load_completed

    study = load_completed(arguments.study if run is None else run / "study.yaml")
    from simulations.audit.show import audit_and_show

    return audit_and_show(study, run, arguments.out, arguments.seed)


def _display() -> "TerminalDisplay | PlainDisplay":
    from simulations.display import PlainDisplay, TerminalDisplay

    return TerminalDisplay() if sys.stdout.isatty() else PlainDisplay()


def _quiet_display() -> "PlainDisplay":
    """Return a display of progress beside the output, where that is JSON."""
    from simulations.display import PlainDisplay

    return PlainDisplay(sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
