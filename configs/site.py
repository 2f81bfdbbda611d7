"""`site.yaml`: the settings of a hospital's node.

The file belongs to the person who runs the machine, never to a study. Secrets are named, never written: a key lies in a
file that only its owner can read, a passphrase or a database address in an environment variable.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     _ = (Path(folder) / "site.yaml").write_text("site: chu-lille\\ncoordinator: coord.example.org:8443\\n")
...     load_site(Path(folder)).policy.max_epsilon
8.0
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from configs.folder import Address, load_folder, split_address
from configs.keys.declare import Entries, Key, Part, described, key
from configs.keys.one_of import OneOf
from configs.keys.values import LINE, SITE_NAME, Around, Choice, Integer, Number, Place, Text, Truth, Value, Words
from configs.kit import SHA256
from configs.schema.privacy import MAX_EPSILON
from configs.schema.source import SOURCES, DataSource, FilePath
from configs.sections import Section
from configs.shown import short

SITE_FILE, LEDGER_FILE = "site.yaml", "ledger.sqlite"
MAX_ADDRESSES = 8


@dataclass(frozen=True, slots=True)
class Policy:
    """The hospital's policy. `max_epsilon` at `delta` is for the life of a data set, all studies."""

    max_epsilon: float = key(
        Number(f"0 < epsilon <= {MAX_EPSILON:g}", 0.0, MAX_EPSILON, above=True),
        "the budget of a patient for the life of a data set, all studies together",
        default=8.0,
    )
    delta: float = key(
        Number("0 < delta <= 0.01", 0.0, 0.01, above=True), "the delta at which max_epsilon holds", default=1e-6
    )
    min_patients: int = key(
        Integer(1, 10**9), "smaller data sets, as the study announces them, join no study", default=50
    )
    allow_privacy_none: bool = key(
        Truth(), "whether a study without differential privacy may be trained", default=False
    )
    require_approval: bool = key(Truth(), "whether a person approves each study", default=True)
    max_message_mb: int = key(Integer(1, 100_000), "larger messages are refused", default=200)
    kits: Literal["none", "approved"] = key(
        Choice(("none", "approved")),
        "whether studies may open study kits (a researcher's own model) that a person here approved, by digest",
        default="none",
    )
    metrics: Literal["none", "noisy"] = key(
        Choice(("none", "noisy")),
        "how good a model is on test patients: it does not leave, or with noise, out of max_epsilon",
        default="none",
    )


@dataclass(frozen=True, slots=True)
class Dataset:
    """The source of one study's rows. `identity` names the patients: their budget follows it, not the file's name."""

    study: str
    source: DataSource
    identity: str


_SOURCE = OneOf(SOURCES, "connector", "a mapping with connector and path", default="csv", strays=True)
_IDENTITY = Key(
    "identity",
    LINE,
    default=None,
    unsaid="the study's name",
    about="names the patients: their budget follows it, whatever the file is called",
)


