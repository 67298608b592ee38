"""What the faults need that a machine may not have."""

import pytest

from tests.processes import program


@pytest.fixture
def needs_redis(request: pytest.FixtureRequest) -> None:
    """Skip the faults of Redis where there is none."""
    if "redis" in request.node.name:
        program("redis-server")
