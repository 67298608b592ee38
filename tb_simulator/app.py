"""The ASGI application: authentication, limits, faults, counting, and the table of all routes."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable

from tb_simulator import (
    alarms,
    assets,
    attribute_routes,
    auth_routes,
    device_api,
    devices,
    profiles,
    queries,
    relations,
    rpc_routes,
    telemetry_routes,
)
from tb_simulator.answers import Answer, ApiError, PlainError, error_answer, forbidden, framework_error
from tb_simulator.auth import Principal, RedirectToLogin, authentication_failed, redirect_to_login
from tb_simulator.broken_answers import refuse_websocket, send_faulty
from tb_simulator.control import PREFIX, Control
from tb_simulator.feed import serve_feed
from tb_simulator.routing import OPEN, Call, Match, Receive, Router, Scope, Send
from tb_simulator.world import World

LARGEST_BODY = 16 * 1024 * 1024
#: Tomcat's, of request line and headers together; its answer is a page.
LARGEST_HEAD = 8 * 1024
_HEAD_TOO_LARGE = Answer(
    400, b"<!doctype html><title>HTTP Status 400 - Bad Request</title>", b"text/html;charset=utf-8"
)

_MODULES = (
    auth_routes,
    devices,
    assets,
    profiles,
    telemetry_routes,
    attribute_routes,
    relations,
    queries,
    alarms,
    rpc_routes,
    device_api,
)


class _BodyTooLargeError(Exception):
    """A body over ThingsBoard's 16 MiB."""


class ThingsBoardApp:
    """ThingsBoard as a pure ASGI application over one world.

    ``calls`` counts every HTTP call, refused and faulted ones too, under ``"GET /api/device/{id}"``.
    """

    def __init__(self, world: World, *, restart: Callable[[float], Awaitable[None]] | None = None) -> None:
        self.world = world
        self.calls: Counter[str] = Counter()
        self._control = Control(world, self.calls, restart)
        self._router = Router(itertools.chain.from_iterable(module.routes.table for module in _MODULES))

    def close(self) -> None:
        """Stop what runs in the background."""
        self._control.close()
        self.world.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve HTTP and WebSockets; the lifespan has nothing to do."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if path.startswith(PREFIX):
            await send_answer(send, self._control.answer(method, path, await _read_body(receive)))
            return
        if len(scope["query_string"]) > LARGEST_HEAD // 2 and _head_size(scope) > LARGEST_HEAD:
            await send_answer(send, _HEAD_TOO_LARGE)
            return
        match = self._router.match(method, path)
        self.calls[match.label] += 1
        if self.world.faults.active:
            faults = self.world.faults.take(method, path)
            if faults:
                await send_faulty(faults, scope, receive, send, lambda: self._answer(scope, receive, match))
                return
        await send_answer(send, await self._answer(scope, receive, match))

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.calls[f"WS {path}"] += 1
        await receive()
        if self.world.faults.active:
            faults = self.world.faults.take("WS", path)
            if faults:
                await refuse_websocket(faults, receive, send)
                return
        await serve_feed(self.world, scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, match: Match) -> Answer:
        try:
            body = await _read_body(receive)
            return await self._dispatch(scope, receive, body, match)
        except (ApiError, PlainError) as error:
            return error.answer()
        except RedirectToLogin:
            return redirect_to_login(_header(scope, b"host"))
        except _BodyTooLargeError:
            return error_answer(413, f"Payload size exceeds the limit: {LARGEST_BODY} bytes", 31)

    async def _dispatch(self, scope: Scope, receive: Receive, body: bytes, match: Match) -> Answer:
        route, caller = match.route, None
        if route is None or route.who is not OPEN:
            caller = self._authenticate(scope)
        if route is None:
            return _unknown(scope["method"], scope["path"], path_known=match.path_known)
        if caller is not None:
            if (
                self.world.rate_limits.active
                and route.limited
                and not self.world.rate_limits.admit(caller.tenant)
            ):
                return error_answer(429, "Too many requests for current tenant!", 33)
            if caller.authority not in route.who:
                raise forbidden()
        call = Call(
            self.world,
            scope["method"],
            scope["path"],
            match.params,
            scope["query_string"],
            body,
            _header(scope, b"host"),
            caller,
            receive,
        )
        answer = route.handler(call)
        return answer if isinstance(answer, Answer) else await answer

    def _authenticate(self, scope: Scope) -> Principal:
        header = _header(scope, b"x-authorization") or _header(scope, b"authorization")
        if not header:
            raise authentication_failed()
        return self.world.tokens.authenticate(header)


def _head_size(scope: Scope) -> int:
    headers = sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"])
    return headers + len(scope["path"]) + len(scope["query_string"]) + len("DELETE ? HTTP/1.1\r\n\r\n")


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


async def _read_body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > LARGEST_BODY:
            raise _BodyTooLargeError
        chunks.append(chunk)
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _unknown(method: str, path: str, *, path_known: bool) -> Answer:
    if path_known:
        return framework_error(405, f"Request method '{method}' is not supported", 31)
    return framework_error(404, f"No static resource {path.lstrip('/')}.", 32)


async def send_answer(send: Send, answer: Answer) -> None:
    """Send an answer; ThingsBoard's empty bodies have a length and no content type."""
    headers = [(b"content-length", str(len(answer.body)).encode()), *answer.headers]
    if answer.content_type is not None:
        headers.append((b"content-type", answer.content_type))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