class _Dataset(Value):
    """A source, and the identity of its patients."""

    expected = _SOURCE.expected

    def read(self, at: Place) -> Dataset:
        """Return the data set of the study that the key names."""
        entry = at.section.section(at.key, self.expected)
        identity = _IDENTITY.read(entry, at.around)["identity"]
        return Dataset(at.key, _SOURCE.read_mapping(entry, at.around), identity or at.key)

    def write(self, value: Any) -> dict[str, Any]:
        """Return the source's keys, and the identity."""
        return _SOURCE.write(value.source) | _IDENTITY.write(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return the connectors' alternatives, each with an identity."""
        return _SOURCE.schema_with({"identity": described(_IDENTITY)})

    @property
    def children(self) -> tuple[tuple[str, Key], ...]:
        """Return the keys of every connector, and the identity."""
        return (*_SOURCE.children, ("", _IDENTITY))


class _Addresses(Value):
    """A list of distinct `host:port`; none and false are the empty one."""

    expected = f"a list of at most {MAX_ADDRESSES} addresses host:port"

    def read(self, at: Place) -> tuple[str, ...]:
        """Return the addresses; those that are none, or are given twice, are noted by their place in the list."""
        if at.found is False:
            return ()
        if not isinstance(at.found, list) or len(at.found) > MAX_ADDRESSES:
            shown = f"{len(at.found)} of them" if isinstance(at.found, list) else at.found
            advice = "list the data bases that the worker may reach: [db.example.org:5432]"
            at.problem(self.expected, advice, found=shown)
            return ()
        entries = Section({str(index): entry for index, entry in enumerate(at.found)}, at.key, at.section.problems)
        places = (Place(entries, str(index), entry, at.around) for index, entry in enumerate(at.found))
        addresses = [Address().read(place) for place in places]
        sources: set[tuple[str, int]] = set()
        for index, text in enumerate(addresses):
            where = split_address(text.lower()) if text else ("", index)
            if where in sources:
                entries.problem(str(index), "each address once", text, "take it out")
            sources.add(where)
        return tuple(addresses)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a list of addresses, or false."""
        addresses = {"type": "array", "items": Address().schema, "maxItems": MAX_ADDRESSES}
        return {"anyOf": [addresses, {"const": False}]}


def _study_flaw(name: str) -> str:
    return "" if SITE_NAME.fullmatch(name) else "expected a study's name of a-z, 0-9, - and _; rename it"


@dataclass(frozen=True)
class SiteConfig:
    """One hospital's `site.yaml`. `folder` is its folder, which holds everything the node keeps."""

    folder: Path
    site: str = key(
        Text("a hospital's name of a-z, 0-9, - and _", SITE_NAME), "the hospital's name, the same in every study"
    )
    coordinator: str = key(Address(), "the one address that the node connects to, outwards")
    datasets: tuple[Dataset, ...] = key(
        Entries(
            _Dataset(),
            _study_flaw,
            "a mapping of study: {connector, path}",
            member="STUDY",
            split=lambda dataset: (dataset.study, dataset),
            ordered=False,
        ),
        "where the rows of each study lie that this hospital may join",
        default=(),
    )
    policy: Policy = key(
        Part(Policy), "what the hospital allows, whoever asks", default=Policy(), unsaid="each key's own"
    )
    extra_ca: Path | None = key(
        FilePath(), "certificates of a hospital's proxy that opens TLS, which has its own authority", default=None
    )
    worker_network: tuple[str, ...] = key(
        _Addresses(),
        "host:port of data bases: all that the process that sees patients can reach",
        default=(),
        unsaid="none",
    )
    reread_s: int = key(
        Integer(60, 30 * 86_400),
        "a round is trained on rows that were read at most so many seconds before",
        default=3600,
    )
    kit_run: Literal["forked", "together"] = key(
        Choice(("forked", "together")),
        "how a kit's code sees patients: each in a process of its own that has seen nobody else, or one after "
        "another in the worker, where a person has read it",
        default="forked",
    )
    device: Literal["cpu", "cuda"] = key(
        Choice(("cpu", "cuda")),
        "where networks are trained; cuda: on a GPU, where a run repeats itself within rounding and not to the bit",
        default="cpu",
    )
    kit_signers: tuple[str, ...] = key(
        Words("a list of public keys, 64 digits of 0-9 and a-f each", 1, 20, "1 to 20 keys", "or leave it out"),
        "public keys of the consortium's reviewers: a kit is approved only where all of them signed it",
        default=(),
    )
    sha256: str = ""  # of site.yaml as it was read

    def check(self, section: Section, around: Around) -> None:
        """Note wrong keys, a name that is the other side's, and data sets whose patients would have two budgets."""
        if self.site == "coordinator":
            advice = "take another: this one is the other side's in every message"
            section.problem("site", "a hospital's name", self.site, advice)
        if odd := [key for key in self.kit_signers if not SHA256.fullmatch(key)]:
            section.problem(
                "kit_signers", "public keys of 64 digits of 0-9 and a-f", odd[0], "archipel kit sign prints it"
            )
        if self.device == "cuda" and self.policy.kits == "approved" and self.kit_run == "forked":
            advice = "write device: cpu, kit_run: together, or policy.kits: none"
            expected = "cpu with study kits that run in children, as a process that uses a GPU cannot be forked"
            section.problem("device", expected, self.device, advice)
        entries = section.values.get("datasets")
        if isinstance(entries, Mapping):
            _check_identities(self, entries, section, around["booked"])

    def dataset(self, study: str) -> Dataset | None:
        """Return the data set of the study of this name."""
        return next((dataset for dataset in self.datasets if dataset.study == study), None)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the names of the environment variables that hold data bases' addresses, with their passwords."""
        return tuple(sorted({name for dataset in self.datasets for name in dataset.source.secrets}))

    @property
    def keys(self) -> Path:
        """Return the folder of the keys, readable by its owner alone."""
        return self.folder / "keys"

    @property
    def reread(self) -> Path:
        """Return the file that asks the worker, when changed, to read the data again at once."""
        return self.folder / "reread"

    @property
    def id_key(self) -> Path:
        """Return the key of these hashes, and of the digests of what was read; it signs nothing."""
        return self.ids / "key"

    @property
    def ids(self) -> Path:
        """Return the folder of keyed hashes that tell whether two data sets have patients in common."""
        return self.folder / "ids"

    @property
    def welcome(self) -> Path:
        """Return what `join` keeps of the coordinator's welcome."""
        return self.folder / "welcome.json"

    @property
    def outbox(self) -> Path:
        """Return the folder of every message that left."""
        return self.folder / "outbox"

    @property
    def models(self) -> Path:
        """Return the folder of how studies ended, and of the models that came of them."""
        return self.folder / "models"

    @property
    def personal(self) -> Path:
        """Return the folder of what the worker made of patients after a study's end; it never leaves."""
        return self.folder / "personal"

    @property
    def kits(self) -> Path:
        """Return the folder of study kits; the worker only reads it."""
        return self.folder / "kits"

    @property
    def journal(self) -> Path:
        """Return the journal of what came, was decided, left."""
        return self.folder / "journal.jsonl"

    @property
    def ledger(self) -> Path:
        """Return the file of the privacy budget."""
        return self.folder / LEDGER_FILE

    @property
    def lock(self) -> Path:
        """Return the file that is held while a node runs; it says with which site.yaml."""
        return self.folder / "node.lock"

    @property
    def admissions(self) -> Path:
        """Return the file of which studies this hospital approved."""
        return self.folder / "admissions.sqlite"


def no_ledger(_path: Path) -> tuple[str, ...]:
    """Return no identities."""
    return ()


def load_site(folder: Path, booked: Callable[[Path], Sequence[str]] = no_ledger) -> SiteConfig:
    """Read `site.yaml` in a folder.

    Args:
        booked: returns the identities under which a ledger holds releases, oldest first; an error of site.yaml must
            not name an identity whose budget would begin anew.

    Raises:
        ConfigError: the file cannot be read or holds mistakes; all of them are listed.
    """
    return load_folder(SiteConfig, folder, SITE_FILE, booked=booked)


def _check_identities(
    config: SiteConfig, entries: Mapping[Any, Any], section: Section, booked: Callable[[Path], Sequence[str]]
) -> None:
    unnamed = {
        str(study) for study, entry in entries.items() if isinstance(entry, Mapping) and entry.get("identity") is None
    }
    located = [dataset for dataset in config.datasets if dataset.source.located]
    spent = booked(config.ledger) if unnamed else ()
    for dataset, other in itertools.combinations(located, 2):
        if dataset.identity == other.identity or not dataset.source.shares_store(other.source):
            continue
        kin = {each.identity for each in located if each.source.shares_store(dataset.source)}
        former = next((identity for identity in spent if identity in kin), None)
        for nameless in sorted({dataset.study, other.study} & unnamed):
            why = f"as another study reads the same {other.source.store} and a patient of both has one budget"
            what = f"give {short(dataset.study)} and {short(other.study)} the same identity"
            if former is not None:
                what += f", {short(former)}: under this name the ledger holds what their patients have spent"
            if dataset.source.networked:
                what += ", or each its own where no patient is in both"
            section.note(f"datasets.{nameless}", f"expected an identity, {why}, found none; {what}")


def same_rows_twice(datasets: Sequence[Dataset]) -> list[tuple[Dataset, Dataset]]:
    """Return pairs that read the same rows under two identities: to the ledger two groups of patients, two budgets."""
    return [
        (b, a)
        for a, b in itertools.combinations(datasets, 2)
        if a.identity != b.identity and a.source.shares_rows(b.source)
    ]
