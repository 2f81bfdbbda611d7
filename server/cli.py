"""`archipel-coordinator`, the command of the consortium.

Nothing heavy is imported until a command needs it.

>>> main(["-C", "/nonexistent", "status"])
2
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.commands import run
from configs.coordinator import COORDINATOR_FILE, CoordinatorConfig, coordinator_yaml
from configs.errors import ConfigError, RunError
from configs.parts import programs
from configs.records.coordinator_journal import Initialised, Renewed, Resume, Revoked, Stop, Submitted
from configs.shown import DIGITS, escaped, guarded
from configs.views import to_json
from server.folder import CoordinatorFolder

if TYPE_CHECKING:
    from configs.schema import Study
    from server.membership import Membership

WATCH_S = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 a run ended INCOMPLETE, 2 an error that is explained, 130 Ctrl-C."""
    os.umask(0o077)  # members, journals and models are their owner's, wherever the folder lies
    return run(_parser, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="archipel-coordinator",
        description="The middle of a federation: admits hospitals, conducts studies, never sees a patient.",
    )
    parser.add_argument(
        "-C",
        "--folder",
        type=Path,
        default=Path(os.environ.get("ARCHIPEL_COORDINATOR", ".")),
        help="the coordinator's folder (default: ARCHIPEL_COORDINATOR, or here)",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    init = commands.add_parser("init", help="make the authority, the server's certificate, the database")
    init.add_argument("--name", help="the consortium's name (default: the one in coordinator.yaml)")
    init.add_argument(
        "--names", nargs="+", metavar="HOST", help="hosts that hospitals use (default: those in the file)"
    )
    init.add_argument("--listen", default="0.0.0.0:8443", help="where the gateway listens (default: 0.0.0.0:8443)")
    init.add_argument("--renew", action="store_true", help="only a new server certificate, of the same authority")
    init.set_defaults(command=_init)
    admit = commands.add_parser("admit", help="sign a hospital's request and write its welcome")
    admit.add_argument("request", type=Path, metavar="REQUEST", help="the file that the hospital sent")
    admit.add_argument(
        "--signatures-alone",
        action="store_true",
        help="without a client certificate, for a hospital whose proxy opens TLS; its message signatures remain",
    )
    admit.add_argument(
        "--replace",
        action="store_true",
        help="the name is taken by other keys, or was revoked, and the hospital said on the telephone that this is it",
    )
    admit.set_defaults(command=_admit)
    revoke = commands.add_parser("revoke", help="shut a hospital out, open connections too")
    revoke.add_argument("site", metavar="SITE", help="the hospital's name")
    revoke.set_defaults(command=_revoke)
    sites = commands.add_parser("sites", help="who is admitted, connected, expiring")
    sites.add_argument("--json", action="store_true", help="as JSON, for monitoring")
    sites.set_defaults(command=_sites)
    start = commands.add_parser("start", help="serve until stopped")
    start.add_argument("--nginx", action="store_true", help="nginx is the door: answer its questions only")
    start.add_argument(
        "--hold", action="store_true", help="runs that have not ended wait for a person (resume), as after a restore"
    )
    start.add_argument("--print-nginx", action="store_true", help="print the gateway as an nginx configuration")
    start.add_argument("--print-systemd", action="store_true", help="print a hardened systemd unit for this folder")
    start.set_defaults(command=_start)
    submit = commands.add_parser("submit", help="put a study into the queue")
    submit.add_argument("study", type=Path, metavar="STUDY", help="a study file")
    submit.add_argument("--again", action="store_true", help="although the very study is queued or under way already")
    submit.set_defaults(command=_submit)
    status = commands.add_parser(
        "status", help="runs, and what each hospital does; of one run, what each did and why not"
    )
    status.add_argument("run", metavar="RUN", nargs="?", help="one run's name, or `latest`: also after its end")
    status.add_argument("--json", action="store_true", help="as JSON, for monitoring")
    status.set_defaults(command=_status)
    for name, command, text in (
        ("watch", _watch, "rounds as they happen, until the run ends"),
        ("stop", _stop, "end a run after what is under way; it can be resumed"),
        ("resume", _resume, "go on with a run from its newest checkpoint"),
        ("report", _report, "write a run's report.html, model_card.md and tripod.md again"),
    ):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("run", metavar="RUN", help="a run's name, or `latest`")
        sub.set_defaults(command=command)
    verify = commands.add_parser("journal", help="check a journal's chain and signatures")
    verify.add_argument("action", choices=("verify",), help="what to do with it")
    verify.add_argument("run", metavar="RUN", nargs="?", help="a run's journal instead of the coordinator's own")
    verify.set_defaults(command=_journal)
    return parser


def _passphrase() -> bytes | None:
    from server.pki import PASSPHRASE

    return os.environ[PASSPHRASE].encode() if os.environ.get(PASSPHRASE) else None


def _new_passphrase() -> bytes | None:
    """Return the passphrase of a key that is about to be made; a person at a terminal is asked for one.

    Raises:
        RunError: it was typed in two ways.
    """
    import getpass

    from server.pki import PASSPHRASE

    if (passphrase := _passphrase()) is not None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return passphrase
    print(
        "The authority's key signs the certificate of every hospital. A passphrase encrypts it; keep it well: without\n"
        "it no hospital can be admitted and no certificate renewed, and it cannot be had again. Empty: no encryption.",
        file=sys.stderr,
    )
    first = getpass.getpass("passphrase: ")
    if first and getpass.getpass("again: ") != first:
        raise RunError(f"the passphrase was typed in two ways; nothing was made: type init again, or set {PASSPHRASE}")
    return first.encode() or None


def _init(arguments: argparse.Namespace) -> int:
    from configs.files import write_atomically
    from server.membership import Membership
    from server.pki import PASSPHRASE, Pki

    path: Path = arguments.folder
    if not (path / COORDINATOR_FILE).exists():
        if not arguments.name or not arguments.names:
            raise ConfigError(
                str(path / COORDINATOR_FILE), ["expected the file, found none; give --name NAME --names HOST..."]
            )
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = coordinator_yaml(arguments.name, arguments.names, arguments.listen)
        write_atomically(path / COORDINATOR_FILE, text.encode())
    folder = CoordinatorFolder.open(path)
    config = folder.config
    if arguments.renew:
        Pki(config.pki).renew_server(config.names, _passphrase())
        folder.note(Renewed(names=tuple(config.names)))
        print(f"the server has a new certificate; restart: {folder.typed('start')}")
        return 0
    Pki(config.pki).require_none()
    passphrase = _new_passphrase()
    Pki(config.pki).create(config.name, config.names, passphrase)
    Membership.open(config.database).close()
    folder.note(Initialised(name=config.name, names=tuple(config.names)))
    print(f"{config.folder}: made the authority of {config.name!r} and the certificate of {', '.join(config.names)}")
    print(f"every setting stands in {path / COORDINATOR_FILE}, with what it means")
    if passphrase is None:
        print(
            f"the authority's key is NOT encrypted: who reads {config.pki} can admit hospitals. To encrypt it, set "
            f"{PASSPHRASE} and begin anew in another folder, before any hospital is admitted"
        )
    print(f"next: {folder.typed('start')}; and for each hospital: {folder.typed('admit REQUEST')}")
    return 0


def _admit(arguments: argparse.Namespace) -> int:
    from server.admit import admit

    admission = admit(
        CoordinatorFolder.open(arguments.folder),
        arguments.request,
        replace=arguments.replace,
        signatures_alone=arguments.signatures_alone,
        passphrase=_passphrase(),
    )
    site = admission.request.site
    if admission.replaced:
        print(f"REPLACED  {admission.replaced}")
    print(f"{site}: admitted; its request's fingerprint is {admission.request.fingerprint}: compare it by telephone")
    if arguments.signatures_alone:
        print("WITHOUT a client certificate: its message signatures alone say who it is; this is in the journal")
    print(f"send it {admission.path} (no secret; fingerprint {admission.welcome.fingerprint})")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    folder = CoordinatorFolder.open(arguments.folder)
    folder.members.revoke(arguments.site)
    folder.note(Revoked(site=arguments.site))
    print(f"{arguments.site}: revoked; its next request is refused, on open connections too")
    return 0


def _sites(arguments: argparse.Namespace) -> int:
    from server.views import sites, text

    folder = CoordinatorFolder.open(arguments.folder)
    views = list(sites.sites(folder.members))
    if arguments.json:
        print(to_json(views))
        return 0
    print(text.HEADER if views else f"no hospital is admitted yet: {folder.typed('admit REQUEST')}")
    for view in views:
        print(text.site(view))
    return 0


def _start(arguments: argparse.Namespace) -> int:
    folder = CoordinatorFolder.open(arguments.folder)
    config = folder.config
    if arguments.print_nginx:
        from server.nginx import nginx_config

        optional = folder.members.any_without_certificate()
        print(nginx_config(config, certificate_required=not optional), end="")
        return 0
    if arguments.print_systemd:
        from configs.service import unit

        print(unit("the coordinator", "archipel-coordinator", programs(), config.folder, worker=False), end="")
        return 0
    from server.coordinator import start
    from server.logs import write_lines

    write_lines()
    start(config, nginx=arguments.nginx, hold=arguments.hold)
    return 0


def _submit(arguments: argparse.Namespace) -> int:
    from configs.files import write_atomically
    from configs.load import load_study
    from configs.strict_yaml import dump_yaml
    from server.recorded import new_folder
    from server.starts import require_start, write_start
    from strategies.privacy.modes.registry import mode_of

    folder, study = CoordinatorFolder.open(arguments.folder), load_study(arguments.study)
    config, members = folder.config, folder.members
    if study.evaluation.test_only and study.evaluation.release is None:
        raise ConfigError(
            str(arguments.study),
            [
                "evaluation.release: expected it beside evaluation.test_only, found none: between machines a hospital "
                "that only tests is asked for that release alone; add it, or take evaluation.test_only out"
            ],
        )
    if not arguments.again and (same := _same(config, members, study)):
        raise RunError(
            f"{arguments.study}: expected a study that is not queued or under way, found it as {same}; "
            "watch that one, or submit it --again"
        )
    require_start(study, arguments.study.resolve().parent)
    run = new_folder(config.runs, study.name)
    write_start(study, run)
    write_atomically(run / "study.yaml", dump_yaml(study.to_submit()).encode())
    members.submit(run.name)
    folder.note(Submitted(run=run.name, study=study.sha256))
    print(f"{run.name}: queued; digest {study.sha256}")
    if missing := [site for site in study.sites if site not in members.members()]:
        print(f"not admitted yet: {', '.join(missing)}")
    digest = study.sha256[:DIGITS]
    print(
        f"soon it waits at each hospital of it that is connected. At each of them, somebody reads it (archipel-site "
        f"review) and decides (archipel-site approve {digest})"
    )
    print(f"next, here: {folder.typed(f'watch {run.name}')}")
    if folder.absence:
        print(folder.absence)
    if warning := mode_of(study).fragility(study):
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _same(config: CoordinatorConfig, members: "Membership", study: "Study") -> str:
    """Return the run of this very study that has not ended; empty where there is none."""
    from configs.load import load_study

    under_way = [run.name for run in members.runs() if run.state not in ("COMPLETE", "INCOMPLETE")]
    paths = {name: config.runs / name / "study.yaml" for name in under_way}
    same = (name for name, path in paths.items() if path.exists() and load_study(path).sha256 == study.sha256)
    return next(same, "")


def _status(arguments: argparse.Namespace) -> int:
    from server.views import runs, text

    folder = CoordinatorFolder.open(arguments.folder)
    if not arguments.json and not folder.members.runs():
        print(f"no run yet: {folder.typed('submit STUDY')}")
    views = list(runs.runs(folder, folder.run(arguments.run) if arguments.run else ""))
    if arguments.json:
        print(to_json(views))
        return 0
    for line in text.runs(views):
        print(guarded(line))
    if folder.absence:
        print(folder.absence)
    return 0


def _watch(arguments: argparse.Namespace) -> int:
    from configs.load import load_study
    from server.views import runs, text
    from server.views.progress import Progress
    from strategies.privacy.modes.base import covered
    from strategies.privacy.modes.registry import mode_of

    folder = CoordinatorFolder.open(arguments.folder)
    members, name = folder.members, folder.run(arguments.run)
    path, waiting, absent = folder.config.runs / name, "", ""
    study = load_study(path / "study.yaml")
    progress = Progress(study, path / "journal.jsonl")
    if guarantee := mode_of(study).guarantee(study):
        about = f"{guarantee.words}, {study.privacy.epsilon:g} for the whole {covered(study)}"
        print(f"epsilon: {about}", flush=True)
    while True:
        run = members.run(name)
        assert run is not None
        for line in progress.lines():
            print(guarded(line), flush=True)
        if run.state in runs.ENDED:
            print(f"{run.state}{f': {escaped(run.why)}' if run.why else ''}")
            if report := folder.report(name):
                print(f"report: {report}")
            return 0 if run.state == "COMPLETE" else 1
        if (absence := folder.absence) != absent:
            absent = absence
            print(absent or "the coordinator runs again", flush=True)
        if run.state in ("QUEUED", "WAITING") and not progress.gathered:
            sites = "; ".join(f"{v.site}: {text.presence(v)}" for v in runs.presence(folder, members, run))
            if (now := f"{run.state.lower()}: {sites}") != waiting:
                waiting = now
                print(guarded(now), flush=True)
        time.sleep(WATCH_S)


def _stop(arguments: argparse.Namespace) -> int:
    folder = CoordinatorFolder.open(arguments.folder)
    name = folder.run(arguments.run)
    if not folder.members.ask_to_stop(name):
        raise RunError(f"{name}: expected a run that is queued or under way, it has ended")
    folder.note(Stop(run=name))
    print(f"{name}: asked to stop; go on later with: {folder.typed(f'resume {name}')}")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    folder = CoordinatorFolder.open(arguments.folder)
    members, name = folder.members, folder.run(arguments.run)
    run, absent = members.run(name), folder.absence
    if run is None or run.state != "INCOMPLETE":
        state = run.state if run else "none of that name"
        advice = f"; {absent}: it goes on by itself" if absent and run and run.state != "COMPLETE" else ""
        raise RunError(f"{name}: expected a run that ended INCOMPLETE, found {state}{advice}")
    members.submit(name)
    folder.note(Resume(run=name))
    print(f"{name}: queued again, from its newest checkpoint")
    if absent:
        print(absent)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from server.papers import write_papers

    folder = CoordinatorFolder.open(arguments.folder)
    print(write_papers(folder.config.runs / folder.run(arguments.run)))
    return 0


def _journal(arguments: argparse.Namespace) -> int:
    from configs.journal import read
    from server.pki import Pki
    from strategies.exchange.keys import verify

    folder = CoordinatorFolder.open(arguments.folder)
    config = folder.config
    path = config.runs / folder.run(arguments.run) / "journal.jsonl" if arguments.run else config.journal
    public = Pki(config.pki).load_signing_key().public
    count = sum(1 for _ in read(path, check=lambda digest, signature: verify(public, digest, signature)))
    print(f"{path}: {count} records, none changed, cut out, moved or forged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
