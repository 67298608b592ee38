"""A gateway that breaks off, for clients that must notice."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

DEVICE = (
    b'{"status":"success","timestamp":0,"data":'
    b'{"id":{"entityType":"DEVICE","id":"1"},"createdTime":0,"name":"boiler","type":"default"}}'
)
POINT = 'id: %d\nevent: telemetry\ndata: {"device_id":"1","key":"k","ts":%d,"value":%d}\n\n'
GONE = 'event: gone\ndata: {"device_id":"1"}\n\n'


class FaultyGateway(ThreadingHTTPServer):
    """What it plays depends on the device that is asked for; it remembers how often and with which ids."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: dict[str, int] = {}
        self.last_event_ids: dict[str, list[str | None]] = defaultdict(list)
        self.is_over = threading.Event()


@contextmanager
def faulty_gateway() -> Iterator[tuple[str, FaultyGateway]]:
    """Yield the address of a running one."""
    with FaultyGateway() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", server
        finally:
            server.is_over.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyGateway

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        name = parse_qs(query).get("device_ids", [path.split("/")[5]])[0]
        turn = self.server.asked[name] = self.server.asked.get(name, 0) + 1
        self.server.last_event_ids[name].append(self.headers["Last-Event-ID"])
        getattr(self, f"_{name}")(turn)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
        """Keep quiet."""

    def _proxy(self, _turn: int) -> None:
        self._answer(502, b"<h1>Bad gateway</h1>", {"Content-Type": "text/html"})

    def _garbled(self, _turn: int) -> None:
        self._answer(200, b'{"status":')

    def _silent(self, _turn: int) -> None:
        self.server.is_over.wait()

    def _patient(self, turn: int) -> None:
        if turn == 1:
            self._answer(429, b'{"status":429,"error_code":"RATE_LIMIT_EXCEEDED"}', {"Retry-After": "0"})
        else:
            self._answer(200, DEVICE)

    def _cut(self, _turn: int) -> None:
        self._begin("application/octet-stream")
        self._chunk("ts,key,value\r\n")
        self.close_connection = True

    def _breaking(self, turn: int) -> None:
        turn = (turn - 1) % 4 + 1  # Each client hears the same.
        if turn == 2:
            self._answer(503, b'{"status":503,"error_code":"OVERLOADED"}', {"Retry-After": "0"})
            return
        self._begin("text/event-stream")
        if turn == 1:
            self._chunk(": hello\n\n" + POINT % (1, 1, 10) + (POINT % (2, 2, 20))[:20])
        elif turn == 3:
            self._chunk(POINT % (2, 2, 20) + 'event: closing\ndata: {"reason":"stopping"}\n\n', is_last=True)
        else:
            self._chunk("event: news\ndata: of a later version\n\n" + GONE)
        self.close_connection = True

    def _burst(self, turn: int) -> None:
        """Tell all at once, faster than anybody reads, and end."""
        self._begin("text/event-stream")
        told = "".join(POINT % (each, each, each) for each in range(1, 101)) if turn == 1 else GONE
        self._chunk(told, is_last=True)
        self.close_connection = True

    def _refused(self, _turn: int) -> None:
        self._answer(403, b'{"status":403,"error_code":"AUTHORIZATION_FAILED"}')

    def _quiet(self, _turn: int) -> None:
        self._begin("text/event-stream")
        self._chunk(POINT % (1, 1, 10))
        self.server.is_over.wait()

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin(self, media_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str, *, is_last: bool = False) -> None:
        chunk = b"%x\r\n%s\r\n" % (len(text), text.encode())
        self.wfile.write(chunk + b"0\r\n\r\n" if is_last else chunk)
