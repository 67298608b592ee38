"""How fast a WebSocket may name devices: opening it was one request, and each has to be looked up."""

#: So many at once, as when a reader comes back, and so many a second from then on. Each costs ThingsBoard a
#: few calls: its name, its permission, its attributes.
DEVICES_AT_ONCE = 1_000
DEVICES_A_SECOND = 50


class FramePace:
    """The devices that one connection has named, as a bucket that refills.

    Args:
        now: monotonic seconds, as in `wait`.
    """

    def __init__(self, now: float) -> None:
        self._left, self._since = float(DEVICES_AT_ONCE), now

    def wait(self, devices: int, now: float) -> float:
        """Count these devices; return the seconds after which they may be looked up."""
        refilled = self._left + (now - self._since) * DEVICES_A_SECOND
        self._left, self._since = min(DEVICES_AT_ONCE, refilled) - devices, now
        return max(0.0, -self._left / DEVICES_A_SECOND)
