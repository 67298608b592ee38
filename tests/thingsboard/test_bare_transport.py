"""The pool, names, TLS and request heads of the bare transport, over real sockets and on both event loops."""

import asyncio
import random
import socket
import ssl
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from app.errors import GatewayError, UpstreamGarbled, UpstreamReset, UpstreamTimeout, UpstreamUnreachable
from app.thingsboard.bare_transport import BareTransport
from app.thingsboard.transport import Answer, tls_policy
from tests.thingsboard import test_transport
from tests.thingsboard.scripted_upstream import (
    HEAD,
    MIB,
    OK,
    Peer,
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

certificate = test_transport.certificate


@both_loops
async def test_the_request_is_written_exactly() -> None:
    async with upstream(says(OK, OK)) as up, aclosing(bare(up)) as transport:
        answer = await send(transport, "/a?b=%2F", **{"X-Authorization": "Bearer t"})
        await send(transport, method="POST")
    host = up.origin.removeprefix("http://").encode()
    common = b"Host: %b\r\nAccept: */*\r\nAccept-Encoding: identity\r\n" % host
    assert up.heads[0] == b"GET /a?b=%2F HTTP/1.1\r\n" + common + b"X-Authorization: Bearer t\r\n\r\n"
    assert up.heads[1] == b"POST /x HTTP/1.1\r\n" + common + b"Content-Length: 0\r\n\r\n"
    assert answer == Answer(200, "application/json", b"{}")


@both_loops
async def test_the_connection_used_last_is_used_next() -> None:
    first_is_done = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            if peer.number == 1:
                await first_is_done.wait()
            await peer.say(HEAD + b"Content-Length: 1\r\n\r\n%d" % peer.number)

    async with upstream(script) as up, aclosing(bare(up)) as transport:
        calls = [asyncio.create_task(send(transport)) for _ in range(2)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        first_is_done.set()
        await asyncio.gather(*calls)
        assert [(await send(transport)).body for _ in range(3)] == [b"1"] * 3
        assert len(transport._idle) == 2


@both_loops
async def test_the_pool_is_bounded_and_first_come_first_served() -> None:
    async with upstream(echo) as up, aclosing(bare(up, connections=1)) as transport:
        answers = await asyncio.gather(*(send(transport, f"/{each}") for each in range(9)))
        assert [answer.body for answer in answers] == [b"/%d 0" % each for each in range(9)]
        assert [head.split()[1] for head in up.heads] == [b"/%d" % each for each in range(9)]
        assert up.connections == 1
        assert_idle(transport, 1)


@both_loops
async def test_one_who_waits_may_leave_or_run_out_of_time() -> None:
    async with upstream(silent) as up, aclosing(bare(up, connections=1)) as transport:
        first = asyncio.create_task(send(transport, "/1"))
        await until(lambda: len(up.heads) == 1)
        leaves = asyncio.create_task(send(transport, "/2"))
        stays = asyncio.create_task(send(transport, "/3"))
        with pytest.raises(UpstreamTimeout) as caught:
            await send(transport, seconds=0.01)
        assert caught.value.note == "pool_timeout"
        leaves.cancel()
        first.cancel()
        await until(lambda: len(up.heads) == 2)
        assert up.heads[1].startswith(b"GET /3 ")
        stays.cancel()
        await asyncio.gather(first, leaves, stays, return_exceptions=True)
        await until(lambda: not transport._open)
        assert_idle(transport, 1)


@both_loops
async def test_a_slot_given_to_one_who_leaves_is_not_lost() -> None:
    async with upstream(echo) as up, aclosing(bare(up, connections=1)) as transport:
        transport._free = 0
        leaves, stays = (asyncio.create_task(send(transport, "/")) for _ in range(2))
        await asyncio.sleep(0)
        transport._give_slot()
        leaves.cancel()
        assert (await stays).status == 200
        assert leaves.cancelled()
        assert_idle(transport, 1)


@both_loops
async def test_idle_connections_are_closed_in_time() -> None:
    async with upstream(echo) as up, aclosing(bare(up, keepalive_seconds=0.05)) as transport:
        await asyncio.gather(send(transport), send(transport))
        await until(lambda: up.closed == 2)
        await send(transport)
        transport._idle[0].idle_since -= 1  # The loop was busy: the timer is late.
        await send(transport)
        assert up.connections == 4
        await until(lambda: not transport._open)
        assert transport._sweeper is None


@both_loops
@pytest.mark.parametrize("end", ["close", "reset", "talk"])
async def test_a_connection_that_ended_while_idle_is_not_used(end: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.up.go.wait()
        if end == "reset":
            peer.reset()
        elif end == "talk":
            await peer.say(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            await peer.reader.read()

    async with upstream(script) as up, aclosing(bare(up)) as transport:
        await send(transport)
        assert len(transport._idle) == 1
        up.go.set()
        await until(lambda: not transport._open)
        assert not transport._idle
        assert (await send(transport)).status == 200
        assert up.connections == 2


@both_loops
async def test_one_lost_idle_connection_ends_those_that_were_idle_beside_it() -> None:
    """A firewall that forgot them says so only when something comes: a second attempt must not meet one."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.up.go.wait()
        await peer.say(OK)
        if peer.number <= 3:
            await peer.request()
            peer.reset()
        else:
            await peer.reader.read()

    async with upstream(script) as up, aclosing(bare(up)) as transport:
        calls = [asyncio.create_task(send(transport)) for _ in range(3)]
        await until(lambda: len(up.heads) == 3)
        up.go.set()
        await asyncio.gather(*calls)
        assert len(transport._idle) == 3
        with pytest.raises(UpstreamReset):
            await send(transport)
        assert not transport._idle
        assert (await send(transport)).status == 200
        assert up.connections == 4


@both_loops
@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("before", [0, 1])
async def test_a_connection_closed_without_an_answer_is_a_reset_and_nothing_is_repeated(
    before: int, is_reset: bool
) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(before):
            await peer.request()
            await peer.say(OK)
        await peer.request()
        if is_reset:
            peer.reset()

    async with upstream(script) as up, aclosing(bare(up)) as transport:
        for _ in range(before):
            await send(transport)
        with pytest.raises(UpstreamReset) as caught:
            await send(transport)
        note = "ConnectionResetError" if is_reset else "closed_unanswered"
        assert caught.value.note == note + "_reused" * before
        assert (up.connections, len(up.heads)) == (1, before + 1)


@both_loops
async def test_an_answer_never_reaches_another_call() -> None:
    """Cancellations, time-outs, resets and reuse all at once: the property that everything here serves."""
    dice = random.Random(7)

    async def script(peer: Peer) -> None:
        for _ in range(dice.randrange(1, 30)):
            target, _ = await peer.request()
            await asyncio.sleep(dice.choice((0, 0, 0.002)))
            raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target.encode())
            cut = dice.randrange(len(raw))
            await peer.say(raw[:cut])
            await asyncio.sleep(0)
            await peer.say(raw[cut:])

    async def call(number: int) -> int:
        target = f"/{number}"
        task = asyncio.create_task(send(transport, target, seconds=dice.choice((0.002, 5, 5))))
        if dice.random() < 0.2:
            asyncio.get_running_loop().call_later(dice.random() / 200, task.cancel)
        try:
            assert (await task).body == target.encode()
        except (UpstreamReset, UpstreamTimeout, UpstreamUnreachable, asyncio.CancelledError):
            return 0
        return 1

    async with upstream(script) as up, aclosing(bare(up, connections=8)) as transport:
        answered = sum(
            [sum(await asyncio.gather(*map(call, range(start, start + 50)))) for start in range(0, 1_000, 50)]
        )
        assert 100 < answered < 1_000
        await until(lambda: len(transport._open) == len(transport._idle))
        assert_idle(transport, 8)


@both_loops
async def test_closing_ends_every_call(certificate: Path) -> None:
    async def hang(_: Peer) -> None:
        await asyncio.Event().wait()

    async with upstream(silent) as up, upstream(hang) as stuck:
        transport = bare(up, connections=2)
        dialling = BareTransport(stuck.origin.replace("http:", "https:"), tls=False, connections=1)
        calls = [asyncio.create_task(send(transport)) for _ in range(5)]
        calls.append(asyncio.create_task(send(dialling)))
        await until(lambda: len(up.heads) == 2 and stuck.connections == 1)
        await asyncio.gather(transport.aclose(), transport.aclose(), dialling.aclose())
        assert not transport._open
        errors = await asyncio.gather(*calls, return_exceptions=True)
        kinds = [UpstreamReset] * 2 + [UpstreamUnreachable] * 4
        assert [(type(error), error.note) for error in errors] == [(kind, "closed") for kind in kinds]
        with pytest.raises(UpstreamUnreachable):
            await send(transport)
        assert_idle(transport, 2)


@both_loops
async def test_unreachable_is_named(certificate: Path) -> None:
    async def failure(
        origin: str, tls: ssl.SSLContext | bool = True, seconds: float = 5
    ) -> tuple[type, str | None]:
        async with aclosing(BareTransport(origin, tls=tls, connections=1)) as transport:
            with pytest.raises(GatewayError) as caught:
                await send(transport, seconds=seconds)
            assert_idle(transport, 1)
        return type(caught.value), caught.value.note

    assert await failure("http://127.0.0.1:9") == (UpstreamUnreachable, "ConnectionRefusedError")
    assert await failure("http://thingsboard.invalid") == (UpstreamUnreachable, "gaierror")
    async with upstream(deaf) as plain, upstream(echo, tls=server_side(certificate)) as up:
        mute = plain.origin.replace("http:", "https:")
        assert await failure(mute, tls=False, seconds=0.05) == (UpstreamTimeout, "connect_timeout")
        unknown = (UpstreamUnreachable, "SSLCertVerificationError")
        assert await failure(up.origin.replace("127.0.0.1", "localhost")) == unknown
        trusted = tls_policy(certificate / "ca.pem", verify=True)
        assert await failure(up.origin, tls=trusted) == unknown, "the name is another"


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "both.pem")
    return context


@both_loops
@pytest.mark.parametrize("is_verified", [True, False])
async def test_tls_carries_everything(certificate: Path, is_verified: bool) -> None:
    tls = tls_policy(certificate / "ca.pem", verify=is_verified)
    async with (
        upstream(echo, tls=server_side(certificate), name="localhost") as up,
        aclosing(bare(up, tls=tls)) as transport,
    ):
        assert (await send(transport)).body == b"/x 0"
        assert (await send(transport, method="POST", body=bytes(4 * MIB))).body == b"/x %d" % (4 * MIB)
        assert up.connections == 1


@both_loops
async def test_a_body_without_a_length_needs_the_proper_end_of_tls(certificate: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(HEAD + b"\r\nhalf")
        if peer.number == 1:
            peer.reset()

    async with (
        upstream(script, tls=server_side(certificate), name="localhost") as up,
        aclosing(bare(up, tls=False)) as transport,
    ):
        assert (await send(transport)).body == b"half"
        with pytest.raises(UpstreamGarbled):
            await send(transport)


@both_loops
async def test_ipv6_names_and_one_look_up_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: asked.append(a) or look_up(*a, **k))
    async with upstream(echo, name="localhost") as up, aclosing(bare(up)) as transport:
        asked.clear()
        await asyncio.gather(*(send(transport) for _ in range(4)))
        assert (len(asked), up.connections) == (1, 4)
    async with upstream(echo, host="::1", name="[::1]") as up, aclosing(bare(up)) as transport:
        assert (await send(transport)).status == 200
        assert b"Host: %b\r\n" % up.origin.removeprefix("http://").encode() in up.heads[0]


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://TB.example:80", "tb.example"), ("http://tb.example:8080/", "tb.example:8080"),
        ("https://tb.example", "tb.example"), ("https://tb.example:80", "tb.example:80"),
        ("https://[::1]:8443", "[::1]:8443"), ("http://bücher.example", "xn--bcher-kva.example"),
    ],
)  # fmt: skip
def test_the_host_header(origin: str, host: str) -> None:
    head = BareTransport(origin, tls=True, connections=1)._head("GET", "/", {}, None)
    assert b"\r\nHost: %b\r\n" % host.encode() in head


@pytest.mark.parametrize(
    "origin", ["ftp://x", "//x", "http://", "http://x/path", "http://x:99999", "http://a..b"]
)
def test_only_an_origin_will_do(origin: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the class is the promise
        BareTransport(origin, tls=True, connections=1)


def test_a_proxy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="proxy"):
        BareTransport("http://thingsboard.invalid", tls=True, connections=1)


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\r\n", "\r\nX: y", "ü€"])
@pytest.mark.parametrize("place", ["target", "name", "value", "method"])
async def test_nothing_breaks_out_of_its_line(bad: str, place: str) -> None:
    transport = BareTransport("http://127.0.0.1:9", tls=True, connections=1)
    part = {each: "/" if each == "target" else "X" for each in ("target", "name", "value", "method")}
    part[place] += bad
    with pytest.raises(ValueError):  # noqa: PT011 - the class is the promise
        await send(transport, part["target"], method=part["method"], **{part["name"]: part["value"]})
    assert transport._free == 1


@pytest.mark.parametrize("target", ["/a b", "x", "", "http://other/"])
async def test_a_target_is_an_encoded_path(target: str) -> None:
    with pytest.raises(ValueError, match="encoded path"):
        await send(BareTransport("http://127.0.0.1:9", tls=True, connections=1), target)
