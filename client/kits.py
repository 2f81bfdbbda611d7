"""The study kits of a hospital: added from a wheel, approved by a person, checked to the byte; never executed here.

A kit lies in `kits/<sha256>/`, unpacked by our own unzip, every file for reading alone. What a person approved stands
in `kits/approvals.json`, signatures of reviewers in `kits/<sha256>.sig`. Nothing of it comes from the coordinator.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from client.policy import Deny
from configs.errors import KitError, RunError
from configs.files import write_atomically
from configs.kit import SHA256, SIGNATURES, TO_MEND, KitFiles, kit_in, require_digest, statement_of
from configs.kit_rules import is_met, require_kit, require_requirement
from configs.schema import Study
from configs.schema.kit import KitKeys
from configs.shown import short
from configs.site import SiteConfig
from configs.wire import KIT_ABSENT, KIT_OTHER, KIT_UNAPPROVED

APPROVALS = "approvals.json"
FEWEST_DIGITS = 12  # of a digest that a person types
MAX_SIGNATURES = 100_000  # bytes of their file


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's decision on a kit."""

    name: str
    version: str
    by: str
    time: str


@dataclass(frozen=True, slots=True)
class StoredKit:
    """A kit that was added. `flaw`: why its files are no longer those of its digest; empty where they are."""

    sha256: str
    folder: Path
    files: KitFiles | None
    flaw: str = ""
    approval: Approval | None = None
    signers: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Return its name and version, and the digest's first digits."""
        about = self.files.about if self.files else self.approval
        return f"{f'{about.name} {about.version}' if about else 'a kit'} ({self.sha256[:FEWEST_DIGITS]})"


