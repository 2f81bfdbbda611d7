"""`archipel-site`: hospital IT's command. Nothing heavy is imported until a command needs it.

>>> main(["-C", "/nonexistent", "review"])
2
"""

import argparse
import logging
import math
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from client.site_file import load_site
from configs.commands import INTERRUPTED, carry_out, guard_lines, prepare
from configs.errors import ConfigError, RunError
from configs.folder import typed
from configs.parts import programs
from configs.records.site_journal import Approved, DataReviewed, Joined, RefusedStudy, RereadAsked
from configs.schema import PER_PATIENT
from configs.shown import DIGITS, escaped, mixed_scripts, quoted_lines, shown
from configs.site import SiteConfig

if TYPE_CHECKING:
    from client.admission import Admission, Admissions
    from client.audit import Audit, Outgoing
    from client.ledger import Ledger
    from configs.schema import Feature, Study

WIDTH = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 2 an error that is explained, 130 Ctrl-C; `check` has its own."""
    prepare(alone=argv is None)
    os.umask(0o077)  # what a node writes is its owner's
    arguments = _parser().parse_args(argv)
    try:
        return carry_out("archipel-site", lambda: int(arguments.command(arguments)))
    except KeyboardInterrupt:
        return INTERRUPTED


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
    join.add_argument("welcome", type=Path, metavar="WELCOME")
    join.add_argument("--replace", action="store_true", help="though another authority or coordinator's key made it")
    join.set_defaults(command=_join)
    check = commands.add_parser("check", help="what is wrong, and who must fix it; for monitoring too")
    check.set_defaults(command=_check)
    review = commands.add_parser("review", help="each waiting study on one page of plain language")
    review.add_argument("digest", nargs="?", metavar="DIGEST", help="one study, whatever its state")
    review.add_argument(
        "--data", action="store_true", help="read this hospital's rows for that study, and say what would be read"
    )
    review.set_defaults(command=_review)
    reread = commands.add_parser("reread", help="read the data again at once: a patient who opted out is gone")
    reread.set_defaults(command=_reread)
    approve = commands.add_parser("approve", help="let a study train here")
    approve.add_argument("digest", metavar="DIGEST", help="its first digits, twenty or more")
    approve.set_defaults(command=_approve)
    refuse = commands.add_parser("refuse", help="do not let a study train here, or no longer")
    refuse.add_argument("digest", metavar="DIGEST")
    refuse.add_argument("--why", required=True, help="for this hospital's own records; it does not leave")
    refuse.set_defaults(command=_refuse)
    start = commands.add_parser("start", help="run the node until it is stopped")
    start.add_argument("--print-systemd", action="store_true", help="print a hardened systemd unit for this folder")
    start.set_defaults(command=_start)
    ledger = commands.add_parser("ledger", help="privacy spent and left, by data set and study")
    ledger.set_defaults(command=_ledger)
    settle = commands.add_parser(
        "settle", help="end a contradiction of this hospital's records, by adding to what is spent"
    )
    settle.add_argument("--all", action="store_true", help="count every data set's whole budget as spent")
    settle.add_argument("--yes", action="store_true", help="do it; without this, what would be done is shown")
    settle.set_defaults(command=_settle)
    outbox = commands.add_parser("outbox", help="every message that left")
    outbox.add_argument("--show", metavar="ID", help="open one: its fields and the values in it")
    outbox.set_defaults(command=_outbox)
    journal = commands.add_parser("journal", help="check the journal's chain, signatures and the outbox; or read it")
    journal.add_argument("action", choices=("verify", "show"))
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

    config = load_site(arguments.folder)
    joined_before = config.welcome.is_file()
    welcome = join(config, arguments.welcome, replace=arguments.replace)
    _audit(config).note(Joined(coordinator=welcome.coordinator, coordinator_key=welcome.coordinator_key))
    print(f"joined {welcome.coordinator}; the welcome's fingerprint is {welcome.fingerprint}: compare it by telephone")
    if welcome.without_certificate:
        print("the consortium admits this hospital without a client certificate: its message signatures alone")
    if joined_before:
        print("a node that runs follows a new certificate by itself; restart it if the address, the authority or the")
        print("coordinator's key is another than before")
    print(f"next: {_typed(arguments.folder, 'check')}, then {_typed(arguments.folder, 'start')}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from client.doctor import examine
    from client.findings import exit_code, render

    findings = examine(arguments.folder)
    print(render(findings))
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
    config = load_site(arguments.folder)
    admissions = _admissions(config)
    if arguments.data:
        return _review_data(config, admissions, arguments.digest)
    waiting = [a for a in admissions.all() if a.waits]
    pages = [_find(admissions, arguments.digest)] if arguments.digest else waiting
    if not pages:
        print(_nothing_waits(arguments, config))
    for admission in pages:
        print(_shown_page(config, admission, arguments.folder))
    _warn(config, arguments.folder)
    for admission in [] if arguments.digest else admissions.all():
        if not admission.waits:
            why = f" ({escaped(admission.why)})" if admission.why else ""
            state = "not proposed any more" if admission.state == "waiting" else admission.state
            name = escaped(admission.name)
            print(f"{state}: {name} {admission.sha256[:DIGITS]}{why}{_fate(config, admission)}")
    return 0


def _shown_page(config: SiteConfig, admission: "Admission", folder: Path) -> str:
    """The page of a study; of one that has none, that it is so: it hides no other."""
    try:
        return page(config, admission, folder)
    except Exception as error:  # whatever a study of others does to its page
        refuse = _typed(folder, f"refuse {admission.sha256[:DIGITS]}")
        return (
            f"── {escaped(admission.name)}: {admission.state}, and cannot be shown ({type(error).__name__}): it cannot "
            f"run here\n\n    {refuse} --why REASON\n"
        )


def _nothing_waits(arguments: argparse.Namespace, config: SiteConfig) -> str:
    from configs.lock import holder

    if holder(config.lock) is None:
        return (
            "no study waits for this hospital; its node does not run, and only a node receives studies: "
            f"{_typed(arguments.folder, 'start')}"
        )
    return "no study waits for this hospital yet; one that was just submitted arrives within a minute"


def _fate(config: SiteConfig, admission: "Admission") -> str:
    """What has left for a study so far, and whether it is over here."""
    from client.prospects import contribution, is_over

    try:
        study, outgoing = admission.study, _outgoing(config)
    except (ConfigError, ValueError, RecursionError):
        return ""
    ledger = _open_ledger(config) if config.ledger.exists() else None
    over = "; OVER here" if is_over(study, outgoing) else ""
    return f": {contribution(config, study, ledger, outgoing)}{over}"


def _outgoing(config: SiteConfig) -> "list[Outgoing]":
    return _audit(config).outgoing() if config.journal.exists() else []


def _reread(arguments: argparse.Namespace) -> int:
    from configs.lock import holder

    config = load_site(arguments.folder)
    config.reread.write_text("")
    os.utime(config.reread)
    _audit(config).note(RereadAsked(by=_person()))
    if holder(config.lock) is None:
        print("no node runs in this folder: it reads its data when it starts")
        return 0
    print(f"the node reads its data again now; else it does so within {config.reread_s} s (reread_s in site.yaml)")
    print("rounds that are under way end with the rows that they began with; what has left stays spent")
    return 0


def _review_data(config: SiteConfig, admissions: "Admissions", digest: str | None) -> int:
    """Read the data for one study because a person asks, and write down that they did."""
    from client.data_check import reviewed

    if not digest:
        raise RunError("review --data: expected the digest of one study, found none; see: archipel-site review")
    admission = _find(admissions, digest)
    _audit(config).note(DataReviewed(study=admission.sha256, name=admission.name, by=_person()))
    print(f"what {admission.name} would read here (for this hospital alone: nothing of it leaves):")
    print(textwrap.indent(reviewed(config, admission.name, admission.sha256), "  "))
    return 0


def _approve(arguments: argparse.Namespace) -> int:
    from client.prospects import misfit_of_header, obstacle

    config = load_site(arguments.folder)
    admissions = _admissions(config)
    study = admissions.meant(arguments.digest).study
    if why := obstacle(config, study) or misfit_of_header(config, study):
        raise RunError(f"{study.name} cannot run here, so it is not approved: {why}")
    found = admissions.decide(arguments.digest, "approved")
    _audit(config).note(Approved(study=found.sha256, name=found.name, by=_person()))
    print(f"approved: {found.name} {found.sha256}")
    print(
        f"it begins when hospitals enough have approved it ({study.training.quorum} of {len(study.sites) or 'all'}); "
        "the node tells the consortium within a minute"
    )
    print(f"what leaves: {_typed(arguments.folder, 'outbox')}; what it spends: {_typed(arguments.folder, 'ledger')}")
    print(f"no longer, at any time: {_typed(arguments.folder, f'refuse {found.sha256[:DIGITS]} --why REASON')}")
    _warn(config, arguments.folder)
    return 0


def _refuse(arguments: argparse.Namespace) -> int:
    config = load_site(arguments.folder)
    found = _admissions(config).decide(arguments.digest, "refused", arguments.why)
    _audit(config).note(RefusedStudy(study=found.sha256, name=found.name, by=_person(), why=arguments.why))
    print(f"refused: {found.name} {found.sha256}; nothing of it trains here from now on")
    return 0


def _ledger(arguments: argparse.Namespace) -> int:
    from client.ledger import EVALUATION

    config = load_site(arguments.folder)
    policy = config.policy
    if not config.ledger.exists():
        print("nothing is spent yet")
        _warn(config, arguments.folder)
        return 0
    ledger, known = _open_ledger(config), {a.sha256: a for a in _admissions(config).all()}
    studies = ledger.studies()
    for dataset in dict.fromkeys(dataset for dataset, *_ in studies):
        spent = ledger.spent(dataset, delta=policy.delta)
        print(
            f"{dataset}: epsilon {spent:.3f} spent, {max(0.0, policy.max_epsilon - spent):.3f} left of "
            f"{policy.max_epsilon:g} ({PER_PATIENT}, delta {policy.delta:g}, all studies together)"
        )
        for _, study, rounds, lost in (row for row in studies if row[0] == dataset):
            name, trains = (known[study].name, _trains(known[study])) if study in known else ("?", True)
            what = f"{rounds} round{'' if rounds == 1 else 's'}" if trains else "its statistics"
            evaluated = " and the evaluation" if ledger.booked(dataset, study, EVALUATION) else ""
            own = ledger.spent(dataset, delta=policy.delta, study=study)
            note = f", {lost} of them begun and lost: they count" if lost else ""
            if repeatable := ledger.seeded(dataset, study):
                note += f"; the noise of {repeatable} came from a seed: it protects nobody who knows the seed"
            print(f"  {name} {study[:DIGITS]}: epsilon {own:.3f}, {what}{evaluated}{note}")
    if not studies:
        print("nothing is spent yet")
    _warn(config, arguments.folder)
    return 0


def _settle(arguments: argparse.Namespace) -> int:
    from client.enrol import load_signing_key
    from client.settle import apply, settlement
    from configs.lock import only_one

    config = load_site(arguments.folder)
    key = load_signing_key(config)
    with only_one(config.lock, "a node runs in this folder; stop it first", config.sha256):
        found = settlement(config, key, everything=arguments.all)
        if not found.reasons and not arguments.all:
            print("nothing to settle: the ledger, the journal and the outbox fit together")
            return 0
        for line in (*found.reasons, *found.lines):
            print(line)
        if not arguments.yes:
            flag = " --all" if arguments.all else ""
            print(f"nothing is changed yet; to add this for good: {_typed(arguments.folder, f'settle{flag} --yes')}")
            return 1
        apply(config, key, found, _person())
    print("settled, and written to the journal; what was added stays spent; start the node again")
    return 0


def _trains(admission: "Admission") -> bool:
    """Whether a study trains; one that this release does not accept any more did."""
    try:
        return admission.study.trains
    except ConfigError:
        return True


def _outbox(arguments: argparse.Namespace) -> int:
    config = load_site(arguments.folder)
    audit = _audit(config)
    if arguments.show:
        print(_opened(config, audit, arguments.show))
        return 0
    outgoing = _outgoing(config)
    for former in sorted(config.folder.glob(f"{config.journal.name}.before-settle-*")):
        print(f"what left before the journal was broken stands in {former.name}")
    if not outgoing:
        print("nothing has left since" if audit.traces.settled else "nothing has left")
    from client.listings import outbox_lines

    for line in outbox_lines(config, outgoing):
        print(line)
    return 0


def _opened(config: SiteConfig, audit: "Audit", message: str) -> str:
    """One message that left, for people: every field, every array with its first values."""
    import numpy as np

    from configs import wire
    from strategies.exchange.messages import from_frame, read
    from strategies.releases.registry import arrays_of

    frame = audit.show(message)
    outgoing = next(o for o in audit.outgoing() if o.message.startswith(message))
    lines = [f"{outgoing.message}: {frame.form}, sha256 {frame.sha256}, as the journal says"]
    lines += [f"  {name}: {value}" for name, value in frame.fields.items()]
    if frame.arrays:
        study = _find(_admissions(config), outgoing.study).study
        expected = arrays_of(frame.form, study)
        arrays = read(frame.form, from_frame(frame.form, frame, expected), expected).arrays
        if frame.form == "statistics reply":
            return "\n".join([*lines, *_counts(study, arrays[wire.COUNTS].tolist())])
        for name, array in arrays.items():
            values = np.array2string(array.ravel(), precision=4, threshold=16, edgeitems=6, max_line_width=WIDTH)
            lines.append(f"  {name} {list(array.shape)} {array.dtype}: {values}")
    return "\n".join(lines)


def _counts(study: "Study", counts: "list[float]") -> list[str]:
    """The noisy counts that left, column by column."""
    from strategies.releases.columns import layout_of

    lines, left = ["  counts of patients, noise included:"], iter(counts)
    for histogram in layout_of(study):
        shown = ", ".join(f"{label} {next(left):.0f}" for label in histogram.labels)
        lines.append(f"  {histogram.column.name}: {shown}")
    return lines


def _journal(arguments: argparse.Namespace) -> int:
    config = load_site(arguments.folder)
    if arguments.action == "show":
        from client.listings import journal_lines

        names = {a.sha256: a.name for a in _admissions(config).all()}
        for line in journal_lines(config, names, decisions=arguments.decisions):
            print(line)
        return 0
    count = _audit(config).verify()
    print(f"{config.journal}: {count} records, none changed, cut out, moved or forged; the outbox is what left")
    return 0


# The page of a study


def page(config: SiteConfig, admission: "Admission", folder: Path | None = None) -> str:
    """What a security officer or a DPO reads before deciding; `folder` is the hospital's as it was typed."""
    from client.prospects import is_over, obstacle

    typed_folder = folder or config.folder
    approve, refuse = (_typed(typed_folder, f"{verb} {admission.sha256[:DIGITS]}") for verb in ("approve", "refuse"))
    try:
        study = admission.study
    except ConfigError as error:  # it arrived before a rule that this release has
        why = escaped("; ".join(error.problems))
        return f"── {escaped(admission.name)}: {admission.state}, and cannot run: {why}\n\n    {refuse} --why REASON\n"
    rows = [
        ("purpose", "\n".join(quoted_lines(study.purpose))),
        ("reads", _columns(study)),
        *([("look alike", alike)] if (alike := _alike(study)) else []),
        ("announced", _announced(config, study)),
        ("patient", _patient(study)),
        ("never reads", _unread(config, study)),
        ("from", _source(config, study)),
        *(_training(config, study) if study.trains else _statistics(study)),
        ("privacy", _privacy(config, study)),
        ("budget", _budget(config, study)),
        ("digest", admission.sha256),
        ("arrived", admission.arrived),
    ]
    over = is_over(study, _outgoing(config))
    why = "" if over else obstacle(config, study)
    lines = [f"── {study.name}: {admission.state}{', OVER here' if over else ''} " + "─" * 40]
    if why:
        rows.insert(0, ("", f"CANNOT RUN HERE: {why}"))
    if over:
        rows.insert(0, ("over", _fate(config, admission).removeprefix(": ")))
    for title, text in rows:
        parts = []  # of others' words none begins left of here, where the titles are
        for line in text.split("\n"):
            parts += textwrap.wrap(line, WIDTH - 14, subsequent_indent="| " if line.startswith("| ") else "") or [""]
        lines.append(f"{title:>12}  {parts[0]}")
        lines += [" " * 14 + part for part in parts[1:]]
    decisions = [] if over else [f"{refuse} --why REASON"]
    if not over and not why and admission.state != "approved":
        look = _typed(typed_folder, f"review --data {admission.sha256[:DIGITS]}")
        decisions[:0] = [f"{look}    to see first what the rows hold, then", f"{approve}    or"]
    return "\n".join([*lines, "", *(f"    {decision}" for decision in decisions), ""])


