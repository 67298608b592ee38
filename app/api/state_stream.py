"""The states of a stored RPC as server-sent events: few, small, and over when the last state is reached."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.context import Caller
from app.errors import GatewayError
from app.problems import answer_for
from app.services.rpc import event_of
from app.services.streams import Streams
from app.thingsboard.live_events import LiveEvent

#: Between comments that keep proxies from closing a quiet stream.
HEARTBEAT_SECONDS = 15.0
#: nginx would collect the events before it passes them on.
HEADERS = {"X-Accel-Buffering": "no"}


class StateEvents:
    """The stream of one caller. Once it is made it counts towards the streams of the key.

    Raises:
        RateLimited: the key has as many streams open as it may have.
        Overloaded: the gateway is stopping.
    """

    def __init__(
        self, records: AsyncGenerator[dict[str, Any], None], streams: Streams, caller: Caller
    ) -> None:
        self._records = records
        self._stream = streams.open(caller)
        self._stream.end = self._end
        self._ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def _end(self, event: LiveEvent) -> None:
        if not self._ended.done():
            self._ended.set_result(event.reason)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield an event for each record, comments in between, and a word on why it ends early.

        It ends early when the key of the caller does, when the gateway stops, and when ThingsBoard cannot be
        asked.
        """
        async with aclosing(self._records) as records:
            coming = asyncio.ensure_future(anext(records, None))
            try:
                while True:
                    waited: list[asyncio.Future[Any]] = [coming, self._ended]
                    await asyncio.wait(waited, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    if self._ended.done():
                        yield _event("closing", {"reason": self._ended.result()})
                        return
                    if not coming.done():
                        yield KEEPALIVE_COMMENT
                        continue
                    record = coming.result()
                    if record is None:
                        return
                    yield _event(*event_of(record))
                    coming = asyncio.ensure_future(anext(records, None))
            except GatewayError as error:
                status, code = answer_for(error)
                yield _event("error", {"status": status, "error_code": code, "message": error.message})
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    def close(self) -> None:
        """Give the place back."""
        self._stream.close()


class EventStream(StreamingResponse):
    """An answer of server-sent events, which gives its place back whenever and however it ends."""

    media_type = "text/event-stream"

    def __init__(self, states: StateEvents) -> None:
        super().__init__(states.events(), headers=HEADERS)
        self._states = states

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request of this scope."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._states.close()


def _event(name: str, data: dict[str, Any]) -> bytes:
    return format_sse_event(event=name, data_str=orjson.dumps(data).decode())