class Kits:
    """The kits of one hospital's folder."""

    def __init__(self, config: SiteConfig) -> None:
        self._config, self.folder = config, config.kits

    def add(self, wheel: Path) -> tuple[StoredKit, bool]:
        """Unpack a wheel, whole or not at all; return the kit, and whether it was there already.

        Raises:
            KitError: the wheel breaks a rule, or requires what is not installed. RunError: it cannot be read or kept.
        """
        try:
            kit = require_kit(_content(wheel), wheel.name)
            require_installed(kit)
            folder = self.folder / kit.sha256
            self.folder.mkdir(mode=0o700, exist_ok=True)
            if known := folder.exists():
                require_digest(folder, kit.sha256)
            else:
                _unpack(kit, folder)
            beside = wheel.with_name(wheel.name + SIGNATURES)
            if beside.is_file():
                write_atomically(self.folder / f"{kit.sha256}{SIGNATURES}", beside.read_bytes()[:MAX_SIGNATURES])
        except OSError as error:
            raise RunError(f"{wheel}: {error.strerror}; no kit was added") from None
        return self.get(kit.sha256), known

    def all(self) -> Iterator[StoredKit]:
        """Yield every kit, by name and version."""
        with contextlib.suppress(OSError):
            names = [entry.name for entry in os.scandir(self.folder) if SHA256.fullmatch(entry.name)]
            yield from sorted(map(self.get, names), key=lambda kit: (kit.label, kit.sha256))

    def get(self, sha256: str) -> StoredKit:
        """Return one kit as it lies there."""
        folder, approval = self.folder / sha256, self._approvals().get(sha256)
        files, flaw = None, ""
        try:
            files = kit_in(folder)
            if files.sha256 != sha256:
                flaw = f"they were changed after they were added; {TO_MEND}"
        except KitError as error:
            flaw = str(error)
        return StoredKit(sha256, folder, files, flaw, approval, tuple(self._signers(sha256)))

    def named(self, word: str) -> list[StoredKit]:
        """Return the kits of a name, or the one of a digest that begins so."""
        kits = list(self.all())
        digits = [kit for kit in kits if len(word) >= FEWEST_DIGITS and kit.sha256.startswith(word)]
        return digits or [kit for kit in kits if kit.files and kit.files.about.name == word]

    def one(self, digest: str) -> StoredKit:
        """Return the kit of a digest.

        Raises:
            RunError: there is none, or several.
        """
        kits = [kit for kit in self.all() if len(digest) >= FEWEST_DIGITS and kit.sha256.startswith(digest)]
        if len(kits) != 1:
            raise RunError(
                f"{short(digest)}: expected the digest of one kit ({FEWEST_DIGITS} digits or more), found {len(kits)}; "
                "see: archipel-site kit list"
            )
        return kits[0]

    def approve(self, digest: str, by: str) -> StoredKit:
        """Approve one kit, to the byte.

        Raises:
            RunError: there is no such kit, or the policy allows none. KitError: its files were changed, a reviewer has
                not signed it, or what it requires is not installed.
        """
        kit = self.one(digest)
        if self._config.policy.kits == "none":
            raise RunError("policy.kits: expected approved in site.yaml, found none: this hospital opens no kit")
        require_installed(require_digest(kit.folder, kit.sha256))
        if missing := self.unsigned(kit):
            raise KitError(
                f"kit {kit.label}: expected the signature of every reviewer in kit_signers, found none by "
                f"{', '.join(key[:16] for key in missing)}; ask for it, and add the wheel again with its file beside it"
            )
        assert kit.files is not None
        about = kit.files.about
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._write({**self._approvals(), kit.sha256: Approval(about.name, about.version, by, moment)})
        return self.get(kit.sha256)

    def withdraw(self, digest: str) -> StoredKit:
        """Take an approval back: no study that needs the kit goes on here.

        Raises:
            RunError: there is no such kit, or it is not approved.
        """
        kit, approvals = self.one(digest), self._approvals()
        if kit.sha256 not in approvals:
            raise RunError(f"kit {kit.label}: expected one that is approved, found none; nothing was changed")
        self._write({sha256: each for sha256, each in approvals.items() if sha256 != kit.sha256})
        return kit

    def unsigned(self, kit: StoredKit) -> list[str]:
        """Return the reviewers of site.yaml who have not signed a kit."""
        return [key for key in self._config.kit_signers if key not in kit.signers]

    def files(self, keys: KitKeys) -> KitFiles:
        """Return the files of an approved kit, hashed now: what the worker executes.

        Raises:
            KitError: it is not here, not approved, or was changed.
        """
        if denial := standing(self._config, keys):
            raise KitError(denial.reason)
        return require_digest(self.folder / keys.sha256, keys.sha256)

    def _approvals(self) -> Mapping[str, Approval]:
        try:
            entries = json.loads((self.folder / APPROVALS).read_text("ascii"))
            return {str(sha256): Approval(**entry) for sha256, entry in entries.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # a file that cannot be read approves nothing

    def _write(self, approvals: Mapping[str, Approval]) -> None:
        content = {sha256: asdict(approval) for sha256, approval in sorted(approvals.items())}
        try:
            write_atomically(self.folder / APPROVALS, json.dumps(content, indent=1).encode("ascii"), private=True)
        except OSError as error:
            raise RunError(f"{self.folder / APPROVALS}: {error.strerror}; nothing was changed") from None

    def _signers(self, sha256: str) -> Iterator[str]:
        from strategies.exchange.keys import verify  # what lists kits needs no cryptography where none is signed

        try:
            text = (self.folder / f"{sha256}{SIGNATURES}").read_text("ascii")
        except (OSError, ValueError):
            return
        for line in text.splitlines():
            public, _, signature = line.partition(" ")
            if verify(public, statement_of(sha256), signature.strip()):
                yield public


def standing(config: SiteConfig, keys: KitKeys) -> Deny | None:
    """Return why a study's kit may not run here, None where it may; only public facts are looked at."""
    kits, need = Kits(config), f"{keys.name} {keys.version} ({keys.sha256[:FEWEST_DIGITS]})"
    if config.policy.kits == "none":
        return Deny(KIT_UNAPPROVED, f"it needs the study kit {need}; the policy allows none (policy.kits)")
    if not (kits.folder / keys.sha256).is_dir():
        others = [kit.label for kit in kits.all() if kit.files and kit.files.about.name == keys.name]
        if others:
            return Deny(KIT_OTHER, f"it needs the study kit {need}, here is {', '.join(others)}: add the right wheel")
        return Deny(KIT_ABSENT, f"it needs the study kit {need}, which is not here: archipel-site kit add WHEEL")
    kit = kits.get(keys.sha256)
    about = kit.files.about if kit.files else None
    if kit.flaw or about is None or (about.name, about.version) != (keys.name, keys.version):
        why = kit.flaw or "it has another name or version"
        return Deny(KIT_OTHER, f"it needs the study kit {need}, which is not as it was added: {why}")
    if kit.approval is None or kits.unsigned(kit):
        todo = f"read it (archipel-site kit show {keys.sha256[:FEWEST_DIGITS]}) and approve it"
        return Deny(KIT_UNAPPROVED, f"it needs the study kit {need}, which nobody here has approved: {todo}")
    return None


def standing_of(config: SiteConfig, study: Study) -> Deny | None:
    """Return the same of a study; None where it needs no kit."""
    if study.kit is None:
        return None
    return standing(config, study.kit)


def require_installed(kit: KitFiles) -> None:
    """Check that what a kit requires is installed here.

    Raises:
        KitError: names the first that is not, and how to install it.
    """
    for requirement in kit.about.requires:
        name, bounds = require_requirement(requirement)
        try:
            found = version(name)
        except PackageNotFoundError:
            found = ""
        if not found or not is_met(bounds, found):
            raise KitError(
                f"kit {kit.about.name}: it needs {requirement}, found {found or 'none'} here; install it in Archipel's "
                f"environment (pip install '{requirement}'), then go on"
            )


def _content(wheel: Path) -> bytes:
    if wheel.is_symlink() or not wheel.is_file():
        raise KitError(f"{wheel}: expected a wheel, found no plain file; give the file itself")
    with wheel.open("rb") as file:
        return file.read(4_000_000)


def _unpack(kit: KitFiles, folder: Path) -> None:
    """Write a kit's files for reading alone, then give them their name."""
    part = folder.with_name(f".{kit.sha256[:16]}.{os.getpid()}.part")
    try:
        for name, content in kit.files.items():
            path = part / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o444)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