def _training(config: SiteConfig, study: "Study") -> list[tuple[str, str]]:
    hospitals = "hospital" if study.training.quorum == 1 else "hospitals"
    return [
        ("learns", f"{study.task.type} {shown(study.task.target)}{_outcome(study)} with a {study.model.name} model"),
        ("rounds", f"{study.training.rounds}, with at least {study.training.quorum} {hospitals} in each"),
        ("leaves", _leaving(config, study)),
    ]


def _statistics(study: "Study") -> list[tuple[str, str]]:
    """What a study that trains nothing asks, and what would leave."""
    from strategies.privacy.plan import statistics_plan
    from strategies.releases.columns import cells_of
    from strategies.releases.statistics import standard_deviation

    columns, cells = len(study.counted), cells_of(study)
    noise = standard_deviation(statistics_plan(study))
    return [
        ("learns", "nothing: no model is trained; patients are counted, so that a study can be planned"),
        (
            "counts",
            f"how many patients have each value of each column above ({study.task.bins} equal parts of a "
            "number's range), and of how many it is unknown",
        ),
        (
            "leaves",
            f"once, {cells} noisy counts of {columns} columns ({4 * cells:,} bytes): one patient changes one "
            f"count of each column by 1, noise of standard deviation {noise:.1f} patients is added to each; "
            "once, this hospital's name and the study's digest. No row, no exact count.",
        ),
    ]


