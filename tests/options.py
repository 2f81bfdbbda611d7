"""The table of every command's options, which stands in the README of each person's room.

Written by `make docs` (tests/trees.py); a test compares.
"""

import argparse
from collections.abc import Iterator

from client import cli as hospital
from server import cli as consortium
from simulations import cli as researcher

BEGIN, END = "<!-- options -->\n", "<!-- end options -->\n"
PARSERS = {
    "archipel": researcher._parser,
    "archipel-site": hospital._parser,
    "archipel-coordinator": consortium._parser,
}
PERSONS = {"simulations": "archipel", "client": "archipel-site", "server": "archipel-coordinator"}


def options_of(program: str) -> Iterator[tuple[str, str, argparse.Action]]:
    """Yield each option and argument of each command: the command, how it is written, what argparse knows of it."""
    parser = PARSERS[program]()
    (subcommands,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for command, sub in subcommands.choices.items():
        for action in sub._actions:
            if not isinstance(action, argparse._HelpAction):
                yield command, written(action), action


def written(action: argparse.Action) -> str:
    """Return an option as it is typed."""
    name = ", ".join(action.option_strings)
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return name
    choices = "|".join(map(str, action.choices)) if action.choices else ""
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    value = choices or metavar or action.dest.upper()
    return f"{name} {value}".strip()


def table(program: str) -> str:
    """Return the options of a program as a folded table in Markdown."""
    cells = ((f"`{command}`", f"`{text}`", action.help or "") for command, text, action in options_of(program))
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)
    return f"<details><summary>Every option of {program}</summary>\n\n{HEAD}{body}\n\n</details>\n"


HEAD = "| command | option | what it does |\n|---|---|---|\n"


def with_options(room: str, text: str) -> str:
    """Return a room's README with its options as they are now."""
    if room not in PERSONS:
        return text
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:begin] + table(PERSONS[room]) + text[end:]
