"""The wire of ThingsBoard's WebSocket: one connection, its numbered commands and its frames."""

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator
from typing import Any

import orjson
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from app.errors import UpstreamGarbled, UpstreamTimeout, UpstreamUnreachable
from app.thingsboard.connection import expect_object
from app.thingsboard.transport import CONNECT_TIMEOUT_SECONDS, proxy_for

log = structlog.get_logger("thingsboard")

PATH = "/api/ws"
#: ThingsBoard closes with 1009 beyond 32,768 bytes.
MOST_FRAME_BYTES = 30_000
#: 0 and 1 are ThingsBoard's own: errors of whole frames come under them.
FIRST_NUMBER = 2
#: ThingsBoard pings every 10 s.
SILENCE_SECONDS = 25.0
CLOSE_SECONDS = 2.0
#: Close codes: the token was refused; a limit of the tenant profile.
BAD_TOKEN, POLICY = 1007, 1008


class _Watched(ClientConnection):
    """Notes when anything last came, pings too: ThingsBoard's are the only sign of life of a quiet feed."""

    came_at = 0.0

    def data_received(self, data: bytes) -> None:
        self.came_at = self.loop.time()
        super().data_received(data)


class FeedSocket:
    """One open connection. Nothing here waits for ThingsBoard except `frames`.

    Command numbers are never used twice: ThingsBoard would mix the points of both subscriptions.
    """

    def __init__(self, connection: _Watched, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._connection, self._silence_seconds = connection, silence_seconds
        self._numbers = itertools.count(FIRST_NUMBER)
        self._waiting: list[bytes] = []
        self._sending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        connection.came_at = self._loop.time()
        self._check = self._loop.call_later(silence_seconds, self._check_life)

    @property
    def close_code(self) -> int | None:
        """Return why ThingsBoard closed; None: it has not, or without a word."""
        return self._connection.close_code

    def subscribe(self, kind: str, device_id: str, **more: str) -> int:
        """Ask for a subscription; its frames come under the number that is returned."""
        number = next(self._numbers)
        self._send({"type": kind, "entityType": "DEVICE", "entityId": device_id, "cmdId": number, **more})
        return number

    def unsubscribe(self, kind: str, device_id: str, number: int, **more: str) -> None:
        """End a subscription. Without type and id of the entity ThingsBoard would end all of them."""
        command = {"type": kind, "entityType": "DEVICE", "entityId": device_id, "cmdId": number, **more}
        self._send({**command, "unsubscribe": True})

    async def frames(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what ThingsBoard sends, until the connection ends, in whatever way."""
        try:
            async for message in self._connection:
                yield expect_object(orjson.loads(message))
        except (ConnectionClosed, orjson.JSONDecodeError, UpstreamGarbled) as error:
            log.info("feed_ended", error_type=type(error).__name__, code=self.close_code)

    def abort(self) -> None:
        """Give the connection up: `frames` ends."""
        self._connection.transport.abort()

    async def aclose(self) -> None:
        """Close the connection."""
        self._check.cancel()
        if self._sending is not None:
            self._sending.cancel()
        await self._connection.close()

    def _send(self, command: dict[str, Any]) -> None:
        self._waiting.append(orjson.dumps(command))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        """Send what is waiting in as few frames as ThingsBoard takes."""
        try:
            while self._waiting:
                size = count = 0
                for command in self._waiting:
                    size += len(command) + 1
                    if count and size > MOST_FRAME_BYTES:
                        break
                    count += 1
                batch, self._waiting = self._waiting[:count], self._waiting[count:]
                await self._connection.send(b'{"cmds":[' + b",".join(batch) + b"]}", text=True)
        except ConnectionClosed:
            # Whoever reads the frames is told.
            return

    def _check_life(self) -> None:
        left = self._connection.came_at + self._silence_seconds - self._loop.time()
        if left <= 0:
            log.warning("feed_silent", seconds=self._silence_seconds)
            self.abort()
        else:
            self._check = self._loop.call_later(left, self._check_life)


async def open_socket(origin: str, token: str, tls: ssl.SSLContext | None) -> FeedSocket:
    """Connect and authenticate. Whether the token is good shows only when frames are read.

    Raises:
        UpstreamUnreachable: nobody answers there.
        UpstreamTimeout: somebody does, too slowly.
        UpstreamGarbled: the answer is no WebSocket's, such as a proxy's that knows none.
    """
    address = "ws" + origin.removeprefix("http") + PATH
    try:
        connection = await connect(
            address,
            create_connection=_Watched,
            ssl=tls if address.startswith("wss:") else None,
            proxy=proxy_for(origin),
            # Its frames are small, or large and rare.
            compression=None,
            # A batch of 5,000 points is a frame of 124 KB, and nobody says what the largest is.
            max_size=None,
            # Client pings do not count as life (facts); the server's are watched instead.
            ping_interval=None,
            open_timeout=CONNECT_TIMEOUT_SECONDS,
            close_timeout=CLOSE_SECONDS,
            user_agent_header=None,
        )
    except InvalidStatus as error:
        raise UpstreamGarbled(note=f"web_socket_{error.response.status_code}") from None
    except TimeoutError:
        raise UpstreamTimeout(note="web_socket_timeout") from None
    except OSError:
        raise UpstreamUnreachable(note="web_socket") from None
    except WebSocketException:
        raise UpstreamGarbled(note="web_socket_handshake") from None
    if not isinstance(connection, _Watched):
        raise TypeError("connect has been told what to make")
    try:
        await connection.send(orjson.dumps({"authCmd": {"cmdId": 0, "token": token}, "cmds": []}), text=True)
    except ConnectionClosed:
        raise UpstreamUnreachable(note="web_socket_closed") from None
    return FeedSocket(connection)
