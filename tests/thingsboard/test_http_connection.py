"""Answers and bodies of one connection, over real sockets and on both event loops."""

import asyncio
import contextlib
import itertools
import random
from contextlib import aclosing
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import GatewayError, UpstreamGarbled, UpstreamReset, UpstreamTimeout
from app.thingsboard.aiohttp_transport import AiohttpTransport
from app.thingsboard.bare_transport import BareTransport
from app.thingsboard.http_connection import HEAD_LIMIT, PIECE, AnswerReader, HTTPConnection
from app.thingsboard.transport import Answer
from tests.thingsboard.scripted_upstream import (
    CHUNKED,
    HEAD,
    MIB,
    OK,
    Peer,
    Script,
    assert_idle,
    bare,
    both_loops,
    deaf,
    echo,
    says,
    send,
    silent,
    until,
    upstream,
)

ANSWERS = {
    "length": (OK, b"{}", True),
    "close": (OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), b"{}", False),
    "HTTP/1.0": (OK.replace(b"1.1", b"1.0"), b"{}", False),
    "HTTP/1.0 kept": (OK.replace(b"1.1 200 OK", b"1.0 200 OK\r\nConnection: Keep-Alive"), b"{}", True),
    "no body": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True),
    "chunks": (CHUNKED + b"2\r\n{}\r\n1;a=b;c\r\n!\r\n1\r\n!\r\n0\r\n\r\n", b"{}!!", True),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\nContent-Type: x\r\nA: b\r\n\r\n", b"{}", True),
    "100 and 103": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: </x>\r\n\r\n" + OK, b"{}", True),
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\nall of it", b"all of it", False),
    "until the end, empty": (b"HTTP/1.1 200 OK\r\n\r\n", b"", False),
    "more than asked": (OK + OK, b"{}", False),
    "junk after it": (OK + b"junk", b"{}", False),
    "one byte after it": (OK + b"H", b"{}", False),
    "identity": (OK.replace(b"OK\r\n", b"OK\r\nContent-Encoding: identity\r\n"), b"{}", True),
}


@both_loops
@pytest.mark.parametrize(("raw", "body", "is_kept"), ANSWERS.values(), ids=ANSWERS)
async def test_answers(raw: bytes, body: bytes, is_kept: bool) -> None:
    is_open_ended = b"Length" not in raw and b"Transfer" not in raw and b"204" not in raw
    script = says(raw, then="close") if is_open_ended else says(raw, then="repeat")
    async with upstream(script) as up, aclosing(bare(up)) as transport:
        for _ in range(2):
            answer = await send(transport)
            status = int(raw.rpartition(b"HTTP/1.")[2][2:5])
            assert (answer.status, answer.body) == (status, body)
            assert len(transport._idle) == is_kept
        assert up.connections == (1 if is_kept else 2)
        await until(lambda: len(transport._open) == is_kept)
        assert_idle(transport)


@both_loops
async def test_a_head_answer_has_no_body() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n"
    async with upstream(says(raw, then="repeat")) as up, aclosing(bare(up)) as transport:
        for _ in range(2):
            assert (await send(transport, method="HEAD")).body == b""
        assert up.connections == 2


GARBLED = {
    "cut head": HEAD + b"Content-Le",
    "cut body": HEAD + b"Content-Length: 9\r\n\r\n{}",
    "cut chunk": CHUNKED + b"4\r\n{}",
    "no last chunk": CHUNKED + b"2\r\n{}\r\n",
    "cut trailers": CHUNKED + b"0\r\nA: b\r\n",
    "bad chunk size": CHUNKED + b"zz\r\n",
    "not HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "HTTP/0.9": b"<html>",
    "two framings": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "length list": HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
    "negative length": HEAD + b"Content-Length: -2\r\n\r\n{}",
    "folded header": HEAD + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "gzip as transfer": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "only 100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "head too long": HEAD + b"A: " + b"b" * HEAD_LIMIT + b"\r\nContent-Length: 0\r\n\r\n",
    "endless 100": b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000 + OK,
    "endless trailers": CHUNKED + b"0\r\n" + b"A: b\r\n" * (1 << 18),
    "length beyond the bound": HEAD + b"Content-Length: 1025\r\n\r\n" + b"x" * 1025,
    "chunks beyond the bound": CHUNKED + b"400\r\n" + b"x" * 1024 + b"\r\n1\r\nx\r\n0\r\n\r\n",
    "end beyond the bound": HEAD + b"\r\n" + b"x" * 1025,
}


@both_loops
@pytest.mark.parametrize("raw", GARBLED.values(), ids=GARBLED)
async def test_garbled_answers(raw: bytes) -> None:
    async with upstream(says(raw, then="close")) as up, aclosing(bare(up, body_limit=1024)) as transport:
        for _ in range(2):
            with pytest.raises(UpstreamGarbled):
                await send(transport)
            assert not transport._idle
        assert up.connections == 2
        await until(lambda: not transport._open)
        assert_idle(transport)


@pytest.mark.parametrize(("extra", "is_fine"), [(0, True), (1, False)])
@pytest.mark.parametrize("step", [1_000, 65_536, 100_000])
def test_the_bound_of_the_head_is_exact(extra: int, is_fine: bool, step: int) -> None:
    end = b"\r\nContent-Length: 0\r\n\r\n"
    raw = HEAD + b"A: " + b"b" * (HEAD_LIMIT - len(HEAD) - 3 - len(end) + extra) + end
    reader, answer = AnswerReader(), None
    with contextlib.nullcontext() if is_fine else pytest.raises(UpstreamGarbled):
        for start in range(0, len(raw), step):
            answer = reader.feed(raw[start : start + step])
    assert (answer is not None) == is_fine


