"""`archipel-site`, the command of hospital IT.

Nothing heavy is imported until a command needs it.

>>> main(["-C", "/nonexistent", "review"])
2
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from client import kit_commands
from client.folder import SiteFolder
from client.site_file import load_site, print_query
from configs.commands import guard_lines, run
from configs.errors import RunError
from configs.parts import programs
from configs.records.site_journal import Approved, DataReviewed, Joined, RefusedStudy, Rehearsed, RereadAsked
from configs.shown import DIGITS
from configs.views import to_json

if TYPE_CHECKING:
    from configs.schema import Study

PERSONAL = "the model that this hospital made of it for itself (training.personalise)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 2 an error that is explained, 130 Ctrl-C; `check` has its own."""
    os.umask(0o077)  # what a node writes is its owner's
    return run(_parser, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="archipel-site",
        description="A hospital's node: you approve each study, and can show every byte that left.",
    )
    parser.add_argument(
        "-C",
        "--folder",
        type=Path,
        default=Path(os.environ.get("ARCHIPEL_SITE", ".")),
        help="the folder with site.yaml (default: ARCHIPEL_SITE, or here)",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    enrol = commands.add_parser("enrol", help="make this hospital's keys here, and a request to send")
    enrol.set_defaults(command=_enrol)
    join = commands.add_parser("join", help="keep the consortium's welcome")
    join.add_argument("welcome", type=Path, metavar="WELCOME", help="the file that the consortium sent back")
    join.add_argument("--replace", action="store_true", help="though another authority or coordinator's key made it")
    join.set_defaults(command=_join)
    check = commands.add_parser("check", help="what is wrong, and who must fix it; for monitoring too")
    check.add_argument(
        "--data",
        metavar="STUDY",
        help="read this hospital's rows for a study file or a DIGEST: what would be read (default: check the node)",
    )
    check.add_argument("--json", action="store_true", help="as JSON, for monitoring")
    check.set_defaults(command=_check)
    review = commands.add_parser("review", help="each waiting study on one page of plain language")
    review.add_argument("digest", nargs="?", metavar="DIGEST", help="one study, whatever its state")
    review.add_argument(
        "--data", action="store_true", help="read this hospital's rows for that study, and say what would be read"
    )
    review.add_argument("--json", action="store_true", help="as JSON, for monitoring")
    review.set_defaults(command=_review)
    rehearse = commands.add_parser("rehearse", help="a whole study on this hospital's own data; nothing of it leaves")
    rehearse.add_argument("chosen", metavar="STUDY", help="a study file, or the digest of one that was proposed")
    rehearse.add_argument("--json", action="store_true", help="as JSON")
    rehearse.set_defaults(command=_rehearse)
    query = commands.add_parser("query", help="print what a data base is asked for a study, to read or to try by hand")
    query.add_argument("name", metavar="STUDY", help="its name in site.yaml (datasets)")
    query.set_defaults(command=print_query)
    predict = commands.add_parser("predict", help="score this hospital's patients with a study's final model")
    predict.add_argument("digest", metavar="DIGEST", help="the study's first digits")
    predict.add_argument("--data", type=Path, metavar="FILE.csv", help="rows to score (default: the study's own data)")
    predict.add_argument("--out", type=Path, required=True, metavar="SCORES.csv", help="a new file, yours alone")
    predict.add_argument("--model", type=Path, metavar="FILE", help="an export of it (default: the model kept here)")
    predict.add_argument("--personal", action="store_true", help=PERSONAL)
    predict.add_argument(
        "--recalibrate", action="store_true", help="fit its probabilities to this hospital's own training patients"
    )
    predict.set_defaults(command=_predict)
    evaluate = commands.add_parser("evaluate", help="how good a study's final model is on test patients here")
    evaluate.add_argument("digest", metavar="DIGEST", help="the study's first digits")
    evaluate.add_argument("--model", type=Path, metavar="FILE", help="an export of it (default: the model kept here)")
    evaluate.add_argument("--personal", action="store_true", help=PERSONAL)
    evaluate.add_argument("--json", action="store_true", help="as JSON")
    evaluate.set_defaults(command=_evaluate)
    reread = commands.add_parser("reread", help="read the data again at once: a patient who opted out is gone")
    reread.set_defaults(command=_reread)
    approve = commands.add_parser("approve", help="let a study train here")
    approve.add_argument("digest", metavar="DIGEST", help="its first digits, twenty or more")
    approve.set_defaults(command=_approve)
    refuse = commands.add_parser("refuse", help="do not let a study train here, or no longer")
    refuse.add_argument("digest", metavar="DIGEST", help="its first digits, twenty or more")
    refuse.add_argument("--why", required=True, help="for this hospital's own records; it does not leave")
    refuse.set_defaults(command=_refuse)
    start = commands.add_parser("start", help="run the node until it is stopped")
    start.add_argument("--print-systemd", action="store_true", help="print a hardened systemd unit for this folder")
    start.set_defaults(command=_start)
    ledger = commands.add_parser("ledger", help="privacy spent and left, by data set and study")
    ledger.add_argument("--json", action="store_true", help="as JSON, for monitoring")
    ledger.set_defaults(command=_ledger)
    settle = commands.add_parser(
        "settle", help="end a contradiction of this hospital's records, by adding to what is spent"
    )
    settle.add_argument("--all", action="store_true", help="count every data set's whole budget as spent")
    settle.add_argument("--yes", action="store_true", help="do it; without this, what would be done is shown")
    settle.set_defaults(command=_settle)
    outbox = commands.add_parser("outbox", help="every message that left")
    outbox.add_argument("--show", metavar="ID", help="open one: its fields and the values in it (default: list all)")
    outbox.add_argument("--json", action="store_true", help="as JSON, for monitoring")
    outbox.set_defaults(command=_outbox)
    kit_commands.add_parser(commands)
    journal = commands.add_parser("journal", help="check the journal's chain, signatures and the outbox; or read it")
    journal.add_argument("action", choices=("verify", "show"), help="check it, or read it")
    journal.add_argument("--decisions", action="store_true", help="of `show`: who approved or refused what, and when")
    journal.set_defaults(command=_journal)
    return parser


def _enrol(arguments: argparse.Namespace) -> int:
    from client.enrol import enrol

    path, request = enrol(load_site(arguments.folder))
    print(f"send {path} to the consortium (it holds no secret)")
    print(f"its fingerprint is {request.fingerprint}: compare it by telephone")
    return 0


def _join(arguments: argparse.Namespace) -> int:
    from client.enrol import join

    folder = SiteFolder.open(arguments.folder)
    config = folder.config
    joined_before = config.welcome.is_file()
    welcome = join(config, arguments.welcome, replace=arguments.replace)
    folder.audit.note(Joined(coordinator=welcome.coordinator, coordinator_key=welcome.coordinator_key))
    print(f"joined {welcome.coordinator}; the welcome's fingerprint is {welcome.fingerprint}: compare it by telephone")
    if welcome.without_certificate:
        print("the consortium admits this hospital without a client certificate: its message signatures alone")
    if joined_before:
        print("a node that runs follows a new certificate by itself; restart it if the address, the authority or the")
        print("coordinator's key is another than before")
    print(f"next: {folder.typed('check')}, then {folder.typed('start')}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    if arguments.data is not None:
        folder = SiteFolder.open(arguments.folder)
        return _look_at_data(folder, folder.study_or_file(arguments.data), as_json=arguments.json)
    from client.doctor import examine
    from client.findings import exit_code, render

    findings = examine(arguments.folder)
    print(to_json(findings) if arguments.json else render(findings))
    return exit_code(findings)


def _start(arguments: argparse.Namespace) -> int:
    config = load_site(arguments.folder)
    if arguments.print_systemd:
        from configs.service import unit

        print(unit(f"the node of {config.site}", "archipel-site", programs(), config.folder), end="")
        return 0
    guard_lines()
    for noisy in ("httpx", "flwr"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from client.node import start

    start(config)
    return 0


def _review(arguments: argparse.Namespace) -> int:
    from client.views import review, text

    folder = SiteFolder.open(arguments.folder)
    if arguments.data:
        if not arguments.digest:
            raise RunError("review --data: expected the digest of one study, found none; see: archipel-site review")
        _look_at_data(folder, folder.study(arguments.digest).study, as_json=arguments.json)
        return 0
    waiting = [a for a in folder.admissions.all() if a.waits]
    chosen = [folder.study(arguments.digest)] if arguments.digest else waiting
    if arguments.json:
        print(to_json([review.page_of(folder, admission) for admission in chosen]))
        return 0
    if not chosen:
        print(review.nothing_waits(folder))
    for admission in chosen:
        print(text.page(review.page_of(folder, admission)))
    _warn(folder)
    for view in [] if arguments.digest else review.decided(folder):
        print(text.decided(view))
    return 0


def _reread(arguments: argparse.Namespace) -> int:
    from configs.lock import holder

    folder = SiteFolder.open(arguments.folder)
    config = folder.config
    config.reread.write_text("")
    os.utime(config.reread)
    folder.audit.note(RereadAsked(by=_person()))
    if holder(config.lock) is None:
        print("no node runs in this folder: it reads its data when it starts")
        return 0
    print(f"the node reads its data again now; else it does so within {config.reread_s} s (reread_s in site.yaml)")
    print("rounds that are under way end with the rows that they began with; what has left stays spent")
    return 0


def _look_at_data(folder: SiteFolder, study: "Study", *, as_json: bool) -> int:
    """Read the data for one study because a person asks, and write down that they did; return 1 for findings."""
    from client.data_check import reviewed
    from client.views.data_text import data_page

    folder.audit.note(DataReviewed(study=study.sha256, name=study.name, by=_person()))
    page = reviewed(folder.config, study)
    if as_json:
        print(to_json(page))
    else:
        print(f"what {study.name} would read here (for this hospital alone: nothing of it leaves):")
        lines = data_page(page, f"datasets.{study.name} in site.yaml")
        print("\n".join(f"  {line}".rstrip() for line in lines))
    return 1 if page.findings else 0


def _rehearse(arguments: argparse.Namespace) -> int:
    from client.rehearsal import asked, rehearsed
    from client.views.rehearsal_text import rehearsal

    folder = SiteFolder.open(arguments.folder)
    study = folder.study_or_file(arguments.chosen)
    folder.audit.note(Rehearsed(study=study.sha256, name=study.name, by=_person()))
    print(f"rehearsing {study.name}: every round, with noise and without; Ctrl-C ends it", file=sys.stderr)
    path = Path(arguments.chosen)
    view = rehearsed(folder.config, study, asked(study, path.parent if path.is_file() else None))
    print(to_json(view) if arguments.json else "\n".join(rehearsal(view)))
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from client.local_use import Wanted, predict

    folder, wanted = SiteFolder.open(arguments.folder), Wanted(arguments.digest, arguments.model, arguments.personal)
    files = arguments.out, arguments.data
    for line in predict(folder, wanted, *files, _person(), recalibrate=arguments.recalibrate):
        print(line)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from client.local_use import Wanted, evaluate
    from client.views import text

    wanted = Wanted(arguments.digest, arguments.model, arguments.personal)
    figures = evaluate(SiteFolder.open(arguments.folder), wanted, _person())
    print(to_json(figures) if arguments.json else "\n".join(text.figures(figures)))
    return 0


def _approve(arguments: argparse.Namespace) -> int:
    from client.prospects import misfit_of_header, obstacle

    folder = SiteFolder.open(arguments.folder)
    admissions, config = folder.admissions, folder.config
    study = admissions.meant(arguments.digest).study
    if why := obstacle(config, study) or misfit_of_header(config, study):
        raise RunError(f"{study.name} cannot run here, so it is not approved: {why}")
    admission = admissions.decide(arguments.digest, "approved")
    folder.audit.note(Approved(study=admission.sha256, name=admission.name, by=_person()))
    print(f"approved: {admission.name} {admission.sha256}")
    print(
        f"it begins when hospitals enough have approved it ({study.training.quorum} of {len(study.sites) or 'all'}); "
        "the node tells the consortium within a minute"
    )
    print(f"what leaves: {folder.typed('outbox')}; what it spends: {folder.typed('ledger')}")
    print(f"no longer, at any time: {folder.typed(f'refuse {admission.sha256[:DIGITS]} --why REASON')}")
    _warn(folder)
    return 0


def _refuse(arguments: argparse.Namespace) -> int:
    folder = SiteFolder.open(arguments.folder)
    admission = folder.admissions.decide(arguments.digest, "refused", arguments.why)
    folder.audit.note(RefusedStudy(study=admission.sha256, name=admission.name, by=_person(), why=arguments.why))
    print(f"refused: {admission.name} {admission.sha256}; nothing of it trains here from now on")
    return 0


def _ledger(arguments: argparse.Namespace) -> int:
    from client.views import text
    from client.views.spending import spending

    folder = SiteFolder.open(arguments.folder)
    if arguments.json:
        print(to_json(list(spending(folder))))
        return 0
    for line in text.spending(spending(folder)):
        print(line)
    _warn(folder)
    return 0


def _settle(arguments: argparse.Namespace) -> int:
    from client.enrol import load_signing_key
    from client.settle import apply, settlement
    from configs.lock import only_one

    folder = SiteFolder.open(arguments.folder)
    config, key = folder.config, load_signing_key(folder.config)
    with only_one(config.lock, "a node runs in this folder; stop it first", config.sha256):
        proposal = settlement(config, key, everything=arguments.all)
        if not proposal.reasons and not arguments.all:
            print("nothing to settle: the ledger, the journal and the outbox fit together")
            return 0
        for line in (*proposal.reasons, *proposal.lines):
            print(line)
        if not arguments.yes:
            flag = " --all" if arguments.all else ""
            print(f"nothing is changed yet; to add this for good: {folder.typed(f'settle{flag} --yes')}")
            return 1
        apply(config, key, proposal, _person())
    print("settled, and written to the journal; what was added stays spent; start the node again")
    return 0


def _outbox(arguments: argparse.Namespace) -> int:
    from client.views import text
    from client.views.outbox import departures, opened

    folder = SiteFolder.open(arguments.folder)
    config = folder.config
    if arguments.show:
        message = opened(folder, arguments.show)
        print(to_json(message) if arguments.json else text.opened(message))
        return 0
    audit, outgoing = folder.audit, folder.outgoing
    if arguments.json:
        print(to_json(list(departures(config, outgoing))))
        return 0
    for former in sorted(config.folder.glob(f"{config.journal.name}.before-settle-*")):
        print(f"what left before the journal was broken stands in {former.name}")
    if not outgoing:
        print("nothing has left since" if audit.traces.settled else "nothing has left")
    for view in departures(config, outgoing):
        print(text.departure(view))
    return 0


def _journal(arguments: argparse.Namespace) -> int:
    folder = SiteFolder.open(arguments.folder)
    if arguments.action == "show":
        from client.views import text
        from client.views.journal import entries

        names = {a.sha256: a.name for a in folder.admissions.all()}
        for view in entries(folder.config, names, decisions=arguments.decisions):
            print(text.entry(view))
        return 0
    count = folder.audit.verify()
    print(f"{folder.config.journal}: {count} records, none changed, cut out, moved or forged; the outbox is what left")
    return 0


def _warn(folder: SiteFolder) -> None:
    from client.views import text
    from client.views.notices import notices

    for notice in notices(folder):
        print(text.notice(notice))


def _person() -> str:
    """Return the user that typed the command, by the machine's name."""
    import getpass

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


if __name__ == "__main__":
    sys.exit(main())
