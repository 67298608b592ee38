"""Bounds request bodies, counted as they arrive, and unpacks gzip within the same bound."""

import asyncio
import zlib
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType

#: ThingsBoard's own limit on `/api/**` bodies.
DEFAULT_LIMIT = 16 * 1024 * 1024
#: Unpacked at once, so that a small packed chunk cannot fill the memory.
PIECE = 1 << 20
#: What each further member of a gzip body counts as, or a body of empty ones would have no end (20 us each).
MEMBER_BYTES = 1 << 10


class BodyLimit:
    """Refuse bodies longer than the limit, whatever the headers claim.

    Args:
        limits_by_path: other limits in bytes for exact paths (the streamed uploads).
    """

    def __init__(
        self, app: ASGIApp, *, limit: int = DEFAULT_LIMIT, limits_by_path: Mapping[str, int] | None = None
    ) -> None:
        self.app, self.limit, self.limits_by_path = app, limit, limits_by_path or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        limit = self.limits_by_path.get(scope["path"], self.limit)
        if (
            headers.get(b"content-length", b"0").isdigit()
            and int(headers.get(b"content-length", b"0")) > limit
        ):
            raise too_large(limit)
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding == b"gzip":
            hidden = {b"content-encoding", b"content-length"}
            scope["headers"] = [header for header in scope["headers"] if header[0] not in hidden]
            return await self.app(scope, GunzippedBody(receive, limit), send)
        if encoding not in {b"identity", b""}:
            raise UnsupportedMediaType(
                "Request bodies may be plain or gzip.",
                details={"field": "Content-Encoding", "issue": "only gzip and identity are read"},
            )
        return await self.app(scope, CountedBody(receive, limit), send)


class CountedBody:
    """The receive channel, with a running count."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.receive, self.limit, self.seen = receive, limit, 0

    async def __call__(self) -> Message:
        message = await self.receive()
        self.count(message.get("body", b""))
        return message

    def count(self, chunk: bytes) -> None:
        self.seen += len(chunk)
        if self.seen > self.limit:
            raise too_large(self.limit)


class GunzippedBody(CountedBody):
    """The receive channel, unpacked piece by piece; a gzip body may have several members."""

    def __init__(self, receive: Receive, limit: int) -> None:
        super().__init__(receive, limit)
        self.unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self.packed, self.more_packed, self.is_inside_member = b"", True, True

    async def __call__(self) -> Message:
        while True:
            if not self.packed and self.more_packed:
                message = await self.receive()
                if message["type"] != "http.request":
                    return message
                self.packed = message.get("body", b"")
                self.more_packed = message.get("more_body", False)
            piece = self._unpack()
            # A full piece may be followed by more from the same input.
            more = bool(self.packed) or self.more_packed or len(piece) == PIECE
            if not more and self.is_inside_member:
                raise not_gzip()
            self.count(piece)
            if piece or not more:
                return {"type": "http.request", "body": piece, "more_body": more}
            # Others have their turn while what arrives unpacks to nothing.
            await asyncio.sleep(0)

    def _unpack(self) -> bytes:
        if self.packed and not self.is_inside_member:
            self.seen += MEMBER_BYTES
            self.unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            piece = self.unpacker.decompress(self.packed, PIECE)
        except zlib.error:
            raise not_gzip() from None
        self.is_inside_member = not self.unpacker.eof
        self.packed = self.unpacker.unused_data if self.unpacker.eof else self.unpacker.unconsumed_tail
        return piece


def too_large(limit: int) -> PayloadTooLarge:
    """Say what the limit is."""
    return PayloadTooLarge(
        f"The request body is larger than {limit} bytes.", details={"field": "body", "limit_bytes": limit}
    )


def not_gzip() -> InvalidRequest:
    """Say that the body is not what its header promises."""
    return InvalidRequest(
        "The request body is not valid gzip.", details={"field": "body", "issue": "not valid gzip"}
    )
