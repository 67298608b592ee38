"""What is told of each upstream, by its name."""

import asyncio
from collections.abc import Callable, Iterator

from app.metrics.reading import How, Process, Reading, Values
from app.thingsboard.connection import Connection
from app.thingsboard.fair_queue import FairQueue
from app.upstreams import Upstream


def _of_upstreams(name: str, help_text: str, how: How, read: Callable[[Upstream], float]) -> Reading:
    def each(process: Process) -> Values:
        return [((name,), read(upstream)) for name, upstream in process.upstreams.items()]

    return Reading(f"gateway_thingsboard_{name}", help_text, how, ("upstream",), each)


def _connection(read: Callable[[Connection], float]) -> Callable[[Upstream], float]:
    return lambda upstream: read(upstream.client.connection)


def _queues(process: Process) -> Iterator[tuple[str, FairQueue]]:
    """Name each queue by the first upstream that uses it: those of one ThingsBoard tenant share theirs."""
    seen: set[FairQueue] = set()
    for name, upstream in process.upstreams.items():
        queue = upstream.client.connection.queue
        if queue not in seen:
            seen.add(queue)
            yield name, queue


def _of_queues(name: str, help_text: str, how: How, read: Callable[[FairQueue], float]) -> Reading:
    def each(process: Process) -> Values:
        return [((name,), read(queue)) for name, queue in _queues(process)]

    return Reading(f"gateway_thingsboard_{name}", help_text, how, ("upstream",), each)


def _pace(queue: FairQueue) -> float:
    pace, now = queue.pace, asyncio.get_running_loop().time()
    # A limit that is over is not noticed before somebody asks.
    pace.wait(now)
    return pace.rate(now) if pace.is_limited else 0.0


def _queue_refusals(process: Process) -> Values:
    for name, queue in _queues(process):
        yield (name, "full"), queue.counts.full
        yield (name, "slow"), queue.counts.too_late
        yield (name, "rate_limit"), queue.counts.limited


def _shared_reads(process: Process) -> Values:
    for name, upstream in process.upstreams.items():
        connection = upstream.client.connection
        yield (name, "began"), connection.reads.begun + connection.pages.begun
        yield (name, "joined"), connection.reads.joined + connection.pages.joined


def _points(process: Process) -> Values:
    for name, upstream in process.upstreams.items():
        yield (name, "written"), upstream.client.telemetry.points_written
        yield (name, "read"), upstream.client.telemetry.points_read


def _latest_cache(process: Process) -> Values:
    for name, upstream in process.upstreams.items():
        cache = upstream.client.telemetry.latest_cache
        yield (name, "hit"), cache.hits if cache else 0
        yield (name, "miss"), cache.misses if cache else 0


OF_UPSTREAMS = (
    _of_upstreams(
        "retries",
        "Attempts beyond the first; at most a tenth of the calls.",
        "counter",
        _connection(lambda connection: connection.retries),
    ),
    _of_upstreams(
        "breaker_open",
        "Workers that leave ThingsBoard alone because it only times out.",
        "sum",
        _connection(lambda connection: connection.breaker.is_open),
    ),
    _of_upstreams(
        "breaker_openings",
        "Times that a worker began to leave ThingsBoard alone.",
        "counter",
        _connection(lambda connection: connection.breaker.openings),
    ),
    _of_upstreams(
        "commands_in_flight",
        "Commands that wait for their devices.",
        "sum",
        lambda upstream: upstream.client.rpc.in_flight,
    ),
    _of_queues("calls_in_flight", "Calls that ThingsBoard has.", "sum", lambda queue: queue.in_flight),
    _of_queues("queue_length", "Calls that wait for their turn.", "sum", lambda queue: queue.waiting),
    _of_queues(
        "queue_waits",
        "Calls that had to wait for their turn.",
        "counter",
        lambda queue: queue.counts.waited,
    ),
    _of_queues(
        "queue_wait_seconds",
        "Time that calls waited for their turn.",
        "counter",
        lambda queue: queue.counts.waited_seconds,
    ),
    Reading(
        "gateway_thingsboard_queue_refusals",
        "Calls refused: no room, a turn that would come too late, or ThingsBoard's rate limit.",
        "counter",
        ("upstream", "reason"),
        _queue_refusals,
    ),
    _of_queues(
        "rate_limited",
        "Workers that keep to a pace because of ThingsBoard's rate limit.",
        "sum",
        lambda queue: _pace(queue) > 0,
    ),
    _of_queues(
        "pace_calls_per_second",
        "Calls a second that the workers let through because of ThingsBoard's rate limit; 0 is no limit.",
        "sum",
        _pace,
    ),
    _of_queues(
        "rate_limit_answers",
        "Times that ThingsBoard said 429.",
        "counter",
        lambda queue: queue.counts.upstream_refusals,
    ),
    Reading(
        "gateway_thingsboard_shared_reads",
        "Reads that made a call of their own, and reads that joined one.",
        "counter",
        ("upstream", "role"),
        _shared_reads,
    ),
    Reading(
        "gateway_points",
        "Points that ThingsBoard acknowledged, and points of histories that it sent.",
        "counter",
        ("upstream", "direction"),
        _points,
    ),
    Reading(
        "gateway_latest_cache_requests",
        "Latest values looked for in memory (LATEST_CACHE_SECONDS).",
        "counter",
        ("upstream", "result"),
        _latest_cache,
    ),
    _of_upstreams(
        "live_connected",
        "WebSockets to ThingsBoard that are open.",
        "sum",
        lambda upstream: upstream.client.live.is_online,
    ),
    _of_upstreams(
        "live_connections",
        "WebSockets to ThingsBoard that were opened.",
        "counter",
        lambda upstream: upstream.client.live.connections,
    ),
    _of_upstreams(
        "live_failures",
        "Attempts to open one that failed.",
        "counter",
        lambda upstream: upstream.client.live.failures,
    ),
    _of_upstreams(
        "live_devices",
        "Devices that somebody listens to.",
        "sum",
        lambda upstream: upstream.client.live.devices,
    ),
)
