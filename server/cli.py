"""`archipel-coordinator`: the consortium's command. Nothing heavy is imported until a command needs it.

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

from configs.commands import INTERRUPTED, carry_out, prepare
from configs.coordinator import COORDINATOR_FILE, CoordinatorConfig, coordinator_yaml, load_coordinator
from configs.errors import ConfigError, RunError
from configs.folder import typed
from configs.parts import programs
from configs.records.coordinator_journal import Admitted, Initialised, Renewed, Resume, Revoked, Stop, Submitted
from configs.records.run_journal import Begin, Gathered, Joined, Postponed, Received, Refused, Resumed, Round
from configs.schema import PER_PATIENT
from configs.shown import DIGITS, escaped, guarded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from configs.records.kinds import Kind
    from configs.schema import Study
    from server.membership import Membership, RunState

WATCH_S = 0.5
EXPIRING_DAYS = 30


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 a run ended INCOMPLETE, 2 an error that is explained, 130 Ctrl-C."""
    prepare(alone=argv is None)
    os.umask(0o077)  # members, journals and models are their owner's, wherever the folder lies
    arguments = _parser().parse_args(argv)
    try:
        return carry_out("archipel-coordinator", lambda: int(arguments.command(arguments)))
    except KeyboardInterrupt:
        return INTERRUPTED


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
    init.add_argument("--name", help="the consortium's name (written to coordinator.yaml if there is none)")
    init.add_argument("--names", nargs="+", metavar="HOST", help="host names and addresses that hospitals use")
    init.add_argument("--listen", default="0.0.0.0:8443", help="where the gateway listens")
    init.add_argument("--renew", action="store_true", help="only a new server certificate, of the same authority")
    init.set_defaults(command=_init)
    admit = commands.add_parser("admit", help="sign a hospital's request and write its welcome")
    admit.add_argument("request", type=Path, metavar="REQUEST")
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
    revoke.add_argument("site", metavar="SITE")
    revoke.set_defaults(command=_revoke)
    commands.add_parser("sites", help="who is admitted, connected, expiring").set_defaults(command=_sites)
    start = commands.add_parser("start", help="serve until stopped")
    start.add_argument("--nginx", action="store_true", help="nginx is the door: answer its questions only")
    start.add_argument(
        "--hold", action="store_true", help="runs that have not ended wait for a person (resume), as after a restore"
    )
    start.add_argument("--print-nginx", action="store_true", help="print the gateway as an nginx configuration")
    start.add_argument("--print-systemd", action="store_true", help="print a hardened systemd unit for this folder")
    start.set_defaults(command=_start)
    submit = commands.add_parser("submit", help="put a study into the queue")
    submit.add_argument("study", type=Path, metavar="STUDY")
    submit.add_argument("--again", action="store_true", help="although the very study is queued or under way already")
    submit.set_defaults(command=_submit)
    status = commands.add_parser(
        "status", help="runs, and what each hospital does; of one run, what each did and why not"
    )
    status.add_argument("run", metavar="RUN", nargs="?", help="one run's name, or `latest`: also after its end")
    status.set_defaults(command=_status)
    for name, command, text in (
        ("watch", _watch, "rounds as they happen, until the run ends"),
        ("stop", _stop, "end a run after what is under way; it can be resumed"),
        ("resume", _resume, "go on with a run from its newest checkpoint"),
        ("report", _report, "write a run's report.html and model_card.md again"),
    ):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("run", metavar="RUN", help="a run's name, or `latest`")
        sub.set_defaults(command=command)
    verify = commands.add_parser("journal", help="check a journal's chain and signatures")
    verify.add_argument("action", choices=("verify",))
    verify.add_argument("run", metavar="RUN", nargs="?", help="a run's journal instead of the coordinator's own")
    verify.set_defaults(command=_journal)
    return parser


def _passphrase() -> bytes | None:
    from server.pki import PASSPHRASE

    return os.environ[PASSPHRASE].encode() if os.environ.get(PASSPHRASE) else None


