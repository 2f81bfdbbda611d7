"""A node as `archipel-site start` is one, but for its clock, which is off by so many seconds.

python -P tests/federation/late_node.py SECONDS FOLDER
"""

import sys
import time

_true = time.time
_OFF = float(sys.argv[1])


def late() -> float:
    """Return the time of a clock that is off."""
    return _true() + _OFF


if __name__ == "__main__":
    time.time = late
    from client.cli import main

    sys.exit(main(["-C", sys.argv[2], "start"]))