def _columns(study: "Study") -> str:
    """One line for each column that is read: its name, unit, range or values, and codes, as the study says them."""
    columns = [_column(feature) for feature in study.features]
    extra = [f"{shown(study.task.target)}: the outcome{_outcome(study)}"]
    extra += [f"{shown(study.patient_id)}: who the patient is"] if study.patient_id else []
    if study.evaluation.split_column:
        extra.append(f"{shown(study.evaluation.split_column)}: who is a test patient")
    return "\n".join([*columns, *extra])


def _outcome(study: "Study") -> str:
    task = study.task
    of = f" ({', '.join(map(shown, task.classes))})" if task.classes else ""
    if task.minimum is not None and task.maximum is not None:
        of = f" ({task.minimum:g} to {task.maximum:g})"
    return f"{of}{f' in {shown(task.unit)}' if task.unit else ''}"


def _alike(study: "Study") -> str:
    """Names and values whose letters are of several alphabets: they may look like others."""
    words = [study.task.target, study.patient_id or "", *study.task.classes]
    for feature in study.features:
        words += [feature.name, feature.unit or "", *feature.values, *feature.missing]
    found = [f"{shown(word)} mixes {scripts} letters" for word in words if (scripts := mixed_scripts(word))]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f"WARNING {', '.join(found[:5])}{more}: compare with your file, letter by letter" if found else ""


