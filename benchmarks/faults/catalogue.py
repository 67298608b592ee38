"""All faults, and what callers are to be answered meanwhile: said here before it is tried."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from app.thingsboard.tokens import REFUSED_PAUSE_SECONDS
from benchmarks.faults import steps
from benchmarks.faults.callers import KINDS
from benchmarks.faults.proxy import Cut
from benchmarks.faults.steps import Step

#: An export and a stream that are under way when the fault begins.
UNDERWAY = {"long_export": "export under way", "listening": "open stream"}
COLUMNS = {name: kind.title for name, kind in KINDS.items()} | UNDERWAY
#: How soon after the end of a fault a good answer comes: the breaker is open for 2 s.
RECOVERY_SECONDS = 3.0
#: A live feed pauses up to 4 s before it connects again, and then subscribes and reads what was missed.
STREAM_RECOVERY_SECONDS = 7.0
#: ThingsBoard pings every 10 s; after 25 s without a byte its WebSocket counts as dead.
SILENCE_SECONDS = 25.0
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        expected: the words that a request of each kind may be answered with (`callers.py`).
        caller, operator: what the page tells each of them.
        seconds: how long requests are made while it lasts; at least one is, however long that takes.
        recovery: how soon after its end there is a good answer again, where that is not the usual.
        surroundings: `redis` or `names`, when it is there that something fails.
        is_of_tokens: whether every call that is in flight is refused once and made again.
        end: when that takes more than healing proxy and simulator.
    """

    name: str
    title: str
    begin: Step
    expected: Mapping[str, frozenset[str]]
    caller: str
    operator: str
    seconds: float = 1.0
    recovery: Mapping[str, float] = field(default_factory=dict)
    surroundings: str = ""
    is_of_tokens: bool = False
    end: Step = steps.heal

    def recovery_of(self, column: str) -> float:
        """Return the bound for a column, in seconds."""
        usual = STREAM_RECOVERY_SECONDS if column in {"stream", "listening"} else RECOVERY_SECONDS
        return self.recovery.get(column, usual)


def answers(usual: str, **by_column: str) -> dict[str, frozenset[str]]:
    """Return the words of each column. An open stream sees a pause; an export under way may be cut."""
    words = {"listening": "ok", "long_export": "ok" if usual == "ok" else "cut", **by_column}
    return {column: frozenset(words.get(column, usual).split()) for column in COLUMNS}


NOTHING = "Nothing but time."
ALL_GOOD = answers("ok")
#: What breaks after the head of an answer: ThingsBoard's word on a stored point has no more than a head. The
#: next one may meet the connection while it ends; what may be repeated is, as far as the purse goes.
BROKEN_BODY = answers("502", upload="ok 503", upload_now="ok 503", bulk="ok 207", command="502 503")
SILENT = answers("504 503", long_export="ok cut", bulk="504 503 207")

