"""Numbers and seeds on a command line.

>>> seeds_of("3", 7), seeds_of("0,4", 7)
((7, 8, 9), (0, 4))
"""

import argparse
from contextlib import suppress

from configs.errors import ArchipelError


def positive(text: str) -> int:
    """Return a number of processes, repetitions or seconds."""
    return integer(text, 1, 1024)


def seed(text: str) -> int:
    """Return a seed."""
    return integer(text, 0, 2**32 - 1)


def integer(text: str, low: int, high: int) -> int:
    """Return a whole number.

    Raises:
        argparse.ArgumentTypeError: it is none, or out of its bounds.
    """
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"expected an integer from {low} to {high}, found {text[:40]!r}")
    return value


def seeds_of(text: str, first: int, *, least: int = 2) -> tuple[int, ...]:
    """Return the seeds that an option names: so many from the first on, or a list.

    Raises:
        ArchipelError: it names none, or one twice.
    """
    words, seeds = text.split(","), list[int]()
    with suppress(argparse.ArgumentTypeError):
        if len(words) > 1:
            seeds = [seed(word) for word in words]
        else:
            seeds = [first + n for n in range(integer(text, least, 1000))]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ArchipelError(
            f"--seeds: expected a number from {least} to 1000, or a list such as 0,1,2, found {text[:40]!r}"
        )
    return tuple(seeds)
