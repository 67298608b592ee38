"""A ThingsBoard of fixed answers that costs next to nothing, so that it does not disturb what is measured.

`python -m benchmarks.stub_thingsboard PORT [--delay SECONDS] [--rate CALLS]`. With a rate it is one server
with a queue, as a ThingsBoard that answers so many calls a second; with a delay each call takes that long.
"""

import argparse
import asyncio
import base64
import signal
import time
from collections import deque
from typing import cast

import httptools
import orjson
import uvloop

from benchmarks.processes import HOST

TENANT = "6b1f7a90-0000-11f0-8000-000000000001"
#: What a real one sends beside the content type.
HEADERS = (
    b"X-Content-Type-Options: nosniff\r\nX-XSS-Protection: 0\r\n"
    b"Cache-Control: no-cache, no-store, max-age=0, must-revalidate\r\nPragma: no-cache\r\nExpires: 0\r\n"
    b"vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
)


def reference(kind: str, identifier: str) -> dict[str, str]:
    """Return ThingsBoard's way to point at an entity."""
    return {"entityType": kind, "id": identifier}


def device_info(number: int) -> dict[str, object]:
    """Return a device info of usual size."""
    profile = reference("DEVICE_PROFILE", "6b1f7a90-0000-11f0-8000-000000000002")
    default = {"type": "DEFAULT"}
    return {
        "id": reference("DEVICE", f"00000000-0000-1000-8000-{number:012d}"),
        "createdTime": 1_767_225_600_000 + number,
        "tenantId": reference("TENANT", TENANT),
        "customerId": reference("CUSTOMER", "13814000-1dd2-11b2-8080-808080808080"),
        "name": f"Heating circuit {number:04d}",
        "type": "default",
        "label": f"Building {number % 7}, floor {number % 5}",
        "deviceProfileId": profile,
        "firmwareId": None,
        "softwareId": None,
        "externalId": None,
        "version": 1,
        "additionalInfo": {"gateway": False, "overwriteActivityTime": False, "description": ""},
        "customerTitle": None,
        "customerIsPublic": False,
        "deviceProfileName": "default",
        "active": True,
        "deviceData": {"configuration": default, "transportConfiguration": default},
    }


DEVICES = [device_info(number) for number in range(1, 11)]
PAGE = orjson.dumps({"data": DEVICES, "totalPages": 100, "totalElements": 1000, "hasNext": True})


def token(scope: str) -> str:
    """Return a JWT that nobody checks."""
    now = int(time.time())
    claims = {"sub": "tenant@example.com", "scopes": [scope], "iat": now, "exp": now + 86_400}
    parts = [{"alg": "HS512"}, claims, "unsigned"]
    return ".".join(base64.urlsafe_b64encode(orjson.dumps(part)).decode().rstrip("=") for part in parts)


TOKEN = token("TENANT_ADMIN")
LOGIN = orjson.dumps({"token": TOKEN, "refreshToken": token("REFRESH_TOKEN"), "scope": None})
USER = orjson.dumps(
    {
        "id": reference("USER", TENANT),
        "tenantId": reference("TENANT", TENANT),
        "customerId": reference("CUSTOMER", "13814000-1dd2-11b2-8080-808080808080"),
        "authority": "TENANT_ADMIN",
        "email": "tenant@example.com",
    }
)


def answer(status: bytes, body: bytes) -> bytes:
    """Return a whole answer."""
    kind = b"Content-Type: application/json\r\n" if body else b""
    return b"HTTP/1.1 %b\r\n%b%bContent-Length: %d\r\n\r\n%b" % (status, HEADERS, kind, len(body), body)


#: By what the path begins with; the first match counts.
ANSWERS = (
    (b"/api/tenant/deviceInfos", answer(b"200 OK", PAGE)),
    (b"/api/plugins/telemetry/", answer(b"200 OK", b"")),
    (b"/api/auth/login", answer(b"200 OK", LOGIN)),
    (b"/api/auth/user", answer(b"200 OK", USER)),
    (b"/api/system/info", answer(b"200 OK", b'{"version":"4.3.1"}')),
)
MISSING = answer(b"404 Not Found", b"{}")


class Pace:
    """When the next answer may leave."""

    def __init__(self, *, delay: float, rate: float | None) -> None:
        self._delay, self._period = delay, 1 / rate if rate else 0.0
        self._free_at = 0.0
        self._due: deque[tuple[float, Server, bytes]] = deque()
        self._loop = asyncio.get_running_loop()

    def answer(self, server: "Server", content: bytes) -> None:
        """Answer now, or when it is this call's turn."""
        if not self._delay and not self._period:
            server.write(content)
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + self._period
        due = self._free_at + self._delay
        if not self._due:
            self._loop.call_later(due - now, self._answer_due)
        self._due.append((due, server, content))

    def _answer_due(self) -> None:
        # Timers are coarse: all that are due leave together, so the rate holds on any clock.
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, server, content = self._due.popleft()
            server.write(content)
        if self._due:
            self._loop.call_later(max(0.0, self._due[0][0] - now), self._answer_due)


class Server(asyncio.Protocol):
    """One connection."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._content = MISSING

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports have the methods of asyncio's and are no subclass.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Choose the answer."""
        self._content = next((content for prefix, content in ANSWERS if url.startswith(prefix)), MISSING)

    def on_message_complete(self) -> None:
        """Answer."""
        self._pace.answer(self, self._content)

    def write(self, content: bytes) -> None:
        """Send, unless the caller has gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(content)


async def serve(port: int, *, delay: float, rate: float | None) -> None:
    """Serve until a signal comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    pace = Pace(delay=delay, rate=rate)
    server = await loop.create_server(lambda: Server(pace), HOST, port, backlog=1024)
    await stop.wait()
    server.close()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--rate", type=float)
    given = parser.parse_args()
    uvloop.run(serve(given.port, delay=given.delay, rate=given.rate))


if __name__ == "__main__":
    main()