def _announced(config: SiteConfig, study: "Study") -> str:
    sizes = {member.site: member.patients for member in study.cohort}
    if not sizes:
        return "no size of any hospital"
    own = sizes.get(config.site)
    here = f"{own:,} patients here" if own is not None else "THIS HOSPITAL IS NOT IN THE STUDY"
    return f"{here}; {sum(sizes.values()):,} in {len(sizes)} hospital{'' if len(sizes) == 1 else 's'}"


def _patient(study: "Study") -> str:
    """What counts as one patient, of whom every epsilon is."""
    if study.patient_id is None:
        return "ONE ROW COUNTS AS ONE PATIENT (patient_id: null): who has several rows spends several times the epsilon"
    alike = f", written alike by {', '.join(study.normalise)}" if study.normalise else ""
    return f"all rows of one {shown(study.patient_id)}{alike}"


def _unread(config: SiteConfig, study: "Study") -> str:
    dataset = config.dataset(study.name)
    if dataset is not None and dataset.source.path is None:
        return "any other column: one that the query gives is dropped as it arrives"
    return "any other column of the file"


def _column(feature: "Feature") -> str:
    unit = f" in {shown(feature.unit)}" if feature.unit else ""
    if feature.type == "number":
        what = f"a number from {feature.minimum:g} to {feature.maximum:g}{unit}"
    else:
        what = f"one of {', '.join(map(shown, feature.values))}{unit}"
    codes = f"; unknown where {', '.join(map(shown, feature.missing))}" if feature.missing else ""
    return f"{shown(feature.name)}: {what}{codes}"


