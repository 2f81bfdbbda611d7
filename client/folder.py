"""A hospital's folder as its commands open it.

Nothing heavy is imported until a part of it is opened.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from client.site_file import load_site
from configs.errors import RunError
from configs.folder import typed
from configs.shown import shown
from configs.site import SiteConfig

if TYPE_CHECKING:
    from client.admission import Admission, Admissions
    from client.audit import Audit, Outgoing
    from client.ledger import Ledger
    from configs.schema import Study


@dataclass(frozen=True, slots=True)
class SiteFolder:
    """A hospital's settings, and its folder as it was typed."""

    config: SiteConfig
    path: Path

    @classmethod
    def open(cls, path: Path) -> "SiteFolder":
        """Read site.yaml.

        Raises:
            ConfigError: there is none, or it has mistakes.
        """
        return cls(load_site(path), path)

    def typed(self, command: str) -> str:
        """Return a command for this folder, as a person types it."""
        return typed("archipel-site", self.path, command)

    @property
    def admissions(self) -> "Admissions":
        """Return the studies that were proposed, and what was decided."""
        from client.admission import Admissions

        return Admissions.open(self.config.admissions)

    @property
    def audit(self) -> "Audit":
        """Return the journal and the outbox."""
        from client.audit import Audit
        from client.enrol import load_signing_key

        return Audit(self.config, load_signing_key(self.config))

    @property
    def ledger(self) -> "Ledger | None":
        """Return what is spent; None where nothing is yet."""
        from client.ledger import Ledger

        return Ledger.open(self.config.ledger) if self.config.ledger.exists() else None

    @property
    def outgoing(self) -> "list[Outgoing]":
        """Return every message that left."""
        return self.audit.outgoing() if self.config.journal.exists() else []

    def study(self, digest: str) -> "Admission":
        """Return the study with a digest that begins so.

        Raises:
            RunError: there is none, or several.
        """
        admissions = self.admissions.named(digest)
        if len(admissions) != 1:
            raise RunError(
                f"{shown(digest, 64)}: expected the digest of one study (8 digits or more), found {len(admissions)}; "
                "see: archipel-site review"
            )
        return admissions[0]

    def study_or_file(self, text: str) -> "Study":
        """Return the study of a file, or the one with a digest that begins so.

        Raises:
            ConfigError: the file is no study. RunError: there is neither.
        """
        path = Path(text)
        if path.suffix in (".yaml", ".yml") or path.is_file():
            from configs.load import load_study

            return load_study(path)
        return self.study(text).study
