"""`archipel-site check`: problems of a hospital's folder, and who must fix each.

It changes nothing and never raises.
"""

import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from client.admission import Admissions
from client.audit import Audit
from client.connection_check import look_at_connection
from client.data_check import look_at_data
from client.device import look_at_device
from client.enrol import (
    NODE_KEY,
    SIGNING_KEY,
    load_certificate,
    load_node_key,
    load_signing_key,
    load_welcome,
)
from client.fence import LANDLOCK, SECCOMP
from client.findings import (
    CONSORTIUM,
    DATABASE,
    IT,
    NETWORK,
    NOTE,
    OK,
    WARNING,
    WRONG,
    Finding,
)
from client.forwarder import probe
from client.kit_check import look_at_kits
from client.records import reasons_in
from client.releases import RELEASE, awaited
from client.site_file import load_site, outdated
from client.uplink.line import kept
from configs.errors import ArchipelError, JournalError
from configs.folder import typed
from configs.parts import run
from configs.schema import PER_PATIENT
from configs.shown import DIGITS
from configs.site import SiteConfig

EXPIRING_DAYS = 30
MB = 1_000_000


def examine(folder: Path) -> list[Finding]:
    """Look at everything; each check that fails becomes a finding."""
    try:
        config = load_site(folder)
    except (ArchipelError, OSError) as error:
        return [Finding("site.yaml", WRONG, str(error), "whoever wrote site.yaml", "correct it")]
    count = len(config.datasets)
    findings = [Finding("site.yaml", OK, f"{config.site}, {count} data set{'' if count == 1 else 's'}")]
    findings += _safely("site.yaml", lambda: _in_force(config))
    findings += _safely("keys", lambda: _keys(config))
    findings += _safely("policy", lambda: _policy(config))
    findings += _safely("isolation", lambda: _isolation(config))
    findings += _safely("worker_network", lambda: _listed(config))
    findings += _safely("machine", lambda: _machine(config))
    findings += _safely("records", lambda: _records(config))
    findings += _safely("data", lambda: look_at_data(config))
    findings += _safely("study", lambda: _waiting(config, folder))
    findings += _safely("kits", lambda: look_at_kits(config))
    try:
        welcome = load_welcome(config)
    except (ArchipelError, OSError) as error:
        return [*findings, Finding("welcome", WRONG, str(error), IT, "archipel-site enrol; archipel-site join WELCOME")]
    findings += _safely("study", lambda: _awaited(config))
    findings += _safely("idle", lambda: _line(config))
    findings += _safely("certificate", lambda: _certificate(config))
    findings += _safely("connection", lambda: look_at_connection(config, welcome))
    return findings


