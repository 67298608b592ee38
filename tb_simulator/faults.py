"""Faults on purpose: slow, refused, broken and garbled answers, and tokens that die."""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tb_simulator.world import World

KINDS = frozenset({"latency", "reset", "status", "truncate", "stall", "malformed", "content_type", "labour"})


@dataclass(slots=True)
class Fault:
    """One fault and the calls it strikes.

    Attributes:
        kind: ``latency`` (then the true answer), ``reset`` (before any header), ``status`` (that status
            instead of the answer), ``truncate`` (half of the body, then the end), ``stall`` (half of the
            body, the rest after ``seconds``), ``malformed`` (200 that is no JSON), ``content_type`` (the
            true body under a wrong type), ``labour`` (a history takes as long as the points and the range
            that it asks for deserve; beyond ``seconds`` it is 500 "Request timeout" then).
        method: the HTTP method it strikes, ``WS`` for a WebSocket's handshake; None strikes all.
        path: a regular expression searched in the path; None strikes every path.
        count: how many calls it strikes before it is over; None goes on until cleared.
        points_per_second, ms_per_second: how fast ``labour`` goes, in points asked for (``limit`` a key)
            and in ms of the range; None costs nothing.
        after: also do the work before resetting the connection, as when an answer is lost on its way back.
    """

    kind: str
    path: str | None = None
    method: str | None = None
    count: int | None = None
    seconds: float = 0.0
    status: int = 503
    body: str | None = None
    content_type: str = "text/html"
    after: bool = False
    points_per_second: float | None = None
    ms_per_second: float | None = None

    def strikes(self, method: str, path: str) -> bool:
        """Return whether this fault is meant for a call."""
        if self.method is not None and self.method.upper() != method:
            return False
        return self.path is None or re.search(self.path, path) is not None


class Faults:
    """The faults of one simulator. ``active`` is False, and costs nothing, while there are none."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._faults: list[Fault] = []
        self.struck: Counter[str] = Counter()
        self.active = False

    def add(self, kind: str, **options: Any) -> Fault:
        """Add a fault; the options are the fields of ``Fault``."""
        if kind not in KINDS:
            raise ValueError(f"unknown fault {kind!r}, known are {', '.join(sorted(KINDS))}")
        fault = Fault(kind, **options)
        self._faults.append(fault)
        self.active = True
        return fault

    def latency(self, seconds: float, **options: Any) -> Fault:
        """Delay answers."""
        return self.add("latency", seconds=seconds, **options)

    def reset(self, **options: Any) -> Fault:
        """Reset the connection before any header is sent."""
        return self.add("reset", **options)

    def status(self, status: int, **options: Any) -> Fault:
        """Answer a status instead of the answer; 429 comes with ThingsBoard's own body."""
        return self.add("status", status=status, **options)

    def truncate(self, **options: Any) -> Fault:
        """End the connection in the middle of the body."""
        return self.add("truncate", **options)

    def stall(self, seconds: float, **options: Any) -> Fault:
        """Pause in the middle of the body."""
        return self.add("stall", seconds=seconds, **options)

    def malformed(self, **options: Any) -> Fault:
        """Answer 200 with a body that is no JSON."""
        return self.add("malformed", **options)

    def wrong_content_type(self, content_type: str = "text/html", **options: Any) -> Fault:
        """Answer under a wrong content type."""
        return self.add("content_type", content_type=content_type, **options)

    def labour(self, seconds: float, **options: Any) -> Fault:
        """Take time in proportion to what is asked for, and give up after ``seconds``."""
        return self.add("labour", seconds=seconds, path="values/timeseries", **options)

    def expire_tokens(self) -> None:
        """Make all access tokens answer 401 code 11; a refresh still works."""
        self._world.tokens.expire_access_tokens()

    def change_signing_key(self) -> None:
        """Void all tokens, refresh tokens too."""
        self._world.tokens.change_key()

    def rate_limit(self, limits: str | None, tenant: str | None = None) -> None:
        """Limit a tenant (``"3:1,10:60"``) or lift the limit with None; the first tenant unless named."""
        tenant = tenant or next(self._world.every("TENANT")).id
        self._world.rate_limits.configure(tenant, limits)

    def clear(self) -> None:
        """End all faults and rate limits; dead tokens stay dead."""
        self._faults.clear()
        self.active = False
        for tenant in self._world.every("TENANT"):
            self._world.rate_limits.configure(tenant.id, None)

    def take(self, method: str, path: str) -> list[Fault]:
        """Return the faults that strike this call and count them down."""
        struck = [fault for fault in self._faults if fault.strikes(method, path)]
        for fault in struck:
            self.struck[fault.kind] += 1
            if fault.count is not None:
                fault.count -= 1
                if fault.count <= 0:
                    self._faults.remove(fault)
        self.active = bool(self._faults)
        return struck

    def listing(self) -> list[dict[str, Any]]:
        """Return the faults still to come."""
        return [asdict(fault) for fault in self._faults]
