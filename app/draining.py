"""How far a worker is on its way out: known to its server, its connections and its application.

The application makes one such object and hands it to the server in the lifespan's state, which every
connection gets; the lifespan's own end comes too late, when nothing can be said any more.
"""

from collections.abc import Callable
from typing import Any

#: Its place in the lifespan's state.
DRAINING = "gateway.draining"


class Draining:
    """First announced, so that load balancers stop sending; then begun."""

    def __init__(self, end_streams: Callable[[], None] = lambda: None) -> None:
        self.is_announced = self.has_begun = False
        self._end_streams = end_streams

    def announce(self) -> None:
        """Let readiness say that this worker is leaving."""
        self.is_announced = True

    def begin(self) -> None:
        """Tell the streams, and connections that come from now on."""
        self.announce()
        self.has_begun = True
        self._end_streams()


def draining_of(state: dict[str, Any]) -> Draining:
    """Return the object in this lifespan's state."""
    found: Draining = state.setdefault(DRAINING, Draining())
    return found