def _source(config: SiteConfig, study: "Study") -> str:
    dataset = config.dataset(study.name)
    if dataset is None:
        return f"NO DATA SET: site.yaml names none for {study.name}; without one the study cannot run here"
    return f"{dataset.source} (budget of the data set {dataset.identity!r})"


def _leaving(config: SiteConfig, study: "Study") -> str:
    from strategies.models.registry import study_parameters

    numbers = sum(math.prod(shape) for shape, _ in study_parameters(study).values())
    size = 4 * numbers
    return (
        f"in each round {numbers} numbers of the trained model ({size:,} bytes, and some hundreds of packing), in all "
        f"at most {numbers * study.training.rounds:,} numbers; once, this hospital's name and the study's digest. "
        f"{_figures(config, study)}"
    )


def _figures(config: SiteConfig, study: "Study") -> str:
    """What leaves about test patients, and what it costs."""
    asked = study.evaluation.release
    if asked is None:
        return "No row, no count, no metric."
    if config.policy.metrics != "noisy":
        return (
            "No row, no count, no metric: the study asks for a noisy histogram of test patients, which site.yaml does "
            "NOT allow (policy.metrics: none)."
        )
    from strategies.privacy.plan import evaluation_event

    event = evaluation_event(study)
    assert event is not None
    return (
        f"Once, after the last round, {2 * asked.bins} noisy counts of this hospital's test patients, by outcome and "
        f"by the model's score in {asked.bins} bins, which site.yaml allows (policy.metrics: noisy): one patient "
        f"changes one count by 1, noise of standard deviation {event.noise_multiplier:.1f} patients is added to each. "
        f"This costs epsilon {asked.epsilon:g} at delta {study.privacy.delta:g} {PER_PATIENT}, beside the training's. "
        "No row, no exact count."
    )


