"""Bytes on a socket: however a request is written, it reaches no route without its key.

Each case goes to the gateway directly and through a real nginx, which repairs some of them on the way.
"""

import asyncio
import contextlib
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from app.factory import create_app
from app.http_protocol import GatewayProtocol
from app.settings import Settings
from app.thingsboard.transport import Answer
from tests.processes import program
from tests.serving import serve

KEY = b"the-only-key-of-this-gateway"
HOST = b"Host: gateway.test\r\n"
GOOD = b"X-API-Key: " + KEY + b"\r\n"
DEVICES = b"/api/v1/tb/devices"
#: Each case asks for another text, so that a call to ThingsBoard tells whose it was.
MARK = b"?text_search=MARK"
TARGET = DEVICES + MARK
NGINX_CONF = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; keepalive_timeout 1; client_header_timeout 1; client_body_timeout 1; lingering_close off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_pass http://127.0.0.1:{gateway};
    }}
  }}
}}
"""


class Impatient(GatewayProtocol):
    """The same rules in a hurry."""

    HEAD_SECONDS = BODY_WINDOW_SECONDS = 1.0
    LINGER_SECONDS = 0.1


def get(target: bytes = TARGET, headers: bytes = b"", body: bytes = b"", *, version: bytes = b"1.1") -> bytes:
    return b"GET " + target + b" HTTP/" + version + b"\r\n" + HOST + headers + b"\r\n" + body


def post(headers: bytes, body: bytes, target: bytes = b"/health") -> bytes:
    return b"POST " + target + b" HTTP/1.1\r\n" + HOST + headers + b"\r\n" + body


def with_key(value: bytes) -> bytes:
    return get(headers=b"X-API-Key:" + value + b"\r\n")


HIDDEN = get()
CHUNKED = b"Transfer-Encoding: chunked\r\n"
PATHS = {
    "plain": TARGET,
    "upper case": DEVICES.upper() + MARK,
    "one letter of another case": b"/api/v1/TB/devices" + MARK,
    "trailing slash": DEVICES + b"/" + MARK,
    "two slashes in front": b"/" + TARGET,
    "two slashes inside": b"/api/v1//tb/devices" + MARK,
    "up from a public path": b"/health/.." + TARGET,
    "up from the docs": b"/docs/../../api/v1/tb/devices" + MARK,
    "up, slash encoded": b"/health/..%2fapi/v1/tb/devices" + MARK,
    "up, dots encoded": b"/docs/%2e%2e" + TARGET,
    "up, all encoded": b"/health%2f%2e%2e%2fapi%2fv1%2ftb%2fdevices" + MARK,
    "up, encoded twice": b"/health/%252e%252e/api/v1/tb/devices" + MARK,
    "backslashes": b"/health\\..\\api\\v1\\tb\\devices" + MARK,
    "a letter encoded": b"/api/v1/tb/%64evices" + MARK,
    "a slash encoded": b"/api/v1/tb%2Fdevices" + MARK,
    "a dot inside": b"/api/v1/tb/./devices" + MARK,
    "path parameters": DEVICES + b";a=b" + MARK,
    "public by path parameter": DEVICES + b";/health" + MARK,
    "nul": DEVICES + b"%00" + MARK,
    "question mark encoded": b"/health%3f/.." + TARGET,
    "fragment": b"/health#" + TARGET,
    "overlong utf-8": b"/health/%c0%ae%c0%ae" + TARGET,
    "absolute form": b"http://gateway.test" + TARGET,
    "absolute form of a public host": b"http://localhost/health" + MARK,
    "key in the query": TARGET + b"&X-API-Key=" + KEY,
    "api_key in the query": TARGET + b"&api_key=" + KEY,
    "17 KiB": TARGET + b"x" * 17_000,
}
HEADERS = {
    "bearer": b"Authorization: Bearer " + KEY + b"\r\n",
    "thingsboard's own header": b"X-Authorization: ApiKey " + KEY + b"\r\n",
    "cookie": b"Cookie: X-API-Key=" + KEY + b"\r\n",
    "underscores": b"X_API_Key: " + KEY + b"\r\n",
    "space before the colon": b"X-API-Key : " + KEY + b"\r\n",
    "tab before the colon": b"X-API-Key\t: " + KEY + b"\r\n",
    "folded name": b"X-One: a\r\n X-API-Key: " + KEY + b"\r\n",
    "folded value": b"X-API-Key:\r\n " + KEY + b"\r\n",
    "twice": GOOD + GOOD,
    "good, then bad": GOOD + b"X-API-Key: other\r\n",
    "bad, then good": b"X-API-Key: other\r\n" + GOOD,
    "good, then empty": GOOD + b"X-API-Key:\r\n",
    "twice in other case": GOOD + b"x-api-key: " + KEY + b"\r\n",
    "bare line feed before it": b"X-One: a\n" + GOOD,
    "bare carriage return before it": b"X-One: a\r" + GOOD,
    "nul before it": b"X-One: a\x00\r\n" + GOOD,
    "no colon before it": b"X-One\r\n" + GOOD,
    "two hosts": b"Host: other.test\r\n" + GOOD,
    "original url": b"X-Original-URL: " + TARGET + b"\r\nX-Rewrite-URL: " + TARGET + b"\r\n",
    "method override": b"X-HTTP-Method-Override: GET\r\n",
    "upgrade to http/2": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQ\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "websocket with the key as its protocol": b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: " + KEY + b"\r\n",
    "websocket with another key": b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-API-Key: other\r\n",
    "name with an encoded dash": b"X-API%2DKey: " + KEY + b"\r\n",
    "name with an encoded space": b"X-API-Key%20: " + KEY + b"\r\n",
    "name beyond ascii": b"X-API-Key\xc2\xa0: " + KEY + b"\r\n",
    "name in a value": b"X-One: a, X-API-Key: " + KEY + b"\r\n",
    "dots for dashes": b"X.API.Key: " + KEY + b"\r\n",
    "internal names": b"X-Forwarded-User: default\r\nX-Gateway-Caller: default\r\nX-Real-IP: 127.0.0.1\r\n"
    b"X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
    "expectation": b"Expect: 100-continue\r\nContent-Length: 2\r\n",
    "a hundred and one": b"X-One: a\r\n" * 101 + GOOD,
    "40 KiB": b"X-One: " + b"a" * 40_000 + b"\r\n" + GOOD,
}
VALUES = {
    "empty": b"",
    "list": b" " + KEY + b", " + KEY,
    "quoted": b' "' + KEY + b'"',
    "upper case": b" " + KEY.upper(),
    "cut short": b" " + KEY[:-1],
    "too long": b" " + KEY + b"x",
    "nul after it": b" " + KEY + b"\x00",
    "vertical tab": b" \x0b" + KEY,
    "beyond ascii": b" " + KEY + b"\xa0",
    "digest": b" 5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
}
FRAMING = {
    "length and chunks": post(b"Content-Length: 5\r\n" + CHUNKED, b"0\r\n\r\n" + HIDDEN),
    "chunks and length": post(CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n" + HIDDEN),
    "two lengths": post(b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(HIDDEN), HIDDEN),
    "a list of lengths": post(b"Content-Length: 0, %d\r\n" % len(HIDDEN), HIDDEN),
    "negative length": post(b"Content-Length: -1\r\n", HIDDEN),
    "signed length": post(b"Content-Length: +0\r\n", HIDDEN),
    "hexadecimal length": post(b"Content-Length: 0x0\r\n", HIDDEN),
    "length with a space": post(b"Content-Length: 0 0\r\n", HIDDEN),
    "length with space before the colon": post(b"Content-Length : 0\r\n", HIDDEN),
    "folded length": post(b"Content-Length:\r\n 0\r\n", HIDDEN),
    "chunks with space before the colon": post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n" + HIDDEN),
    "chunks with a tab": post(b"Transfer-Encoding:\tchunked\r\n", b"0\r\n\r\n" + HIDDEN),
    "chunks with a vertical tab": post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n" + HIDDEN),
    "folded chunks": post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n" + HIDDEN),
    "chunks twice": post(CHUNKED + CHUNKED, b"0\r\n\r\n" + HIDDEN),
    "chunks and identity": post(CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n" + HIDDEN),
    "unknown encoding": post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + HIDDEN),
    "quoted chunks": post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n" + HIDDEN),
    "chunks in 1.0": b"POST /health HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunk size 0x0": post(CHUNKED, b"0x0\r\n\r\n" + HIDDEN),
    "chunk size with a sign": post(CHUNKED, b"+0\r\n\r\n" + HIDDEN),
    "chunk size with a space": post(CHUNKED, b"0 \r\n\r\n" + HIDDEN),
    "chunk size that overflows": post(CHUNKED, b"10000000000000000\r\n" + HIDDEN),
    "chunk size by line feed": post(CHUNKED, b"0\n\n" + HIDDEN),
    "chunk without its end": post(CHUNKED, b"1\r\naGET " + TARGET + b" HTTP/1.1\r\n\r\n"),
    "chunk longer than said": post(CHUNKED, b"1\r\naaa\r\n0\r\n\r\n" + HIDDEN),
    "chunk extension with a request": post(CHUNKED, b"0;a=b\nGET " + TARGET + b" HTTP/1.1\r\n\r\n"),
    "key in a trailer": get(headers=CHUNKED, body=b"0\r\n" + GOOD + b"\r\n"),
    "key in an announced trailer": get(
        headers=CHUNKED + b"Trailer: X-API-Key\r\nTE: trailers\r\n", body=b"0\r\n" + GOOD + b"\r\n"
    ),
    "after a public request": get(b"/health") + HIDDEN,
    "in the body of a public request": post(b"Content-Length: %d\r\n" % len(HIDDEN), HIDDEN),
    "after a request with its key": get(b"/health", GOOD) + HIDDEN,
    "in the body of a refused request": post(b"Content-Length: %d\r\n" % len(HIDDEN), HIDDEN, DEVICES),
    "empty lines first": b"\r\n\r\n" + HIDDEN,
    "line feeds only": HIDDEN.replace(b"\r\n", b"\n"),
    "carriage returns only": HIDDEN.replace(b"\r\n", b"\r"),
    "two spaces": b"GET  " + TARGET + b"  HTTP/1.1\r\n" + HOST + b"\r\n",
    "tabs": b"GET\t" + TARGET + b"\tHTTP/1.1\r\n" + HOST + b"\r\n",
    "small letters": b"get " + TARGET + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "proxy protocol": b"PROXY TCP4 127.0.0.1 127.0.0.1 56324 443\r\n" + HIDDEN,
    "tls": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + HIDDEN,
    "after a websocket": get(
        headers=b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        body=HIDDEN,
    ),
    "length beyond 64 bits": post(b"Content-Length: 18446744073709551616\r\n", HIDDEN),
    "chunk extension of 64 KiB": post(CHUNKED, b"0;" + b"a" * 65_536 + b"\r\n\r\n" + HIDDEN),
    "a thousand bytes of zeros in a chunk size": post(CHUNKED, b"0" * 1_000 + b"\r\n\r\n" + HIDDEN),
    "http/0.9": b"GET " + TARGET + b"\r\n",
    "http/1.0": get(version=b"1.0"),
    "http/2.0": get(headers=GOOD, version=b"2.0"),
    "no host": b"GET " + TARGET + b" HTTP/1.1\r\n" + GOOD + b"\r\n",
    "connect": b"CONNECT gateway.test:80 HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "options": b"OPTIONS " + TARGET + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "head": b"HEAD " + TARGET + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "trace": b"TRACE " + TARGET + b" HTTP/1.1\r\n" + HOST + GOOD + b"\r\n",
}
CASES = {
    **{f"path: {name}": get(target) for name, target in PATHS.items()},
    **{f"header: {name}": get(headers=headers) for name, headers in HEADERS.items()},
    **{f"key: {name}": with_key(value) for name, value in VALUES.items()},
    **{f"framing: {name}": text for name, text in FRAMING.items()},
}
CONTROL = get(headers=GOOD)
#: nginx takes a bare line feed for a line's end and drops a line without a colon: what is left has its key.
MENDED_BY_NGINX = {"header: bare line feed before it", "header: no colon before it"}


class Counted:
    """A ThingsBoard that notes who got through."""

    def __init__(self) -> None:
        self.targets: list[str] = []

    async def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
    ) -> Answer:
        self.targets.append(target)
        if target == "/api/auth/user":
            return Answer(200, "application/json", b'{"authority":"TENANT_ADMIN","tenantId":{"id":"t"}}')
        page = {"data": [], "totalPages": 0, "totalElements": 0, "hasNext": False}
        return Answer(200, "application/json", orjson.dumps(page))

    async def aclose(self) -> None:
        """Nothing is open."""


@dataclass
class Outcome:
    """What came of one case."""

    answer: bytes = b""
    reached: list[str] = field(default_factory=list)

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", self.answer, re.MULTILINE)]


async def exchange(port: int, text: bytes) -> bytes:
    """Send these bytes; return all that comes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        writer.write(text)
        await writer.drain()
    answer = b""
    with contextlib.suppress(ConnectionError):
        while piece := await asyncio.wait_for(reader.read(65_536), 20):
            answer += piece
    writer.close()
    return answer


