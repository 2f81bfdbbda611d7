"""The worker of tests/federation/seeded_node.py: ours, with noise that can be repeated."""

import sys

from client.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], seeded=True))