LINE = [
    Fault(
        "latency",
        "100 ms more each way",
        steps.proxied(delay=lambda: 0.1),
        ALL_GOOD,
        NOTHING,
        "`tbgw` metrics and `Server-Timing` show that it is ThingsBoard, or the way to it.",
    ),
    Fault(
        "jitter",
        "0 to 150 ms more each way",
        steps.proxied(delay=partial(random.uniform, 0.0, 0.15)),
        ALL_GOOD,
        NOTHING,
        "As above.",
    ),
    Fault(
        "narrow",
        "a line of 1 MiB a second",
        steps.proxied(bytes_per_second=float(1 << 20)),
        ALL_GOOD,
        "Large answers take longer; exports ask for less at a time.",
        "Put the gateway nearer to ThingsBoard.",
    ),
    Fault(
        "trickle",
        "answers of 4 bytes a second",
        steps.proxied(bytes_per_second=4.0),
        SILENT,
        "504, then 503 at once while ThingsBoard is left alone: come back after `Retry-After`. What was sent "
        "may have been carried out.",
        "The alert on an open breaker tells; look at ThingsBoard and what stands before it.",
        # Time-outs enough for the breaker to open.
        seconds=8.0,
    ),
    Fault(
        "blackhole",
        "nothing passes, connections stay",
        steps.proxied(is_silent=True),
        SILENT,
        "As above.",
        "As above: a firewall or a route that drops packets looks like this.",
        # Time-outs enough for the breaker to open.
        seconds=8.0,
    ),
    Fault(
        "forgotten_silently",
        "a firewall forgot the open connections and drops what comes on them",
        steps.forgetting(silently=True),
        answers("ok 504 503", bulk="ok 504 503 207", command="ok 504", long_export="ok cut"),
        "A 504 for each connection that was open; then all is well.",
        "Its idle time-out must be longer than the 15 s for which the gateway keeps idle connections.",
        seconds=4.0,
        recovery={"listening": SILENCE_SECONDS + 5.0, "stream": SILENCE_SECONDS + 5.0},
    ),
    Fault(
        "forgotten",
        "a firewall forgot the open connections and resets them",
        steps.forgetting(silently=False),
        answers(
            "ok 503", read="ok", upload="ok", bulk="ok 207 503", export="ok", long_export="ok", stream="ok"
        ),
        "Reads and uploads with times are repeated unseen, ten of them at a time. Others are a 503: they may "
        "have been carried out.",
        "As above.",
    ),
    Fault(
        "reset_before_head",
        "reset instead of an answer",
        steps.cutting(Cut.BEFORE_HEAD),
        answers("503"),
        "503. What was sent may have been carried out: points with times may be sent again.",
        "Something on the way breaks connections: a proxy that restarts, a balancer without targets.",
    ),
    Fault(
        "reset_after_head",
        "reset after the head of an answer",
        steps.cutting(Cut.AFTER_HEAD),
        BROKEN_BODY,
        "502. A write that was acknowledged is stored.",
        "As above.",
    ),
    Fault(
        "reset_mid_body",
        "reset in the middle of an answer",
        steps.cutting(Cut.MID_BODY),
        BROKEN_BODY,
        "As above. An export that had begun has no end: it goes on with `cursor`.",
        "As above.",
    ),
    Fault(
        "half_close",
        "the end of the stream instead of an answer",
        steps.cutting(Cut.HALF_CLOSE),
        answers("503"),
        "503, as after a reset.",
        "As above.",
    ),
]
THINGSBOARD = [
    Fault(
        "truncated",
        "bodies shorter than their `Content-Length`",
        steps.simulated("truncate"),
        BROKEN_BODY,
        "502.",
        "A proxy that runs out of room for its temporary files does this.",
    ),
    Fault(
        "malformed",
        "200 with a body that is no JSON",
        steps.simulated("malformed"),
        answers("502"),
        "502: no such page passes for stored data.",
        "Another service answers at `TB_HOST`, or a proxy shows its own page.",
    ),
    Fault(
        "content_type",
        "the true body as `text/html`",
        steps.simulated("content_type"),
        BROKEN_BODY,
        "502.",
        "As above.",
    ),
    Fault(
        "login_page",
        "302 to a login page",
        steps.simulated("status", status=302, body="<html>Please log in</html>"),
        answers("502"),
        "502: redirects are not followed.",
        "A portal stands before ThingsBoard: let the gateway pass it.",
    ),
    Fault(
        "error_500",
        "500",
        steps.simulated("status", status=500),
        answers("502"),
        "502, without a word of ThingsBoard's.",
        "ThingsBoard's log says why.",
    ),
    Fault(
        "error_503",
        "503 with a page",
        steps.simulated("status", status=503, body="<html>503 from upstream.internal</html>"),
        answers("502", bulk="502 503 504", export="502 503 504", long_export="ok cut"),
        "502. Bulk uploads and exports try again, at most as long as `X-Request-Timeout` says.",
        "The balancer before ThingsBoard has no target.",
    ),
    Fault(
        "too_many",
        "429 to everything",
        steps.simulated("status", status=429),
        answers("429", long_export="ok cut", bulk="207 429"),
        "429 with `details.limited_by: thingsboard` and a true `Retry-After`, within `TB_QUEUE_SECONDS`.",
        "The tenant profile's REST limit is too small for what is asked: [fair share](fair-share.md).",
        seconds=3.0,
        # It has taught the gateway a pace, which it leaves step by step.
        recovery=dict.fromkeys(COLUMNS, 12.0),
    ),
    Fault(
        "rate_limit",
        "a limit of 20 calls a second",
        steps.rate_limited("20:1"),
        answers("ok 429", bulk="ok 207 429", long_export="ok"),
        "Answers come at the pace of the limit; what would wait too long is a 429.",
        "As above.",
        seconds=3.0,
        # It has taught the gateway a pace, which it leaves step by step.
        recovery=dict.fromkeys(COLUMNS, 12.0),
    ),
    Fault(
        "expired",
        "access tokens expire",
        steps.expire_tokens,
        ALL_GOOD,
        NOTHING,
        "Nothing to do: one refresh, whoever comes.",
        is_of_tokens=True,
    ),
    Fault(
        "voided",
        "all tokens are void, as after a new signing key",
        steps.void_tokens,
        ALL_GOOD,
        NOTHING,
        "Nothing to do: one login.",
        is_of_tokens=True,
    ),
    Fault(
        "login_refused",
        "all tokens are void and the password is wrong",
        steps.refuse_logins,
        answers("502"),
        "502, never a 401: the caller's key is good.",
        "The log says `login_refused`: mend `TB_PASSWORD`. ThingsBoard is asked once in "
        f"{REFUSED_PAUSE_SECONDS:g} s, so that it does not lock the account.",
        recovery=dict.fromkeys(COLUMNS, REFUSED_PAUSE_SECONDS + RECOVERY_SECONDS)
        | dict.fromkeys(("stream", "listening"), REFUSED_PAUSE_SECONDS + STREAM_RECOVERY_SECONDS),
    ),
    Fault(
        "restart",
        "ThingsBoard is away and comes back",
        steps.go_away,
        answers("503"),
        "503 with `Retry-After`; nothing was sent. Open streams pause and tell afterwards what they missed.",
        "Nothing to do here: the first call after its return is served.",
        seconds=2.0,
        end=steps.come_back,
    ),
    Fault(
        "clock_ahead",
        "ThingsBoard's clock is a day ahead",
        steps.skewed(DAY_MS),
        ALL_GOOD,
        NOTHING,
        "Points without times get ThingsBoard's: mend its clock.",
    ),
    Fault(
        "clock_behind",
        "ThingsBoard's clock is a day behind",
        steps.skewed(-DAY_MS),
        ALL_GOOD,
        NOTHING,
        "As above.",
    ),
]
AROUND = [
    Fault(
        "no_name",
        "the name of ThingsBoard is not known",
        steps.forget_name,
        answers("503"),
        "503; nothing was sent.",
        "The log says `gaierror`: mend the name service, or `TB_HOST`.",
        surroundings="names",
        end=steps.restore_names,
    ),
    Fault(
        "silent_names",
        "the name service does not answer",
        steps.silence_names,
        answers("504 503", long_export="ok cut", bulk="504 503"),
        "504, then 503; nothing was sent.",
        "As above.",
        surroundings="names",
        end=steps.restore_names,
        # Time-outs enough for the breaker to open.
        seconds=8.0,
    ),
    Fault(
        "redis_killed",
        "Redis is killed",
        steps.kill_redis,
        ALL_GOOD,
        "Nothing. Limits count in each process meanwhile, from where they stood.",
        "The log says `redis_unavailable`, and `redis_back` afterwards.",
        surroundings="redis",
        end=steps.start_redis,
    ),
    Fault(
        "redis_silent",
        "Redis keeps its connections and says nothing",
        steps.stall_redis,
        ALL_GOOD,
        "As above; who meets it first waits 25 ms.",
        "As above.",
        surroundings="redis",
        end=steps.resume_redis,
    ),
    Fault(
        "redis_slow",
        "Redis answers after 0.2 s",
        steps.slow_redis,
        ALL_GOOD,
        "As above.",
        "As above.",
        surroundings="redis",
        end=steps.resume_redis,
    ),
    Fault(
        "redis_full",
        "Redis is full",
        steps.fill_redis,
        ALL_GOOD,
        "As above.",
        "As above; give it room, or a policy of eviction.",
        surroundings="redis",
        end=steps.empty_redis,
    ),
    Fault(
        "broken_keys",
        "half a key file",
        steps.break_keys_file,
        ALL_GOOD,
        "Nothing: the last good keys serve.",
        "The log says `keys_file_broken` and what is wrong; `/health/ready` says `stale`.",
        seconds=2.5,
        end=steps.restore_keys_file,
    ),
    Fault(
        "no_keys",
        "no key file",
        steps.remove_keys_file,
        ALL_GOOD,
        "As above.",
        "As above.",
        seconds=2.5,
        end=steps.restore_keys_file,
    ),
]
GROUPS = {"The line to ThingsBoard": LINE, "ThingsBoard": THINGSBOARD, "What surrounds the gateway": AROUND}
FAULTS = {fault.name: fault for group in GROUPS.values() for fault in group}
