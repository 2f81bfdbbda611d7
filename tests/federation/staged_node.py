"""A node as `archipel-site start` is one, but for its worker, which is tests/federation/staged_worker.py.

    python -P tests/federation/staged_node.py [--seeded] FOLDER

With `--seeded` a deployed run can be compared with its simulation bit for bit. It protects nobody: no installed command
can do this.
"""

import logging
import os
import sys
from pathlib import Path

from client.node import start
from client.worker_process import WorkerProcess
from configs.commands import prepare
from configs.site import load_site

WORKER = Path(__file__).with_name("staged_worker.py")


def main(options: list[str], folder: Path) -> None:
    """Serve until a signal ends it."""
    prepare(alone=True)
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("httpx", "flwr"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    config = load_site(folder)
    start(config, WorkerProcess(config, [sys.executable, "-P", "-E", str(WORKER), *options, str(folder)]))


if __name__ == "__main__":
    main(sys.argv[1:-1], Path(sys.argv[-1]))
