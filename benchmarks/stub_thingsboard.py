"""A ThingsBoard of fixed answers that costs next to nothing, so that it does not disturb what is measured.

`python -m benchmarks.stub_thingsboard PORT [--delay SECONDS] [--places CALLS] [--rate CALLS] [--limit CALLS]`
With a rate it is one server with a queue, as a ThingsBoard that answers so many calls a second; with a delay
each call takes that long, and with places so many at once, while the others queue. With a limit it refuses
what is more than so many calls a second, as a tenant's rate limit does.
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
BUSY = answer(b"429 Too Many Requests", b'{"status":429,"errorCode":33}')


class Pace:
    """When the next answer may leave."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._delay, self._period = given.delay, 1 / given.rate if given.rate else 0.0
        self._free_at = 0.0
        #: When the places become free, the next one first: all calls take the same time.
        self._places = deque([0.0] * given.places, given.places) if given.places else None
        self._limit, self._tokens, self._filled_at = given.limit, given.limit, time.monotonic()
        self._due: deque[tuple[float, Server, bytes]] = deque()
        self._loop = asyncio.get_running_loop()

    def answer(self, server: "Server", content: bytes) -> None:
        """Answer now, or when it is this call's turn."""
        if not self._delay and not self._period:
            server.write(content)
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + self._period
        start = self._free_at if self._places is None else max(self._places[0], now)
        due = start + self._delay
        if self._places is not None:
            self._places.append(due)
        if not self._due:
            self._loop.call_later(due - now, self._answer_due)
        self._due.append((due, server, content))

    def admits(self) -> bool:
        """Tell whether the limit, refilled continuously, leaves a call."""
        if self._limit is None:
            return True
        now = time.monotonic()
        self._tokens = min(self._limit, self._tokens + (now - self._filled_at) * self._limit)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

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
        if self._pace.admits():
            self._pace.answer(self, self._content)
        else:
            self.write(BUSY)

    def write(self, content: bytes) -> None:
        """Send, unless the caller has gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(content)


async def serve(given: argparse.Namespace) -> None:
    """Serve until a signal comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    pace = Pace(given)
    server = await loop.create_server(lambda: Server(pace), HOST, given.port, backlog=1024)
    await stop.wait()
    server.close()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--places", type=int)
    parser.add_argument("--limit", type=float)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
