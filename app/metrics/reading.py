"""What a metric is read from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from app.counters import MemoryCounters
from app.keys.store import APIKeys
from app.load_shedding import LoadShedding
from app.metrics.calls import CallMetrics
from app.metrics.requests import RequestMetrics
from app.metrics.tally import Tally
from app.redis_counters import RedisCounters
from app.security_events import SecurityLog
from app.services.live_channels import Channels
from app.services.streams import Streams
from app.upstreams import Upstreams


@dataclass(frozen=True)
class Process:
    """What is looked at."""

    upstreams: Upstreams
    keys: APIKeys
    memory: MemoryCounters
    redis: RedisCounters | None
    streams: Streams
    channels: Channels
    requests: RequestMetrics
    calls: CallMetrics
    security_log: SecurityLog
    load_shedding: LoadShedding


How = Literal["counter", "sum", "max"]
Values = Iterable[tuple[tuple[str, ...], float]]
Tallies = Iterable[tuple[tuple[str, ...], Tally]]


@dataclass(frozen=True)
class Reading:
    """One metric: how it is called and where its values are.

    `how` is how the workers' values become one: added up (a counter, or a gauge), or the largest of them.
    """

    name: str
    help: str
    how: How
    labels: tuple[str, ...]
    read: Callable[[Process], Values]


@dataclass(frozen=True)
class Durations:
    """One metric of durations."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Process], Tallies]
