"""What middleware cannot see: deadlines, limits of a request's head, malformed requests, draining.

One object serves one connection. It is in one of three phases: idle (nothing of the next request has come),
head (request line and headers are arriving) and body. A deadline guards each phase; a request that arrives
whole, as nearly all do, starts none.
"""

import asyncio
import enum
import secrets
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.answer_transport import AnswerTransport
from app.connections import CONNECTIONS, Connections
from app.draining import draining_of
from app.http_heads import RefusedRequest, check_head, reason_of, render, without_upgrade
from app.load_shedding import LOAD_SHEDDING, LoadShedding
from app.metrics.requests import REQUESTS
from app.running_request import RunningRequest

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

log = structlog.get_logger("connection")

#: What a header line costs beside its name and value: a colon, a space and the line's end.
LINE_OVERHEAD = 4


class Phase(enum.Enum):
    """How much of the current request has arrived."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"


class GatewayProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the rules of this gateway."""

    HEAD_SECONDS = 10.0
    #: A body must bring so many bytes in each window, or its end. Slow phones pass, drips do not.
    BODY_WINDOW_SECONDS = 10.0
    BODY_WINDOW_BYTES = 10 * 1024
    WRITE_STALL_SECONDS = 20.0
    #: What the kernel keeps of an answer besides what is on its way.
    UNSENT_BYTES = 64 * 1024
    #: As long after the last piece of a body a caller need not read an answer that has begun already: many
    #: send everything first, and an upload pauses while ThingsBoard is slow.
    UNREAD_BODY_SECONDS = 120.0
    #: How long what still arrives is thrown away after an error or an early answer: closing at once would
    #: reset the connection, and the caller might never read why.
    LINGER_SECONDS = 2.0
    EARLY_ANSWER_SECONDS = 30.0
    #: How long an idle connection stays open while draining: a request may be under way on it.
    DRAIN_SECONDS = 2.0
    MAX_TARGET_BYTES = 16 * 1024
    MAX_HEADERS = 100
    MAX_HEADER_BYTES = 32 * 1024
    MAX_PIPELINED = 32

    _connections: Connections | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start the deadline of the first request."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        with suppress(AttributeError, OSError):
            # More would wait in the kernel, up to 4 MiB, and a slow reader's progress would not show here.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self.UNSENT_BYTES)
            # A peer that vanished confirms nothing: the system would try for a quarter of an hour.
            gone_after = int(self.UNREAD_BODY_SECONDS * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, gone_after)
        self._phase = Phase.IDLE
        self._requests = 0
        self._watched: object = None
        self._receive_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._is_refused = self._is_turned_down = False
        self._load: LoadShedding | None = self.app_state.get(LOAD_SHEDDING)
        # Accepted while the others were told already.
        self._is_draining = draining_of(self.app_state).has_begun
        self._unparsed_head_bytes = self._header_bytes = self._window_bytes = self._unsent_bytes = 0
        self._body_came_at = 0.0
        self._was_paused = False
        self._may_keep_alive = True
        self._running: RunningRequest | None = None
        if not self._is_turned_away():
            self._watch_receiving()

    def _is_turned_away(self) -> bool:
        """Count this connection; True when there are too many and it is closed at once."""
        self._connections = self.app_state.get(CONNECTIONS)
        refusal = self._connections.enter(self._client_address()) if self._connections else None
        if refusal is None:
            return False
        self._is_refused = True
        self._write(refusal, secrets.token_hex(16))
        self.transport.close()
        self._watch_writing()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all deadlines, and end the request of a caller who left before its answer began."""
        self._cancel_timers()
        self._leave()
        super().connection_lost(exc)
        if self._running is not None:
            self._running.abandon()

    def _leave(self) -> None:
        if self._connections is not None:
            self._connections.leave(self._client_address())
            self._connections = None

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse what breaks a rule."""
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        was_idle, requests = self._phase is Phase.IDLE, self._requests
        try:
            if self._feed_is_over(data):
                return
        except httptools.HttpParserError as error:
            self._refuse(reason_of(error))
            return
        if self._phase is Phase.HEAD:
            # The parser keeps a header to itself until its end, so an endless one shows only here.
            if self._requests == requests:
                self._unparsed_head_bytes += len(data)
            else:
                self._unparsed_head_bytes = len(data) if was_idle and self._requests == requests + 1 else 0
            if self._unparsed_head_bytes > self.MAX_TARGET_BYTES + self.MAX_HEADER_BYTES:
                self._refuse(self._head_too_large())
                return
        self._watch_receiving()

    def _feed_is_over(self, data: bytes) -> bool:
        """Feed the parser; True when the connection now belongs to the WebSocket protocol."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._cancel_timers()
                # The WebSocket's protocol counts it from here on.
                self._leave()
                self.handle_websocket_upgrade()
                return True
            # Java's client wishes for HTTP/2 on each first request. The parser takes the body of such a
            # request for that other protocol, so the request is read again without the wish.
            head = without_upgrade(
                self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers
            )
            return self._feed_is_over(head + data[upgrade.args[0] :])
        return False

    def on_message_begin(self) -> None:
        """Count anew."""
        self._phase = Phase.HEAD
        self._requests += 1
        self._header_bytes = self._window_bytes = 0
        self._was_paused = self._is_turned_down = False
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Bound the target."""
        super().on_url(url)
        if len(self.url) > self.MAX_TARGET_BYTES:
            issue = f"longer than {self.MAX_TARGET_BYTES} bytes"
            raise RefusedRequest(414, "The request target is too long.", "url", issue)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Bound the headers, and ignore trailers: they must not be able to add a key."""
        if self._phase is not Phase.HEAD:
            return
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value) + LINE_OVERHEAD
        if len(self.headers) > self.MAX_HEADERS or self._header_bytes > self.MAX_HEADER_BYTES:
            raise self._head_too_large()

    def on_headers_complete(self) -> None:
        """Start the request if its head is beyond doubt."""
        check_head(self.parser.get_http_version(), self.url, self.headers)
        if len(self.pipeline) >= self.MAX_PIPELINED:
            raise RefusedRequest(400, "Too many requests were sent ahead.", "request", "too much pipelining")
        if self.parser.should_upgrade() and not self._should_upgrade():
            return
        if self._load is not None and not self._load.admits(self.url):
            self._turn_down(self._load.refusal(self.headers))
            return
        self._phase = Phase.BODY
        super().on_headers_complete()
        if self.parser.should_upgrade():
            return
        self.cycle.transport = AnswerTransport(self.transport, self.loop)  # type: ignore[assignment]  # all it uses
        self._may_keep_alive = self.cycle.keep_alive
        # Whether a caller who was not told to continue sends its body after all is unknown: the next bytes
        # might be that body or a request.
        if self.expect_100_continue or self._is_draining:
            self.cycle.keep_alive = False

    def _turn_down(self, refusal: RefusedRequest) -> None:
        """Refuse this request and go on with the next one: that costs less than a new connection.

        Raises:
            RefusedRequest: answers to those before it are still to come, or it is the last one anyway.
        """
        may_stay = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        is_last = self.parser.should_upgrade() or self.expect_100_continue or self._is_draining
        # Who sends ahead and does not read would have refusals pile up here.
        is_unread = self.transport.get_write_buffer_size() > self.UNSENT_BYTES
        if self._is_answering() or not may_stay or is_last or is_unread:
            raise refusal
        self._phase, self._is_turned_down = Phase.BODY, True
        is_head = self.parser.get_method() == b"HEAD"
        self._write(refusal, secrets.token_hex(16), closes=False, is_head=is_head)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
        self._running = RunningRequest.start(cycle, app, self.loop, self.tasks)

    def on_body(self, body: bytes) -> None:
        """Count towards the minimum rate."""
        self._window_bytes += len(body)
        self._body_came_at = self.loop.time()
        if self._is_turned_down:
            return
        super().on_body(body)
        self._was_paused |= self.flow.read_paused

    def on_message_complete(self) -> None:
        """Return to idle."""
        if self._phase is Phase.HEAD:
            # To be read again, see above.
            return
        self._phase = Phase.IDLE
        if self._is_turned_down:
            return
        super().on_message_complete()
        is_open = self._is_answering() and not self.cycle.response_started and not self._is_draining
        if self.expect_100_continue and is_open:
            self.cycle.keep_alive = self._may_keep_alive

    def on_response_complete(self) -> None:
        """Go on with the next request, or see that the answer leaves."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_writing()
        elif not self._is_refused:
            self._watch_receiving()

    def pause_writing(self) -> None:
        """Start watching whether the caller reads at all."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """The caller reads."""
        super().resume_writing()
        _cancel(self._write_timer)
        self._write_timer = None
        if self.transport.is_closing():
            self._watch_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also if its caller never reads the last answer."""
        super().timeout_keep_alive_handler()
        self._watch_writing()

    def shutdown(self) -> None:
        """Drain: answer what has come and what is under way, then close."""
        self._is_draining = True
        if self._is_answering():
            self.cycle.keep_alive = False
        if not self._is_refused:
            self._unset_keepalive_if_required()
            self._watch_receiving()

    def _head_too_large(self) -> RefusedRequest:
        issue = f"more than {self.MAX_HEADERS} headers or {self.MAX_HEADER_BYTES} bytes"
        return RefusedRequest(431, "The request headers are too large.", "headers", issue)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch_receiving(self) -> None:
        """Set the deadline that fits the situation, unless it already runs."""
        is_answering = self._is_answering()
        has_idle_timer = self.timeout_keep_alive_task is not None
        before = self._watched
        self._watched = (self._requests, self._phase, is_answering, has_idle_timer, self._is_draining)
        if self._watched == before:
            return
        _cancel(self._receive_timer)
        if self._phase is Phase.BODY:
            if is_answering:
                self._receive_timer = self.loop.call_later(self.BODY_WINDOW_SECONDS, self._check_body_rate)
            else:
                self._close_after(self.EARLY_ANSWER_SECONDS)
        elif is_answering:
            return
        elif self._phase is Phase.HEAD:
            self._receive_timer = self.loop.call_later(self.HEAD_SECONDS, self._refuse_late_head)
        elif self._is_draining:
            self._close_after(self.DRAIN_SECONDS)
        elif not has_idle_timer:
            # Nothing of a request has come, so there is nothing to answer.
            self._close_after(self.HEAD_SECONDS)

    def _close_after(self, seconds: float) -> None:
        self._receive_timer = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _refuse_late_head(self) -> None:
        issue = f"not complete after {self.HEAD_SECONDS:g} seconds"
        self._refuse(RefusedRequest(408, "The request came too slowly.", "headers", issue))

    def _check_body_rate(self) -> None:
        # While reading is paused it is we who are slow.
        is_fast = self._window_bytes >= self.BODY_WINDOW_BYTES or self._was_paused or self.flow.read_paused
        self._window_bytes, self._was_paused = 0, self.flow.read_paused
        if is_fast:
            self._receive_timer = self.loop.call_later(self.BODY_WINDOW_SECONDS, self._check_body_rate)
            return
        issue = f"less than {self.BODY_WINDOW_BYTES} bytes in {self.BODY_WINDOW_SECONDS:g} seconds"
        self._refuse(RefusedRequest(408, "The request body came too slowly.", "body", issue))

    def _watch_writing(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent and self._write_timer is None:
            self._unsent_bytes = unsent
            self._write_timer = self.loop.call_later(self.WRITE_STALL_SECONDS, self._check_writing)

    def _check_writing(self) -> None:
        self._write_timer = None
        if self._is_sending_first():
            self._watch_writing()
        elif self.transport.get_write_buffer_size() >= self._unsent_bytes:
            log.info("connection_stalled", client=self._client_address())
            self.transport.abort()
        else:
            self._watch_writing()

    def _is_sending_first(self) -> bool:
        """Tell whether this may be one of many callers who read nothing before they have sent everything."""
        is_under_way = self._phase is Phase.BODY and self._is_answering()
        return is_under_way and self.loop.time() - self._body_came_at < self.UNREAD_BODY_SECONDS

    def _refuse(self, refusal: RefusedRequest) -> None:
        """Answer with this error, if the connection is in a state to carry an answer, and end it."""
        self._is_refused = True
        self._cancel_timers()
        request_id = secrets.token_hex(16)
        if refusal.details:  # Else it is no fault of the request's, and is told as a whole.
            fields = {"request_id": request_id, "status": refusal.status, "client": self._client_address()}
            log.info("request_refused", **fields, **refusal.details)
        if self._is_answering():
            if self._phase is not Phase.BODY:
                # A later request is at fault: those before it get their answers first.
                self.cycle.keep_alive = False
                self._watch_writing()
                return
            if self.cycle.response_started or self.pipeline:
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._write(refusal, request_id)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
        else:  # TLS says its own goodbye.
            self.transport.close()
        self._receive_timer = self.loop.call_later(self.LINGER_SECONDS, self.transport.abort)

    def _write(self, refusal: RefusedRequest, request_id: str, **how: bool) -> None:
        if (metrics := self.app_state.get(REQUESTS)) is not None:
            metrics.add_refused(refusal.status)
        self.transport.write(render(refusal, request_id, self.server_state.default_headers, **how))

    def _client_address(self) -> str:
        return self.client[0] if self.client else ""

    def _cancel_timers(self) -> None:
        self._unset_keepalive_if_required()
        _cancel(self._receive_timer)
        _cancel(self._write_timer)
        self._write_timer = None


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
