"""What a hospital and a coordinator write down about themselves: `site.yaml` and `coordinator.yaml`.

Both belong to whoever runs the machine, never to a study. Secrets are named, never written: a key lies in a file that
only its owner can read, a passphrase or a database address in an environment variable.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     _ = (Path(folder) / "site.yaml").write_text("site: chu-lille\\ncoordinator: coord.example.org:8443\\n")
...     load_site(Path(folder)).policy.max_epsilon
8.0
"""

import hashlib
import itertools
import json
import os
import re
import shlex
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal, TypeVar

from configs.errors import ConfigError
from configs.load import MAX_EPSILON, SITE_NAME
from configs.lock import holder
from configs.schema import DataSource
from configs.sections import Section
from configs.shown import short
from configs.source import data_source
from configs.strict_yaml import read_yaml

SITE_FILE, COORDINATOR_FILE, LEDGER_FILE = "site.yaml", "coordinator.yaml", "ledger.sqlite"
FOLDERS = {"archipel-site": "ARCHIPEL_SITE", "archipel-coordinator": "ARCHIPEL_COORDINATOR"}  # variables that name one
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]{2,39}\]"
ADDRESS = re.compile(rf"({_HOST}):([0-9]{{1,5}})")
Config = TypeVar("Config")
MAX_ADDRESSES = 8
MAX_SOCKETS_PATH = 85  # Linux allows 107 bytes for a socket's path, the socket's own name among them
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a hospital allows, whoever asks. `max_epsilon` at `delta` is for the life of a data set, all studies."""

    max_epsilon: float = 8.0
    delta: float = 1e-6
    min_patients: int = 50
    allow_privacy_none: bool = False
    require_approval: bool = True
    max_message_mb: int = 200
    metrics: Literal["none", "noisy"] = "none"  # how good a model is on test patients: not at all, or with noise


@dataclass(frozen=True, slots=True)
class Dataset:
    """Where one study's rows lie. `identity` names the patients: their budget follows it, not the file's name."""

    study: str
    source: DataSource
    identity: str


@dataclass(frozen=True)
class SiteConfig:
    """One hospital's `site.yaml`. `folder` is where it lies; everything the node keeps is there."""

    folder: Path
    site: str
    coordinator: str
    datasets: tuple[Dataset, ...] = ()
    policy: Policy = field(default_factory=Policy)
    extra_ca: Path | None = None  # a hospital proxy that opens TLS signs with its own authority
    worker_network: tuple[str, ...] = ()  # host:port of data bases: all that the worker can reach
    reread_s: int = 3600  # a round is trained on rows that were read at most so many seconds before
    sha256: str = ""  # of site.yaml as it was read

    def dataset(self, study: str) -> Dataset | None:
        """The data set of the study of this name."""
        return next((dataset for dataset in self.datasets if dataset.study == study), None)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the environment variables that hold data bases' addresses, with their passwords."""
        return tuple(sorted({dataset.source.url_env for dataset in self.datasets if dataset.source.url_env}))

    @property
    def keys(self) -> Path:
        """The folder of the keys, readable by its owner alone."""
        return self.folder / "keys"

    @property
    def reread(self) -> Path:
        """The file whose change asks the worker to read the data again at once."""
        return self.folder / "reread"

    @property
    def id_key(self) -> Path:
        """The key of these hashes, and of the digests of what was read; it signs nothing."""
        return self.ids / "key"

    @property
    def ids(self) -> Path:
        """The folder of keyed hashes that tell whether two data sets have patients in common, a file a data set."""
        return self.folder / "ids"

    @property
    def welcome(self) -> Path:
        """What `join` keeps of the coordinator's welcome."""
        return self.folder / "welcome.json"

    @property
    def outbox(self) -> Path:
        """Every message that left."""
        return self.folder / "outbox"

    @property
    def journal(self) -> Path:
        """What came, was decided, left."""
        return self.folder / "journal.jsonl"

    @property
    def ledger(self) -> Path:
        """The privacy budget."""
        return self.folder / LEDGER_FILE

    @property
    def lock(self) -> Path:
        """Held while a node runs; it says with which site.yaml."""
        return self.folder / "node.lock"

    @property
    def outdated(self) -> bool:
        """Whether a node runs here that was started with another site.yaml than this one."""
        return (holder(self.lock) or self.sha256) != self.sha256

    @property
    def admissions(self) -> Path:
        """Which studies this hospital approved."""
        return self.folder / "admissions.sqlite"


