"""The answer to a bulk upload as a stream of lines, written while the upload is still being read.

Many callers send the whole body before they read a byte. So reading the upload and writing the lines are
two tasks that never wait for each other; between them lies a spool.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Protocol

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.api.spool import Spool
from app.errors import GatewayError

MEDIA_TYPE = "application/x-ndjson"
#: The loop serves others after this many lines.
LINES_AT_A_TIME = 256

Line = dict[str, Any]


class FollowedUpload(Protocol):
    """An upload that tells how it goes."""

    async def run(self, body: AsyncIterator[bytes], tell: Callable[[Line], bool]) -> None:
        """Store the body, and `tell` each result at once; False from there: tell it in `rest`."""

    def rest(self) -> Iterator[Line]:
        """Return what could not be told at once."""

    def verdict(self, error: GatewayError | None) -> Line:
        """Return the last line; `error` is what has ended the upload, if anything."""


class BulkProgress(Response):
    """Runs an upload and sends a line for each result, the verdict last. Status 200 once a line is out."""

    def __init__(self, upload: FollowedUpload) -> None:
        super().__init__(status_code=200, media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._upload = upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Answer; a fault before the first line is a proper error, a later one is the verdict."""
        spool = Spool()
        uploading = asyncio.create_task(self._run(receive, spool))
        try:
            piece = await spool.get()
            if not piece:
                await uploading  # It has ended without a line, and raises what ended it.
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await spool.get()
            await uploading
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            uploading.cancel()
            await asyncio.gather(uploading, return_exceptions=True)
            spool.close()

    async def _run(self, receive: Receive, spool: Spool) -> None:
        ended_by: GatewayError | None = None
        body = ReceivedBody(receive)
        try:
            try:
                await body.until_gone(
                    self._upload.run(body.chunks(), lambda line: spool.offer(encoded(line)))
                )
            except GatewayError as error:
                if not spool.is_used:
                    raise
                ended_by = error
            for number, line in enumerate(self._upload.rest()):
                if number % LINES_AT_A_TIME == 0:
                    await asyncio.sleep(0)
                # The caller has sent everything, so that it may be waited for.
                await spool.put(encoded(line))
            await spool.put(encoded(self._upload.verdict(ended_by)))
        finally:
            spool.complete()


def encoded(line: Line) -> bytes:
    """Return the bytes of a line."""
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


class ReceivedBody:
    """The request's body, and whether its caller is still there."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_read = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes."""
        more = True
        while more:
            message: Message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            if message.get("body"):
                yield message["body"]
        self._is_read.set()

    async def until_gone(self, work: Awaitable[None]) -> None:
        """Do the work; a caller who leaves after its body cancels it."""
        working = asyncio.ensure_future(work)
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientDisconnect
            working.result()
        finally:
            for task in (working, watching):
                task.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    async def _watch(self) -> None:
        await self._is_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
