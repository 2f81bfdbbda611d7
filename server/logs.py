"""Logging configuration: INFO for Archipel, WARNING for third-party libraries.

Each line of ours appears once.
"""

import logging

from configs.commands import guard_lines

_LIBRARIES = ("httpx", "alembic", "flwr", "flwr-serverapp")


def write_lines() -> None:
    """Write lines to standard error from here on."""
    guard_lines()
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
