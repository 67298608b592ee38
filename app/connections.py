"""How many connections a worker has open, in all and by address.

Each costs a file descriptor and about 10 KiB. Without a bound of ours the system's would be met: the event
loop then resets whatever comes, calls to ThingsBoard cannot connect, and key files cannot be read.
"""

import resource
import time
from collections import Counter
from collections.abc import Sequence

import structlog

from app.addresses import parse_address
from app.http_heads import RefusedRequest
from app.settings import IPNetwork

log = structlog.get_logger("connection")

#: Its place in the lifespan's state.
CONNECTIONS = "gateway.connections"
MOST_CONNECTIONS = 10_000
#: Of the file descriptors; the others are for ThingsBoard, Redis, exports under way and files.
SHARE = 0.75
#: What one address may have of all: nobody fills the gateway alone.
SHARE_OF_ONE_ADDRESS = 0.25
#: A flood is told of once in a while, not line by line.
TOLD_EVERY_SECONDS = 10.0


def raise_file_limit() -> None:
    """Let this process, and those that it starts, open as many files as it is allowed to."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))


def most_connections() -> int:
    """Return how many connections the limit on open files leaves room for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST_CONNECTIONS, int(files * SHARE)) if files >= 0 else MOST_CONNECTIONS


class Connections:
    """The open connections of one worker.

    Args:
        most: in all.
        trusted: proxies, behind whose addresses many callers are.
    """

    def __init__(self, most: int, trusted: Sequence[IPNetwork]) -> None:
        self.most, self.most_of_one = most, max(1, int(most * SHARE_OF_ONE_ADDRESS))
        self._trusted = tuple(trusted)
        self._by_address: Counter[str] = Counter()
        self.open = self.refused = 0
        self._told_at = float("-inf")

    def enter(self, address: str) -> RefusedRequest | None:
        """Count a connection in; what is returned is why it must not stay."""
        self.count(address)
        if self.open > self.most:
            issue = "the gateway has as many connections as it can hold"
        elif self._by_address[address] > self.most_of_one and not self._is_trusted(address):
            issue = f"one address may have {self.most_of_one} connections"
        else:
            return None
        self.refused += 1
        if time.monotonic() - self._told_at >= TOLD_EVERY_SECONDS:
            self._told_at = time.monotonic()
            log.warning("connections_refused", client=address, open=self.open, refused=self.refused)
        message = "Too many connections are open; try again later."
        return RefusedRequest(503, message, "connection", issue, error_code="OVERLOADED", retry_after=1)

    def count(self, address: str) -> None:
        """Count a connection in that may stay."""
        self.open += 1
        self._by_address[address] += 1

    def leave(self, address: str) -> None:
        """Count a connection out."""
        self.open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def _is_trusted(self, address: str) -> bool:
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self._trusted)
