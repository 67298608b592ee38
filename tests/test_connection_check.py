"""The diagnostic against small real servers: what it finds, advises, leaves behind and hides."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import queue
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.server import ServerProtocol

import tb_connection_check
from app.factory import create_app
from tb_simulator.server import Simulator
from tests.conftest import API_KEY, SettingsFactory
from tests.serving import serve

SCRIPT = Path(tb_connection_check.__file__)
PASSWORD = "correct-horse-battery"
GATEWAY_KEY = "gwk_0123456789abcdef0123456789abcdef"
TB_KEY = "tb_0123456789abcdef0123456789"
DEVICE = "065b2ed0-e62a-11f1-9212-1192b8cbba80"
CUSTOMER = "b7aa6c10-e61f-11f1-8bad-23cb275c33c1"
FOREIGN = "00000000-0000-0000-0000-000000000007"
EVENTS = {"Content-Type": "text/event-stream; charset=utf-8"}
VARIABLES = re.compile(r"(?i)^(TB_.*|(GATEWAY_)?API_KEY|UPSTREAMS_FILE|.*_PROXY|SSL_CERT_.*)$")


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    status: int = 200
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    #: Sent without a length, piece by piece.
    stream: Iterator[bytes] | None = None
    #: What goes on after the connection has become a WebSocket.
    talk: Callable[[Wire], None] | None = None


class Wire:
    """The server's end of a WebSocket, on a connection whose request has been read."""

    def __init__(self, connection: socket.socket, request: str) -> None:
        self.connection, self.protocol = connection, ServerProtocol()
        self.protocol.receive_data(request.encode())
        (handshake,) = self.protocol.events_received()
        assert isinstance(handshake, Handshake)
        self.protocol.send_response(self.protocol.accept(handshake))
        self.flush()

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.connection.sendall(data)

    def send(self, frame: object) -> None:
        self.protocol.send_text(frame if isinstance(frame, bytes) else json.dumps(frame).encode())
        self.flush()

    def close(self, code: int) -> None:
        self.protocol.send_close(code, f"{PASSWORD} is told")
        self.flush()

    def frames(self) -> Iterator[dict[str, Any]]:
        """Yield the client's frames until it leaves."""
        while data := self.connection.recv(65536):
            self.protocol.receive_data(data)
            for event in self.protocol.events_received():
                if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    yield json.loads(bytes(event.data))
            self.flush()
            if self.protocol.close_expected():
                return


Route = Callable[[Request], Reply]


class Stub:
    """A threaded server; ``replies`` replaces the answers of "METHOD /path..."."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply | Route] = {}
        self.requests: list[Request] = []
        self.gate = threading.Event()
        self.url = ""
        self.address = ("127.0.0.1", 0)

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        for prefix, reply in self.replies.items():
            if f"{request.method} {request.path}".startswith(prefix):
                return reply if isinstance(reply, Reply) else reply(request)
        return self.route(request)

    def route(self, request: Request) -> Reply:
        return Reply(404)

    def never(self, request: Request) -> Reply:
        self.gate.wait()
        return Reply(503)

    @contextmanager
    def serve(self, tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.address = ("127.0.0.1", server.server_port)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            self.gate.set()
            server.shutdown()
            thread.join()
            server.server_close()


def handler(stub: Stub) -> type[BaseHTTPRequestHandler]:  # noqa: C901  # All that can be answered.
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("content-length", 0))
            raw = self.rfile.read(length)
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(raw) if raw else None
            reply = stub.answer(Request(self.command, url.path, query, headers, body))
            if reply.talk:
                head = f"{self.command} {self.path} HTTP/1.1\r\n{self.headers.as_string()}".rstrip()
                wire = Wire(self.connection, head.replace("\r\n", "\n").replace("\n", "\r\n") + "\r\n\r\n")
                self.close_connection = True
                reply.talk(wire)
                return
            content = reply.content
            data = (
                content
                if isinstance(content, bytes)
                else b""
                if content is None
                else json.dumps(content).encode()
            )
            self.send_response_only(reply.status)
            self.send_header("Connection", "close")
            for name, value in ({"Date": formatdate(usegmt=True)} | reply.headers).items():
                if value:
                    self.send_header(name, value)
            if reply.stream:
                self.end_headers()
                for piece in reply.stream:
                    self.wfile.write(piece)
                return
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self.handle_any
            raise AttributeError(name)

        def log_message(self, *arguments: object) -> None:
            pass

        def handle(self) -> None:
            # A client that gives up resets the connection.
            with suppress(OSError):
                super().handle()

    return Handler


def make_jwt(*, scope: str = "TENANT_ADMIN", issued: float | None = None, life: float = 9000) -> str:
    issued = time.time() if issued is None else issued
    claims = {"sub": "u", "scopes": [scope], "iat": int(issued), "exp": int(issued + life)}
    parts = [json.dumps(part).encode() for part in ({"alg": "HS512"}, claims)]
    return ".".join(
        [*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2lnbmF0dXJl" * 5]
    )


def failure(status: int, message: str, code: int = 10) -> Reply:
    return Reply(
        status, {"status": status, "message": message, "errorCode": code, "timestamp": 1795320359281}
    )


class ThingsBoard(Stub):
    """As much of ThingsBoard as the diagnostic asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.version, self.edition = "4.3.1.3", "CE"
        self.authority = "TENANT_ADMIN"
        self.skew = 0.0
        self.devices = {DEVICE: "boiler / room"}
        self.telemetry: dict[str, dict[str, Any]] = {}
        self.attributes: dict[str, dict[str, Any]] = {}
        self.tokens: set[str] = set()
        self.saved: queue.Queue[dict[str, Any]] = queue.Queue()
        self.sockets_closed = 0

    def feed(self, wire: Wire) -> None:
        """Answer and push as recorded in websocket_frames.json."""
        frames = wire.frames()
        assert next(frames)["authCmd"]["token"] in self.tokens
        (command,) = next(frames)["cmds"]
        assert command.keys() == {"type", "entityType", "entityId", "cmdId"}
        told = {"subscriptionId": command["cmdId"], "errorCode": 0, "errorMsg": None}
        self.saved = queue.Queue()
        wire.send(told | {"data": {}, "latestValues": {}})
        body = self.saved.get(timeout=30)
        wire.send(told | {"data": {key: [[body["ts"], str(value)]] for key, value in body["values"].items()}})
        assert not list(frames)
        self.sockets_closed += 1

    def give_tokens(self) -> Reply:
        issued = time.time() + self.skew
        tokens = [
            make_jwt(scope=self.authority, issued=issued),
            make_jwt(scope="REFRESH_TOKEN", issued=issued),
        ]
        self.tokens.update(tokens)
        content = {"token": tokens[0], "refreshToken": tokens[1]}
        return Reply(200, content, {"Date": formatdate(time.time() + self.skew, usegmt=True)})

    def route(self, request: Request) -> Reply:  # noqa: PLR0911, C901  # One return a route.
        where = f"{request.method} {request.path}"
        if where == "GET /api/system/info":
            return Reply(200, {"version": self.version, "type": self.edition})
        if where == "POST /api/auth/login":
            if request.body["password"] != PASSWORD:
                return failure(401, "Invalid username or password")
            return self.give_tokens()
        if where == "POST /api/auth/token":
            return self.give_tokens()
        if where == "GET /api/ws":
            return Reply(talk=self.feed)
        credential = request.headers.get("x-authorization", "")
        if credential.removeprefix("Bearer ") not in self.tokens and credential != f"ApiKey {TB_KEY}":
            return failure(401, "Invalid username or password")
        if where == "GET /api/auth/user":
            return Reply(200, {"authority": self.authority, "customerId": {"id": CUSTOMER}})
        owner = f"customer/{CUSTOMER}" if self.authority == "CUSTOMER_USER" else "tenant"
        if where == f"GET /api/{owner}/deviceInfos":
            return self.list_devices(request)
        if request.path.startswith("/api/device"):
            return self.device(request)
        if request.path.startswith("/api/plugins/telemetry/DEVICE/"):
            return self.data(request)
        if where.startswith("POST /api/plugins/rpc/twoway/"):
            return Reply(409)
        if where.startswith("GET /api/rpc/persistent/device/"):
            return Reply(200, {"data": []})
        return failure(404, "No static resource.", 32)

    def list_devices(self, request: Request) -> Reply:
        found = [
            {"id": {"id": key}, "name": name}
            for key, name in self.devices.items()
            if request.query.get("textSearch", "").lower() in name.lower()
        ]
        size, page = int(request.query["pageSize"]), int(request.query["page"])
        data = found[page * size : (page + 1) * size]
        return Reply(
            200, {"data": data, "totalElements": len(found), "hasNext": (page + 1) * size < len(found)}
        )

    def device(self, request: Request) -> Reply:
        if request.method == "POST":
            device_id = f"00000000-0000-0000-0000-{len(self.requests):012}"
            self.devices[device_id] = request.body["name"]
            return Reply(200, {"id": {"id": device_id}, "name": request.body["name"]})
        device_id = request.path.rpartition("/")[2]
        if device_id not in self.devices:
            return failure(404, f"Device with id [{device_id}] is not found", 32)
        if request.method == "DELETE":
            del self.devices[device_id]
        return Reply(200, {"id": {"id": device_id}})

    def data(self, request: Request) -> Reply:  # noqa: PLR0911  # One return a route.
        device_id, _, rest = request.path.removeprefix("/api/plugins/telemetry/DEVICE/").partition("/")
        keys = request.query.get("keys", "").split(",")
        points = self.telemetry.setdefault(device_id, {})
        attributes = self.attributes.setdefault(device_id, {})
        match f"{request.method} {rest}":
            case "POST timeseries/ANY":
                ts = request.body["ts"]
                self.saved.put(request.body)
                points.update(
                    {key: {"ts": ts, "value": value} for key, value in request.body["values"].items()}
                )
                return Reply(200)
            case "GET values/timeseries":
                assert request.query["useStrictDataTypes"] == "true"
                assert int(request.query["endTs"]) == int(request.query["startTs"]) + 1
                return Reply(200, {key: [points[key]] for key in keys if key in points})
            case "DELETE timeseries/delete":
                assert request.query["deleteAllDataForKeys"] == "true"
                for key in keys:
                    points.pop(key, None)
                return Reply(200)
            case "POST attributes/SERVER_SCOPE":
                attributes.update(request.body)
                return Reply(200)
            case "GET values/attributes/SERVER_SCOPE":
                found = [{"key": key, "value": attributes[key]} for key in keys if key in attributes]
                return Reply(200, found)
            case "DELETE SERVER_SCOPE":
                for key in keys:
                    attributes.pop(key, None)
                return Reply(200)
        return failure(404, "No static resource.", 32)


