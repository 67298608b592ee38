"""Answers that are written while they are made: gzip if the caller likes, ended when the caller leaves."""

import asyncio
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Send

from app.preferences import weights_of

#: Higher levels cost more time than they save bytes on telemetry.
GZIP_LEVEL = 4
GZIP = zlib.MAX_WBITS | 16
BINARY = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


class StreamedAnswer(StreamingResponse):
    """Sends nothing before the first piece is there, so that an early fault is still a proper error.

    A caller who leaves cancels the producer (the base class listens for it); a late fault leaves the answer
    without its end.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        accept_encoding: str | None = None,
        filename: str | None = None,
    ) -> None:
        headers = {"Vary": "Accept-Encoding"}
        if filename is not None:
            headers["Content-Disposition"] = f'attachment; filename="{filename}"'
        # A workbook is a zip archive: it does not get any smaller.
        if accepts_gzip(accept_encoding) and media_type != BINARY:
            headers["Content-Encoding"] = "gzip"
            pieces = gzipped(pieces)
        super().__init__(pieces, headers=headers, media_type=media_type)
        self._pieces = pieces

    async def stream_response(self, send: Send) -> None:
        """Send the head with the first piece, then one piece after the other."""
        async with aclosing(self._pieces) as pieces:
            piece = await anext(pieces, b"")
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            while piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                # Sending to a caller who is gone neither fails nor waits: let the listener see it.
                await asyncio.sleep(0)
                piece = await anext(pieces, b"")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def gzipped(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Compress pieces; each of the yielded ones holds something."""
    packer = zlib.compressobj(GZIP_LEVEL, wbits=GZIP)
    async with aclosing(pieces):
        async for piece in pieces:
            if packed := packer.compress(piece):
                yield packed
    yield packer.flush()


def accepts_gzip(header: str | None) -> bool:
    """Tell whether `Accept-Encoding` prefers gzip to no compression (RFC 9110, 12.5.3)."""
    weights = weights_of(header or "")
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)
