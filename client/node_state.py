"""The identity of the node's last process in a hospital's folder."""

import json
from pathlib import Path

from configs.site import SiteConfig

STATE = "node.state"


class NodeState:
    """Which node this folder's last process was, so that the next one can sign it off.

    It holds for this folder on this machine since it was started; a copy of the folder is another identity's business.
    """

    def __init__(self, config: SiteConfig) -> None:
        self._path, self._lock = config.folder / STATE, config.lock

    def previous(self) -> int | None:
        """Return the node id, if the process is known to be dead."""
        try:
            state = json.loads(self._path.read_bytes())
            return int(state["node_id"]) if state["where"] == self._where() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, node_id: int) -> None:
        """Remember this process."""
        self._path.write_text(json.dumps({"node_id": node_id, "where": self._where()}))

    def forget(self) -> None:
        """Forget a process that is signed off; the coordinator would log an error at a second time."""
        self._path.unlink(missing_ok=True)

    def _where(self) -> str:
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            boot = ""
        status = self._lock.stat()
        return f"{boot}/{status.st_dev}/{status.st_ino}"
