"""Each command says its version, what protocols it talks and its arithmetic, without anything heavy."""

import subprocess
import sys
from importlib import metadata

import pytest

from configs import wire

COMMANDS = {"archipel": "simulations", "archipel-site": "client", "archipel-coordinator": "server"}


@pytest.mark.parametrize("program", COMMANDS)
def test_a_command_says_the_versions_that_two_sides_compare(program: str) -> None:
    code = (
        f"import sys; from {COMMANDS[program]} import cli; sys.argv = ['x', '--version']\n"
        "try: cli.main()\n"
        "finally: assert not {'torch', 'flwr', 'numpy', 'opacus'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    version = f"{program} {metadata.version('archipel')}"
    assert ran.stdout == f"{version} (protocol 1 to {wire.PROTOCOL_MAX}, arithmetic {wire.ARITHMETIC})\n"
