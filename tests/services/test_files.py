"""Files made before they are sent: few at a time, and gone whatever happens."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from app.errors import Overloaded, UpstreamFailed
from app.services import files
from app.services.files import FileTurns, file_stream


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder, which must be empty at all times: the files have no name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.iterdir())


class Writer:
    """Writes what it is given; remembers what became of it."""

    def __init__(self, file: IO[bytes], *, fails: bool = False) -> None:
        self.file, self.fails = file, fails
        self.is_closed = self.is_discarded = False

    def add(self, item: bytes) -> None:
        if self.fails:
            raise OSError("disk full")
        self.file.write(item)

    def close(self) -> None:
        self.is_closed = True

    def discard(self) -> None:
        self.is_discarded = True


class Made:
    """Opens writers and keeps them."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.writers: list[Writer] = []

    def __call__(self, file: IO[bytes]) -> Writer:
        self.writers.append(Writer(file, fails=self.fails))
        return self.writers[-1]


async def items(*values: bytes | Exception, hold: asyncio.Event | None = None) -> AsyncGenerator[bytes, None]:
    for value in values:
        if isinstance(value, Exception):
            raise value
        yield value
    if hold is not None:
        await hold.wait()


async def content_of(pieces: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110 - what is waited for happens in the code under test
            await asyncio.sleep(0)


async def test_a_file_comes_when_it_is_whole() -> None:
    made = Made()
    assert (
        await content_of(file_stream(items(b"a", b"b" * 200_000), made, FileTurns())) == b"a" + b"b" * 200_000
    )
    assert made.writers[0].is_closed
    assert made.writers[0].file.closed
    assert not made.writers[0].is_discarded


async def test_a_failure_leaves_nothing_behind() -> None:
    turns = FileTurns()
    for made, source in (
        (Made(), items(b"a", UpstreamFailed())),
        (Made(fails=True), items(b"a")),
    ):
        with pytest.raises((UpstreamFailed, OSError)):
            await content_of(file_stream(source, made, turns))
        assert made.writers[0].is_discarded
        assert made.writers[0].file.closed
    assert await content_of(file_stream(items(b"a"), Made(), turns)) == b"a"


async def test_a_caller_who_leaves_gives_the_turn_back() -> None:
    turns, made, never = FileTurns(), Made(), asyncio.Event()
    for _ in range(files.WRITTEN_AT_ONCE + 1):
        leaving = asyncio.create_task(content_of(file_stream(items(b"a", hold=never), made, turns)))
        await until(lambda: made.writers)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert made.writers.pop().file.closed
    assert await content_of(file_stream(items(b"a"), made, turns)) == b"a"


async def test_few_are_written_at_once_and_few_wait() -> None:
    turns, made, go_on = FileTurns(), Made(), asyncio.Event()
    room = files.WRITTEN_AT_ONCE + files.MOST_WAITING
    tasks = [
        asyncio.create_task(content_of(file_stream(items(b"a", hold=go_on), made, turns)))
        for _ in range(room)
    ]
    await until(lambda: turns._waiting == files.MOST_WAITING)
    with pytest.raises(Overloaded):
        await content_of(file_stream(items(b"a"), made, turns))
    assert len(made.writers) <= files.WRITTEN_AT_ONCE
    go_on.set()
    assert await asyncio.gather(*tasks) == [b"a"] * room
