"""What lies between the writer and the reader of a followed upload."""

import asyncio
import os
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api import spool as spool_module
from app.api.spool import PIECE_BYTES, Spool


async def read_all(spool: Spool) -> bytes:
    pieces = []
    while piece := await spool.get():
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("in_memory", [0, 100, 10_000])
async def test_it_gives_back_what_it_took_in_any_rhythm(in_memory: int) -> None:
    spool = Spool(in_memory=in_memory, limit=1_000)

    async def write() -> None:
        for number in range(2_000):
            await spool.put(b"%06d;" % number)
        spool.complete()

    _, read = await asyncio.gather(write(), read_all(spool))
    assert read == b"".join(b"%06d;" % number for number in range(2_000))
    spool.close()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 90_000), st.none()), max_size=40), st.integers(0, 100_000))
def test_offers_and_reads_in_any_order_lose_nothing(steps: list[int | None], in_memory: int) -> None:
    """A number offers so many bytes, None reads."""

    async def run() -> None:
        spool = Spool(in_memory=in_memory, limit=200_000)
        taken, given_back, byte = b"", b"", 0
        for step in steps:
            if step is None:
                if len(given_back) < len(taken):
                    given_back += await spool.get()
            elif spool.offer(piece := bytes([byte % 256]) * step):
                taken += piece
                byte += 1
            # What it holds is bounded, but for the last piece that was let in.
            assert len(taken) - len(given_back) <= in_memory + 200_000 + 2 * 90_000
        spool.complete()
        assert given_back + await read_all(spool) == taken
        spool.close()

    asyncio.run(run())


async def test_a_full_one_says_so_until_it_is_read() -> None:
    spool = Spool(in_memory=10, limit=PIECE_BYTES)
    assert spool.offer(b"x" * 10)
    assert spool.offer(b"y" * PIECE_BYTES)
    assert not spool.offer(b"z")
    assert await spool.get() == b"x" * 10
    assert not spool.offer(b"z")
    assert await spool.get() == b"y" * PIECE_BYTES
    assert spool.offer(b"z")
    spool.close()


@pytest.mark.parametrize("fault", ["no file", "no room", "half a write"])
async def test_without_a_disk_it_has_the_room_in_memory(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    if fault == "no file":
        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    else:
        monkeypatch.setattr(os, "pwrite", refuse if fault == "no room" else lambda *_: 1)
    spool = Spool(in_memory=10)
    assert spool.offer(b"first line")
    assert not spool.offer(b"second")
    waiting = asyncio.create_task(spool.put(b"second"))
    assert await spool.get() == b"first line"
    await waiting
    spool.complete()
    assert await read_all(spool) == b"second"
    spool.close()


async def test_its_file_has_no_name_and_shrinks_when_it_has_been_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = spool_module.Spool(in_memory=0)
    for _ in range(3):
        assert spool.offer(b"x" * 1_000)
        assert list(tmp_path.iterdir()) == []
        assert spool._file is not None
        assert os.fstat(spool._file.fileno()).st_size == 1_000
        assert len(await spool.get()) == 1_000
        assert os.fstat(spool._file.fileno()).st_size == 0
    spool.close()
