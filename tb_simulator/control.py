"""The simulator's own routes under ``/__simulator/``: JSON, without authentication, for loopback.

- ``GET calls``: ``{"total","calls":{"GET /api/device/{id}":3}}``; ``DELETE calls`` counts from 0 again.
- ``POST faults``: one, by the fields of ``Fault``; ``GET faults``; ``DELETE faults`` ends all, limits too.
- ``POST tokens {"action":"expire"|"change_key"}``.
- ``POST rate-limit {"limits":"3:1,10:60"|null,"tenant"}``: the first tenant unless named.
- ``POST restart {"seconds"}``: connections are refused for that long, WebSockets cut.
- ``POST websockets {"action":"cut"|"close","code","reason"}``.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from tb_simulator.answers import JSON, Answer, ok
from tb_simulator.world import World

PREFIX = "/__simulator/"

Restart = Callable[[float], Awaitable[None]]


class Control:
    """Answers the control routes of one simulator."""

    def __init__(self, world: World, calls: Counter[str], restart: Restart | None) -> None:
        self._world, self._calls, self._restart_server = world, calls, restart
        self._tasks: set[asyncio.Task[None]] = set()
        self._routes: dict[tuple[str, str], Callable[[dict[str, Any]], Answer]] = {
            ("GET", "calls"): self._show_calls,
            ("DELETE", "calls"): self._reset_calls,
            ("GET", "faults"): self._show_faults,
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("POST", "tokens"): self._tokens,
            ("POST", "rate-limit"): self._rate_limit,
            ("POST", "restart"): self._restart,
            ("POST", "websockets"): self._websockets,
        }

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one control call."""
        route = self._routes.get((method, path.removeprefix(PREFIX)))
        if route is None:
            return Answer(404, b'{"error":"no such control route"}', JSON)
        try:
            return route(orjson.loads(body) if body else {})
        except (KeyError, TypeError, ValueError) as error:
            return Answer(400, orjson.dumps({"error": str(error)}), JSON)

    def _show_calls(self, _: dict[str, Any]) -> Answer:
        return ok({"total": self._calls.total(), "calls": dict(self._calls)})

    def _reset_calls(self, _: dict[str, Any]) -> Answer:
        self._calls.clear()
        return ok({})

    def _show_faults(self, _: dict[str, Any]) -> Answer:
        faults = self._world.faults
        return ok({"faults": faults.listing(), "struck": dict(faults.struck)})

    def _add_fault(self, body: dict[str, Any]) -> Answer:
        self._world.faults.add(str(body.pop("kind")), **body)
        return self._show_faults({})

    def _clear_faults(self, _: dict[str, Any]) -> Answer:
        self._world.faults.clear()
        return ok({})

    def _tokens(self, body: dict[str, Any]) -> Answer:
        faults = self._world.faults
        {"expire": faults.expire_tokens, "change_key": faults.change_signing_key}[body["action"]]()
        return ok({})

    def _rate_limit(self, body: dict[str, Any]) -> Answer:
        self._world.faults.rate_limit(body.get("limits"), body.get("tenant"))
        return ok({})

    def _websockets(self, body: dict[str, Any]) -> Answer:
        if body["action"] == "cut":
            self._world.feed.cut_sessions()
        else:
            self._world.feed.close_sessions(int(body.get("code", 1008)), str(body.get("reason", "")))
        return ok({})

    def _restart(self, body: dict[str, Any]) -> Answer:
        if self._restart_server is None:
            raise ValueError("only a listening simulator can restart")
        task = asyncio.get_running_loop().create_task(self._later(float(body.get("seconds", 1))))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Answer(202, b"{}", JSON)

    def close(self) -> None:
        """Give up a restart under way."""
        for task in self._tasks:
            task.cancel()

    async def _later(self, seconds: float) -> None:
        # The answer to the control call itself must leave before its connection is cut.
        await asyncio.sleep(0.05)
        if self._restart_server is not None:
            await self._restart_server(seconds)
