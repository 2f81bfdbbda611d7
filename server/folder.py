"""A coordinator's folder as its commands open it.

Nothing heavy is imported until a part of it is opened.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.coordinator import CoordinatorConfig, load_coordinator
from configs.errors import RunError
from configs.folder import typed
from configs.lock import holder

if TYPE_CHECKING:
    from configs.records.kinds import Kind
    from server.membership import Membership


@dataclass(frozen=True, slots=True)
class CoordinatorFolder:
    """A coordinator's settings, and its folder as it was typed."""

    config: CoordinatorConfig
    path: Path

    @classmethod
    def open(cls, path: Path) -> "CoordinatorFolder":
        """Read coordinator.yaml.

        Raises:
            ConfigError: there is none, or it has mistakes.
        """
        return cls(load_coordinator(path), path)

    def typed(self, command: str) -> str:
        """Return a command for this folder, as a person types it."""
        return typed("archipel-coordinator", self.path, command)

    @property
    def members(self) -> "Membership":
        """Open the database of members and studies.

        Raises:
            RunError: no coordinator was begun here.
        """
        from server.membership import Membership

        if not self.config.database.exists():
            raise RunError(
                f"{self.config.folder}: expected a coordinator's folder; begin with: archipel-coordinator init"
            )
        return Membership.open(self.config.database)

    def note(self, record: "Kind") -> None:
        """Write a decision into the coordinator's journal."""
        from configs.journal import Journal
        from server.continuity import note
        from server.pki import Pki

        members = self.members
        note(members, Journal(self.config.journal, sign=Pki(self.config.pki).load_signing_key().sign), record)
        members.close()

    def run(self, name: str) -> str:
        """Return the name of the run that is meant: `latest`, or a name.

        Raises:
            RunError: there is none.
        """
        names = [run.name for run in self.members.runs()]
        if name == "latest" and names:
            return names[-1]
        name = Path(name).name
        if name not in names:
            raise RunError(f"{name!r}: expected a run's name, found none such; see: archipel-coordinator status")
        return name

    def report(self, run: str) -> Path | None:
        """Return the report of a run that ended, None where it has none."""
        path = self.path / "runs" / run / "report.html"
        return path if path.is_file() else None

    @property
    def absence(self) -> str:
        """Say that no coordinator runs in this folder, whatever the runs' states say; empty where one does."""
        if holder(self.config.lock) is not None:
            return ""
        return f"no coordinator runs here; start it with: {self.typed('start')}"
