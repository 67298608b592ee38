"""The connection-level rules, on real sockets against the production event loop."""

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState
from websockets.sync.client import connect

from app.http_protocol import GatewayProtocol

PATIENCE = 10
HEAD = b"Host: gateway.test\r\n"
GET = b"GET /echo HTTP/1.1\r\n" + HEAD + b"\r\n"


class Impatient(GatewayProtocol):
    """The same rules in a hurry."""

    HEAD_SECONDS = 0.1
    BODY_WINDOW_SECONDS = 0.1
    WRITE_STALL_SECONDS = 0.1
    LINGER_SECONDS = 0.1
    EARLY_ANSWER_SECONDS = 0.1
    DRAIN_SECONDS = 0.1


async def application(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    """Answer what was understood of the request, or do what the path says."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    body, more = b"", scope["path"] not in {"/early", "/big-early"}
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    answer = {
        "path": scope["path"],
        "headers": [name.decode() for name, _ in scope["headers"]],
        "body_bytes": len(body),
    }
    payload = b"x" * 50_000_000 if scope["path"].startswith("/big") else json.dumps(answer).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(payload))]}
    )
    await send({"type": "http.response.body", "body": payload, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Server:
    """The application behind one protocol class, in a thread with its own uvloop."""

    def __init__(self, protocol: type[GatewayProtocol], keep_alive_seconds: float) -> None:
        self.state = ServerState()
        self.accepted: list[GatewayProtocol] = []
        config = uvicorn.Config(
            application,
            http=protocol,
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            timeout_keep_alive=keep_alive_seconds,  # type: ignore[arg-type]  # uvicorn hands it to call_later
        )
        config.load()

        def make() -> GatewayProtocol:
            self.accepted.append(protocol(config, self.state, {}))
            return self.accepted[-1]

        self._make = make
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()))

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(self._make, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        for connection in list(self.state.connections):
            connection.transport.abort()
        await asyncio.gather(*self.state.tasks)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stop.set)
        self._thread.join()

    def run(self, action: Callable[[], Any]) -> Any:
        """Call this in the server's thread and return its result."""

        async def call() -> Any:
            return action()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def protocol_of(self, connection: socket.socket) -> GatewayProtocol:
        """Return the server's end."""
        return wait_for(
            # The newest: ports come again, and an earlier connection of this test run may have had this one.
            lambda: next(
                (each for each in reversed(self.accepted) if each.client == connection.getsockname()), None
            )
        )

    def exchange(self, *pieces: bytes) -> bytes:
        """Send these bytes and return all that comes until the server closes."""
        with self.connect() as connection:
            for piece in pieces:
                # The server may have closed already: what it said is what counts.
                with contextlib.suppress(ConnectionError):
                    connection.sendall(piece)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            received += piece
    return received


def read_answer(connection: socket.socket) -> bytes:
    """Read one answer with a Content-Length, and leave the connection open."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    match = re.search(rb"content-length: (\d+)", head)
    assert match
    while len(body) < int(match[1]):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def assert_refused(answer: bytes, status: int, field: str | None = None) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:500]
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    content = json.loads(body)
    assert content.keys() == {"status", "message", "error_code", "timestamp", "details", "request_id"}
    assert content["status"] == status
    assert content["error_code"] == "VALIDATION_ERROR"
    assert f"x-request-id: {content['request_id']}".encode() in head
    if field is not None:
        assert content["details"]["field"] == field


def echoed(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answer[:500]
    content: dict[str, Any] = json.loads(body)
    return content


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The production deadlines."""
    with Server(GatewayProtocol, 5) as running:
        yield running


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """Deadlines a test can wait for."""
    with Server(Impatient, 0.1) as running:
        yield running


def get(
    target: bytes = b"/echo", version: bytes = b"HTTP/1.1", headers: bytes = HEAD, body: bytes = b""
) -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + headers + b"\r\n" + body


CHUNKED = b"0\r\n\r\n"
MALFORMED = {
    "no host": (get(headers=b""), 400),
    "two hosts": (get(headers=HEAD + HEAD), 400),
    "two hosts in different case": (get(headers=HEAD + b"HOST: gateway.test\r\n"), 400),
    "empty host": (get(headers=b"Host:\r\n"), 400),
    "host with a path": (get(headers=b"Host: gateway.test/path\r\n"), 400),
    "host with a user": (get(headers=b"Host: user@gateway.test\r\n"), 400),
    "host with a space": (get(headers=b"Host: gateway test\r\n"), 400),
    "list of hosts": (get(headers=b"Host: one.test, two.test\r\n"), 400),
    "host with a bad port": (get(headers=b"Host: gateway.test:http\r\n"), 400),
    "http/1.0 without host": (get(version=b"HTTP/1.0", headers=b""), 400),
    "http/0.9": (b"GET /echo\r\n\r\n", 505),
    "http/2.0": (get(version=b"HTTP/2.0"), 505),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "http/3.7": (get(version=b"HTTP/3.7"), 400),
    "gzip, chunked": (get(headers=HEAD + b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKED), 501),
    "chunked, chunked": (get(headers=HEAD + b"Transfer-Encoding: chunked, chunked\r\n", body=CHUNKED), 400),
    "two transfer encodings": (get(headers=HEAD + 2 * b"Transfer-Encoding: chunked\r\n", body=CHUNKED), 400),
    "unknown transfer encoding": (get(headers=HEAD + b"Transfer-Encoding: xchunked\r\n"), 501),
    "transfer encoding in 1.0": (
        get(version=b"HTTP/1.0", headers=HEAD + b"Transfer-Encoding: chunked\r\n", body=CHUNKED),
        400,
    ),
    "length and transfer encoding": (
        get(headers=HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", body=CHUNKED),
        400,
    ),
    "two lengths": (get(headers=HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n", body=b"12345"), 400),
    "signed length": (get(headers=HEAD + b"Content-Length: +5\r\n", body=b"12345"), 400),
    "absolute form": (get(b"http://gateway.test/echo"), 400),
    "fragment": (get(b"/echo#part"), 400),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
    "connect": (b"CONNECT gateway.test:443 HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
    "bare line feeds": (get().replace(b"\r\n", b"\n"), 400),
    "folded header": (get(headers=HEAD + b"X-One: a\r\n b\r\n"), 400),
    "null in a header": (get(headers=HEAD + b"X-One: a\x00b\r\n"), 400),
    "space before the colon": (get(headers=HEAD + b"X-One : a\r\n"), 400),
    "no request at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "bytes beyond ascii in the path": (get(b"/\xff"), 400),
}


@pytest.mark.parametrize(("request_bytes", "status"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_refused_in_our_shape(
    server: Server, request_bytes: bytes, status: int
) -> None:
    assert_refused(server.exchange(request_bytes), status)


@pytest.mark.parametrize(
    "host", ["gateway", "gateway.test:8000", "127.0.0.1:8000", "[::1]:8000", "my_service", "a."]
)
def test_a_usual_host_is_served(server: Server, host: str) -> None:
    with server.connect() as connection:
        connection.sendall(get(headers=f"Host: {host}\r\n".encode()))
        assert echoed(read_answer(connection))["path"] == "/echo"


def test_http_1_0_is_served_and_closed(server: Server) -> None:
    answer = server.exchange(get(version=b"HTTP/1.0"))
    assert b"connection: close" in answer
    assert echoed(answer)["path"] == "/echo"


def test_a_long_target_is_a_414(server: Server) -> None:
    assert_refused(server.exchange(get(b"/" + b"a" * GatewayProtocol.MAX_TARGET_BYTES)), 414)


def test_the_longest_target_is_served(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(get(b"/" + b"a" * (GatewayProtocol.MAX_TARGET_BYTES - 1)))
        assert len(echoed(read_answer(connection))["path"]) == GatewayProtocol.MAX_TARGET_BYTES


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"X-%d: a\r\n" % number for number in range(100)),
        b"X-Large: " + b"a" * 33_000 + b"\r\n",
        b"".join(b"X-%d: %s\r\n" % (number, b"a" * 700) for number in range(50)),
    ],
    ids=["101 headers", "one large header", "many middling headers"],
)
def test_too_large_a_head_is_a_431(server: Server, headers: bytes) -> None:
    assert_refused(server.exchange(get(headers=HEAD + headers)), 431, "headers")


def test_a_header_without_end_is_a_431_before_its_end(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /echo HTTP/1.1\r\n" + HEAD + b"X-Endless: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1_000):
                connection.sendall(b"a" * 4_096)
        assert_refused(read_all(connection), 431)


def test_a_hundred_headers_are_served(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(get(headers=HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(99))))
        assert len(echoed(read_answer(connection))["headers"]) == 100


def test_trailers_are_ignored(server: Server) -> None:
    chunks = b"5\r\nhello\r\n0\r\nX-API-Key: secret\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        answer = echoed(read_answer(connection))
    assert answer["headers"] == ["host", "transfer-encoding"]
    assert answer["body_bytes"] == 5


def test_sixteen_mebibytes_pass(server: Server) -> None:
    size = 16 << 20
    with server.connect() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % size)
        connection.sendall(bytes(size))
        assert echoed(read_answer(connection))["body_bytes"] == size


def test_a_connection_is_reused(server: Server) -> None:
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(GET)
            answer = read_answer(connection)
            assert echoed(answer)["path"] == "/echo"
            assert b"connection: close" not in answer


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    answers = server.exchange(get(b"/1") + get(b"/2") + get(b"/3", headers=HEAD + b"Connection: close\r\n"))
    assert re.findall(rb'"path": "(/\d)"', answers) == [b"/1", b"/2", b"/3"]


def test_a_bad_request_after_a_good_one_does_not_spoil_its_answer(server: Server) -> None:
    answers = server.exchange(GET + get(headers=b""))
    assert echoed(answers)["path"] == "/echo"


def test_endless_pipelining_is_cut(server: Server) -> None:
    answers = server.exchange(GET * 1_000)
    assert answers.count(b"HTTP/1.1 200") == GatewayProtocol.MAX_PIPELINED + 1


@pytest.mark.parametrize("pieces", [1, 400], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"", b""),
        (b"Content-Length: 5\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    ],
    ids=["without a body", "with a body", "chunked"],
)
def test_an_upgrade_to_http_2_is_ignored(server: Server, framing: bytes, body: bytes, pieces: int) -> None:
    """Java's client asks for it on each first request; the parser takes the body for the other protocol."""
    headers = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    request = b"POST /echo HTTP/1.1\r\n" + headers + framing + b"\r\n" + body
    with server.connect() as connection:
        for number in range(pieces):
            size = -(-len(request) // pieces)
            connection.sendall(request[number * size : (number + 1) * size])
        answer = read_answer(connection)
        assert echoed(answer)["body_bytes"] == (5 if body else 0)
        assert b"upgrade" not in echoed(answer)["headers"]
        connection.sendall(GET)
        assert echoed(read_answer(connection))["path"] == "/echo"


def test_a_body_is_asked_for_when_the_caller_waits(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /echo HTTP/1.1\r\n" + HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        answer = read_answer(connection)
        assert echoed(answer)["body_bytes"] == 5
        assert b"connection: close" not in answer


def test_an_answer_instead_of_a_100_ends_the_connection(server: Server) -> None:
    """The next bytes might be the body or a request."""
    request = b"POST /early HTTP/1.1\r\n" + HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    assert b"connection: close" in server.exchange(request)


def test_accepted_sockets_do_not_wait_for_more_to_send(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(GET)
        read_answer(connection)
        accepted = server.protocol_of(connection).transport.get_extra_info("socket")
        assert server.run(lambda: accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) == 1


def test_a_websocket_outlives_the_deadlines_of_requests(impatient: Server) -> None:
    with connect(f"ws://127.0.0.1:{impatient.port}/ws") as websocket:
        with pytest.raises(TimeoutError):
            websocket.recv(timeout=3 * Impatient.HEAD_SECONDS)
        websocket.send("still here")
        assert websocket.recv(timeout=PATIENCE) == "still here"


def test_a_websocket_without_a_host_is_refused(server: Server) -> None:
    wish = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    assert_refused(server.exchange(get(b"/ws", headers=wish + key)), 400, "Host")


@pytest.mark.parametrize(
    "pieces",
    [[b""], [b"\r\n", b"\r\n"], [GET, b"\r\n"]],
    ids=["silent", "empty lines", "empty lines after a request"],
)
def test_a_connection_that_says_nothing_is_closed(impatient: Server, pieces: list[bytes]) -> None:
    assert b"408" not in impatient.exchange(*pieces).split(b"\r\n", 1)[0]


def test_an_idle_connection_is_closed(impatient: Server) -> None:
    assert echoed(impatient.exchange(GET))["path"] == "/echo"


@pytest.mark.parametrize(
    "sent", [b"G", b"GET /echo HTTP/1.1\r\nHost: gate"], ids=["first byte", "half a head"]
)
def test_a_head_that_does_not_come_is_a_408(impatient: Server, sent: bytes) -> None:
    assert_refused(impatient.exchange(sent), 408, "headers")


def test_a_dripping_head_is_a_408(impatient: Server) -> None:
    with impatient.connect() as connection:
        assert_refused(drip(connection, b"GET /echo HTTP/1.1\r\nX-Drip: "), 408, "headers")


def test_a_second_head_that_does_not_come_is_closed(impatient: Server) -> None:
    assert echoed(impatient.exchange(GET + b"GET /ec"))["path"] == "/echo"


def drip(connection: socket.socket, first: bytes) -> bytes:
    """Send a byte whenever nothing has come for a while."""
    connection.sendall(first)
    connection.settimeout(0.01)
    while True:
        with contextlib.suppress(TimeoutError):
            return connection.recv(65_536)
        connection.sendall(b"a")


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 1000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nffff\r\n"],
    ids=["length", "chunked"],
)
def test_a_dripping_body_is_a_408(impatient: Server, framing: bytes) -> None:
    with impatient.connect() as connection:
        assert_refused(drip(connection, b"POST /echo HTTP/1.1\r\n" + HEAD + framing), 408, "body")


def test_dripping_trailers_are_a_408(impatient: Server) -> None:
    head = b"POST /echo HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    with impatient.connect() as connection:
        assert_refused(drip(connection, head + b"0\r\nX-Trailer: "), 408, "body")


def test_a_broken_chunk_is_refused_and_the_application_told(impatient: Server) -> None:
    request = b"POST /echo HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
    assert_refused(impatient.exchange(request), 400)
    assert not impatient.run(lambda: [task for task in impatient.state.tasks if not task.done()])


def test_a_body_nobody_waits_for_does_not_hold_the_connection(impatient: Server) -> None:
    answer = impatient.exchange(b"POST /early HTTP/1.1\r\n" + HEAD + b"Content-Length: 1000000\r\n\r\nhalf")
    assert echoed(answer)["path"] == "/early"


def test_a_caller_who_does_not_read_is_cut_off(impatient: Server) -> None:
    with impatient.connect() as connection:
        connection.sendall(get(b"/big"))
        protocol = impatient.protocol_of(connection)
        wait_for(lambda: protocol not in impatient.state.connections)
        assert len(read_all(connection)) < 50_000_000


def test_a_reader_is_judged_by_its_progress(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(get(b"/big"))
        protocol = server.protocol_of(connection)
        wait_for(lambda: protocol._write_timer)
        size = server.run(protocol.transport.get_write_buffer_size)
        while server.run(protocol.transport.get_write_buffer_size) == size:
            connection.recv(1 << 20)
        server.run(protocol._check_writing)
        assert protocol in server.state.connections
        server.run(lambda: setattr(protocol, "_unsent_bytes", 0))
        server.run(protocol._check_writing)
        wait_for(lambda: protocol not in server.state.connections)


def test_a_caller_who_is_still_sending_need_not_read_yet(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /big-early HTTP/1.1\r\n" + HEAD + b"Content-Length: 10\r\n\r\nhalf")
        protocol = server.protocol_of(connection)
        wait_for(lambda: protocol._write_timer)
        server.run(protocol._check_writing)
        assert protocol in server.state.connections
        server.run(lambda: setattr(protocol, "_body_came_at", float("-inf")))
        server.run(protocol._check_writing)
        wait_for(lambda: protocol not in server.state.connections)


def test_the_kernel_does_not_hide_how_far_a_slow_reader_is(server: Server) -> None:
    with server.connect() as connection:
        accepted = server.protocol_of(connection).transport.get_extra_info("socket")
        kept = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        assert kept == GatewayProtocol.UNSENT_BYTES


def test_a_large_answer_arrives_whole(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(get(b"/big", headers=HEAD + b"Connection: close\r\n"))
        assert len(read_all(connection)) > 50_000_000


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return the first true result; fails by the test's own timeout."""
    pause = threading.Event()
    while not (result := condition()):
        pause.wait(0.01)
    return result


def test_draining_answers_what_is_under_way_and_then_closes(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(GET)
        read_answer(connection)
        server.run(server.protocol_of(connection).shutdown)
        connection.sendall(GET)
        answer = read_all(connection)
        assert b"connection: close" in answer
        assert echoed(answer)["path"] == "/echo"


def test_draining_waits_for_a_body_to_arrive(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\n\r\nhe")
        protocol = server.protocol_of(connection)
        wait_for(lambda: protocol.cycle)
        server.run(protocol.shutdown)
        connection.sendall(b"llo")
        assert echoed(read_all(connection))["body_bytes"] == 5


@pytest.mark.parametrize("first", [b"", GET], ids=["fresh", "used"])
def test_draining_closes_an_idle_connection(first: bytes) -> None:
    with Server(Impatient, 60) as server, server.connect() as connection:
        if first:
            connection.sendall(first)
            read_answer(connection)
        server.run(server.protocol_of(connection).shutdown)
        assert read_all(connection) == b""
