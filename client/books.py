"""The records of a hospital's node on disk, opened together and compared.

They are its key, its approvals, its journal and outbox, and its ledger.
"""

from dataclasses import dataclass

from client.admission import Admissions
from client.audit import Audit
from client.enrol import load_signing_key
from client.ledger import Ledger
from client.records import Records
from configs.site import SiteConfig
from strategies.exchange.keys import SigningKey


@dataclass(frozen=True)
class Books:
    """The opened files of one folder."""

    key: SigningKey
    admissions: Admissions
    audit: Audit
    ledger: Ledger
    records: Records

    @classmethod
    def open(cls, config: SiteConfig) -> "Books":
        """Open or create them.

        Raises:
            RunError: one cannot be opened.
        """
        key = load_signing_key(config)
        admissions, audit, ledger = Admissions.open(config.admissions), Audit(config, key), Ledger.open(config.ledger)
        return cls(key, admissions, audit, ledger, Records(config, audit, ledger, admissions, key))

    def close(self) -> None:
        """Let go of the data bases."""
        self.ledger.close()
        self.admissions.close()