def _new_passphrase() -> bytes | None:
    """The passphrase of a key that is about to be made; somebody at a terminal is asked for one.

    Raises:
        RunError: it was typed in two ways.
    """
    import getpass

    from server.pki import PASSPHRASE

    if (given := _passphrase()) is not None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return given
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
    from server.files import write_atomically
    from server.membership import Membership
    from server.pki import PASSPHRASE, Pki

    folder: Path = arguments.folder
    if not (folder / COORDINATOR_FILE).exists():
        if not arguments.name or not arguments.names:
            raise ConfigError(
                str(folder / COORDINATOR_FILE), ["expected the file, found none; give --name NAME --names HOST..."]
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = coordinator_yaml(arguments.name, arguments.names, arguments.listen)
        write_atomically(folder / COORDINATOR_FILE, text.encode())
    config = load_coordinator(folder)
    if arguments.renew:
        Pki(config.pki).renew_server(config.names, _passphrase())
        _note(config, Renewed(names=tuple(config.names)))
        print(f"the server has a new certificate; restart: {_typed(arguments, 'start')}")
        return 0
    Pki(config.pki).require_none()
    passphrase = _new_passphrase()
    Pki(config.pki).create(config.name, config.names, passphrase)
    Membership.open(config.database).close()
    _note(config, Initialised(name=config.name, names=tuple(config.names)))
    print(f"{config.folder}: made the authority of {config.name!r} and the certificate of {', '.join(config.names)}")
    print(f"every setting stands in {folder / COORDINATOR_FILE}, with what it means")
    if passphrase is None:
        print(
            f"the authority's key is NOT encrypted: who reads {config.pki} can admit hospitals. To encrypt it, set "
            f"{PASSPHRASE} and begin anew in another folder, before any hospital is admitted"
        )
    print(f"next: {_typed(arguments, 'start')}; and for each hospital: {_typed(arguments, 'admit REQUEST')}")
    return 0


def _admit(arguments: argparse.Namespace) -> int:
    from configs.papers import Request, Welcome, from_json, to_json
    from server.admit import require_admissible
    from server.files import write_atomically
    from server.membership import Member
    from server.pki import Pki, check_request, expiry, public_pem
    from server.recorded import versions

    config = load_coordinator(arguments.folder)
    request = from_json(Request, arguments.request.read_bytes(), str(arguments.request))
    pki = Pki(config.pki)
    members, public_key = _open_members(config), public_pem(check_request(request, str(arguments.request)))
    replaced = require_admissible(
        config, request, public_key, members.sites(), path=arguments.request, replace=arguments.replace
    )
    certificate, public_key = pki.sign(request, str(arguments.request), _passphrase())
    installed = versions()
    welcome = Welcome(
        site=request.site,
        coordinator=f"{config.names[0]}:{config.listen.rpartition(':')[2]}",
        ca_certificate=pki.ca_certificate.read_text("ascii"),
        certificate=certificate,
        coordinator_key=pki.load_signing_key().public,
        version=installed["archipel"],
        flwr=installed["flwr"],
        without_certificate=arguments.signatures_alone,
    )
    path = config.folder / "welcome" / f"{request.site}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, to_json(welcome))
    _note(
        config,
        Admitted(
            site=request.site,
            request=request.fingerprint,
            signing_key=request.signing_key,
            without_certificate=arguments.signatures_alone,
            replaced=replaced,
        ),
    )
    members.admit(  # last: whoever is a member has a welcome, and stands in the journal
        Member(request.site, public_key, request.signing_key, expiry(certificate), arguments.signatures_alone)
    )
    if replaced:
        print(f"REPLACED  {replaced}")
    print(f"{request.site}: admitted; its request's fingerprint is {request.fingerprint}: compare it by telephone")
    if arguments.signatures_alone:
        print("WITHOUT a client certificate: its message signatures alone say who it is; this is in the journal")
    print(f"send it {path} (no secret; fingerprint {welcome.fingerprint})")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    config = load_coordinator(arguments.folder)
    _open_members(config).revoke(arguments.site)
    _note(config, Revoked(site=arguments.site))
    print(f"{arguments.site}: revoked; its next request is refused, on open connections too")
    return 0


def _sites(arguments: argparse.Namespace) -> int:
    from datetime import UTC, datetime
    from importlib import metadata

    members = _open_members(load_coordinator(arguments.folder))
    connected, found = members.connected(), members.sites()
    talks, own = members.talks(), metadata.version("archipel")
    if not found:
        print(f"no hospital is admitted yet: {_typed(arguments, 'admit REQUEST')}")
    else:
        print(f"{'hospital':24} {'state':14} certificate")
    for member in found:
        days = (datetime.fromisoformat(member.expires) - datetime.now(UTC)).days
        state = "revoked" if member.revoked else "connected" if member.site in connected else "not connected"
        notes = [] if days > EXPIRING_DAYS else ["EXPIRED" if days < 0 else "expires soon: enrol and admit again"]
        notes += ["no certificate: message signatures alone"] if member.without_certificate else []
        release = talks[member.site].release if member.site in talks else ""
        notes += [f"its node has archipel {release}, here runs {own}"] if release not in ("", own) else []
        print(f"{escaped(member.site):24} {state:14} until {member.expires[:10]}  {'; '.join(notes)}".rstrip())
    return 0


def _start(arguments: argparse.Namespace) -> int:
    config = load_coordinator(arguments.folder)
    if arguments.print_nginx:
        from server.nginx import nginx_config

        optional = _open_members(config).any_without_certificate()
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
    from configs.load import load_study
    from configs.strict_yaml import dump_yaml
    from server.files import write_atomically
    from server.recorded import new_folder
    from strategies.privacy.modes.registry import mode_of

    config, study = load_coordinator(arguments.folder), load_study(arguments.study)
    members = _open_members(config)
    if not arguments.again and (same := _same(config, members, study)):
        raise RunError(
            f"{arguments.study}: expected a study that is not queued or under way, found it as {same}; "
            "watch that one, or submit it --again"
        )
    run = new_folder(config.runs, study.name)
    write_atomically(run / "study.yaml", dump_yaml(study.to_dict()).encode())
    members.submit(run.name)
    _note(config, Submitted(run=run.name, study=study.sha256))
    print(f"{run.name}: queued; digest {study.sha256}")
    if missing := [site for site in study.sites if site not in members.members()]:
        print(f"not admitted yet: {', '.join(missing)}")
    digest = study.sha256[:DIGITS]
    print(
        f"soon it waits at each hospital of it that is connected. At each of them, somebody reads it (archipel-site "
        f"review) and decides (archipel-site approve {digest})"
    )
    print(f"next, here: {_typed(arguments, f'watch {run.name}')}")
    if absent := _absent(arguments, config):
        print(absent)
    if warning := mode_of(study).fragility(study):
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _same(config: CoordinatorConfig, members: "Membership", study: "Study") -> str:
    """The run of this very study that has not ended; empty where there is none."""
    from configs.load import load_study

    under_way = [run.name for run in members.runs() if run.state not in ("COMPLETE", "INCOMPLETE")]
    paths = {name: config.runs / name / "study.yaml" for name in under_way}
    same = (name for name, path in paths.items() if path.exists() and load_study(path).sha256 == study.sha256)
    return next(same, "")


def _status(arguments: argparse.Namespace) -> int:
    config = load_coordinator(arguments.folder)
    members = _open_members(config)
    runs = members.runs()
    if not runs:
        print(f"no run yet: {_typed(arguments, 'submit STUDY')}")
    wanted = _name(config, arguments.run) if arguments.run else ""
    lines = []
    for run in runs:
        if wanted not in ("", run.name):
            continue
        why = run.why or _turn(members, run, runs)
        lines.append(f"{run.name}  {run.state}{f': {why}' if why else ''}")
        if run.state not in ("COMPLETE", "INCOMPLETE"):
            lines += [f"  {site:20} {text}" for site, text in _presence(config, members, run)]
        if wanted:
            lines += [f"  {site:20} {text}" for site, text in _part(config, run.name)]
        if run.state in ("COMPLETE", "INCOMPLETE") and (report := _papers(arguments, run.name)):
            lines.append(f"  {report}")
    if any(", epsilon " in line for line in lines):
        lines.append(f"epsilon: {PER_PATIENT}, at each hospital")
    for line in lines:
        print(guarded(line))
    if absent := _absent(arguments, config):
        print(absent)
    return 0


def _turn(members: "Membership", run: "RunState", runs: "Sequence[RunState]") -> str:
    """Say for which other run a run waits whose hospitals are ready; empty where it waits for hospitals."""
    if run.state not in ("QUEUED", "WAITING") or not members.ready(run.name):
        return ""
    ahead = (other.name for other in runs if other.state in ("RUNNING", "STOPPING"))
    return next((f"its turn comes after {name}" for name in ahead), "")


def _typed(arguments: argparse.Namespace, command: str) -> str:
    """Another command for the same folder, as it was typed."""
    return typed("archipel-coordinator", arguments.folder, command)


def _papers(arguments: argparse.Namespace, name: str) -> str:
    """Where the report of a run that ended is; empty where it has none."""
    path = arguments.folder / "runs" / name / "report.html"
    return f"report: {path}" if path.is_file() else ""


def _absent(arguments: argparse.Namespace, config: CoordinatorConfig) -> str:
    """That no coordinator runs in this folder, whatever the runs' states say; empty where one does."""
    from configs.lock import holder

    if holder(config.lock) is not None:
        return ""
    return f"no coordinator runs here; start it with: {_typed(arguments, 'start')}"


def _presence(config: CoordinatorConfig, members: "Membership", run: "RunState") -> list[tuple[str, str]]:
    """Each hospital of a run, and what it does."""
    from configs.load import load_study

    study = load_study(config.runs / run.name / "study.yaml")
    known, connected = members.presence(run.name), members.connected()
    lines = []
    for site in study.sites or sorted(known):
        state, epsilon = known.get(site, ("has not answered yet", ""))
        state = state if site in connected else f"not connected ({state})"
        spent = f", epsilon {epsilon} of {study.privacy.epsilon:g}" if epsilon else ""
        lines.append((site, f"{state}{spent}"))
    return lines


def _part(config: CoordinatorConfig, name: str) -> list[tuple[str, str]]:
    """Each hospital of a run: to how many rounds it contributed, and the newest reason why it did not."""
    from configs.load import load_study
    from server.recorded import Recorded

    path = config.runs / name / "journal.jsonl"
    if not path.exists():
        return []
    recorded, study = Recorded.of(path.parent), load_study(path.parent / "study.yaml")
    done = max((entry.round for entry in recorded.rounds), default=0)
    sites = study.sites or sorted({site for entry in recorded.rounds for site in entry.contributed})
    counts = {site: len(recorded.rounds_of(site, done)) for site in sites}
    reasons = {
        site: recorded.reasons[site] for site in sites if counts[site] < max(done, 1) and site in recorded.reasons
    }
    return [
        (site, f"contributed to {counts[site]} of {done} rounds" + (f"; {reasons[site]}" if site in reasons else ""))
        for site in sites
    ]


def _watch(arguments: argparse.Namespace) -> int:
    from configs.journal import read
    from configs.load import load_study
    from strategies.privacy.modes.registry import mode_of

    config = load_coordinator(arguments.folder)
    members, name = _open_members(config), _name(config, arguments.run)
    path, seen, waiting, absent, gathered = config.runs / name / "journal.jsonl", 0, "", "", False
    study = load_study(config.runs / name / "study.yaml")
    epsilons: dict[str, str] = {}
    if guarantee := mode_of(study).guarantee(study):
        print(f"epsilon: {guarantee.words}, {study.privacy.epsilon:g} for the whole study", flush=True)
    while True:
        run = members.run(name)
        assert run is not None
        for record in list(read(path))[seen:] if path.exists() else []:
            seen += 1
            entry = record.of(Begin, Received, Gathered, Joined, Postponed, Refused, Resumed, Round)
            gathered = isinstance(entry, Gathered | Round | Resumed) or (gathered and not isinstance(entry, Begin))
            if isinstance(entry, Received) and entry.epsilon:
                epsilons[entry.site] = entry.epsilon
            if line := _line(entry, study.training.rounds, study.privacy.epsilon, epsilons):
                print(guarded(line), flush=True)
        if run.state in ("COMPLETE", "INCOMPLETE"):
            print(f"{run.state}{f': {escaped(run.why)}' if run.why else ''}")
            if report := _papers(arguments, name):
                print(report)
            return 0 if run.state == "COMPLETE" else 1
        if (missing := _absent(arguments, config)) != absent:
            absent = missing
            print(absent or "the coordinator runs again", flush=True)
        if run.state in ("QUEUED", "WAITING") and not gathered:
            now = f"{run.state.lower()}: " + "; ".join(": ".join(line) for line in _presence(config, members, run))
            if now != waiting:
                waiting = now
                print(guarded(now), flush=True)
        time.sleep(WATCH_S)


def _line(entry: "Kind | None", rounds: int, asked: float, epsilons: dict[str, str]) -> str:
    """Return one journal record for who watches; empty where there is nothing to see."""
    match entry:
        case Gathered():
            return f"gathered: {', '.join(entry.sites) or 'nobody'}{_reasons(entry.missing)}"
        case Joined():
            return f"{', '.join(entry.sites)}: takes part from round {entry.before_round} on"
        case Postponed():
            return f"postponed: {entry.why}"
        case Refused() if entry.site:
            return f"{entry.site}: {entry.reason or entry.why}"
        case Resumed():
            return f"goes on after round {entry.after_round}"
        case Round():
            left = ", ".join(f"{site} {max(0.0, asked - float(e)):.2f}" for site, e in sorted(epsilons.items()))
            spare = f"; epsilon left: {left}" if left else ""
            who, seconds = ", ".join(sorted(entry.contributed)), entry.seconds or 0.0
            return f"round {entry.round}/{rounds}  {seconds:.2f} s  {who}{_reasons(entry.missing)}{spare}"
    return ""


def _reasons(missing: "Mapping[str, str]") -> str:
    return "".join(f"; {site}: {why}" for site, why in missing.items())


def _stop(arguments: argparse.Namespace) -> int:
    config = load_coordinator(arguments.folder)
    name = _name(config, arguments.run)
    if not _open_members(config).ask_to_stop(name):
        raise RunError(f"{name}: expected a run that is queued or under way, it has ended")
    _note(config, Stop(run=name))
    print(f"{name}: asked to stop; go on later with: {_typed(arguments, f'resume {name}')}")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    config = load_coordinator(arguments.folder)
    members, name = _open_members(config), _name(config, arguments.run)
    run = members.run(name)
    absent = _absent(arguments, config)
    if run is None or run.state != "INCOMPLETE":
        state = run.state if run else "none of that name"
        left = f"; {absent}: it goes on by itself" if absent and run and run.state != "COMPLETE" else ""
        raise RunError(f"{name}: expected a run that ended INCOMPLETE, found {state}{left}")
    members.submit(name)
    _note(config, Resume(run=name))
    print(f"{name}: queued again, from its newest checkpoint")
    if absent:
        print(absent)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from server.papers import write_papers

    config = load_coordinator(arguments.folder)
    print(write_papers(config.runs / _name(config, arguments.run)))
    return 0


def _journal(arguments: argparse.Namespace) -> int:
    from configs.journal import read
    from server.pki import Pki
    from strategies.exchange.keys import verify

    config = load_coordinator(arguments.folder)
    path = config.runs / _name(config, arguments.run) / "journal.jsonl" if arguments.run else config.journal
    public = Pki(config.pki).load_signing_key().public
    count = sum(1 for _ in read(path, check=lambda digest, signature: verify(public, digest, signature)))
    print(f"{path}: {count} records, none changed, cut out, moved or forged")
    return 0


def _name(config: CoordinatorConfig, given: str) -> str:
    """The run that is meant.

    Raises:
        RunError: there is none.
    """
    names = [run.name for run in _open_members(config).runs()]
    if given == "latest" and names:
        return names[-1]
    given = Path(given).name
    if given not in names:
        raise RunError(f"{given!r}: expected a run's name, found none such; see: archipel-coordinator status")
    return given


def _open_members(config: CoordinatorConfig) -> "Membership":
    from server.membership import Membership

    if not config.database.exists():
        raise RunError(f"{config.folder}: expected a coordinator's folder; begin with: archipel-coordinator init")
    return Membership.open(config.database)


def _note(config: CoordinatorConfig, record: "Kind") -> None:
    """Write a decision into the coordinator's journal."""
    from configs.journal import Journal
    from server.continuity import note
    from server.pki import Pki

    members = _open_members(config)
    note(members, Journal(config.journal, sign=Pki(config.pki).load_signing_key().sign), record)
    members.close()


if __name__ == "__main__":
    sys.exit(main())
