"""A node as `archipel-site start` is one, but for its clock, which is off by so many seconds.

python -P tests/federation/late_node.py SECONDS FOLDER
"""

import sys
import time


def main(seconds: float, folder: str) -> int:
    """Serve until a signal ends it, by a clock that is off."""
    true = time.time
    time.time = lambda: true() + seconds
    from client.cli import main as command  # after the clock was changed

    return command(["-C", folder, "start"])


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2]))
