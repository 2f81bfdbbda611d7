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
    "simulations/test_audit_finds_what_moves.py",
    "federation/test_engines.py",
    "kits/test_deployed_kits.py",
    "federation/test_deployed_data.py",
    "federation/test_settle_deployed.py",
    "strategies/privacy/test_privacy_plan.py",
    "server/test_gateway.py",
    "client/test_doctor.py",
    "strategies/privacy/test_accounting.py",
    "federation/test_lost_releases.py",
    "federation/test_stock_flower.py",
    "federation/test_rehearsal.py",
    "test_release.py",
    "simulations/test_bad_input.py",
    "test_installed_code.py",
    "simulations/test_audit.py",
    "simulations/test_benchmark_kernels.py",
    "simulations/test_benchmark_simulation.py",
    "client/test_review_of_data.py",
    "server/test_report.py",
    "client/connectors/test_postgresql_at_a_hospital.py",
    "strategies/privacy/test_stacks.py",
    "simulations/test_resume.py",
    "simulations/test_worth.py",
    "client/test_worker_ends.py",
    "test_strangers_texts.py",
    "simulations/test_counting.py",
    "simulations/test_rounds_trained_together.py",
    "client/test_no_row_is_told.py",
    "server/test_sealed_grid.py",
    "server/test_shelf.py",
    "client/test_fence.py",
    "server/test_exchange.py",
    "client/test_identity.py",
    "client/uplink/test_fleet.py",
    "simulations/test_benchmark_many_patients.py",
    "client/test_node.py",
    "simulations/test_benchmark_heart.py",
    "simulations/test_benchmark_accounting.py",
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
