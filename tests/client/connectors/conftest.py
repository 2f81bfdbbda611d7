"""One data base for all tests of connectors."""

from collections.abc import Iterator

import pytest

from tests.postgresql import PostgreSql, running


@pytest.fixture(scope="session")
def server() -> Iterator[PostgreSql]:
    with running() as found:
        yield found