def test_bytes_after_an_answer_spoil_the_connection_also_before_the_call_has_noticed() -> None:
    reader = AnswerReader()
    assert reader.feed(OK) is not None
    assert reader.is_reusable
    assert reader.feed(b"H") is None
    assert not reader.is_reusable


def verdict(segments: list[bytes]) -> Answer | str:
    reader = AnswerReader(body_limit=1024)
    try:
        for segment in segments:
            if answer := reader.feed(segment):
                return answer
        return reader.feed_eof()
    except UpstreamGarbled as error:
        return error.note or ""


@given(
    st.sampled_from(
        [*(raw for raw, *_ in ANSWERS.values()), *(raw for raw in GARBLED.values() if len(raw) < 3_000)]
    ),
    st.sets(st.integers(1, 2_500), max_size=60),
)
def test_how_the_bytes_are_split_changes_nothing(raw: bytes, cuts: set[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    assert verdict([raw[a:b] for a, b in itertools.pairwise(edges)]) == verdict([raw])


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(junk: bytes) -> None:
    for raw in (junk, HEAD + junk, CHUNKED + junk):
        assert isinstance(verdict([raw]), Answer | str)


@both_loops
async def test_large_bodies_leave_the_loop_free_and_the_connection_usable() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with upstream(echo) as up, aclosing(bare(up)) as transport:
        ticking = asyncio.create_task(count_turns())
        for size in (1, 1 << 18, (1 << 18) + 1, 16 * MIB):
            body = random.Random(size).randbytes(size)
            assert (await send(transport, method="POST", body=body)).body == b"/x %d" % size
        ticking.cancel()
        assert turns > 64
        assert up.connections == 1


@both_loops
async def test_an_early_answer_ends_the_sending() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await peer.up.go.wait()

    async with upstream(script) as up, aclosing(bare(up)) as transport:
        assert (await send(transport, method="POST", body=bytes(16 * MIB))).status == 413
        assert not transport._idle
        await until(lambda: not transport._open)
        up.go.set()


@both_loops
@pytest.mark.parametrize("body", [None, bytes(16 * MIB)], ids=["receiving", "sending"])
@pytest.mark.parametrize("is_cancelled", [False, True], ids=["time-out", "cancelled"])
async def test_time_out_and_cancellation_close_the_connection(body: bytes | None, is_cancelled: bool) -> None:
    async with upstream(deaf) as up, aclosing(bare(up)) as transport:
        seconds = 60 if is_cancelled else 0.5
        call = asyncio.create_task(send(transport, method="POST", body=body, seconds=seconds))
        await until(lambda: len(up.heads) == 1)
        if is_cancelled:
            call.cancel()
        with pytest.raises(asyncio.CancelledError if is_cancelled else UpstreamTimeout):
            await call
        await until(lambda: not transport._open)
        assert_idle(transport)


async def test_one_piece_goes_out_in_each_turn_and_none_after_the_answer() -> None:
    class Endless(asyncio.Transport):
        """Takes whatever it is given: never slower than we."""

        written: ClassVar[list[int]] = []

        def write(self, data: Any) -> None:
            self.written.append(len(data))

        def abort(self) -> None:
            pass

    loop = asyncio.get_running_loop()
    connection = HTTPConnection(loop, lambda _: None)
    connection.connection_made(Endless())
    call = asyncio.create_task(
        connection.exchange("POST", b"head", bytes(16 * MIB), deadline=loop.time() + 9)
    )
    for turn in range(1, 4):
        await asyncio.sleep(0)
        assert Endless.written == [4] + [PIECE] * turn
    connection.data_received(OK)
    assert (await call).status == 200
    await asyncio.sleep(0)
    assert len(Endless.written) == 4
    assert not connection.is_reusable


@both_loops
async def test_the_time_of_one_call_does_not_end_the_next() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()
        await peer.up.go.wait()
        await peer.say(OK)

    async with upstream(script) as up, aclosing(bare(up)) as transport:
        await send(transport, seconds=0.5)
        asyncio.get_running_loop().call_later(0.6, up.go.set)
        assert (await send(transport)).status == 200
        assert up.connections == 1


REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"
ADAPTERS = pytest.mark.parametrize("adapter", [AiohttpTransport, BareTransport])
SAME = {
    "an answer": (says(OK), (200, "application/json", b"{}")),
    "no type": (says(HEAD + b"Content-Length: 1\r\n\r\n1"), (200, "application/octet-stream", b"1")),
    "a redirect": (says(REDIRECT), (302, "application/octet-stream", b"")),
    "chunks": (says(CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"), (200, "application/octet-stream", b"{}")),
    "until the end": (says(HEAD + b"\r\nall", then="close"), (200, "application/octet-stream", b"all")),
    "closed": (says(b"", then="close"), UpstreamReset),
    "cut": (says(GARBLED["cut body"], then="close"), UpstreamGarbled),
    "cut chunks": (says(GARBLED["no last chunk"], then="close"), UpstreamGarbled),
    "not HTTP": (says(GARBLED["not HTTP"]), UpstreamGarbled),
    "false gzip": (says(GARBLED["gzip"]), UpstreamGarbled),
    "silence": (silent, UpstreamTimeout),
}  # fmt: skip


@both_loops
@ADAPTERS
@pytest.mark.parametrize(("script", "expected"), SAME.values(), ids=SAME)
async def test_both_adapters_alike(adapter: type[BareTransport], script: Script, expected: Any) -> None:
    async with upstream(script) as up, aclosing(adapter(up.origin, tls=True, connections=4)) as transport:
        try:
            answer = await send(transport, seconds=0.3 if script is silent else 10)
            assert (answer.status, answer.content_type, answer.body) == expected
        except GatewayError as error:
            assert type(error) is expected  # noqa: PT017 - an answer may be expected as well
