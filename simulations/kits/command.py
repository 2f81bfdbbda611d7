"""The commands `archipel kit new|test|build|sign`."""

import argparse
import sys
from pathlib import Path

FOLDER_HELP = "the kit's project (default: here)"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its actions."""
    kit = commands.add_parser("kit", help="a study kit: a model or a reader of your own, as one wheel")
    actions = kit.add_subparsers(title="actions", required=True, metavar="ACTION", help="what to do")
    new = actions.add_parser("new", help="begin one: a folder with a module, a test and a study on made-up patients")
    new.add_argument("name", metavar="NAME", help="of a-z, 0-9 and _")
    new.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="where its folder goes (default: here)")
    new.set_defaults(command=_new)
    test = actions.add_parser("test", help="does it keep patients apart? the probe, on made-up ones; times and memory")
    test.add_argument("folder", type=Path, nargs="?", default=Path("."), metavar="FOLDER", help=FOLDER_HELP)
    test.set_defaults(command=_test)
    build = actions.add_parser("build", help="its wheel, the same bits for the same files; its digest for the study")
    build.add_argument("folder", type=Path, nargs="?", default=Path("."), metavar="FOLDER", help=FOLDER_HELP)
    build.set_defaults(command=_build)
    sign = actions.add_parser("sign", help="sign a wheel that you have read, for hospitals that ask for it")
    sign.add_argument("wheel", type=Path, metavar="WHEEL", help="the wheel")
    sign.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="your key, its owner's alone; made where there is none"
    )
    sign.set_defaults(command=_sign)


class _Bring(argparse.Action):
    """Let studies find their kit in a folder or wheel from here on."""

    def __call__(self, _parser: object, _namespace: object, values: object, _option: object = None) -> None:
        from simulations.kits.here import bring

        bring(Path(str(values)))


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--kit` to a command that runs a study."""
    about = "the study's kit: its project or wheel (default: as pip installed it)"
    parser.add_argument("--kit", action=_Bring, metavar="FOLDER", help=about)


def _new(arguments: argparse.Namespace) -> int:
    from simulations.kits.new import write_new

    files = write_new(arguments.name, arguments.out)
    home = arguments.out / arguments.name
    for path in files:
        print(path)
    print(f"next: archipel kit test {home}")
    print(f"      archipel simulate {home / 'study.yaml'} --kit {home}")
    return 0


def _test(arguments: argparse.Namespace) -> int:
    from simulations.kits.tested import test_project

    return test_project(arguments.folder)


def _build(arguments: argparse.Namespace) -> int:
    from simulations.kits.project import build, lines_for_a_study, read_project
    from simulations.kits.tested import warnings_of

    warnings = list(warnings_of(read_project(arguments.folder)))  # what cannot be opened leaves no wheel
    path, kit = build(arguments.folder)
    print(f"{path}: {len(kit.files)} files, {kit.lines} lines, {len(kit.wheel)} bytes")
    print(f"sha256 {kit.sha256}")
    print(lines_for_a_study(kit))
    for warning in warnings:
        print(warning, file=sys.stderr)
    for name in kit.about.models:
        print(f"model: {{name: {kit.about.name}/{name}}}  # then: archipel complete STUDY --kit {arguments.folder}")
    print("send the wheel to each hospital by mail or disk; there: archipel-site kit add WHEEL")
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    from simulations.kits.signing import sign_wheel

    path, public = sign_wheel(arguments.wheel, arguments.key)
    print(f"{path}: signed; send it beside the wheel")
    print(f"your public key, for kit_signers in site.yaml: {public}")
    return 0
