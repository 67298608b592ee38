"""uvicorn's WebSocket protocol with the rules of this gateway: it says goodbye, and cuts dead readers."""

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.draining import drain

#: Bytes of one frame of a caller's: a subscription to a hundred devices by name.
MOST_FRAME_BYTES = 64 * 1024


class GatewayWebSocket(WebSocketsSansIOProtocol):
    """One connection."""

    #: How long the application may take to say goodbye.
    GOODBYE_SECONDS = 2.0

    async def send(self, message: ASGISendEvent) -> None:
        """Send; uvicorn would take a handshake that was answered with a refusal for one left open."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    def shutdown(self) -> None:
        """Let the application close the connection, and close it when that takes too long."""
        drain(self.app_state)
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
