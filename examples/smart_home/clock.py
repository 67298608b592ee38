"""The wall clock in milliseconds, as everything here counts time."""

import time
from collections.abc import Callable

Clock = Callable[[], int]


def now_ms() -> int:
    """Return ms since the epoch."""
    return time.time_ns() // 1_000_000
