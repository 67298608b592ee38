"""What the parts of the process count for themselves, as metrics: read once a second, and at each scrape."""

from collections.abc import Callable
from typing import get_args

from app import __version__
from app.keys.key_ring import Refusal
from app.metrics.reading import Durations, How, Process, Reading
from app.metrics.upstream_readings import OF_UPSTREAMS
from app.redis_counters import RedisCounters
from app.thingsboard.live_events import Kind


def _of_process(name: str, help_text: str, how: How, read: Callable[[Process], float]) -> Reading:
    return Reading(name, help_text, how, (), lambda process: [((), read(process))])


def _redis(read: Callable[[RedisCounters], float]) -> Callable[[Process], float]:
    return lambda process: 0 if process.redis is None else read(process.redis)


OF_THE_PROCESS = (
    _of_process("gateway_workers", "Worker processes.", "sum", lambda _: 1),
    Reading(
        "gateway_build_info",
        "The version that runs.",
        "max",
        ("version",),
        lambda _: [((__version__,), 1)],
    ),
    _of_process(
        "gateway_requests_in_flight",
        "Requests, streams and WebSockets under way.",
        "sum",
        lambda process: process.requests.in_flight,
    ),
    _of_process(
        "gateway_shed_requests",
        "Requests refused because the workers' CPU was asked for more than it can do.",
        "counter",
        lambda process: process.load_shedding.refused,
    ),
    _of_process(
        "gateway_streams", "Streams and WebSockets open.", "sum", lambda process: len(process.streams)
    ),
    _of_process(
        "gateway_live_channels",
        "Selections of live data; readers of the same share one.",
        "sum",
        lambda process: len(process.channels),
    ),
    Reading(
        "gateway_live_events",
        "Events, each counted once for all readers of its channel.",
        "counter",
        ("kind",),
        lambda process: [((kind,), process.channels.counts.events[kind]) for kind in get_args(Kind)],
    ),
    _of_process(
        "gateway_live_frames",
        "Events handed to readers.",
        "counter",
        lambda process: process.channels.counts.frames,
    ),
    _of_process(
        "gateway_live_dropped_readers",
        "Readers that were let go because they read too slowly.",
        "counter",
        lambda process: process.channels.counts.dropped,
    ),
    Reading(
        "gateway_security_events",
        "What was refused or shown, as the security log has it, and what it left out because it was alike.",
        "counter",
        ("event", "reason"),
        lambda process: process.security_log.counts.items(),
    ),
    Reading(
        "gateway_refused_keys",
        "Requests with a key that does not count.",
        "counter",
        ("reason",),
        lambda process: [((reason.value,), process.keys.refused[reason]) for reason in Refusal],
    ),
    _of_process("gateway_keys", "Keys in use.", "max", lambda process: len(process.keys)),
    _of_process(
        "gateway_key_file_broken",
        "1 while the key file cannot be used and the last good keys serve.",
        "max",
        lambda process: process.keys.fault is not None,
    ),
    _of_process(
        "gateway_key_file_faults",
        "Times that a worker found the key file broken.",
        "counter",
        lambda process: process.keys.faults,
    ),
    _of_process(
        "gateway_key_reloads",
        "Times that a worker took over changed keys.",
        "counter",
        lambda process: process.keys.reloads,
    ),
    _of_process(
        "gateway_rate_limit_windows",
        "Windows of rate limits in memory.",
        "sum",
        lambda process: process.memory.remembered,
    ),
    _of_process(
        "gateway_rate_limit_evictions",
        "Running windows that were forgotten for want of room.",
        "counter",
        lambda process: process.memory.evicted,
    ),
    _of_process(
        "gateway_redis_down",
        "Workers that count rate limits for themselves because Redis is away.",
        "sum",
        _redis(lambda redis: not redis.is_up),
    ),
    _of_process(
        "gateway_redis_failures",
        "Exchanges with Redis that failed.",
        "counter",
        _redis(lambda redis: redis.failures),
    ),
    _of_process(
        "gateway_redis_counted_locally",
        "Requests counted in one worker only because Redis was away.",
        "counter",
        _redis(lambda redis: redis.counted_locally),
    ),
)

OF_REQUESTS = (
    Reading(
        "gateway_requests",
        "Requests that have ended; 101 is a WebSocket, 499 a caller who left before the answer.",
        "counter",
        ("method", "route", "status", "upstream"),
        lambda process: [
            ((method, route, str(status), upstream), count)
            for (method, route, status, upstream), count in process.requests.ended.items()
        ],
    ),
    Reading(
        "gateway_key_requests",
        "Requests that have ended, by API key.",
        "counter",
        ("key_id", "upstream", "outcome"),
        lambda process: process.requests.by_key.items(),
    ),
    Reading(
        "gateway_cut_answers",
        "Answers that broke off: ThingsBoard failed late, or the caller left.",
        "counter",
        ("route",),
        lambda process: [((route,), count) for route, count in process.requests.cut.items()],
    ),
    Reading(
        "gateway_thingsboard_calls",
        "Calls to ThingsBoard, each attempt counted.",
        "counter",
        ("upstream", "kind", "outcome"),
        lambda process: [
            ((*of, outcome), count)
            for of, transport in process.calls.transports.items()
            for outcome, count in transport.outcomes.items()
        ],
    ),
)

READINGS = (*OF_REQUESTS, *OF_UPSTREAMS, *OF_THE_PROCESS)

DURATIONS = (
    Durations(
        "gateway_request_duration_seconds",
        "Time until the answer began: of whole answers, and of the first byte of exports and streams.",
        ("method", "route"),
        lambda process: process.requests.seconds.items(),
    ),
    Durations(
        "gateway_thingsboard_call_duration_seconds",
        "Time that ThingsBoard took to answer or to fail.",
        ("upstream", "kind"),
        lambda process: [(of, transport.seconds) for of, transport in process.calls.transports.items()],
    ),
    Durations(
        "gateway_event_loop_lag_seconds",
        "How late the event loop was for a task of its own, twenty times a second.",
        (),
        lambda process: [((), process.load_shedding.lag)],
    ),
)
