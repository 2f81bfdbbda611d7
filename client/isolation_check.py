"""The check of the worker's isolation in `archipel-site check`.

It is made by a process that isolates itself as the worker does.

python -m client.isolation_check FOLDER    # 0 it is alone; 3 it keeps the network; 4 it cannot; says which fence holds
"""

import sys
from pathlib import Path

from client.fence import fence
from client.forwarder import leave_network_but
from configs.errors import RunError
from configs.site import load_site

STAYS, FAILS = 3, 4


def main(folder: Path) -> int:
    """Leave the network but for the listed addresses, and put up the fence."""
    config = load_site(folder)
    try:
        alone = leave_network_but(config.worker_network)
    except RunError as error:
        print(error)
        return FAILS
    print(fence(config, books=False))
    return 0 if alone else STAYS


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
