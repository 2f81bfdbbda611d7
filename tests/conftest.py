"""For every test: examples that are the same on every run, no time limit on a slow machine, the longest files first.

`make test` hands whole files to several workers, in the order in which they are collected: a long file that begins last
would keep one worker busy when all others are done.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# Bare `pytest` puts tests/ on the path alone, where tests/strategies would hide strategies/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from tests.postgresql import PostgreSql

settings.register_profile(
    "archipel", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.load_profile("archipel")

LONGEST = (  # the first ones wait for networks and processes, and others compute meanwhile
    "federation/test_faults.py",
    "federation/test_cut_off.py",
    "federation/test_deployed.py",
    "simulations/test_audit_finds_sabotage.py",
    "federation/test_engines.py",
    "server/test_gateway.py",
    "strategies/privacy/test_accounting.py",
    "federation/test_rehearsal.py",
    "federation/test_stock_flower.py",
    "client/test_doctor.py",
    "simulations/test_benchmark_heart.py",
    "simulations/test_bad_input.py",
    "simulations/test_counting.py",
    "simulations/test_worth.py",
    "simulations/test_audit.py",
    "simulations/test_audit_many_rows.py",
)


@pytest.fixture(scope="session")
def server() -> Iterator["PostgreSql"]:
    """One data base for all tests of connectors."""
    from tests.postgresql import running

    with running() as found:
        yield found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; within a file, and among the others, nothing moves."""
    rank = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))
