"""One HTTP/1.1 connection: one request out, its answer in, then the next. It knows no pool and no names.

The answers are read by llhttp through httptools. What httptools leaves to its caller is in `AnswerReader`:
bounds, bodies that end with the connection, answers without a body, bytes that nobody asked for.
"""

import asyncio
from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from app.errors import GatewayError, UpstreamGarbled, UpstreamReset, UpstreamTimeout, UpstreamUnreachable
from app.thingsboard.transport import Answer

#: Of the answer's head, 1xx answers before it included; of trailers as well.
HEAD_LIMIT = 1 << 16
BODY_LIMIT = 1 << 28
#: A body up to this goes out in one write; a longer one piece by piece, each in its own turn of the loop.
PIECE = 1 << 18

#: The lengths of the header names that decide something here: most headers are told apart by it alone.
NAME_LENGTHS = frozenset(
    map(len, (b"content-type", b"content-length", b"content-encoding", b"transfer-encoding"))
)
FIRST_FINAL_STATUS = 200


class AnswerReader:
    """Turns the bytes of a connection into answers, however they are split. Not for two connections."""

    __slots__ = (
        "_answer", "_barren", "_body", "_body_limit", "_content_type", "_ends_with_connection", "_fields",
        "_has_begun", "_head_left", "_is_head", "_is_in_head", "_is_reusable", "_parser", "_status",
    )  # fmt: skip

    def __init__(self, body_limit: int = BODY_LIMIT) -> None:
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._body_limit = body_limit
        self._answer: Answer | None = None
        self._is_reusable = True
        self.expect("GET")

    def expect(self, method: str) -> None:
        """Get ready for the answer to a request."""
        self._is_head = method == "HEAD"
        self._answer = None
        self._has_begun, self._is_in_head = False, True
        self._head_left, self._barren = HEAD_LIMIT, 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: bytes | bytearray = b""

    @property
    def has_begun(self) -> bool:
        """Whether any byte of the answer has come."""
        return self._has_begun

    @property
    def is_reusable(self) -> bool:
        """Whether the last answer leaves the connection fit for another request."""
        return self._is_reusable

    def feed(self, data: bytes) -> Answer | None:
        """Take bytes; return the answer when they complete it.

        Raises:
            UpstreamGarbled: it is not HTTP, beyond the bounds, or encoded in a way that was not asked for.
        """
        if self._answer is not None or self._parser is None:
            self._is_reusable = False
            return None
        self._has_begun = True
        return self._read(self._parser, data)

    def feed_eof(self) -> Answer:
        """Take the end of the connection: it completes a body without a length, and cuts any other answer."""
        if self._is_in_head or not self._ends_with_connection or self._answer is not None:
            raise UpstreamGarbled(note="truncated")
        return self._complete()

    def release(self) -> None:
        """Drop the parser, which refers back to this object."""
        self._parser = None

    def _read(self, parser: HttpResponseParser, data: bytes) -> Answer | None:
        try:
            self._parse(parser, data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if self._answer is None:
                # What a callback raised comes wrapped.
                cause = error.__context__
                raise (
                    cause if isinstance(cause, UpstreamGarbled) else UpstreamGarbled(note="malformed")
                ) from None
            self._is_reusable = False
        return self._answer

    def _parse(self, parser: HttpResponseParser, data: bytes) -> None:
        if self._is_in_head and len(data) > self._head_left:
            # Cut exactly at the bound: the verdict must not depend on how the bytes were split.
            head, data = data[: self._head_left], data[self._head_left :]
            parser.feed_data(head)
            if self._is_in_head:
                raise UpstreamGarbled(note="head_too_long")
        elif self._is_in_head:
            self._head_left -= len(data)
        had = len(self._body)
        parser.feed_data(data)
        if self._answer is None and not self._is_in_head:
            # Chunk extensions and trailers have no length: they must not come for ever.
            self._barren = 0 if len(self._body) > had else self._barren + len(data)
            if self._barren > HEAD_LIMIT:
                raise UpstreamGarbled(note="trailers_too_long")

    def _complete(self) -> Answer:
        body = self._body if isinstance(self._body, bytes) else bytes(self._body)
        self._answer = Answer(self._status, self._content_type, body)
        self._body = b""
        return self._answer

    def on_message_begin(self) -> None:
        """Notice a second answer to one request: nobody asked for it."""
        if self._answer is not None:
            self._is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what decides something. Trailers come here as well and decide nothing."""
        if len(name) in NAME_LENGTHS and self._is_in_head:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Decide how the body ends."""
        if self._parser is None or self._answer is not None:
            return
        fields, self._fields = self._fields, []
        self._status = self._parser.get_status_code()
        if self._status < FIRST_FINAL_STATUS:
            return
        self._is_in_head = False
        self._is_reusable = self._parser.should_keep_alive() and not self._is_head
        self._content_type, self._ends_with_connection = "application/octet-stream", True
        for name, value in fields:
            self._obey(name, value)
        if self._is_head:
            # llhttp cannot be told and would wait for the body; hence no reuse after a HEAD.
            self._complete()

    def _obey(self, name: bytes, value: bytes) -> None:
        if name == b"content-type":
            self._content_type = value.partition(b";")[0].strip().lower().decode("latin-1")
        elif name == b"content-length":
            self._ends_with_connection = False
            if int(value) > self._body_limit and not self._is_head:
                raise UpstreamGarbled(note="body_too_long")
        elif name == b"transfer-encoding":
            self._ends_with_connection = False
            if value.lower() != b"chunked":
                raise UpstreamGarbled(note="transfer_encoding")
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise UpstreamGarbled(note="content_encoding")

    def on_body(self, part: bytes) -> None:
        """Collect a part of the body."""
        if self._answer is not None:
            return
        if not self._body:
            self._body = part
        elif isinstance(self._body, bytes):
            self._body = bytearray(self._body)
            self._body += part
        else:
            self._body += part
        if len(self._body) > self._body_limit:
            raise UpstreamGarbled(note="body_too_long")

    def on_message_complete(self) -> None:
        """Finish the answer, unless this was a 1xx before it."""
        if self._answer is None and not self._is_in_head:
            self._complete()


class HTTPConnection(asyncio.Protocol):
    """A connection that carries one exchange at a time. Any failure, time-out or cancellation ends it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[["HTTPConnection"], None],
        body_limit: int = BODY_LIMIT,
    ) -> None:
        self._loop, self._on_lost = loop, on_lost
        self._reader = AnswerReader(body_limit)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._unsent: memoryview | None = None
        self._is_paused = False
        self.is_open = False
        self._exchanges = 0
        #: Time of the loop at which it was last put aside; the pool's.
        self.idle_since = 0.0

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent: all was sent, all was read, and the other side is there."""
        return self.is_open and self._unsent is None and self._reader.is_reusable

    @property
    def is_reused(self) -> bool:
        """Whether the exchange at hand, or the last one, was not its first."""
        return self._exchanges > 1

    async def exchange(self, method: str, head: bytes, body: bytes | None, *, deadline: float) -> Answer:
        """Send one request and return its answer.

        Args:
            deadline: a time of the loop.

        Raises:
            UpstreamUnreachable: the other side had closed the connection before anything was sent.
            UpstreamReset: it closed the connection before any byte of the answer.
            UpstreamGarbled: the answer is not HTTP, out of bounds, or ends early.
            UpstreamTimeout: `deadline` is over.
        """
        if not self.is_open or self._transport is None:
            raise UpstreamUnreachable(note="closed_on_connect")
        self._exchanges += 1
        self._reader.expect(method)
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        self._waiter = waiter
        timer = self._loop.call_at(deadline, self._expire)
        try:
            self._send(self._transport, head, body)
            return await waiter
        except BaseException:
            self.abort()
            raise
        finally:
            timer.cancel()
            self._waiter = None

    def abort(self, reason: GatewayError | None = None) -> None:
        """Close at once, whatever is under way; an exchange in hand fails with `reason`."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()
        if reason is not None and self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are none of asyncio's classes: no isinstance here.
        self._transport = transport  # type: ignore[assignment]
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Read on; bytes without a request end the connection."""
        waiter = self._waiter
        if waiter is None:
            self.abort()
            return
        try:
            answer = self._reader.feed(data)
        except UpstreamGarbled as error:
            self.abort(error)
            return
        if answer is not None and not waiter.done():
            waiter.set_result(answer)

    def eof_received(self) -> None:
        """End the connection: nobody answers any more."""
        if self._waiter is not None and not self._waiter.done() and self._reader.has_begun:
            try:
                self._waiter.set_result(self._reader.feed_eof())
            except UpstreamGarbled as error:
                self._waiter.set_exception(error)
        self.abort(self._unanswered("closed_unanswered"))

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way. Without an EOF before it, a body without a length is cut, not complete."""
        if self._reader.has_begun:
            self.abort(UpstreamGarbled(note="truncated"))
        else:
            self.abort(self._unanswered(type(exc).__name__ if exc else "closed_unanswered"))
        self._reader.release()
        self._unsent = None
        self._on_lost(self)

    def _unanswered(self, note: str) -> UpstreamReset:
        # On a reused connection this is mostly the race between our request and their idle time-out.
        return UpstreamReset(note=f"{note}_reused" if self.is_reused else note)

    def pause_writing(self) -> None:
        """Stop sending."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Go on sending."""
        self._is_paused = False
        self._send_piece()

    def _send(self, transport: asyncio.Transport, head: bytes, body: bytes | None) -> None:
        if body is None:
            transport.write(head)
        elif len(body) <= PIECE:
            transport.write(head + body)
        else:
            transport.write(head)
            self._unsent = memoryview(body)
            self._send_piece()

    def _send_piece(self) -> None:
        """Send a piece in each turn of the loop, until the other side is slower than we or answers."""
        if self._unsent is None or self._transport is None or self._is_paused or not self.is_open:
            return
        if self._waiter is None or self._waiter.done():
            return
        piece, rest = self._unsent[:PIECE], self._unsent[PIECE:]
        self._unsent = rest if len(rest) else None
        self._transport.write(piece)
        if self._unsent is not None and not self._is_paused:
            self._loop.call_soon(self._send_piece)

    def _expire(self) -> None:
        self.abort(UpstreamTimeout(note="read_timeout"))
