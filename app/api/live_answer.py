"""The answer that is a stream of server-sent events: shared bytes, heartbeats, an end with a reason."""

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.services.live_channels import Beginning, Subscriber
from app.services.live_frames import SSE

HEARTBEAT_SECONDS = 15.0
#: A reader that lost its connection comes back after so many ms.
OPENING = b"retry: 1000\n\n"
HEARTBEAT = b": heartbeat\n\n"
MEDIA_TYPE = "text/event-stream"


class LiveAnswer(Response):
    """Sends what a subscriber gets, until it or its reader ends.

    `fastapi.sse` encodes each event for each reader, at 86-120 us and 57 KiB each (docs/adr/0012-live.md).

    Args:
        beginning: sent first.
        close: called once, whatever the end.
    """

    def __init__(self, subscriber: Subscriber, beginning: Beginning, close: Callable[[], None]) -> None:
        # Proxies that gather answers would keep events back.
        super().__init__(headers={"X-Accel-Buffering": "no", "Content-Type": MEDIA_TYPE})
        del self.headers["Content-Length"]
        self._subscriber, self._beginning, self._close = subscriber, beginning, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI  # noqa: ARG002 - ASGI
        """Stream."""
        watching = asyncio.create_task(self._watch(receive))
        try:
            head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(head)
            await self._stream(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._close()
            watching.cancel()

    async def _stream(self, send: Send) -> None:
        async def write(piece: bytes) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        await write(OPENING)
        async for frame in self._beginning.frames:
            if self._subscriber.is_over:
                break
            await write(frame)
        await write(SSE.place(self._beginning.token))
        while (frames := await self._subscriber.take(HEARTBEAT_SECONDS)) is not None:
            await write(b"".join(frames) if frames else HEARTBEAT)

    async def _watch(self, receive: Receive) -> None:
        """End with the caller: sending to one who is gone neither fails nor waits."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._subscriber.leave()