def _privacy(config: SiteConfig, study: "Study") -> str:
    if not study.private:
        allowed = "which site.yaml allows" if config.policy.allow_privacy_none else "which site.yaml does NOT allow"
        return f"NONE: the model's numbers leave without noise, {allowed} (policy.allow_privacy_none)"
    privacy = study.privacy
    if not study.trains:
        return (
            f"differential privacy in this hospital: epsilon {privacy.epsilon:g} at delta {privacy.delta:g} per "
            "patient, add or remove one, for everything that leaves; asked again, this hospital sends the same "
            f"counts{_spare(study)}"
        )
    return (
        f"differential privacy in this hospital: epsilon {privacy.epsilon:g} at delta {privacy.delta:g} {PER_PATIENT}, "
        f"for the whole {'training' if study.evaluation.release else 'study'}; what one patient adds to a step of the "
        f"training (its gradient) is cut to a length of at most {privacy.clip_norm:g} (clip norm), then noise is added"
        f"{_spare(study)}{_by_the_reference(study)}"
    )


def _spare(study: "Study") -> str:
    """What happens to a release that is lost on its way: part of what a hospital agrees to."""
    if not (spare := study.privacy.spare):
        return ""
    times = "once" if spare == 1 else f"{spare} times"
    return f"; a release that is lost can be made anew with other noise, {times} at most, within this epsilon"