async def send_all(port: int, calls: Counted) -> dict[str, Outcome]:
    """Send every case at the same time, the control among them."""
    cases = {**CASES, "control": CONTROL}
    marked = [text.replace(b"MARK", b"case-%03d" % number) for number, text in enumerate(cases.values())]
    answers = await asyncio.gather(*(exchange(port, text) for text in marked))
    return {
        name: Outcome(answer, [target for target in calls.targets if f"case-{number:03d}" in target])
        for number, (name, answer) in enumerate(zip(cases, answers, strict=True))
    }


@contextlib.asynccontextmanager
async def nginx_before(gateway: int, folder: Path) -> AsyncIterator[int]:
    """Run nginx in front of the gateway; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, port=port, gateway=gateway))
    process = subprocess.Popen(  # noqa: ASYNC220 - started at once, with our own words
        [program("nginx", "nginx-light"), "-p", str(folder), "-c", str(conf)], stderr=subprocess.PIPE
    )
    try:
        while process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError):
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                break
        assert process.poll() is None, process.stderr and process.stderr.read()
        yield port
    finally:
        process.terminate()
        process.communicate()


async def run(folder: Path | None) -> dict[str, Outcome]:
    settings = Settings(
        _env_file=None,
        tb_host="http://localhost",
        tb_api_key="tb_not_sent",
        api_key=KEY.decode(),
        rate_limit_requests=1_000_000,
    )
    calls = Counted()
    app = create_app(settings, transport=calls)
    async with serve(app, http=Impatient, timeout_keep_alive=1, ws="websockets-sansio") as address:
        port = int(address.rpartition(":")[2])
        if folder is None:
            return await send_all(port, calls)
        async with nginx_before(port, folder) as before:
            return await send_all(before, calls)


@pytest.fixture(scope="module", params=["direct", "nginx"])
def side(request: pytest.FixtureRequest) -> str:
    """Where the bytes are sent to."""
    if request.param == "nginx":
        program("nginx", "nginx-light")
    return str(request.param)


@pytest.fixture(scope="module")
def outcomes(side: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Everything is sent at once, since many cases end with the patience of the other side."""
    return asyncio.run(run(tmp_path_factory.mktemp("nginx") if side == "nginx" else None))


@pytest.mark.parametrize("name", CASES)
def test_no_route_is_reached_without_its_key(side: str, outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    if side == "nginx" and name in MENDED_BY_NGINX:
        assert outcome.statuses == [200]
        return
    assert outcome.reached == [], outcome.answer
    # What is public may answer, to what is left of such a request.
    answers = re.split(rb"^HTTP/1\.[01] ", outcome.answer, flags=re.MULTILINE)[1:]
    for status, answer in zip(outcome.statuses, answers, strict=True):
        assert status == 100 or status >= 400 or b'"service"' in answer, answer


def test_the_key_opens_the_same_request(outcomes: dict[str, Outcome]) -> None:
    control = outcomes["control"]
    assert control.statuses == [200]
    assert len(control.reached) == 1
