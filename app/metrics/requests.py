"""Counts the requests of this process, by what they asked and who asked."""

from collections import Counter
from collections.abc import Callable

from starlette.types import Scope

from app.context import RequestContext
from app.metrics.tally import Tally

#: Its place in the lifespan's state.
REQUESTS = "gateway.requests"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})
#: What stands for whatever there is no name for: callers must not be able to make new series.
OTHER, UNMATCHED, NONE = "other", "unmatched", "none"
#: Key ids that are counted by themselves; further ones are one.
MOST_KEYS = 1_000
BAD_REQUEST, RATE_LIMITED, SERVER_FAULT = 400, 429, 500
#: nginx's number for a caller who left before the answer; no caller ever sees it.
CLIENT_LEFT = 499


class RequestMetrics:
    """Plain numbers, which `readings.py` tells.

    prometheus_client's own would cost each request 8 us, and 30 us with several workers.

    Args:
        template_of: returns the template of the route that a refused request would have reached.
    """

    def __init__(self, template_of: Callable[[Scope], str | None]) -> None:
        self._template_of = template_of
        #: Requests, streams and WebSockets under way.
        self.in_flight = 0
        #: By method, template of the route, status and upstream.
        self.ended: Counter[tuple[str, str, int, str]] = Counter()
        #: By key id, upstream and outcome.
        self.by_key: Counter[tuple[str, str, str]] = Counter()
        #: Time until the answer began, by method and route.
        self.seconds: dict[tuple[str, str], Tally] = {}
        #: Answers that broke off, by route.
        self.cut: Counter[str] = Counter()
        self._keys: set[str] = set()

    def add(
        self,
        scope: Scope,
        context: RequestContext,
        status: int,
        seconds: float | None,
        *,
        is_complete: bool = True,
    ) -> None:
        """Count a request that has ended.

        Args:
            seconds: until the answer began; None: it never did.
        """
        caller = context.caller
        method, upstream = scope.get("method", "WEBSOCKET"), caller.upstream if caller else NONE
        if method not in METHODS:
            method = OTHER
        route = getattr(scope.get("route"), "path_format", None) or self._template_of(scope) or UNMATCHED
        self.ended[method, route, status, upstream] += 1
        if seconds is not None:
            tally = self.seconds.get((method, route))
            if tally is None:
                tally = self.seconds[method, route] = Tally()
            tally.add(seconds)
        if caller is not None:
            key_id = caller.id if caller.id in self._keys else self._name(caller.id)
            self.by_key[key_id, upstream, outcome_of(status)] += 1
        if not is_complete:
            self.cut[route] += 1

    def add_refused(self, status: int) -> None:
        """Count a request that was refused before anybody looked at what it asks for."""
        self.ended[OTHER, NONE, status, NONE] += 1

    def _name(self, key_id: str) -> str:
        if len(self._keys) == MOST_KEYS:
            return OTHER
        self._keys.add(key_id)
        return key_id


def outcome_of(status: int) -> str:
    """Fold a status into what an operator asks first: whose fault was it?"""
    if status < BAD_REQUEST:
        return "success"
    if status == RATE_LIMITED:
        return "rate_limited"
    if status == CLIENT_LEFT:
        return "client_left"
    return "client_error" if status < SERVER_FAULT else "server_error"