class Gateway(Stub):
    """The contract of the gateway, as far as the diagnostic looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.ready: dict[str, Any] = {"configuration": "ok", "thingsboard": {"status": "ok"}}
        self.points: dict[str, Any] = {}
        self.uploads: queue.Queue[dict[str, Any]] = queue.Queue()
        self.headers = {
            "X-RateLimit-Limit": "100",
            "X-RateLimit-Remaining": "99",
            "X-RateLimit-Reset": "60",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
        }

    def events(self) -> Iterator[bytes]:
        yield b"retry: 1000\n\nid: AQkpiVz2\n\n"
        for key, points in self.uploads.get(timeout=30).items():
            event = {"device_id": DEVICE, "key": key} | points[0]
            yield b"event: telemetry\nid: AQkpiVz3\ndata: " + json.dumps(event).encode() + b"\n\n"

    def refuse(self, status: int, code: str) -> Reply:
        content = {"status": status, "message": "no", "error_code": code, "timestamp": 1}
        return Reply(status, content | {"details": None, "request_id": "r"}, self.headers)

    def route(self, request: Request) -> Reply:
        if request.path == "/health/live":
            return Reply(200, {"status": "success"}, self.headers)
        if request.path == "/health/ready":
            return Reply(200, {"status": "success", "checks": self.ready}, self.headers)
        if request.headers.get("x-api-key") != GATEWAY_KEY:
            return self.refuse(401, "AUTHENTICATION_FAILED")
        status, content = 200, {"status": "success"}
        if request.path == "/api/v1/tb/devices":
            content |= {"data": [], "pagination": {"total_elements": 12}}
        elif request.path == "/api/v1/tb/whoami":
            content |= {"name": "check", "scopes": ["devices:read", "telemetry:write"]}
        elif request.path.endswith("/rpc/twoway"):
            assert request.body["fail_fast"] is True
            refusal = self.refuse(409, "DEVICE_OFFLINE")
            return Reply(409, refusal.content | {"details": {"outcome": "offline"}}, self.headers)
        elif request.path.endswith("/telemetry/stream"):
            assert request.query["first_values"] == "false"
            self.uploads = queue.Queue()
            return Reply(200, None, EVENTS, stream=self.events())
        elif request.method == "POST":
            status = 201
            self.uploads.put(request.body)
            self.points |= {key: points[0] for key, points in request.body.items()}
        elif request.path.endswith("/telemetry/latest"):
            content |= {"data": {request.query["keys"]: self.points.get(request.query["keys"])}}
        return Reply(status, content, self.headers)


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.out)

    def check(self, name: str) -> dict[str, Any]:
        return next(check for check in self.report["checks"] if check["name"] == name)

    def said(self, name: str) -> tuple[str, str]:
        check = self.check(name)
        return check["status"], f"{check['message']} | {check['hint']}"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if VARIABLES.match(name)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def thingsboard() -> Iterator[ThingsBoard]:
    stub = ThingsBoard()
    with stub.serve():
        yield stub


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    stub = Gateway()
    with stub.serve():
        yield stub


@pytest.fixture
def both(thingsboard: ThingsBoard, gateway: Gateway) -> tuple[ThingsBoard, Gateway]:
    return thingsboard, gateway


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: str, json: bool = True, **env: str | None) -> Outcome:
        defaults = {"TB_USERNAME": "tenant@thingsboard.org", "TB_PASSWORD": PASSWORD}
        for name, value in (defaults | env).items():
            if value is not None:
                monkeypatch.setenv(name, value)
        code = tb_connection_check.main(["--timeout", "5", *arguments, *(["--json"] if json else [])])
        return Outcome(code, *capsys.readouterr())

    return run


Runner = Callable[..., Outcome]


def unused_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


# Whole runs


def test_everything_passes_and_nothing_is_left_behind(run: Runner, thingsboard: ThingsBoard) -> None:
    outcome = run(TB_HOST=thingsboard.url, json=False)
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.endswith("🎉 ALL TESTS PASSED!\n")
    assert "17 passed, 0 warnings, 0 failed, 0 skipped" in outcome.out
    assert "✅ ThingsBoard: ThingsBoard CE 4.3.1.3 answers (" in outcome.out
    assert list(thingsboard.devices) == [DEVICE]


def test_the_check_device_has_a_name_of_its_own_each_time(run: Runner, thingsboard: ThingsBoard) -> None:
    for _ in range(2):
        run(TB_HOST=thingsboard.url)
    names = [r.body["name"] for r in thingsboard.requests if (r.method, r.path) == ("POST", "/api/device")]
    assert len(set(names)) == 2
    assert all(name.startswith("tb_connection_check_") for name in names)


def test_json_is_one_object_and_nothing_else(run: Runner, thingsboard: ThingsBoard) -> None:
    outcome = run(TB_HOST=thingsboard.url)
    report = outcome.report
    assert outcome.err == ""
    assert outcome.out.count("\n") == 1
    assert report["ok"] is True
    assert report["summary"]["passed"] == len(report["checks"]) == 17
    assert {frozenset(check) for check in report["checks"]} == {
        frozenset({"name", "status", "message", "hint", "elapsed_ms"})
    }


def test_checks_that_need_a_failed_one_are_skipped(run: Runner) -> None:
    outcome = run(TB_HOST=f"http://127.0.0.1:{unused_port()}")
    assert outcome.code == 1
    assert outcome.report["ok"] is False
    assert outcome.said("tcp") == (
        "fail",
        outcome.check("tcp")["message"] + " | " + outcome.check("tcp")["hint"],
    )
    assert "refuses connections" in outcome.check("tcp")["message"]
    assert "container" in outcome.check("tcp")["hint"]
    later = outcome.report["checks"][3:]
    assert {check["status"] for check in later} == {"skip"}
    assert all(check["message"] for check in later)


def test_a_hint_stands_under_its_failure(run: Runner) -> None:
    outcome = run(TB_HOST=f"http://127.0.0.1:{unused_port()}", json=False)
    assert re.search(r"❌ TCP connection: .* \(\d+ ms\)\n   💡 Is it running", outcome.out)
    assert "ALL TESTS PASSED" not in outcome.out


@pytest.mark.parametrize("wanted", [DEVICE, "boiler / room", "name:boiler / room"])
def test_a_named_device_is_used_and_left_as_it_was(
    run: Runner, thingsboard: ThingsBoard, wanted: str
) -> None:
    thingsboard.telemetry[DEVICE] = {"temperature": {"ts": 1, "value": 20}}
    thingsboard.attributes[DEVICE] = {"serial": "SN-1"}
    outcome = run("--device", wanted, TB_HOST=thingsboard.url)
    assert outcome.code == 0
    assert thingsboard.devices == {DEVICE: "boiler / room"}
    assert thingsboard.telemetry[DEVICE] == {"temperature": {"ts": 1, "value": 20}}
    assert thingsboard.attributes[DEVICE] == {"serial": "SN-1"}
    written = [r.body for r in thingsboard.requests if r.path.endswith("/timeseries/ANY")]
    assert set(written[0]["values"]) == {
        f"tb_connection_check_{key}" for key in ("temperature", "is_on", "text")
    }


def test_a_named_device_is_found_on_a_later_page(run: Runner, thingsboard: ThingsBoard) -> None:
    names = [*(f"pump {n}" for n in range(205)), "pump"]
    thingsboard.devices = {f"00000000-0000-0000-0001-{n:012}": name for n, name in enumerate(names)}
    assert run("--device", "pump", TB_HOST=thingsboard.url).code == 0


@pytest.mark.parametrize("wanted", [FOREIGN, "Boiler / Room"], ids=["id", "name in other capitals"])
def test_an_unknown_device_fails_with_a_hint(run: Runner, thingsboard: ThingsBoard, wanted: str) -> None:
    outcome = run("--device", wanted, TB_HOST=thingsboard.url)
    status, said = outcome.said("device")
    assert (outcome.code, status) == (1, "fail")
    assert "no " in said
    assert outcome.check("telemetry")["status"] == "skip"


def test_a_customer_user_needs_a_device(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.authority = "CUSTOMER_USER"
    outcome = run(TB_HOST=thingsboard.url, json=False)
    assert outcome.code == 0
    assert "⏭️  Device for the check: a customer user cannot make a device" in outcome.out
    assert "--device" in outcome.out
    assert "ALL TESTS PASSED" not in outcome.out
    assert f"/api/customer/{CUSTOMER}/deviceInfos" in {request.path for request in thingsboard.requests}


def test_a_customer_user_with_a_device_passes(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.authority = "CUSTOMER_USER"
    outcome = run("--device", "boiler / room", TB_HOST=thingsboard.url)
    assert outcome.report["summary"]["passed"] == 17


def test_a_customer_without_devices_is_warned(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.authority, thingsboard.devices = "CUSTOMER_USER", {}
    status, said = run(TB_HOST=thingsboard.url).said("devices")
    assert status == "warn"
    assert "Assign devices" in said


# Configuration


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"TB_HOST": None}, "TB_HOST is not set"),
        ({"TB_PASSWORD": None}, "TB_PASSWORD not set"),
        ({"TB_USERNAME": None, "TB_PASSWORD": None}, "TB_USERNAME and TB_PASSWORD not set"),
        ({"TB_PASSWORD": "changeme"}, "placeholder: TB_PASSWORD"),
        ({"TB_PASSWORD": "<password>"}, "placeholder: TB_PASSWORD"),
        ({"TB_USERNAME": "your-user"}, "placeholder: TB_USERNAME"),
        ({"TB_API_KEY": "CHANGE_ME"}, "placeholder: TB_API_KEY"),
        ({"TB_HOST": "https://your-thingsboard"}, "placeholder"),
        ({"TB_API_KEY": TB_KEY, "TB_PASSWORD": None}, "go together"),
        ({"TB_API_KEY": "tb_a b"}, "blanks"),
        ({"TB_API_KEY": "tb_schlüssel"}, "special characters"),
        ({"TB_HOST": "http://127.0.0.1/api"}, "path or a query"),
        ({"TB_HOST": "http://127.0.0.1?x=1"}, "path or a query"),
        ({"TB_HOST": "http://u:hunter2@127.0.0.1"}, "holds credentials"),
        ({"TB_HOST": "ftp://127.0.0.1"}, "no URL"),
        ({"TB_HOST": "http://127.0.0.1:99999"}, "no URL"),
        ({"TB_HOST": "http://"}, "no URL"),
        ({"TB_HOST": "http://[::1"}, "no URL"),
        ({"TB_VERIFY_TLS": "maybe"}, "TB_VERIFY_TLS"),
        ({"TB_CA_FILE": "no-such.pem"}, "TB_CA_FILE"),
        ({"TB_HOST": "https://tb.test", "HTTPS_PROXY": "socks5://127.0.0.1:1"}, "HTTPS_PROXY"),
    ],
)
def test_a_bad_configuration_ends_with_2(run: Runner, env: dict[str, str | None], words: str) -> None:
    outcome = run(**({"TB_HOST": "http://127.0.0.1:1"} | env))
    status, said = outcome.said("configuration")
    assert (outcome.code, status) == (2, "fail")
    assert words in said
    assert outcome.check("configuration")["hint"]
    assert "hunter2" not in outcome.out


class TestUpstreams:
    """--upstream takes what the gateway would take from UPSTREAMS_FILE."""

    @pytest.fixture
    def file(self, tmp_path: Path, thingsboard: ThingsBoard) -> Path:
        (tmp_path / "password").write_text(f"{PASSWORD}\n")
        account = f'tb_host = "{thingsboard.url}"\ntb_username = "tenant@thingsboard.org"\n'
        path = tmp_path / "upstreams.toml"
        path.write_text(
            f'[[upstreams]]\nname = "plain"\n{account}tb_password = "{PASSWORD}"\n'
            f'[[upstreams]]\nname = "by-file"\n{account}tb_password_file = "{tmp_path}/password"\n'
            f'[[upstreams]]\nname = "by-variable"\n{account}tb_password_env = "TB_PASSWORD_X"\n'
            f'[[upstreams]]\nname = "wrong"\n{account}tb_password = "hunter2"\ntb_verify_tls = false\n'
        )
        return path

    @pytest.mark.parametrize("name", ["plain", "by-file", "by-variable"])
    def test_one_of_the_file_is_checked(self, run: Runner, file: Path, name: str) -> None:
        env = {"TB_USERNAME": None, "TB_PASSWORD": None, "TB_PASSWORD_X": PASSWORD}
        outcome = run("--upstream", name, UPSTREAMS_FILE=str(file), **env)
        assert outcome.code == 0, outcome.out

    def test_nothing_of_tb_host_gets_into_it(self, run: Runner, file: Path) -> None:
        env = {"TB_HOST": "http://127.0.0.1:1", "TB_API_KEY": TB_KEY, "UPSTREAMS_FILE": str(file)}
        assert run("--upstream", "plain", **env).code == 0
        assert run("--upstream", "wrong", **env).said("login")[0] == "fail"
        assert run("--upstream", "default", **env).said("tcp")[0] == "fail"

    @pytest.mark.parametrize(
        ("arguments", "env", "words"),
        [
            ([], {}, "Choose one of UPSTREAMS_FILE with --upstream: by-file, by-variable, plain, wrong."),
            (["--upstream", "south"], {}, "no such upstream"),
            (["--upstream", "by-variable"], {}, "TB_PASSWORD not set"),
            (["--upstream", "plain"], {"UPSTREAMS_FILE": "missing.toml"}, "UPSTREAMS_FILE cannot be read"),
            (["--upstream", "plain"], {"UPSTREAMS_FILE": None}, "UPSTREAMS_FILE is not set"),
        ],
    )
    def test_a_bad_choice_ends_with_2(
        self, run: Runner, file: Path, arguments: list[str], env: dict[str, Any], words: str
    ) -> None:
        base = {"TB_USERNAME": None, "TB_PASSWORD": None, "UPSTREAMS_FILE": str(file)}
        outcome = run(*arguments, **(base | env))
        assert (outcome.code, outcome.said("configuration")[0]) == (2, "fail")
        found = outcome.check("configuration")
        assert words in f"{found['message']} | {found['hint']}"
        assert "hunter2" not in outcome.out

    def test_a_broken_file_is_not_quoted(self, run: Runner, tmp_path: Path) -> None:
        (tmp_path / "broken.toml").write_text("[[upstreams]]\ntb_password = hunter2\n")
        outcome = run("--upstream", "x", UPSTREAMS_FILE=str(tmp_path / "broken.toml"))
        assert "not valid TOML" in outcome.said("configuration")[1]
        assert "hunter2" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"TB_API_KEY": TB_KEY}, "both set"),
        ({"TB_CA_FILE": "ca.pem"}, "no effect"),
    ],
)
def test_doubts_warn_and_do_not_stop(
    run: Runner, thingsboard: ThingsBoard, certificates: Path, env: dict[str, str], words: str
) -> None:
    if "TB_CA_FILE" in env:
        env = {"TB_CA_FILE": str(certificates / "ca.pem")}
    outcome = run(TB_HOST=thingsboard.url, **env)
    status, said = outcome.said("configuration")
    assert (outcome.code, status) == (0, "warn")
    assert words in said


def test_verification_switched_off_beside_a_ca_file_is_doubted(run: Runner, certificates: Path) -> None:
    env = {
        "TB_HOST": "https://127.0.0.1:1",
        "TB_CA_FILE": str(certificates / "ca.pem"),
        "TB_VERIFY_TLS": "false",
    }
    assert "useless" in run(**env).said("configuration")[1]


def test_a_bare_host_is_tolerated_with_a_hint(run: Runner, thingsboard: ThingsBoard) -> None:
    outcome = run(TB_HOST=thingsboard.url.removeprefix("http://"))
    status, said = outcome.said("configuration")
    assert (outcome.code, status) == (0, "warn")
    assert "http:// is assumed" in said


def test_an_unknown_name_is_told(run: Runner) -> None:
    status, said = run(TB_HOST="https://no-such-host.invalid").said("name_resolution")
    assert status == "fail"
    assert "DNS" in said


def test_the_env_file_is_read_and_the_environment_wins(
    run: Runner, thingsboard: ThingsBoard, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"TB_HOST={thingsboard.url}\nTB_USERNAME=a@b.c\nTB_PASSWORD=wrong\n")
    assert run(TB_PASSWORD=PASSWORD, TB_USERNAME=None).code == 0
    assert {r.body["username"] for r in thingsboard.requests if r.path == "/api/auth/login"} == {"a@b.c"}


def test_an_env_file_without_python_dotenv_is_a_warning(
    run: Runner, thingsboard: ThingsBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("TB_API_KEY=tb_x")
    monkeypatch.setitem(sys.modules, "dotenv", None)
    status, said = run(TB_HOST=thingsboard.url).said("configuration")
    assert status == "warn"
    assert "pip install python-dotenv" in said


def test_another_env_file_can_be_named(run: Runner, thingsboard: ThingsBoard, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(f"TB_HOST={thingsboard.url}")
    assert run("--env-file", "other").code == 0


def test_an_env_file_that_is_no_text_is_told(run: Runner, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in run(TB_HOST="http://127.0.0.1:1").said("configuration")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--timeout", GATEWAY_KEY],
        ["--key", GATEWAY_KEY],
        ["--kye", GATEWAY_KEY],
        ["--env-file", "no-such-file"],
        ["--rpc", GATEWAY_KEY],
    ],
)
def test_wrong_usage_ends_with_2_and_repeats_no_argument(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        tb_connection_check.main(arguments)
    assert caught.value.code == 2
    assert GATEWAY_KEY not in "".join(capsys.readouterr())


# What stands in ThingsBoard's place


def page(status: int = 200) -> Reply:
    return Reply(status, b"<!doctype html><title>Welcome</title>", {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (page(), "web page answered (200)"),
        (page(404), "web page answered (404)"),
        (Reply(302, b"", {"Location": "https://127.0.0.1/login"}), "Write https://"),
        (Reply(302, b"", {"Location": "http://127.0.0.1/sso"}), "login portal"),
        (Reply(502, b"<html>bad gateway"), "minute or two"),
        (Reply(503), "minute or two"),
        (Reply(504), "too slow for the reverse proxy"),
        (Reply(429), "rate limit"),
        (Reply(500), "its database"),
        (Reply(200, {"hello": "world"}), "not as ThingsBoard does"),
        (Reply(401, b"Basic", {"WWW-Authenticate": "Basic"}), "not as ThingsBoard does"),
    ],
)
def test_what_is_not_thingsboard_is_told(
    run: Runner, thingsboard: ThingsBoard, reply: Reply, words: str
) -> None:
    thingsboard.replies["GET /api/system/info"] = reply
    outcome = run(TB_HOST=thingsboard.url)
    status, said = outcome.said("thingsboard")
    assert (outcome.code, status) == (1, "fail")
    assert words in said
    assert "Welcome" not in outcome.out
    assert outcome.check("login")["status"] == "skip"


def test_a_silent_server_is_told(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.replies["GET /api/system/info"] = thingsboard.never
    status, said = run("--timeout", "0.2", TB_HOST=thingsboard.url).said("thingsboard")
    assert status == "fail"
    assert "within" in said
    assert "--timeout" in said


def test_a_body_without_end_is_not_waited_for(run: Runner) -> None:
    with raw_server(b"HTTP/1.1 200 OK\r\n\r\n", drip=True) as url:
        assert "no full answer" in run("--timeout", "0.2", TB_HOST=url).said("thingsboard")[1]


def test_a_huge_body_is_not_read_to_its_end(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.replies["GET /api/system/info"] = Reply(200, b"[" + b"1," * 1_000_000 + b"1]")
    assert "not as ThingsBoard does" in run(TB_HOST=thingsboard.url).said("thingsboard")[1]


def test_something_else_than_http_is_told(run: Runner) -> None:
    with raw_server(b"SSH-2.0-OpenSSH_9.2\r\n") as url:
        status, said = run(TB_HOST=url).said("thingsboard")
    assert status == "fail"
    assert "without a valid HTTP answer" in said


@contextmanager
def raw_server(reply: bytes | Callable[[socket.socket], None], *, drip: bool = False) -> Iterator[str]:
    """Answer every connection with these bytes, and one byte at a time after them when told to drip."""
    closing_time = threading.Event()

    def answer(connection: socket.socket) -> None:
        if not isinstance(reply, bytes):
            reply(connection)
            return
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(reply)
            while drip and not closing_time.wait(0.02):
                connection.sendall(b" ")

    def accept() -> None:
        while not closing_time.is_set():
            connection, _ = listener.accept()
            thread = threading.Thread(target=answer, args=(connection,))
            threads.append(thread)
            thread.start()

    threads: list[threading.Thread] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            closing_time.set()
            socket.create_connection(listener.getsockname()).close()
            for thread in [acceptor, *threads]:
                thread.join()


# Versions


@pytest.mark.parametrize(("version", "edition"), [("3.6.4", "CE"), ("4.4.0-SNAPSHOT", "PE"), ("10.0", "CE")])
def test_versions_from_3_6_on_pass(run: Runner, thingsboard: ThingsBoard, version: str, edition: str) -> None:
    thingsboard.version, thingsboard.edition = version, edition
    outcome = run(TB_HOST=thingsboard.url)
    assert outcome.said("version") == ("pass", f"ThingsBoard {edition} {version} | ")


def test_a_version_before_3_6_fails(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.version = "3.5.1"
    outcome = run(TB_HOST=thingsboard.url)
    status, said = outcome.said("version")
    assert (outcome.code, status) == (1, "fail")
    assert "upgrade" in said


@pytest.mark.parametrize("status", [401, 404])
def test_a_version_that_is_not_told_is_a_warning(run: Runner, thingsboard: ThingsBoard, status: int) -> None:
    thingsboard.replies["GET /api/system/info"] = failure(status, "Authentication failed")
    outcome = run(TB_HOST=thingsboard.url)
    assert outcome.code == 0
    assert outcome.check("thingsboard")["status"] == "pass"
    assert outcome.said("version")[0] == "warn"
    assert "foot of its web page" in outcome.said("version")[1]


def test_a_version_told_only_after_the_login_is_found(run: Runner, thingsboard: ThingsBoard) -> None:
    def info(request: Request) -> Reply:
        if "x-authorization" in request.headers:
            return thingsboard.route(request)
        return failure(401, "Authentication failed")

    thingsboard.replies["GET /api/system/info"] = info
    assert run(TB_HOST=thingsboard.url).said("version") == ("pass", "ThingsBoard CE 4.3.1.3 | ")


# Login, tokens, clocks


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (failure(401, "Invalid username or password"), "wrong user name or password"),
        (failure(401, "User account is not active"), "Activate the user"),
        (failure(401, "User account is locked due to security policy"), "unlock the user"),
        (failure(401, "User password expired!", 15), "set a new password"),
        (failure(401, "Authentication failed"), "refused the login"),
        (failure(429, "Too many requests", 33), "rate limit"),
        (Reply(200, {"hello": 1}), "without a token"),
        (
            Reply(200, {"token": make_jwt(scope="PRE_VERIFICATION_TOKEN"), "refreshToken": None}),
            "without 2FA",
        ),
        (Reply(200, {"token": make_jwt(scope="MFA_CONFIGURATION_TOKEN"), "refreshToken": None}), "exempt it"),
        (Reply(200, {"token": "opaque", "scope": "PRE_VERIFICATION_TOKEN"}), "without 2FA"),
    ],
)
def test_refused_logins_say_why(run: Runner, thingsboard: ThingsBoard, reply: Reply, words: str) -> None:
    thingsboard.replies["POST /api/auth/login"] = reply
    outcome = run(TB_HOST=thingsboard.url)
    status, said = outcome.said("login")
    assert (outcome.code, status) == (1, "fail")
    assert words in said
    assert outcome.check("devices")["status"] == "skip"


def test_a_wrong_password_fails(run: Runner, thingsboard: ThingsBoard) -> None:
    outcome = run(TB_HOST=thingsboard.url, TB_PASSWORD="another-secret-word")
    assert "wrong user name or password" in outcome.said("login")[1]
    assert "another-secret-word" not in outcome.out


@pytest.mark.parametrize(
    ("authority", "words"), [("SYS_ADMIN", "tenant administrator"), ("NOBODY", "neither")]
)
def test_other_authorities_fail(run: Runner, thingsboard: ThingsBoard, authority: str, words: str) -> None:
    thingsboard.authority = authority
    status, said = run(TB_HOST=thingsboard.url).said("login")
    assert status == "fail"
    assert words in said


def test_an_api_key_passes_without_any_login(run: Runner, thingsboard: ThingsBoard) -> None:
    outcome = run(TB_HOST=thingsboard.url, TB_API_KEY=TB_KEY, TB_USERNAME=None, TB_PASSWORD=None)
    assert outcome.report["summary"]["passed"] == 16
    assert outcome.said("live")[0] == "skip"
    assert "needs a JWT" in outcome.said("live")[1]
    assert not any(part in request.path for request in thingsboard.requests for part in ("auth/login", "/ws"))


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (failure(401, "User account is not active"), "is disabled"),
        (failure(401, "Invalid username or password"), "wrong, expired or deleted"),
        (Reply(302, b"", {"Location": "http://127.0.0.1/login"}), "4.3 or later"),
    ],
)
def test_refused_api_keys_say_why(run: Runner, thingsboard: ThingsBoard, reply: Reply, words: str) -> None:
    thingsboard.replies["GET /api/auth/user"] = reply
    status, said = run(TB_HOST=thingsboard.url, TB_API_KEY=TB_KEY).said("login")
    assert status == "fail"
    assert words in said


def test_an_api_key_before_4_3_fails(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.version = "4.2.1"
    status, said = run(TB_HOST=thingsboard.url, TB_API_KEY=TB_KEY).said("login")
    assert status == "fail"
    assert "4.3 or later" in said


@pytest.mark.parametrize(
    ("skew", "status"), [(0, "pass"), (3, "pass"), (-20, "warn"), (20, "warn"), (-300, "fail"), (300, "fail")]
)
def test_clock_skew_is_weighed(run: Runner, thingsboard: ThingsBoard, skew: float, status: str) -> None:
    thingsboard.skew = skew
    outcome = run(TB_HOST=thingsboard.url)
    found, said = outcome.said("clock")
    assert found == status
    assert outcome.code == (1 if status == "fail" else 0)
    if status != "pass":
        assert "NTP" in said
        assert ("behind" if skew > 0 else "ahead") in said


def test_a_skewed_proxy_clock_counts_too(run: Runner, thingsboard: ThingsBoard) -> None:
    token = {"token": make_jwt(), "refreshToken": make_jwt()}
    thingsboard.tokens.add(token["token"])
    late = {"Date": formatdate(time.time() - 120, usegmt=True)}
    thingsboard.replies["POST /api/auth/login"] = Reply(200, token, late)
    assert run(TB_HOST=thingsboard.url).said("clock")[0] == "fail"


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        # Made when the test runs, which may be minutes after it was collected.
        (lambda: make_jwt(life=60), "warn", "lives 60 s only"),
        (lambda: make_jwt(issued=time.time() - 9000, life=60), "fail", "already expired"),
        (lambda: "opaque", "warn", "tells no times"),
        (lambda: "a.bm90IGpzb24.c", "warn", "tells no times"),
        (lambda: "a.WzFd.c", "warn", "tells no times"),
    ],
    ids=["short", "expired", "opaque", "no json", "no object"],
)
def test_token_lives_are_weighed(
    run: Runner, thingsboard: ThingsBoard, make: Callable[[], str], status: str, words: str
) -> None:
    token = make()
    thingsboard.tokens.add(token)
    thingsboard.replies["POST /api/auth/login"] = Reply(200, {"token": token, "refreshToken": make_jwt()})
    found, said = run(TB_HOST=thingsboard.url).said("token")
    assert found == status
    assert words in said


@pytest.mark.parametrize("date", ["yesterday", ""], ids=["garbage", "missing"])
def test_no_time_at_all_is_a_warning(run: Runner, thingsboard: ThingsBoard, date: str) -> None:
    thingsboard.tokens.add("opaque")
    reply = Reply(200, {"token": "opaque", "refreshToken": "x"}, {"Date": date})
    thingsboard.replies["POST /api/auth/login"] = reply
    assert run(TB_HOST=thingsboard.url).said("clock")[0] == "warn"


def test_a_refresh_that_does_not_work_fails(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.replies["POST /api/auth/token"] = failure(401, "Token has expired", 11)
    outcome = run(TB_HOST=thingsboard.url)
    status, said = outcome.said("refresh")
    assert (outcome.code, status) == (1, "fail")
    assert "signing key" in said


# Devices and data


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (failure(403, "You don't have permission to perform this operation!", 20), "lacks the permission"),
        (failure(400, "Devices limit reached", 41), "device limit"),
        (failure(500, "Database error", 46), "its database"),
    ],
)
def test_a_device_that_cannot_be_made_says_why(
    run: Runner, thingsboard: ThingsBoard, reply: Reply, words: str
) -> None:
    thingsboard.replies["POST /api/device"] = reply
    status, said = run(TB_HOST=thingsboard.url).said("device")
    assert status == "fail"
    assert words in said
    assert "--device" in said


def test_a_device_whose_making_was_not_answered_is_removed(run: Runner, thingsboard: ThingsBoard) -> None:
    def make_and_garble(request: Request) -> Reply:
        thingsboard.route(request)
        return page()

    thingsboard.replies["POST /api/device"] = make_and_garble
    outcome = run(TB_HOST=thingsboard.url)
    assert outcome.code == 1
    assert "unexpected data" in outcome.said("device")[1]
    assert outcome.check("clean_up")["status"] == "pass"
    assert list(thingsboard.devices) == [DEVICE]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("25.6", "another value or type"),
        (25.600000000000001421, None),
        (25.5, "another value or type"),
        (None, "is not there"),
    ],
)
def test_numbers_must_come_back_exactly(
    run: Runner, thingsboard: ThingsBoard, value: Any, words: str | None
) -> None:
    def garble(request: Request) -> Reply:
        reply = thingsboard.route(request)
        if value is None:
            reply.content.pop("temperature")
        else:
            reply.content["temperature"][0]["value"] = value
        return reply

    thingsboard.replies["GET /api/plugins/telemetry/DEVICE/00"] = lambda request: (
        garble(request) if request.path.endswith("values/timeseries") else thingsboard.route(request)
    )
    status, said = run(TB_HOST=thingsboard.url).said("telemetry")
    assert status == ("fail" if words else "pass")
    assert (words or "") in said


def test_a_boolean_that_becomes_1_fails(run: Runner, thingsboard: ThingsBoard) -> None:
    save = thingsboard.data

    def data(request: Request) -> Reply:
        if request.path.endswith("timeseries/ANY"):
            request.body["values"]["is_on"] = 1
        return save(request)

    thingsboard.data = data  # type: ignore[method-assign]
    assert "is_on came back as another value" in run(TB_HOST=thingsboard.url).said("telemetry")[1]


def test_a_time_that_changes_fails(run: Runner, thingsboard: ThingsBoard) -> None:
    save = thingsboard.data

    def data(request: Request) -> Reply:
        if request.path.endswith("timeseries/ANY"):
            request.body["ts"] += 1
        return save(request)

    thingsboard.data = data  # type: ignore[method-assign]
    assert "another time" in run(TB_HOST=thingsboard.url).said("telemetry")[1]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_attributes_that_are_not_stored_or_not_deleted_fail(
    run: Runner, thingsboard: ThingsBoard, method: str
) -> None:
    save = thingsboard.data

    def data(request: Request) -> Reply:
        if request.method == method and request.path.endswith("SERVER_SCOPE"):
            return Reply(200)
        return save(request)

    thingsboard.data = data  # type: ignore[method-assign]
    status, said = run(TB_HOST=thingsboard.url).said("attributes")
    assert status == "fail"
    assert {"POST": "did not come back", "DELETE": "still there"}[method] in said


@pytest.mark.parametrize(
    ("status", "verdict", "words"),
    [
        (409, "pass", "offline"),
        (408, "fail", "timeout"),
        (200, "fail", "answered"),
        (504, "fail", "too slow"),
        (403, "fail", "permission"),
        (418, "fail", "418"),
    ],
)
def test_a_command_to_nobody_has_to_end_as_offline(
    run: Runner, thingsboard: ThingsBoard, status: int, verdict: str, words: str
) -> None:
    thingsboard.replies["POST /api/plugins/rpc/"] = Reply(status)
    found, said = run(TB_HOST=thingsboard.url).said("rpc")
    assert found == verdict
    assert words in said


def test_a_named_device_is_sent_nothing_unasked(run: Runner, thingsboard: ThingsBoard) -> None:
    assert "--rpc" in run("--device", DEVICE, TB_HOST=thingsboard.url).check("rpc")["message"]
    assert not [each for each in thingsboard.requests if "/rpc/twoway" in each.path]


@pytest.mark.parametrize(("status", "verdict", "word"), [(200, "pass", "answered"), (409, "warn", "offline")])
def test_a_named_device_is_sent_the_command_that_is_asked_for(
    run: Runner, thingsboard: ThingsBoard, status: int, verdict: str, word: str
) -> None:
    thingsboard.replies["POST /api/plugins/rpc/"] = Reply(status, {"ok": True})
    found, said = run("--device", DEVICE, "--rpc", "getState", TB_HOST=thingsboard.url).said("rpc")
    assert (found, word in said) == (verdict, True)
    (sent,) = [each.body for each in thingsboard.requests if "/rpc/twoway" in each.path]
    assert sent == {"method": "getState", "params": {}, "timeout": 5000}


def test_a_failed_check_does_not_keep_the_device(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.replies["POST /api/plugins"] = Reply(500, b"java.lang.IllegalStateException: oops")
    outcome = run(TB_HOST=thingsboard.url)
    assert outcome.check("telemetry")["status"] == "fail"
    assert outcome.check("clean_up")["status"] == "pass"
    assert list(thingsboard.devices) == [DEVICE]


def test_a_device_that_cannot_be_removed_is_named(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.replies["DELETE /api/device"] = failure(500, "oops")
    outcome = run(TB_HOST=thingsboard.url)
    status, said = outcome.said("clean_up")
    assert (outcome.code, status) == (1, "fail")
    left = next(name for name in thingsboard.devices.values() if name.startswith("tb_connection_check_"))
    assert left in said
    assert "by hand" in said


def test_data_that_cannot_be_removed_is_named(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.replies["DELETE /api/plugins"] = failure(403, "no", 20)
    status, said = run("--device", DEVICE, TB_HOST=thingsboard.url).said("clean_up")
    assert status == "fail"
    assert "tb_connection_check_*" in said


# TLS


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, certificates of it, good and bad, and a self-signed one."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("certificates")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    authority = ("req", "-x509", *new, "-subj", "/CN=Private CA", "-days", "30", *usage)
    openssl(folder, *authority, "-keyout", "ca.key", "-out", "ca.pem")
    (folder / "index.txt").touch()
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\n"
        "policy=p\nunique_subject=no\n[p]\ncommonName=supplied\n"
    )
    for name, host, start, end in (
        ("good", "IP:127.0.0.1", -1, 30),
        ("other", "DNS:tb.test", -1, 30),
        ("soon", "IP:127.0.0.1", -1, 5.5),
        ("expired", "IP:127.0.0.1", -3, -2),
        ("future", "IP:127.0.0.1", 2, 3),
    ):
        openssl(folder, "req", *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "v3.ext").write_text(
            f"subjectAltName={host}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        dates = [
            time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86_400)) for days in (start, end)
        ]
        ca = ("ca", "-batch", "-notext", "-config", "ca.conf", "-cert", "ca.pem", "-keyfile", "ca.key")
        dated = ("-startdate", dates[0], "-enddate", dates[1], "-extfile", "v3.ext")
        openssl(folder, *ca, *dated, "-in", f"{name}.csr", "-out", f"{name}.pem")
    self_signed = (
        "req",
        "-x509",
        *new,
        "-subj",
        "/CN=self",
        "-days",
        "30",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    )
    openssl(folder, *self_signed, "-keyout", "self.key", "-out", "self.pem")
    return folder


@contextmanager
def tls_thingsboard(certificates: Path, name: str) -> Iterator[ThingsBoard]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    stub = ThingsBoard()
    with stub.serve(context):
        yield stub


def test_a_private_authority_named_in_tb_ca_file_passes(run: Runner, certificates: Path) -> None:
    with tls_thingsboard(certificates, "good") as stub:
        outcome = run(TB_HOST=stub.url, TB_CA_FILE=str(certificates / "ca.pem"))
    assert outcome.code == 0
    assert re.match(
        r"TLSv1.3, certificate valid until \d{4}-\d\d-\d\d \(29 days\)", outcome.check("tls")["message"]
    )


@pytest.mark.parametrize(
    ("name", "ca", "words"),
    [
        ("good", None, "private authority's certificate (PEM) in TB_CA_FILE"),
        ("self", None, "self-signed | Name the certificate (PEM) in TB_CA_FILE"),
        ("other", "ca.pem", "Use the name that is in the certificate"),
        ("expired", "ca.pem", "Renew"),
        ("future", "ca.pem", "not valid yet"),
    ],
)
def test_bad_certificates_say_why(
    run: Runner, certificates: Path, name: str, ca: str | None, words: str
) -> None:
    with tls_thingsboard(certificates, name) as stub:
        outcome = run(TB_HOST=stub.url, TB_CA_FILE=str(certificates / ca) if ca else None)
        assert not stub.requests
    status, said = outcome.said("tls")
    assert (outcome.code, status) == (1, "fail")
    assert words in said


def test_tb_ca_file_stands_alone_as_in_the_gateway(
    run: Runner, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    with tls_thingsboard(certificates, "good") as stub:
        assert run(TB_HOST=stub.url).said("tls")[0] == "pass"
        assert run(TB_HOST=stub.url, TB_CA_FILE=str(certificates / "self.pem")).said("tls")[0] == "fail"


def test_another_host_name_is_told(run: Runner, certificates: Path) -> None:
    with tls_thingsboard(certificates, "good") as stub:
        url = stub.url.replace("127.0.0.1", "localhost")
        outcome = run(TB_HOST=url, TB_CA_FILE=str(certificates / "ca.pem"))
    assert "for another host name" in outcome.said("tls")[1]


def test_a_certificate_that_expires_soon_is_a_warning(run: Runner, certificates: Path) -> None:
    with tls_thingsboard(certificates, "soon") as stub:
        outcome = run(TB_HOST=stub.url, TB_CA_FILE=str(certificates / "ca.pem"))
    status, said = outcome.said("tls")
    assert (outcome.code, status) == (0, "warn")
    assert "(5 days)" in said


def test_verification_switched_off_is_a_warning(run: Runner, certificates: Path) -> None:
    with tls_thingsboard(certificates, "self") as stub:
        outcome = run(TB_HOST=stub.url, TB_VERIFY_TLS="false")
    status, said = outcome.said("tls")
    assert (outcome.code, status) == (0, "warn")
    assert "ignored: TB_VERIFY_TLS=false" in said


def test_verification_switched_off_without_need_is_told(run: Runner, certificates: Path) -> None:
    with tls_thingsboard(certificates, "good") as stub:
        env = {"TB_CA_FILE": str(certificates / "ca.pem"), "TB_VERIFY_TLS": "false"}
        status, said = run(TB_HOST=stub.url, **env).said("tls")
    assert status == "warn"
    assert "remove TB_VERIFY_TLS=false" in said


def test_https_on_a_plain_port_is_told(run: Runner) -> None:
    # This server answers at once, as Tomcat and nginx do.
    with raw_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        status, said = run(TB_HOST=url.replace("http:", "https:")).said("tls")
    assert status == "fail"
    assert "speaks plain HTTP" in said
    assert "http:// in place of https://" in said


def test_no_tls_and_no_http_either_is_told(run: Runner) -> None:
    with raw_server(b"SSH-2.0-OpenSSH_9.2\r\n") as url:
        assert "no TLS handshake" in run(TB_HOST=url.replace("http:", "https:")).said("tls")[1]


def test_http_on_a_tls_port_is_told(run: Runner, certificates: Path) -> None:
    with tls_thingsboard(certificates, "good") as stub:
        status, said = run(TB_HOST=stub.url.replace("https:", "http:")).said("thingsboard")
    assert status == "fail"
    assert "https:// in place of http://" in said


def test_tomcat_telling_about_tls_is_understood(run: Runner, certificates: Path) -> None:
    """ThingsBoard itself answers plain HTTP on its TLS port with a 400 in plain HTTP."""
    with tls_thingsboard(certificates, "good") as stub:

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                if connection.recv(1, socket.MSG_PEEK) != b"\x16":
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    return
                with socket.create_connection(stub.address) as upstream:
                    pump(connection, upstream)

        with raw_server(answer) as url:
            status, said = run(TB_HOST=url).said("thingsboard")
    assert status == "fail"
    assert "https:// in place of http://" in said


# Proxies


class Proxy(Stub):
    """An HTTP proxy that tunnels to one address, whatever is asked for."""

    def __init__(self, target: str, *, status: int = 200) -> None:
        super().__init__()
        self.target, self.status = urlsplit(target), status

    @contextmanager
    def tunnel(self) -> Iterator[str]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                proxy.requests.append(Request("CONNECT", self.path, {}, dict(self.headers), None))
                self.send_response_only(proxy.status)
                self.end_headers()
                if proxy.status == 200:
                    address = (proxy.target.hostname or "", proxy.target.port or 0)
                    with socket.create_connection(address) as upstream:
                        pump(self.connection, upstream)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://user:proxy-secret@127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def pump(left: socket.socket, right: socket.socket) -> None:
    def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    back = threading.Thread(target=copy, args=(right, left))
    back.start()
    copy(left, right)
    back.join()


def test_a_proxy_carries_every_request(run: Runner, certificates: Path) -> None:
    """The name tb.test resolves nowhere: only the proxy can know it."""
    with tls_thingsboard(certificates, "other") as stub, Proxy(stub.url).tunnel() as proxy:
        outcome = run(TB_HOST="https://tb.test", TB_CA_FILE=str(certificates / "ca.pem"), HTTPS_PROXY=proxy)
    assert outcome.report["summary"]["passed"] == 17
    assert stub.sockets_closed == 1
    assert "through the proxy 127.0.0.1:" in outcome.said("configuration")[1]
    assert "proxy-secret" not in outcome.out


def test_no_proxy_excludes_the_host(run: Runner) -> None:
    outcome = run(TB_HOST="https://no.invalid", HTTPS_PROXY="http://127.0.0.1:1", NO_PROXY=".invalid")
    assert outcome.check("name_resolution")["status"] == "fail"


def test_a_proxy_that_refuses_is_told(run: Runner) -> None:
    with Proxy("", status=407).tunnel() as proxy:
        status, said = run(TB_HOST="https://tb.test", HTTPS_PROXY=proxy).said("tls")
    assert status == "fail"
    assert "HTTPS_PROXY" in said


# Live data


def test_a_point_is_seen_to_come_and_the_socket_is_closed(run: Runner, thingsboard: ThingsBoard) -> None:
    outcome = run(TB_HOST=thingsboard.url)
    assert outcome.said("live")[0] == "pass"
    assert re.match(r"a point was told \d+ ms after", outcome.check("live")["message"])
    assert thingsboard.sockets_closed == 1


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            Reply(200, {}),
            "handshake was refused (200) | A proxy in front of ThingsBoard must pass WebSockets",
        ),
        (Reply(400), "refused (400) | A proxy"),
        (Reply(302, None, {"Location": "http://127.0.0.1:1/api/ws"}), "refused (302)"),
        (Reply(502), "headers Upgrade and Connection"),
    ],
)
def test_a_refused_handshake_is_told(run: Runner, thingsboard: ThingsBoard, reply: Reply, words: str) -> None:
    thingsboard.replies["GET /api/ws"] = reply
    outcome = run(TB_HOST=thingsboard.url)
    status, said = outcome.said("live")
    assert (outcome.code, status) == (1, "fail")
    assert words in said
    assert list(thingsboard.devices) == [DEVICE]


ANSWER = {"subscriptionId": 2, "errorCode": 0, "errorMsg": None, "data": {}, "latestValues": {}}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda wire: wire.close(1007), "refused the token on its WebSocket | The token was refused: all"),
        (lambda wire: wire.close(1008), "closed for a limit (1008) | The tenant profile"),
        (lambda wire: wire.close(1011), "was closed (1011) | See ThingsBoard's log"),
        (lambda wire: wire.connection.shutdown(socket.SHUT_RDWR), "was closed without a word"),
        (lambda wire: wire.send(b"welcome"), "none of ThingsBoard's"),
        (lambda wire: wire.send(ANSWER | {"errorCode": 1}), "refused the subscription"),
        (lambda wire: None, "open, but silent for 1 s"),
        (lambda wire: wire.send(ANSWER), "stored, but not told within 1 s"),
    ],
)
def test_faults_of_the_socket_are_told(
    run: Runner, thingsboard: ThingsBoard, fault: Callable[[Wire], None], words: str
) -> None:
    left = threading.Event()

    def talk(wire: Wire) -> None:
        frames = wire.frames()
        next(frames)
        fault(wire)
        with suppress(OSError):
            list(frames)
        left.set()

    thingsboard.replies["GET /api/ws"] = Reply(talk=talk)
    outcome = run("--timeout", "1", TB_HOST=thingsboard.url)
    status, said = outcome.said("live")
    assert (outcome.code, status) == (1, "fail")
    assert words in said
    assert PASSWORD not in outcome.out
    assert left.wait(30)
    assert list(thingsboard.devices) == [DEVICE]


def test_a_handshake_that_is_not_answered_is_told(run: Runner, thingsboard: ThingsBoard) -> None:
    thingsboard.replies["GET /api/ws"] = thingsboard.never
    status, said = run("--timeout", "1", TB_HOST=thingsboard.url).said("live")
    assert status == "fail"
    assert "no answer to the WebSocket handshake within 1 s" in said


def test_missing_websockets_is_a_skip_with_a_hint(
    run: Runner, thingsboard: ThingsBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "websockets.sync.client", None)
    outcome = run(TB_HOST=thingsboard.url)
    status, said = outcome.said("live")
    assert (outcome.code, status) == (0, "skip")
    assert "pip install 'websockets" in said


def test_a_proxy_that_refuses_tunnels_is_told(run: Runner) -> None:
    """Plain requests go through such a proxy without CONNECT; the WebSocket cannot."""
    stub = ThingsBoard()
    with stub.serve():
        outcome = run(TB_HOST="http://tb.test", HTTP_PROXY=stub.url)
    assert outcome.check("telemetry")["status"] == "pass"
    status, said = outcome.said("live")
    assert status == "fail"
    assert "opens no way for a WebSocket | It must allow CONNECT" in said


def with_stream(gateway: Gateway, reply: Reply | Route) -> None:
    def answer(request: Request) -> Reply:
        if not request.path.endswith("/telemetry/stream"):
            return gateway.route(request)
        return reply if isinstance(reply, Reply) else reply(request)

    gateway.replies["GET /api/v1/tb/devices/"] = answer


def buffered(gateway: Gateway) -> Iterator[bytes]:
    yield b""
    gateway.gate.wait()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda gateway: Reply(403), "answered 403 | The key lacks a scope"),
        (lambda gateway: Reply(404), "answered 404"),
        (lambda gateway: page(), "no event stream"),
        (lambda gateway: gateway.never, "did not begin within 1 s | A proxy that buffers"),
        (
            lambda gateway: Reply(200, None, EVENTS, stream=buffered(gateway)),
            "no event came within 1 s | A proxy",
        ),
        (lambda gateway: Reply(200, None, EVENTS, stream=iter([b": heartbeat\n\n"])), "stream ended before"),
    ],
)
def test_faults_of_the_event_stream_are_told(
    run: Runner, both: tuple[ThingsBoard, Gateway], fault: Callable[[Gateway], Reply | Route], words: str
) -> None:
    thingsboard, gateway = both
    with_stream(gateway, fault(gateway))
    arguments = ("--timeout", "1", "--gateway", gateway.url, "--key", GATEWAY_KEY)
    outcome = run(*arguments, TB_HOST=thingsboard.url)
    status, said = outcome.said("gateway_stream")
    assert (outcome.code, status) == (1, "fail")
    assert words in said
    assert list(thingsboard.devices) == [DEVICE]


# The gateway


def test_the_gateway_is_checked_too(run: Runner, thingsboard: ThingsBoard, gateway: Gateway) -> None:
    gateway.ready["redis"] = {"status": "disabled"}
    outcome = run("--gateway", gateway.url, "--key", GATEWAY_KEY, TB_HOST=thingsboard.url)
    assert outcome.code == 0
    assert outcome.report["summary"]["passed"] == 27
    assert outcome.check("gateway_ready")["message"] == "configuration ok, thingsboard ok, redis disabled"
    assert outcome.check("gateway_whoami")["message"] == "scopes: devices:read, telemetry:write"
    assert [check["name"] for check in outcome.report["checks"]][-1] == "clean_up"
    assert list(thingsboard.devices) == [DEVICE]
    upload = next(request for request in gateway.requests if request.method == "POST")
    assert upload.body["temperature"][0]["value"] == 25.6


@pytest.mark.parametrize("name", ["GATEWAY_API_KEY", "API_KEY"])
def test_the_key_may_come_from_the_environment(
    run: Runner, thingsboard: ThingsBoard, gateway: Gateway, name: str
) -> None:
    assert run("--gateway", gateway.url, TB_HOST=thingsboard.url, **{name: GATEWAY_KEY}).code == 0


def test_a_missing_key_fails_and_spares_the_rest(
    run: Runner, thingsboard: ThingsBoard, gateway: Gateway
) -> None:
    outcome = run("--gateway", gateway.url, TB_HOST=thingsboard.url)
    assert outcome.code == 1
    assert "GATEWAY_API_KEY" in outcome.said("gateway_devices")[1]
    assert outcome.check("gateway_no_key")["status"] == "pass"


def test_a_gateway_that_is_not_there_is_told(run: Runner, thingsboard: ThingsBoard) -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    status, said = run("--gateway", url, "--key", GATEWAY_KEY, TB_HOST=thingsboard.url).said("gateway_live")
    assert status == "fail"
    assert "refused" in said
    assert "container" in said


def test_the_gateway_is_checked_although_thingsboard_is_down(run: Runner, gateway: Gateway) -> None:
    env = {"TB_HOST": f"http://127.0.0.1:{unused_port()}", "GATEWAY_API_KEY": GATEWAY_KEY}
    outcome = run("--gateway", gateway.url, **env)
    assert outcome.check("gateway_devices")["status"] == "pass"
    assert outcome.check("gateway_telemetry")["status"] == "skip"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not know this key"),
        (403, "lacks a scope"),
        (429, "RATE_LIMIT_REQUESTS"),
        (500, "its log"),
        (502, "login there"),
        (503, "cannot reach ThingsBoard"),
        (504, "too slow for the gateway"),
        (418, "server's log"),
    ],
)
def test_what_the_gateway_answers_is_explained(
    run: Runner, thingsboard: ThingsBoard, gateway: Gateway, status: int, words: str
) -> None:
    def refuse(request: Request) -> Reply:
        if request.headers.get("x-api-key") == GATEWAY_KEY:
            return gateway.refuse(status, "X")
        return gateway.route(request)

    gateway.replies["GET /api/v1/tb/devices"] = refuse
    outcome = run("--gateway", gateway.url, "--key", GATEWAY_KEY, TB_HOST=thingsboard.url)
    found, said = outcome.said("gateway_devices")
    assert (outcome.code, found) == (1, "fail")
    assert words in said


@pytest.mark.parametrize(
    ("check", "fault", "words"),
    [
        ("gateway_live", {"GET /health/live": page()}, "not as the gateway does"),
        ("gateway_live", {"GET /health/live": Reply(502)}, "no usable answer"),
        ("gateway_ready", {"GET /health/ready": Reply(503, {"checks": {"keys": "failed"}})}, "keys failed"),
        ("gateway_ready", {"GET /health/ready": Reply(200, {"checks": {"redis": "down"}})}, "about redis"),
        ("gateway_ready", {"GET /health/ready": Reply(200, {"checks": {"x": "a-B?/"}})}, "x unclear"),
        ("gateway_no_key", {"GET /api/v1/tb/devices": Reply(200, {})}, "let a stranger in"),
        ("gateway_no_key", {"GET /api/v1/tb/devices": Reply(429)}, "Too many requests or failed keys"),
        (
            "gateway_wrong_key",
            {"GET /api/v1/tb/devices": Reply(401, {"detail": "no"})},
            "not in the gateway's form",
        ),
        ("gateway_whoami", {"GET /api/v1/tb/whoami": Reply(404)}, "404"),
        ("gateway_telemetry", {"POST /api/v1/tb/devices/": Reply(404)}, "may not see the device"),
        ("gateway_telemetry", {"POST /api/v1/tb/devices/": Reply(201)}, "did not come back"),
        ("gateway_rpc", {"POST /api/v1/tb/devices/": Reply(502)}, "no usable answer"),
        ("gateway_rpc", {"POST /api/v1/tb/devices/": Reply(200, {"outcome": "answered"})}, "not there"),
    ],
)
def test_gateway_faults_are_told(
    run: Runner, both: tuple[ThingsBoard, Gateway], check: str, fault: dict[str, Reply], words: str
) -> None:
    thingsboard, gateway = both
    gateway.replies |= fault
    outcome = run("--gateway", gateway.url, "--key", GATEWAY_KEY, TB_HOST=thingsboard.url)
    status, said = outcome.said(check)
    assert status in {"fail", "warn"}
    assert words in said
    assert list(thingsboard.devices) == [DEVICE]


@pytest.mark.parametrize("lost", ["X-RateLimit-Limit", "X-Frame-Options", "Referrer-Policy"])
def test_a_lost_header_is_told(run: Runner, both: tuple[ThingsBoard, Gateway], lost: str) -> None:
    thingsboard, gateway = both
    del gateway.headers[lost]
    outcome = run("--gateway", gateway.url, "--key", GATEWAY_KEY, TB_HOST=thingsboard.url)
    status, said = outcome.said("gateway_headers")
    assert (outcome.code, status) == (1, "fail")
    assert f"missing headers: {lost}" in said


def test_the_key_never_goes_to_an_unverified_gateway(
    run: Runner, thingsboard: ThingsBoard, certificates: Path
) -> None:
    with tls_thingsboard(certificates, "self") as stub:
        env = {"TB_HOST": thingsboard.url, "GATEWAY_API_KEY": GATEWAY_KEY, "TB_VERIFY_TLS": "false"}
        status, said = run("--gateway", stub.url, **env).said("gateway_live")
        assert not stub.requests
    assert status == "fail"
    assert "TB_CA_FILE" in said


# Against the simulator, which plays the recorded answers of a real ThingsBoard


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest.mark.parametrize(
    ("account", "arguments", "code", "statuses"),
    [
        ("tenant", [], 0, {"pass"}),
        ("tenant", ["--device", "Thermostat T1"], 0, {"pass"}),
        ("customer", [], 0, {"pass", "skip"}),
        ("customer", ["--device", "Test Device A1"], 0, {"pass"}),
        ("sysadmin", [], 1, {"pass", "fail", "skip"}),
    ],
)
async def test_the_simulator_is_found_well(
    simulator: Simulator, account: str, arguments: list[str], code: int, statuses: set[str]
) -> None:
    env = {"TB_HOST": simulator.url, "TB_USERNAME": f"{account}@thingsboard.org", "TB_PASSWORD": account}
    done = await asyncio.to_thread(program, "--json", *arguments, **env)
    assert (done.returncode, done.stderr) == (code, b""), done.stdout
    assert {check["status"] for check in json.loads(done.stdout)["checks"]} == statuses
    removed = [call for call in simulator.calls.elements() if call.startswith("DELETE /api/device/")]
    assert len(removed) == simulator.calls["POST /api/device"] == ((account, arguments) == ("tenant", []))


async def test_the_gateway_before_the_simulator_is_found_well(
    simulator: Simulator, make_settings: SettingsFactory
) -> None:
    async with serve(create_app(make_settings())) as url:
        env = {"TB_HOST": simulator.url, "TB_PASSWORD": "tenant", "GATEWAY_API_KEY": API_KEY}
        done = await asyncio.to_thread(program, "--json", "--gateway", url, **env)
    found = {check["name"]: check["status"] for check in json.loads(done.stdout)["checks"]}
    assert (found["live"], found["gateway_stream"]) == ("pass", "pass"), done.stdout
    assert done.stderr == b""


UNLUCKY = """
import runpy, secrets, sys
secrets.token_hex = lambda _: "12345678"
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


