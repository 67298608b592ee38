"""What the faults need that a machine may not have."""

import shutil

import pytest


@pytest.fixture
def needs_redis(request: pytest.FixtureRequest) -> None:
    """Skip the faults of Redis where there is none."""
    if "redis" in request.node.name and shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
