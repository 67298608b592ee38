"""Files that must be complete before their first byte can be sent: written to disk, then read back."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import IO, Protocol, TypeVar

from anyio import to_thread

from app.deadline import in_time
from app.errors import Overloaded

#: Files written at once in a process, and how many more may wait: each takes a thread and its CPU.
WRITTEN_AT_ONCE, MOST_WAITING = 2, 20
PIECE = 1 << 16

Item = TypeVar("Item")
Taken = TypeVar("Taken", contravariant=True)  # noqa: PLC0105 - what a writer takes


class FileWriter(Protocol[Taken]):
    """Writes a file part by part at constant memory. For worker threads, one at a time."""

    def add(self, item: Taken) -> None:
        """Write the next points."""

    def close(self) -> None:
        """Finish the file."""

    def discard(self) -> None:
        """Let go of a file that will not be finished."""


class FileTurns:
    """Lets a few files of a process be written at once, in the order of asking."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(WRITTEN_AT_ONCE)
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn.

        Raises:
            Overloaded: too many wait already.
        """
        if self._free.locked() and self._waiting >= MOST_WAITING:
            raise Overloaded(note="files_queue_full", retry_after=10)
        self._waiting += 1
        try:
            await in_time(self._free.acquire(), _turn_too_late)
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


def _turn_too_late() -> Overloaded:
    return Overloaded(note="files_queue_slow", retry_after=10)


async def file_stream(
    items: AsyncGenerator[Item, None],
    open_writer: Callable[[IO[bytes]], FileWriter[Item]],
    turns: FileTurns,
) -> AsyncGenerator[bytes, None]:
    """Yield a file. Its first piece comes when all of it is written.

    The file has no name, so that it is gone whatever happens, even if this process is killed. A thread that
    writes is waited for if the caller leaves.
    """
    async with aclosing(items):
        file = await to_thread.run_sync(tempfile.TemporaryFile)
        try:
            async with turns.turn():
                writer = await to_thread.run_sync(open_writer, file)
                try:
                    async for item in items:
                        await to_thread.run_sync(writer.add, item)
                    await to_thread.run_sync(writer.close)
                except BaseException:
                    writer.discard()
                    raise
            file.seek(0)
            while piece := await to_thread.run_sync(file.read, PIECE):
                yield piece
        finally:
            file.close()
