"""The answer to a bulk upload as a stream of lines, written while the upload is still being read.

Many callers send the whole body before they read a byte. So reading the upload and writing the lines are
two tasks that never wait for each other; between them lie the lines in a file, of bounded length.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.errors import GatewayError

MEDIA_TYPE = "application/x-ndjson"
#: Lines are kept in memory up to here, on disk beyond.
IN_MEMORY_BYTES = 1 << 20
#: A caller who reads nothing at all stops the upload at so much, which is some 100,000 devices.
MOST_SPOOLED_BYTES = 64 << 20
PIECE_BYTES = 1 << 16

Report = Callable[[dict[str, Any]], Awaitable[None]]
#: Does the upload from a body, reports each result, and returns the verdict.
Upload = Callable[[AsyncIterator[bytes], Report], Awaitable[dict[str, Any]]]


class Spool:
    """Bytes that one task writes and another reads, in order."""

    def __init__(self, *, limit: int = MOST_SPOOLED_BYTES) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - closed by `close`
        self._read = self._written = 0
        self._limit = limit
        self._has_changed = asyncio.Condition()
        self._is_complete = False

    async def put(self, data: bytes) -> None:
        """Append; waits only when the reader is a whole spool behind."""
        async with self._has_changed:
            await self._has_changed.wait_for(lambda: self._written - self._read < self._limit)
            if self._read == self._written:
                # All is read: begin anew, so that the file stays small beside a reader who keeps up.
                self._file.seek(0)
                self._file.truncate()
                self._read = self._written = 0
            self._file.seek(self._written)
            self._written += self._file.write(data)
            self._has_changed.notify_all()

    async def complete(self) -> None:
        """Say that nothing more comes."""
        async with self._has_changed:
            self._is_complete = True
            self._has_changed.notify_all()

    async def get(self) -> bytes:
        """Return the next bytes, or none when everything has been read."""
        async with self._has_changed:
            await self._has_changed.wait_for(lambda: self._written > self._read or self._is_complete)
            self._file.seek(self._read)
            data = self._file.read(PIECE_BYTES)
            self._read += len(data)
            self._has_changed.notify_all()
            return data

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


class BulkProgress(Response):
    """Runs an upload and sends a line for each result, the verdict last. Status 200 once a line is out."""

    def __init__(self, upload: Upload, failed: Callable[[GatewayError], dict[str, Any]]) -> None:
        super().__init__(status_code=200, media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._upload, self._failed = upload, failed
        self._has_lines = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Answer; a fault before the first line is a proper error, a later one is the verdict."""
        spool = Spool()
        uploading = asyncio.create_task(self._run(receive, spool))
        try:
            piece = await spool.get()
            if not self._has_lines:
                await uploading  # It has ended, and raises what ended it.
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
        async def report(line: dict[str, Any]) -> None:
            self._has_lines = True
            await spool.put(orjson.dumps(line) + b"\n")

        body = ReceivedBody(receive)
        try:
            verdict = await body.until_gone(self._upload(body.chunks(), report))
            await report(verdict)
        except GatewayError as error:
            if not self._has_lines:
                raise
            await report(self._failed(error))
        finally:
            await spool.complete()


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

    async def until_gone(self, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        """Return the work's result; a caller who leaves after its body cancels the work."""
        working = asyncio.ensure_future(work)
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientDisconnect
            return working.result()
        finally:
            for task in (working, watching):
                task.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    async def _watch(self) -> None:
        await self._is_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
