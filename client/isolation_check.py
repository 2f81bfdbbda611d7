"""What `archipel-site check` says of the process that sees patients: tried by a process that does as the worker does.

python -m client.isolation_check [HOST:PORT...]    # 0 it is alone; 3 it keeps the network; 4 what it prints
"""

import sys

from client.forwarder import leave_network_but
from configs.errors import RunError

STAYS, FAILS = 3, 4


def main(addresses: list[str]) -> int:
    """Leave the network but for the listed addresses."""
    try:
        return 0 if leave_network_but(addresses) else STAYS
    except RunError as error:
        print(error)
        return FAILS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