async def test_a_token_of_digits_only_is_no_fault(simulator: Simulator) -> None:
    env = {"TB_HOST": simulator.url, "TB_PASSWORD": "tenant"}
    done = await asyncio.to_thread(program, "--json", python=("-c", UNLUCKY), **env)
    assert (done.returncode, done.stderr) == (0, b""), done.stdout


# As a program


def environment(**values: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not VARIABLES.match(name)}
    return kept | {"TB_USERNAME": "tenant@thingsboard.org", "TB_PASSWORD": PASSWORD} | values


def program(*arguments: str, python: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, *python, str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment(**env), capture_output=True, check=False, timeout=60)


def test_it_is_a_program(thingsboard: ThingsBoard) -> None:
    done = program(TB_HOST=thingsboard.url, PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "🎉 ALL TESTS PASSED!" in done.stdout.decode()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_terminal_without_unicode_gets_words(thingsboard: ThingsBoard, encoding: str) -> None:
    done = program("--device", "küche ☃", TB_HOST=thingsboard.url, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"[ OK ] Login: TENANT_ADMIN by password" in done.stdout
    assert b"[FAIL] Device for the check" in done.stdout
    assert b"   hint: " in done.stdout


def test_missing_httpx_is_a_friendly_message() -> None:
    done = program(python=("-S",), TB_HOST="http://127.0.0.1:1", PYTHONIOENCODING="utf-8", PYTHONPATH="")
    assert done.returncode == 2
    assert "pip install httpx" in done.stdout.decode()
    assert b"Traceback" not in done.stderr


def test_it_imports_nothing_of_the_gateway() -> None:
    ours = "{'app', 'tb_simulator'}"
    code = f"import sys, tb_connection_check; print([m for m in sys.modules if m.split('.')[0] in {ours}])"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["POST /api/device", "POST /api/plugins"])
def test_an_interrupted_run_cleans_up(thingsboard: ThingsBoard, moment: str, number: signal.Signals) -> None:
    """Interrupted while the device is made (its answer is never seen), or while data are written."""
    started = threading.Event()

    def interrupt(request: Request) -> Reply:
        thingsboard.route(request)
        started.wait()
        process.send_signal(number)
        thingsboard.gate.wait(30)
        return Reply(503)

    thingsboard.replies[moment] = interrupt
    env = environment(TB_HOST=thingsboard.url)
    command = [sys.executable, str(SCRIPT), "--json"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        started.set()
        out, err = process.communicate(timeout=60)
    thingsboard.gate.set()
    assert process.returncode == 130
    assert err == b""
    assert json.loads(out)["ok"] is False
    assert list(thingsboard.devices) == [DEVICE]


def test_a_reader_that_leaves_early_does_not_keep_the_device(thingsboard: ThingsBoard) -> None:
    env = environment(TB_HOST=thingsboard.url, PYTHONIOENCODING="utf-8")
    command = [sys.executable, str(SCRIPT)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert list(thingsboard.devices) == [DEVICE]


# Secrets


def test_no_secret_and_no_upstream_text_is_ever_printed(
    run: Runner, thingsboard: ThingsBoard, gateway: Gateway
) -> None:
    """Every answer of both servers holds all that must not be seen."""
    seen: list[str] = []

    def leak(request: Request) -> Reply:
        secrets = [PASSWORD, GATEWAY_KEY, TB_KEY, *thingsboard.tokens]
        seen.append(request.path)
        text = " ".join(secrets) + " at org.thingsboard.server.dao.Leaky(Leaky.java:42)"
        return Reply(
            500, {"message": text, "checks": {"a": text, text: "b"}, "scopes": [text], "status": text}
        )

    said = ""
    for mode in (True, False):
        for prefix in (
            "POST /api/auth/token",
            "GET /api/tenant",
            "POST /api/device",
            "POST /api/plugins",
            "GET /",
        ):
            thingsboard.replies = {prefix: leak} if prefix != "GET /" else {}
            gateway.replies = {prefix: leak}
            env = {"TB_HOST": thingsboard.url, "GATEWAY_API_KEY": GATEWAY_KEY}
            outcome = run("--gateway", gateway.url, json=mode, **env)
            said += outcome.out + outcome.err
    assert len(seen) >= 10
    assert PASSWORD not in said
    assert GATEWAY_KEY not in said
    assert TB_KEY not in said
    assert not [token for token in thingsboard.tokens if token in said]
    assert "org.thingsboard" not in said
    assert "eyJ" not in said


def test_a_short_reason_of_the_server_is_shown(run: Runner, thingsboard: ThingsBoard) -> None:
    reason = "Relax\x1b[31m \n" + "please " * 30
    thingsboard.replies["POST /api/plugins"] = failure(400, reason, 31)
    said = run(TB_HOST=thingsboard.url, json=False).out
    assert '400, "Relax [31m please' in said
    assert "\x1b" not in said
    assert "please " * 12 not in said


def test_a_stream_without_an_encoding_gets_words(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    assert tb_connection_check.main([]) == 2
    assert "[FAIL] Configuration: TB_HOST is not set" in stream.getvalue()