@dataclass(frozen=True)
class CoordinatorConfig:
    """One consortium's `coordinator.yaml`. `names` are the host names and addresses in the server's certificate."""

    folder: Path
    name: str
    names: tuple[str, ...]
    listen: str = "0.0.0.0:8443"
    health: str = "127.0.0.1:8444"
    gather_timeout_s: int = 30 * 86_400  # how long a study waits for its hospitals to connect and approve
    gather_quorum_after_s: int = 3600  # how long it waits for more once the quorum has approved; 0: not at all
    absent_after_s: int = 60  # a hospital without a connection for so long is not asked in a round with a quorum
    max_request_mb: int = 16
    requests_per_second: int = 100  # of one hospital

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.folder / "pki"

    @property
    def database(self) -> Path:
        """Members and studies."""
        return self.folder / "coordinator.sqlite"

    @property
    def journal(self) -> Path:
        """What was sent, received and decided."""
        return self.folder / "journal.jsonl"

    @property
    def lock(self) -> Path:
        """Held while a coordinator runs."""
        return self.folder / "coordinator.lock"

    @property
    def runs(self) -> Path:
        """Runs, as a simulation leaves them."""
        return self.folder / "runs"

    @property
    def sockets(self) -> Path:
        """Sockets that only their owner can open: in the folder, or, where its path is too long for a socket's, under
        the user's runtime directory (XDG_RUNTIME_DIR, else the directory of temporary files, else /tmp).

        >>> CoordinatorConfig(Path("/srv/" + "x" * 120), "", ()).sockets.name
        'archipel-f6846510cbe74a12'
        """
        inside = self.folder / "sockets"
        if len(os.fsencode(inside)) <= MAX_SOCKETS_PATH:
            return inside
        name = f"archipel-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]}"
        wanted = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / name
        shared = Path("/tmp") / name  # noqa: S108 - a folder that is not this user's alone is refused
        return wanted if len(os.fsencode(wanted)) <= MAX_SOCKETS_PATH else shared


