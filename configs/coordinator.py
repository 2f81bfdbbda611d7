"""`coordinator.yaml`: the settings of a consortium's coordinator.

The file belongs to the person who runs the machine.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from configs.folder import Address, load_folder
from configs.keys import declare
from configs.keys.values import Integer, Place, Text, Words

COORDINATOR_FILE = "coordinator.yaml"
MAX_SOCKETS_PATH = 85  # Linux allows 107 bytes for a socket's path, the socket's own name among them
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")
_DAY = 86_400


class _Names(Words):
    """Host names and addresses."""

    def read(self, at: Place) -> tuple[str, ...]:
        """Return the names, whatever is wrong with them noted."""
        names = () if at.found is None else Words.read(self, at)
        if not names or not all(_NAME.fullmatch(name) for name in names):
            expected = "the host names and addresses that hospitals use"
            at.problem(expected, "list them", found=list(names) or None)
        return names


@dataclass(frozen=True)
class CoordinatorConfig:
    """One consortium's `coordinator.yaml`. `names` are the host names and addresses in the server's certificate."""

    folder: Path
    name: str = declare.key(Text("a name", limit=200), "the consortium's name")
    names: tuple[str, ...] = declare.key(
        _Names("a list of host names and addresses"),
        "host names and addresses that hospitals use; they go into the server's certificate",
    )
    listen: str = declare.key(Address(), "the only port that hospitals reach", default="0.0.0.0:8443")
    health: str = declare.key(
        Address(), "grpc.health.v1, for the consortium's own monitoring", default="127.0.0.1:8444"
    )
    gather_timeout_s: int = declare.key(
        Integer(1, 90 * _DAY), "how long a study waits for its hospitals to connect and approve", default=30 * _DAY
    )
    gather_quorum_after_s: int = declare.key(
        Integer(0, 90 * _DAY), "how long it waits for more once the quorum has approved; 0: not at all", default=3600
    )
    absent_after_s: int = declare.key(
        Integer(1, _DAY),
        "a hospital without a connection for so long is not asked in a round with a quorum",
        default=60,
    )
    max_request_mb: int = declare.key(Integer(6, 1024), "larger requests are refused", default=16)
    requests_per_second: int = declare.key(Integer(1, 100_000), "how many requests one hospital may make", default=100)

    @property
    def pki(self) -> Path:
        """Return the folder of keys and certificates."""
        return self.folder / "pki"

    @property
    def database(self) -> Path:
        """Return the file of members and studies."""
        return self.folder / "coordinator.sqlite"

    @property
    def journal(self) -> Path:
        """Return the journal of what was sent, received and decided."""
        return self.folder / "journal.jsonl"

    @property
    def lock(self) -> Path:
        """Return the file that is held while a coordinator runs."""
        return self.folder / "coordinator.lock"

    @property
    def runs(self) -> Path:
        """Return the folder of runs, as a simulation leaves them."""
        return self.folder / "runs"

    @property
    def sockets(self) -> Path:
        """Return the folder of sockets, which only their owner can open.

        It lies in this folder, or, where its path is too long for a socket's, under the user's runtime directory
        (XDG_RUNTIME_DIR, else the directory of temporary files, else /tmp).

        >>> CoordinatorConfig(Path("/srv/" + "x" * 120), "", ()).sockets.name
        'archipel-f6846510cbe74a12'
        """
        inside = self.folder / "sockets"
        if len(os.fsencode(inside)) <= MAX_SOCKETS_PATH:
            return inside
        name = f"archipel-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]}"
        preferred = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / name
        shared = Path("/tmp") / name  # noqa: S108 - a folder that is not this user's alone is refused
        return preferred if len(os.fsencode(preferred)) <= MAX_SOCKETS_PATH else shared


def load_coordinator(folder: Path) -> CoordinatorConfig:
    """Read `coordinator.yaml` in a folder.

    Raises:
        ConfigError: the file cannot be read or holds mistakes; all of them are listed.
    """
    return load_folder(CoordinatorConfig, folder, COORDINATOR_FILE)


def coordinator_yaml(name: str, names: Sequence[str], listen: str) -> str:
    """Return the text of a new coordinator.yaml: every key with what it means.

    Keys that need not be there are commented out, with the value that holds: to set another, change the line
    or write a file of your own.
    """
    text = resources.files("configs").joinpath("coordinator.example.yaml").read_text("utf-8")
    settings = {"name": name, "names": list(names), "listen": listen}
    for key, value in settings.items():
        line = f"{key}: {json.dumps(value, ensure_ascii=False)}"
        text = re.sub(rf"(?m)^{key}: .*?(?=  +#|$)", line.replace("\\", r"\\"), text)
    return re.sub(rf"(?m)^(?!#|{'|'.join(settings)})(?=[a-z_]+:)", "# ", text)
