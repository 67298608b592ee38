"""Refuses a part of the new requests while a worker is asked for more than its CPU can do.

Whatever waits for the CPU waits for the event loop: by how much the loop is late for a timer of its own is
how long each step of a request waits. The reasons and the numbers are in docs/adr/0016-load-shedding.md.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from math import ceil

import structlog

from app.api.ops import PROBED_PATHS
from app.http_heads import RawHeader, RefusedRequest
from app.metrics.requests import RequestMetrics
from app.metrics.tally import Tally

log = structlog.get_logger("gateway")

#: Its place in the lifespan's state.
LOAD_SHEDDING = "gateway.load_shedding"
#: Bounds of the classes in which it is told how late the loop is, in seconds.
LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
EVERY_SECONDS = 0.05
#: A loop that is so late makes a request wait three times as long: to be read, sent, and answered.
BEARABLE_SECONDS = 0.1
#: A loop that is always so late is never idle. Where calls to ThingsBoard wait for places all the time
#: meanwhile, it is because the loop is late to read the answers that would free them; beside an idle loop it
#: is ThingsBoard that is slow, and the queue refuses for itself.
BUSY_SECONDS, STANDING_SECONDS = 0.01, 0.1
#: Late for so long, less the time in which it was not. What passes sooner is a burst or a long piece of work.
LASTING_SECONDS = 1.0
#: A single measurement counts for no more, however long the loop stood still.
LONGEST_SECONDS = 0.2
#: Without a refusal for so long it is over.
CALM_SECONDS = 5.0
#: What is admitted while the loop is late, to what is served: a little less at once, and less with each
#: second, so that those who wait are served soon.
LESS, LESS_A_SECOND, LEAST = 0.95, 0.3, 0.3
#: What is admitted when it is no longer late, to what was admitted at the measurement before.
MORE = 1.05
#: Over how long arrivals and answers are counted.
RATE_SECONDS = 0.5
#: So many requests a second are always admitted. They take a twentieth of the time: if the loop is late in
#: spite of refusing all others, something else takes it, and to refuse these as well would help nobody.
ALWAYS_A_SECOND = 100
MOST_RETRY_AFTER_SECONDS = 10
#: What tells operators how things are has to work above all when they are bad.
NEVER_REFUSED = frozenset(path.encode() for path in PROBED_PATHS)
VARY = (b"vary", b"Origin")
EXPOSED = (b"access-control-expose-headers", b"Retry-After, X-Request-ID")
BUSY = "The gateway is asked for more than it can do. Nothing was carried out; try again later."


class LoadShedding:
    """Decides which new requests one worker takes on. For one event loop.

    Args:
        requests: knows how many are under way.
        queue_stands: tells whether calls to ThingsBoard have been waiting for their turns for so many
            seconds.
        origins: of browsers' pages, which may read a refusal.
    """

    def __init__(
        self,
        requests: RequestMetrics,
        queue_stands: Callable[[float], bool],
        origins: Iterable[str] = (),
    ) -> None:
        self._requests, self._queue_stands = requests, queue_stands
        self._origins = frozenset(origin.encode() for origin in origins)
        #: How late the loop was, each time that it was measured.
        self.lag = Tally(LAGS)
        #: Of the new requests, what is admitted.
        self.share = 1.0
        self.is_shedding = False
        #: Requests since the start; those of the last few ms are missing.
        self.refused = 0
        #: Since the last measurement.
        self._arrived = self._turned_down = 0
        self._in_flight = 0
        #: Requests a second.
        self._arriving = self._served = 0.0
        #: Adds up to one for each request that is admitted.
        self._credit = 0.0
        self._late_seconds = self._calm_seconds = 0.0
        self._refused_before = 0

    def admits(self, target: bytes) -> bool:
        """Count a request that is about to begin; False when it must be refused."""
        self._arrived += 1
        if self.share == 1.0:
            return True
        # Every third, not the first third of those that come between two measurements.
        self._credit += self.share
        if self._credit >= 1.0:
            self._credit -= 1.0
            return True
        if target.partition(b"?")[0] in NEVER_REFUSED:
            return True
        self._turned_down += 1
        return False

    def refusal(self, headers: Iterable[RawHeader]) -> RefusedRequest:
        """Return what a refused caller is told: the more are refused, the later they should come again.

        Args:
            headers: of the request.
        """
        wait = min(MOST_RETRY_AFTER_SECONDS, ceil(1 / self.share))
        return RefusedRequest(
            503, BUSY, error_code="OVERLOADED", retry_after=wait, headers=self._cors(headers)
        )

    def _cors(self, headers: Iterable[RawHeader]) -> tuple[RawHeader, ...]:
        """Return what the CORS stage would add."""
        if not self._origins:
            return ()
        for name, value in headers:
            if name == b"origin" and value in self._origins:
                return (VARY, EXPOSED, (b"access-control-allow-origin", value))
        return (VARY,)

    async def watch(self) -> None:
        """Measure how late the event loop is, until cancelled."""
        before = time.perf_counter()
        while True:
            due = time.perf_counter() + EVERY_SECONDS
            await asyncio.sleep(EVERY_SECONDS)
            now = time.perf_counter()
            self.observe(max(0.0, now - due), now - before)
            before = now

    def observe(self, lag: float, elapsed: float) -> None:
        """Draw the conclusions of one measurement.

        Args:
            lag: by how many seconds the loop was late.
            elapsed: seconds since the last measurement.
        """
        self.lag.add(lag)
        is_late = lag > BEARABLE_SECONDS or (lag > BUSY_SECONDS and self._queue_stands(STANDING_SECONDS))
        self._count(elapsed)
        counted = min(elapsed, LONGEST_SECONDS)
        if self.is_shedding:
            self._late_seconds = self._late_seconds + counted if is_late else 0.0
            self._adjust()
            self._calm_seconds = 0.0 if self._turned_down else self._calm_seconds + elapsed
            if self._calm_seconds > CALM_SECONDS:
                self._end()
        else:
            self._late_seconds = max(0.0, self._late_seconds + (counted if is_late else -counted))
            if self._late_seconds > LASTING_SECONDS:
                self._begin(lag)
        self._arrived = self._turned_down = 0

    def _count(self, elapsed: float) -> None:
        in_flight, before = self._requests.in_flight, self._in_flight
        self._in_flight = in_flight
        self.refused += self._turned_down
        served = self._arrived - self._turned_down - (in_flight - before)
        weight = min(1.0, elapsed / RATE_SECONDS)
        self._arriving += (self._arrived / elapsed - self._arriving) * weight
        self._served += (served / elapsed - self._served) * weight

    def _begin(self, lag: float) -> None:
        self.is_shedding, self._calm_seconds = True, 0.0
        self._refused_before = self.refused
        log.warning("overload_began", lag_ms=round(lag * 1000), requests_a_second=round(self._arriving))
        self._adjust()

    def _adjust(self) -> None:
        """Admit less than is served while the loop is late, and more and more while it is not."""
        if self._late_seconds:
            part = max(LEAST, LESS - LESS_A_SECOND * self._late_seconds)
            admitted = max(ALWAYS_A_SECOND, self._served * part)
            self.share = min(1.0, admitted / max(1.0, self._arriving))
        else:
            self.share = min(1.0, self.share * MORE)

    def _end(self) -> None:
        self.is_shedding, self.share, self._late_seconds = False, 1.0, 0.0
        log.warning("overload_over", refused=self.refused - self._refused_before)