def _safely(check: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except (ArchipelError, OSError, ValueError) as error:
        text = str(error) if isinstance(error, ArchipelError) else f"could not be looked at ({_plainly(error)})"
        return [Finding(check, WRONG, text, IT, "see the text; if it says nothing to you, show it to the consortium")]


def _plainly(error: Exception) -> str:
    """Return the file and the system's own words, where there are any: other texts may hold what must not be shown."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return type(error).__name__


# In this machine


def _in_force(config: SiteConfig) -> Iterator[Finding]:
    if outdated(config):
        text = "it changed since the node started, which follows the former one; the findings below are of this one"
        yield Finding("site.yaml", WARNING, text, IT, "restart the node")


def _keys(config: SiteConfig) -> Iterator[Finding]:
    for name in (NODE_KEY, SIGNING_KEY):
        path = config.keys / name
        if not path.is_file():
            yield Finding("keys", WRONG, f"{path} is not there", IT, "archipel-site enrol")
            return
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield Finding(
                "keys", WRONG, f"{path} can be read by others (mode {mode:o})", IT, f"chmod 600 {path}; then enrol anew"
            )
            return
    load_node_key(config)
    load_signing_key(config)
    yield Finding("keys", OK, "made here, readable by their owner alone")


def _policy(config: SiteConfig) -> Iterator[Finding]:
    policy, odd = config.policy, []
    if policy.max_epsilon > 10:
        odd.append((f"max_epsilon {policy.max_epsilon:g} ({PER_PATIENT}) protects little", "lower it to 10 or less"))
    if policy.delta > 1e-3:
        odd.append((f"delta {policy.delta:g} is a chance in {1 / policy.delta:.0f} of no protection", "lower it"))
    if policy.allow_privacy_none:
        odd.append(("studies without differential privacy may train (allow_privacy_none)", "set it to false"))
    if not policy.require_approval:
        odd.append(("studies train without a person's approval (require_approval)", "set it to true"))
    if policy.min_patients < 10:
        odd.append((f"min_patients {policy.min_patients} lets studies of very few train", "raise it"))
    for text, todo in odd:
        yield Finding("policy", WARNING, text, "the DPO and whoever wrote site.yaml", f"{todo}, or know why not")
    if not odd:
        yield Finding(
            "policy",
            OK,
            f"epsilon {policy.max_epsilon:g} at delta {policy.delta:g} for each data set's life, {PER_PATIENT}",
        )


def _isolation(config: SiteConfig) -> Iterator[Finding]:
    listed = config.worker_network
    done = run("client.isolation_check", str(config.folder), folder=config.folder, timeout_s=60)
    if done.returncode == 0:
        but = f" but {len(listed)} listed address{'es' if len(listed) > 1 else ''}" if listed else ""
        yield Finding("isolation", OK, f"the process that sees patients has no network{but}")
    elif done.returncode == 4:
        yield Finding(
            "isolation", WRONG, done.stdout.strip(), IT, "see the text, or use the systemd units of the README"
        )
    else:
        yield Finding(
            "isolation",
            WARNING,
            "the kernel does not let the process that sees patients leave the network",
            IT,
            "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, or AppArmor's profile), or "
            "use the systemd units of the README",
        )
    if done.returncode in (0, 3):
        yield _fenced(done.stdout.strip())


def _fenced(held: str) -> Finding:
    """Tell what the process that sees patients may open, as a process with the same fence reported it."""
    if LANDLOCK in held and SECCOMP in held:
        text = f"it reads the installation, the data and its own records, no key; it starts no program ({held})"
        return Finding("fence", OK, text)
    lacks = [name for name in (LANDLOCK, SECCOMP) if name not in held]
    means = {
        LANDLOCK: "it may read and write what this user may",
        SECCOMP: "it may start programs and open sockets that have a path",
    }
    text = f"this kernel has no {' and no '.join(lacks)} for the process that sees patients: "
    text += "; ".join(means[name] for name in lacks)
    return Finding("fence", NOTE, text, IT, "Linux 5.13 or newer, with landlock among its security modules (lsm=)")


def _listed(config: SiteConfig) -> Iterator[Finding]:
    """Yield a finding for each listed data base, reached as the worker's forwarder does: without a proxy."""
    for address in config.worker_network:
        step = probe(address)
        if step == "arrived":
            yield Finding("worker_network", OK, f"{address} answers")
            continue
        text, who, todo = {
            "resolve": (
                f"the name in {address} is not known here",
                f"{NETWORK}, or whoever wrote site.yaml",
                "correct the name server, or the name in site.yaml",
            ),
            "refused": (
                f"{address} refuses the connection: nothing listens there, or a firewall says no",
                f"{DATABASE}, then {NETWORK}",
                "start the data base, or correct the port in site.yaml; let this machine connect to it",
            ),
            "silent": (
                f"{address} does not answer: the port is blocked, or the machine is down",
                f"{NETWORK}, then {DATABASE}",
                f"allow this machine to connect to {address}, TCP",
            ),
        }[step]
        yield Finding("worker_network", WRONG, text, who, todo)


def _machine(config: SiteConfig) -> Iterator[Finding]:
    free = shutil.disk_usage(config.folder).free
    verdict = WRONG if free < 100 * MB else WARNING if free < 1000 * MB else OK
    todo = (IT, f"make room in {config.folder}: every message that leaves is kept there") if verdict != OK else ("", "")
    yield Finding("disk", verdict, f"{free / MB:,.0f} MB free", *todo)
    available = _available_memory()
    if available is not None:
        short = available < 2000 * MB
        who = (IT, "give the machine 4 GB or more") if short else ("", "")
        yield Finding("memory", WARNING if short else OK, f"{available / MB:,.0f} MB available", *who)
    yield look_at_device(config)


def _available_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def _records(config: SiteConfig) -> Iterator[Finding]:
    if not config.journal.exists():
        yield Finding("journal", NOTE, "nothing happened yet")
        return
    try:
        count = Audit(config, load_signing_key(config)).verify()
    except JournalError as error:
        text, settle = str(error), typed("archipel-site", config.folder, "settle")
        shown = (
            "keep both files; the coordinator's journal holds the hash of what left"  # of a message that was changed
        )
        yield Finding("journal", WRONG, text, IT, settle if settle in text else shown)
        return
    yield Finding("journal", OK, f"{count} records, none changed; the outbox is what left")
    for reason in reasons_in(config):
        yield Finding(
            "records", WRONG, f"nothing trains here: {reason}", IT, typed("archipel-site", config.folder, "settle")
        )


# With the consortium


def _waiting(config: SiteConfig, folder: Path) -> Iterator[Finding]:
    """Yield the studies that wait for a decision."""
    with closing(Admissions.open(config.admissions)) as admissions:
        for waiting in admissions.all():
            if waiting.waits:
                look = typed("archipel-site", folder, f"review {waiting.sha256[:DIGITS]}")
                yield Finding(
                    "study", NOTE, f"{waiting.name} {waiting.sha256[:DIGITS]} waits for a person here: {look}"
                )


def _awaited(config: SiteConfig) -> Iterator[Finding]:
    if (waiting := awaited(config.folder)) is not None:
        study, release = waiting
        text = f"study {study[:DIGITS]} waits: it is in a form that archipel {RELEASE} does not know"
        yield Finding("study", WARNING, text, IT, f"install archipel {release or 'as the consortium has it'}")


def _line(config: SiteConfig) -> Iterator[Finding]:
    hold_s, cut_after_s = kept(config.folder)
    if cut_after_s:
        text = f"something on the way cuts connections that are idle for about {cut_after_s:.0f} s"
        todo = f"nothing: the node asks anew every {hold_s:.0f} s; a longer limit (60 s) spares requests"
        yield Finding("idle", NOTE, text, NETWORK, todo)


def _certificate(config: SiteConfig) -> Iterator[Finding]:
    certificate = load_certificate(config)
    now, renew = datetime.now(UTC), "send request.json again; the consortium admits it again; join the new welcome"
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        yield Finding("certificate", WRONG, f"expired on {ends:%Y-%m-%d}", f"{IT}, then {CONSORTIUM}", renew)
    elif now < begins:
        yield Finding("certificate", WRONG, f"valid from {begins:%Y-%m-%d %H:%M} UTC on", IT, "set the clock (NTP)")
    elif (ends - now).days < EXPIRING_DAYS:
        yield Finding("certificate", WARNING, f"expires on {ends:%Y-%m-%d}", f"{IT}, then {CONSORTIUM}", renew)
    else:
        yield Finding("certificate", OK, f"valid until {ends:%Y-%m-%d}")
