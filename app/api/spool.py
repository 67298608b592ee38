"""Bytes that one task writes and another reads, in order: in memory, and beyond that in a file."""

import asyncio
import os
import tempfile
from typing import BinaryIO

IN_MEMORY_BYTES = 1 << 20
#: So much may lie unread in the file: more than 100,000 devices with one line each.
MOST_FILED_BYTES = 64 << 20
PIECE_BYTES = 1 << 16


class Spool:
    """For one writer and one reader, of one event loop. The file is newer than what is in memory."""

    def __init__(self, *, in_memory: int = IN_MEMORY_BYTES, limit: int = MOST_FILED_BYTES) -> None:
        self._in_memory, self._limit = in_memory, limit
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._read = self._written = 0
        self._has_data, self._has_room = asyncio.Event(), asyncio.Event()
        self._is_complete = False
        self.is_used = False

    def offer(self, data: bytes) -> bool:
        """Append, or return False when there is no room: the reader is a whole spool behind."""
        if not self._written and len(self._memory) < self._in_memory:
            self._memory += data
        elif self._written - self._read >= self._limit or not self._append(data):
            return False
        self.is_used = True
        self._has_data.set()
        return True

    async def put(self, data: bytes) -> None:
        """Append as soon as there is room."""
        while not self.offer(data):
            self._has_room.clear()
            await self._has_room.wait()

    def complete(self) -> None:
        """Say that nothing more comes."""
        self._is_complete = True
        self._has_data.set()

    async def get(self) -> bytes:
        """Return the next bytes, or none when everything has been read."""
        while not (data := self._take()) and not self._is_complete:
            self._has_data.clear()
            await self._has_data.wait()
        self._has_room.set()
        return data

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()

    def _take(self) -> bytes:
        if self._memory:
            data = bytes(self._memory[:PIECE_BYTES])
            del self._memory[:PIECE_BYTES]
            return data
        if self._file is None or self._read == self._written:
            return b""
        data = os.pread(self._file.fileno(), min(PIECE_BYTES, self._written - self._read), self._read)
        self._read += len(data)
        if self._read == self._written:
            # Begin anew, so that the file stays small beside a reader who keeps up.
            self._file.truncate(0)
            self._read = self._written = 0
        return data

    def _append(self, data: bytes) -> bool:
        try:
            if self._file is None:
                # Without a name: it is gone with the process, however that ends.
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `close`
            is_whole = os.pwrite(self._file.fileno(), data, self._written) == len(data)
        except OSError:
            # The disk is full, or there is none to write to: there is room for what is in memory.
            return False
        if is_whole:
            self._written += len(data)
        return is_whole
