"""The aiohttp adapter of the transport port, over real sockets."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.errors import UpstreamGarbled, UpstreamReset, UpstreamTimeout, UpstreamUnreachable
from app.thingsboard.aiohttp_transport import AiohttpTransport
from app.thingsboard.transport import proxy_for, tls_policy
from tests.processes import program

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def upstream(handle: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "localhost", 0, ssl=context, family=2)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if context else 'http'}://localhost:{port}"
    finally:
        server.close()


def says(raw: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return handle


async def send(
    origin: str, *, tls: ssl.SSLContext | bool = True, seconds: float = 5, method: str = "GET"
) -> object:
    transport = AiohttpTransport(origin, tls=tls, connections=4)
    try:
        return await transport.send(method, "/x?a=%2F", headers={}, body=None, timeout_seconds=seconds)
    finally:
        await transport.aclose()


async def test_status_type_and_body_come_back() -> None:
    async with upstream(says(OK)) as origin:
        answer = await send(origin)
    assert (answer.status, answer.content_type, answer.body) == (200, "application/json", b"{}")


async def test_the_target_is_sent_as_it_is_written() -> None:
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readline())
        await handle(reader, writer)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    await send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    server.close()
    assert seen == [b"GET /x?a=%2F HTTP/1.1\r\n"]


async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with upstream(says(OK)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "internal.example")
        assert (await send("http://thingsboard.invalid")).status == 200
        assert proxy_for("http://tb.internal.example:8080") is None
        assert proxy_for("https://thingsboard.invalid") is None


async def test_a_redirect_is_not_followed() -> None:
    raw = b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"
    async with upstream(says(raw)) as origin:
        assert (await send(origin)).status == 302


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", UpstreamReset),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", UpstreamGarbled),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", UpstreamGarbled),
        (b"SSH-2.0-OpenSSH\r\n\r\n", UpstreamGarbled),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", UpstreamGarbled),
    ],
    ids=["closed", "short", "cut chunks", "not HTTP", "false gzip"],
)
async def test_broken_answers(raw: bytes, error: type[Exception]) -> None:
    async with upstream(says(raw)) as origin:
        with pytest.raises(error):
            await send(origin)


async def test_nobody_listening_is_unreachable() -> None:
    with pytest.raises(UpstreamUnreachable):
        await send("http://127.0.0.1:9")


async def test_an_unknown_name_is_unreachable() -> None:
    with pytest.raises(UpstreamUnreachable):
        await send("http://thingsboard.invalid")


async def test_silence_is_a_time_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(silent) as origin:
        with pytest.raises(UpstreamTimeout):
            await send(origin, seconds=0.05)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of an authority that nobody knows, for `localhost`."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *(program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", folder / "both.pem", "-out", folder / "ca.pem"),
        ],
        check=True,
        capture_output=True,
    )
    with (folder / "both.pem").open("a") as both:
        both.write((folder / "ca.pem").read_text())
    return folder


async def test_a_certificate_is_verified_unless_that_is_switched_off(certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "both.pem")
    async with upstream(says(OK), context) as origin:
        with pytest.raises(UpstreamUnreachable):
            await send(origin, tls=tls_policy(None, verify=True))
        trusted = tls_policy(certificate / "ca.pem", verify=True)
        assert (await send(origin, tls=trusted)).status == 200
        assert (await send(origin, tls=tls_policy(None, verify=False))).status == 200
