"""uvicorn's WebSocket protocol with the rules of this gateway: it says goodbye, and cuts dead readers."""

from asyncio.transports import BaseTransport

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from app.connections import CONNECTIONS, Connections

#: Bytes of one message of a caller's: a subscription to a hundred devices by name.
MOST_FRAME_BYTES = 64 * 1024


class GatewayWebSocket(WebSocketsSansIOProtocol):
    """One connection."""

    #: How long the application may take to say goodbye.
    GOODBYE_SECONDS = 2.0
    #: Pieces of one message: empty ones count for nothing in its size, and are kept until its end.
    MOST_FRAGMENTS = 1_000

    _connections: Connections | None = None
    _owed_pong: bytes = b""

    def connection_made(self, transport: BaseTransport) -> None:
        """Count it; it had its place already, so it keeps it."""
        super().connection_made(transport)
        self._connections = self.app_state.get(CONNECTIONS)
        if self._connections is not None:
            self._connections.count(self._client_address())

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        if self._connections is not None:
            self._connections.leave(self._client_address())
        super().connection_lost(exc)

    def handle_ping(self) -> None:
        """Answer; while the peer does not read, only the last ping counts (RFC 6455, 5.5.3)."""
        if self.writable.is_set():
            super().handle_ping()
        # All pongs of what came at once are there at the first of its pings.
        elif pongs := self.conn.data_to_send():
            self._owed_pong = pongs[-1]

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        if self._owed_pong:
            self.transport.write(self._owed_pong)
            self._owed_pong = b""

    def handle_cont(self, event: Frame) -> None:
        """Keep a piece of a message."""
        if len(self.frames) < self.MOST_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.frames = []
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"more than {self.MOST_FRAGMENTS} fragments")
            self.handle_parser_exception()

    async def send(self, message: ASGISendEvent) -> None:
        """Send; uvicorn would take a handshake that was answered with a refusal for one left open."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    def shutdown(self) -> None:
        """Let the application close the connection, and close it when that takes too long."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()
        else:
            self.loop.call_later(self.GOODBYE_SECONDS, self._shut)

    def keepalive_timeout(self) -> None:
        """Cut a peer that does not answer: one that does not read either would stay for ever."""
        super().keepalive_timeout()
        self.loop.call_later(self.GOODBYE_SECONDS, self.transport.abort)

    def _shut(self) -> None:
        if not self.disconnected:
            super().shutdown()
            self.transport.abort()

    def _client_address(self) -> str:
        return self.client[0] if self.client else ""