def load_site(folder: Path) -> SiteConfig:
    """Read `site.yaml` in a folder.

    Raises:
        ConfigError: the file cannot be read or holds mistakes; all of them are listed.
    """
    path = folder / SITE_FILE
    top = _open(path)
    name = top.text("site", "a hospital's name of a-z, 0-9, - and _", SITE_NAME)
    if name == "coordinator":
        top.problem("site", "a hospital's name", name, "take another: this one is the other side's in every message")
    config = SiteConfig(
        folder=folder.resolve(),
        site=name,
        coordinator=_address(top, "coordinator", None),
        datasets=_datasets(top.section("datasets", "a mapping of study: {connector, path}", required=False), folder),
        policy=_policy(top.section("policy", "a mapping", required=False)),
        extra_ca=_path(top, "extra_ca", folder),
        worker_network=_addresses(top, "worker_network"),
        reread_s=top.integer("reread_s", 60, 30 * 86_400, 3600),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    return _close(path, top, config)


def load_coordinator(folder: Path) -> CoordinatorConfig:
    """Read `coordinator.yaml` in a folder.

    Raises:
        ConfigError: the file cannot be read or holds mistakes; all of them are listed.
    """
    path = folder / COORDINATOR_FILE
    top = _open(path)
    default = CoordinatorConfig(folder, "", ())
    names = top.words("names", "a list of host names and addresses")
    if not names or not all(_NAME.fullmatch(name) for name in names):
        top.problem("names", "the host names and addresses that hospitals use", list(names) or None, "list them")
    config = CoordinatorConfig(
        folder=folder.resolve(),
        name=top.text("name", "a name", limit=200),
        names=names,
        listen=_address(top, "listen", default.listen),
        health=_address(top, "health", default.health),
        gather_timeout_s=top.integer("gather_timeout_s", 1, 90 * 86_400, default.gather_timeout_s),
        gather_quorum_after_s=top.integer("gather_quorum_after_s", 0, 90 * 86_400, default.gather_quorum_after_s),
        absent_after_s=top.integer("absent_after_s", 1, 86_400, default.absent_after_s),
        max_request_mb=top.integer("max_request_mb", 6, 1024, default.max_request_mb),
        requests_per_second=top.integer("requests_per_second", 1, 100_000, default.requests_per_second),
    )
    return _close(path, top, config)


def coordinator_yaml(name: str, names: Sequence[str], listen: str) -> str:
    """Return the text of a new coordinator.yaml: every key with what it means.

    Keys that need not be there are commented out, with the value that holds: whoever wants another may change the line,
    or write one of their own.
    """
    text = resources.files("configs").joinpath("coordinator.example.yaml").read_text("utf-8")
    given = {"name": name, "names": list(names), "listen": listen}
    for key, value in given.items():
        line = f"{key}: {json.dumps(value, ensure_ascii=False)}"
        text = re.sub(rf"(?m)^{key}: .*?(?=  +#|$)", line.replace("\\", r"\\"), text)
    return re.sub(rf"(?m)^(?!#|{'|'.join(given)})(?=[a-z_]+:)", "# ", text)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, the brackets of an IPv6 host taken off.

    >>> split_address("[::1]:8443")
    ('::1', 8443)
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def typed(program: str, folder: Path, command: str) -> str:
    """A command as somebody types it for a folder: with -C, unless it is meant without.

    >>> typed("archipel-site", Path("/srv/a hospital"), "check")
    "archipel-site -C '/srv/a hospital' check"
    >>> typed("archipel-site", Path(), "check")
    'archipel-site check'
    """
    meant = Path(os.environ.get(FOLDERS[program], "."))
    where = "" if folder.resolve() == meant.resolve() else f"-C {shlex.quote(str(folder))} "
    return f"{program} {where}{command}"


def _open(path: Path) -> Section:
    try:
        path.stat()
    except FileNotFoundError:
        raise ConfigError(str(path), ["expected the file, found none; name its folder: -C FOLDER"]) from None
    except PermissionError:
        problem = "expected a folder that this user may open; run the command as its owner, for instance with runuser"
        raise ConfigError(str(path), [problem]) from None
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(str(path), ["expected a mapping of keys; see the README"])
    return Section(document, "", [])


def _close(path: Path, top: Section, config: Config) -> Config:
    top.finish()
    if top.problems:
        raise ConfigError(str(path), top.problems)
    return config


def _address(section: Section, key: str, default: str | None) -> str:
    if default is not None and section.values.get(key) is None:
        section.take(key)
        return default
    text = section.text(key, "host:port", ADDRESS)
    if text and not 0 < split_address(text)[1] < 65_536:
        section.problem(key, "a port from 1 to 65535", text, "correct it")
    return text


def _addresses(section: Section, key: str) -> tuple[str, ...]:
    """A list of distinct `host:port`; none and false are the empty one."""
    found = section.take(key)
    if found is None or found is False:
        return ()
    if not isinstance(found, list) or len(found) > MAX_ADDRESSES:
        expected = f"a list of at most {MAX_ADDRESSES} addresses host:port"
        found = f"{len(found)} of them" if isinstance(found, list) else found
        section.problem(key, expected, found, "list the data bases that the worker may reach: [db.example.org:5432]")
        return ()
    entries = Section({str(index): entry for index, entry in enumerate(found)}, key, section.problems)
    listed = [_address(entries, str(index), None) for index in range(len(found))]
    seen: set[tuple[str, int]] = set()
    for index, text in enumerate(listed):
        where = split_address(text.lower()) if text else ("", index)
        if where in seen:
            entries.problem(str(index), "each address once", text, "take it out")
        seen.add(where)
    return tuple(listed)


def _truth(section: Section, key: str, default: bool) -> bool:
    found = section.take(key)
    if found is None or isinstance(found, bool):
        return default if found is None else found
    section.problem(key, "true or false", found, "correct it")
    return default


def _path(section: Section, key: str, folder: Path) -> Path | None:
    return None if section.take(key) is None else folder.resolve() / section.text(key, "a file's path")


def _policy(section: Section) -> Policy:
    default = Policy()
    policy = Policy(
        section.number("max_epsilon", f"0 < epsilon <= {MAX_EPSILON:g}", 0, MAX_EPSILON, above=True, default=8.0),
        section.number("delta", "0 < delta <= 0.01", 0, 0.01, above=True, default=default.delta),
        section.integer("min_patients", 1, 10**9, default.min_patients),
        _truth(section, "allow_privacy_none", default.allow_privacy_none),
        _truth(section, "require_approval", default.require_approval),
        section.integer("max_message_mb", 1, 100_000, default.max_message_mb),
        _metrics(section, default),
    )
    section.finish()
    return policy


def _metrics(section: Section, default: Policy) -> Literal["none", "noisy"]:
    return section.choice("metrics", ("none", "noisy"), default.metrics)


def _datasets(section: Section, folder: Path) -> tuple[Dataset, ...]:
    datasets: list[Dataset] = []
    unnamed: set[str] = set()  # studies whose entries declare no identity
    for study in section.values:
        if not SITE_NAME.fullmatch(study):
            section.note(study, "expected a study's name of a-z, 0-9, - and _; rename it")
        entry = section.section(study, "a mapping with connector and path")
        source = data_source(entry, folder.resolve(), default="csv")
        identity = entry.optional_text("identity")
        datasets.append(Dataset(study, source, identity or study))
        entry.finish()
        if identity is None:
            unnamed.add(study)
    section.finish()
    known = [dataset for dataset in datasets if _says_what_it_reads(dataset.source, folder)]
    booked = _booked(folder / LEDGER_FILE) if unnamed else ()
    for dataset, other in itertools.combinations(known, 2):
        if dataset.identity == other.identity or not dataset.source.shares_store(other.source):
            continue
        kin = {one.identity for one in known if one.source.shares_store(dataset.source)}
        former = next((identity for identity in booked if identity in kin), None)
        for nameless in sorted({dataset.study, other.study} & unnamed):
            why = f"as another study reads the same {other.source.store} and a patient of both has one budget"
            what = f"give {short(dataset.study)} and {short(other.study)} the same identity"
            if former is not None:
                what += f", {short(former)}: under this name the ledger holds what their patients have spent"
            if dataset.source.path is None:
                what += ", or each its own where no patient is in both"
            section.note(nameless, f"expected an identity, {why}, found none; {what}")
    return tuple(datasets)


def _says_what_it_reads(source: DataSource, folder: Path) -> bool:
    """Whether a file or a variable is named; where not, that is a mistake of its own, and nothing to compare."""
    return bool(source.url_env) if source.path is None else source.path != folder.resolve()


def _booked(ledger: Path) -> tuple[str, ...]:
    """The identities under which a ledger holds releases, oldest first; none where it cannot be read.

    Read here as well as in client/ledger.py, because an error of site.yaml must not name an identity whose budget
    would begin anew.
    """
    if not ledger.is_file():
        return ()
    try:
        with closing(sqlite3.connect(ledger, timeout=5.0)) as connection:
            rows = connection.execute("SELECT dataset FROM releases GROUP BY dataset ORDER BY MIN(id)")
            return tuple(str(name) for (name,) in rows)
    except sqlite3.Error:
        return ()


def same_rows_twice(datasets: Sequence[Dataset]) -> list[tuple[Dataset, Dataset]]:
    """Pairs that read the same rows under two identities: two groups of patients to the ledger, with two budgets."""
    return [
        (b, a)
        for a, b in itertools.combinations(datasets, 2)
        if a.identity != b.identity and a.source.shares_store(b.source) and a.source.query == b.source.query
    ]