def _by_the_reference(study: "Study") -> str:
    if study.training.local.engine != "opacus":
        return ""
    return (
        ". BUT by Opacus's engine (training.local.engine), which is for comparison: under parameters that a dishonest "
        "coordinator chose, its rounding lets one patient weigh more than that. Ask for a study without this line"
    )


def _budget(config: SiteConfig, study: "Study") -> str:
    dataset, policy = config.dataset(study.name), config.policy
    if dataset is None or not study.private:
        return "none is spent"
    ledger = _open_ledger(config) if config.ledger.exists() else None
    spent = ledger.spent(dataset.identity, delta=policy.delta) if ledger else 0.0
    return (
        f"epsilon {spent:.2f} of {policy.max_epsilon:g} is spent on this data set ({PER_PATIENT}, all "
        f"studies, delta {policy.delta:g}), {max(0.0, policy.max_epsilon - spent):.2f} is left"
        f"{_foreseen(config, study, dataset.identity, ledger)}; the node refuses what would pass it"
        f"{_two(config, study)}"
    )


def _two(config: SiteConfig, study: "Study") -> str:
    """Why the study's epsilon and the budget's are two numbers for one release."""
    if study.privacy.delta == config.policy.delta:
        return ""
    return (
        f". The study states its epsilon at its own delta, {study.privacy.delta:g}; this budget is counted at "
        f"site.yaml's, {config.policy.delta:g}: a release has an epsilon for each delta, larger at smaller ones"
    )


def _foreseen(config: SiteConfig, study: "Study", dataset: str, ledger: "Ledger | None") -> str:
    """What the study will have cost, at this hospital's own delta."""
    from configs.errors import PrivacyError
    from strategies.privacy.accounting import epsilon
    from strategies.privacy.plan import Budget, plan_for

    policy = config.policy
    try:
        plan = plan_for(study, config.site, figures=policy.metrics == "noisy")
    except PrivacyError as error:
        return f", and the study cannot train here ({error})"
    cap = Budget(policy.max_epsilon, policy.delta)
    after = ledger.foreseen(dataset, study.sha256, plan.events, cap) if ledger else epsilon(plan.events, cap.delta)
    return f", this study would bring it to {after:.2f} spent" if math.isfinite(after) else ", this study does not fit"


def _warn(config: SiteConfig, folder: Path) -> None:
    """What whoever looks at budgets must know of."""
    from client.identities import forgotten
    from client.records import reasons_in

    for reason in reasons_in(config):
        print(f"WARNING  nothing trains here: {reason}\n         a person must run: {_typed(folder, 'settle')}")
    if config.outdated:
        print("WARNING  site.yaml changed since the node started, which follows the former one: restart the node")
    for lost in forgotten(config):
        print(f"WARNING  {lost}\n         {lost.todo}")


# Files


def _find(admissions: "Admissions", digest: str) -> "Admission":
    found = admissions.named(digest)
    if len(found) != 1:
        raise RunError(
            f"{shown(digest, 64)}: expected the digest of one study (8 digits or more), found {len(found)}; see: "
            "archipel-site review"
        )
    return found[0]


def _typed(folder: Path, command: str) -> str:
    return typed("archipel-site", folder, command)


def _admissions(config: SiteConfig) -> "Admissions":
    from client.admission import Admissions

    return Admissions.open(config.admissions)


def _audit(config: SiteConfig) -> "Audit":
    from client.audit import Audit
    from client.enrol import load_signing_key

    return Audit(config, load_signing_key(config))


def _open_ledger(config: SiteConfig) -> "Ledger":
    from client.ledger import Ledger

    return Ledger.open(config.ledger)


def _person() -> str:
    """Who typed the command, as the machine knows them."""
    import getpass

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


if __name__ == "__main__":
    sys.exit(main())
