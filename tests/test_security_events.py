"""What the log tells of refusals: each event once, with who, from where, which request and which route.

`docs/security.md` shows one line of each; the lines are compared with what is really written.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.context import CURRENT, KEY, RequestContext
from app.keys import store
from app.middleware.error_sanitiser import ErrorSanitiser
from app.middleware.request_id import RequestId
from app.security_events import MOST_SUBJECTS, SecurityLog, note_denied_object, note_once
from app.services.restricted import NOBODY
from tests.conftest import API_KEY, GatewayFactory
from tests.restrictions.conftest import house, keys
from tests.restrictions.world import BASE, MISSING, House, secret_of, write_keys
from tests.serving import serve

__all__ = ["house", "keys"]

PAGE = Path(__file__).resolve().parent.parent / "docs/security.md"
WHOAMI = f"{BASE}/whoami"
REQUEST_ID = "request-0001"
SHARED = {"event", "level", "timestamp", "key_id", "client", "request_id", "method", "route"}
OFF = "a-key-that-is-switched-off"
READER = "a-key-that-may-read-only"

Told = Callable[[], list[dict[str, Any]]]


def examples() -> dict[str, dict[str, Any]]:
    """Return the example lines of the page, by event."""
    blocks = re.findall(r"```jsonl\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [json.loads(line) for block in blocks for line in block.splitlines()]
    return {line["event"]: line for line in lines}


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Iterator[Told]:
    """Return the events since the last call, each with the fields that the page shows, none with a secret."""
    capsys.readouterr()
    shown = examples()

    def read() -> list[dict[str, Any]]:
        text = capsys.readouterr().out
        for secret in (API_KEY, OFF, READER, "nobodys-key", "secret-of-the-key", "eyJ"):
            assert secret not in text
        lines = [json.loads(line) for line in text.splitlines()]
        events = [line for line in lines if line["event"] in shown]
        for event in events:
            assert set(event) == set(shown[event["event"]]), event
        return events

    return read


@pytest.fixture
def gateway(make_gateway: GatewayFactory, tmp_path: Path) -> httpx.AsyncClient:
    """A gateway with a key that reads devices and one that is switched off."""
    path = tmp_path / "keys.toml"
    entries = [("reader", READER, ""), ("off", OFF, "disabled = true\n")]
    path.write_text(
        "".join(
            f'[[keys]]\nname = "{name}"\nid = "{name}"\nscopes = ["devices:read"]\n'
            f'sha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n{more}'
            for name, secret, more in entries
        )
    )
    client: httpx.AsyncClient = make_gateway(
        key=READER, api_key=None, api_keys_file=path, rate_limit_requests=3, rate_limit_window=60
    )
    client.headers["X-Request-ID"] = REQUEST_ID
    return client


def shared(event: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(event[name] for name in ("key_id", "client", "request_id", "method", "route"))


async def test_a_key_that_nobody_has(gateway: httpx.AsyncClient, told: Told) -> None:
    answer = await gateway.get(
        f"{BASE}/devices/name:secret place", headers={"X-API-Key": "nobodys-key-0123456789"}
    )
    assert answer.status_code == 401
    (event,) = told()
    assert (event["event"], event["level"], event["reason"]) == ("unknown_key", "warning", "unknown")
    assert shared(event) == (None, "127.0.0.1", REQUEST_ID, "GET", f"{BASE}/devices/{{device_id}}")


async def test_a_key_that_is_refused(gateway: httpx.AsyncClient, told: Told) -> None:
    assert (await gateway.get(WHOAMI, headers={"X-API-Key": OFF})).status_code == 401
    (event,) = told()
    assert (event["event"], event["reason"]) == ("key_refused", "disabled")
    assert shared(event) == ("off", "127.0.0.1", REQUEST_ID, "GET", WHOAMI)


@pytest.mark.parametrize(
    ("method", "path", "route", "missing"),
    [
        ("GET", "/assets", "/assets", ["assets:read"]),
        ("GET", "/devices/name:a place/credentials", "/devices/{device_id}/credentials", None),
        ("POST", "/devices", "/devices", ["devices:write"]),
        ("DELETE", f"/devices/{MISSING}", "/devices/{device_id}", ["devices:write"]),
    ],
    ids=["direct", "name in the path", "with a body", "delete"],
)
async def test_a_scope_that_is_missing(
    gateway: httpx.AsyncClient, told: Told, method: str, path: str, route: str, missing: list[str] | None
) -> None:
    answer = await gateway.request(method, BASE + path)
    assert answer.status_code == 403
    (event,) = told()
    assert (event["event"], event["missing_scopes"]) == ("scope_denied", missing or ["devices:credentials"])
    assert shared(event) == ("reader", "127.0.0.1", REQUEST_ID, method, BASE + route)


async def test_an_allowed_request_is_no_event(gateway: httpx.AsyncClient, told: Told) -> None:
    assert (await gateway.get(f"{BASE}/devices")).status_code == 200
    assert (await gateway.get("/health")).status_code == 200
    assert (await gateway.get(f"{BASE}/nowhere")).status_code == 404
    assert told() == []


class TestObjects:
    """A restricted key and what it may not see."""

    async def test_hidden_and_missing_objects_are_told_alike(
        self, house: House, keys: SimpleNamespace, told: Told
    ) -> None:
        for device_id in (house.meter, MISSING):
            answer = await keys.types_of_customer.get(f"{BASE}/devices/{device_id}/keys")
            assert answer.status_code == (404 if device_id == MISSING else 200)
            answer = await keys.customer.get(
                f"{BASE}/devices/{device_id}/keys", headers={"X-Request-ID": REQUEST_ID}
            )
            assert answer.status_code == 404
        first, second, third = told()
        assert second["key_id"] == "types_of_customer"
        for event, device_id in ((first, house.meter), (third, MISSING)):
            assert (event["event"], event["entity_type"]) == ("object_denied", "DEVICE")
            assert (event["entity_id"], event["others"]) == (device_id, 0)
            route = f"{BASE}/devices/{{device_id}}/keys"
            assert shared(event) == ("customer", "127.0.0.1", REQUEST_ID, "GET", route)

    async def test_an_own_object_and_lists_are_no_event(
        self, house: House, keys: SimpleNamespace, told: Told
    ) -> None:
        assert (await keys.devices.get(f"{BASE}/devices/{house.lamp}")).status_code == 200
        assert (await keys.asset.get(f"{BASE}/graph/{house.building}?root_type=ASSET")).status_code == 200
        assert (await keys.customer.get(f"{BASE}/devices")).status_code == 200
        # A key without restrictions is refused nothing: what it misses is just not there.
        assert (await keys.free.get(f"{BASE}/devices/{MISSING}")).status_code == 404
        assert told() == []

    @pytest.mark.parametrize("types", ["strict", "inferred"])
    async def test_many_objects_of_one_request_are_one_event(
        self, house: House, keys: SimpleNamespace, told: Told, types: str
    ) -> None:
        ids = [house.lamp, house.meter, house.spare, MISSING]
        body = {"device_ids": ids, "keys": ["temperature"], "types": types}
        answer = await keys.devices.post(f"{BASE}/telemetry/latest", json=body)
        assert sorted(answer.json()["errors"]) == sorted(ids[1:])
        (event,) = told()
        assert event["entity_id"] in ids[1:]
        assert (event["others"], event["route"]) == (2, f"{BASE}/telemetry/latest")

    async def test_bulk_uploads_are_one_event(self, house: House, keys: SimpleNamespace, told: Told) -> None:
        body = {each: {"temperature": [{"ts": 1, "value": 1}]} for each in (house.lamp, house.meter, MISSING)}
        assert (await keys.devices.post(f"{BASE}/telemetry/bulk", json=body)).status_code == 207
        (event,) = told()
        assert (event["event"], event["others"]) == ("object_denied", 1)

    async def test_streamed_uploads_are_told_when_they_end(
        self, house: House, keys: SimpleNamespace, told: Told
    ) -> None:
        lines = [
            json.dumps({"device_id": each, "ts": 1_700_000_000_000, "values": {"temperature": 1}})
            for each in (house.meter, house.spare, MISSING)
        ]
        headers = {"Content-Type": "application/x-ndjson", "Accept": "application/x-ndjson"}
        answer = await keys.devices.post(f"{BASE}/telemetry/bulk", content="\n".join(lines), headers=headers)
        assert answer.status_code == 200
        events = told()
        assert sum(1 + event["others"] for event in events) == 3
        assert len(events) <= 2

    async def test_names_writes_and_relations(self, house: House, keys: SimpleNamespace, told: Told) -> None:
        ends = {
            "from": {"id": house.building, "entity_type": "ASSET"},
            "to": {"id": house.spare, "entity_type": "DEVICE"},
            "type": "Contains",
        }
        answers = [
            await keys.devices.get(f"{BASE}/devices/name:meter"),
            await keys.devices.get(f"{BASE}/devices/name:nobody has this name"),
            await keys.customer.get(f"{BASE}/assets/{house.shed}"),
            await keys.devices.post(f"{BASE}/devices", json={"name": "new"}),
            await keys.asset.post(f"{BASE}/relations", json=ends),
        ]
        assert [answer.status_code for answer in answers] == [404, 404, 404, 403, 404]
        assert [(event["entity_type"], event["entity_id"]) for event in told()] == [
            ("DEVICE", house.meter),
            ("DEVICE", NOBODY),
            ("ASSET", house.shed),
            ("DEVICE", None),
            ("DEVICE", house.spare),
        ]

    async def test_concurrent_requests_are_told_apart(
        self, house: House, keys: SimpleNamespace, told: Told
    ) -> None:
        """They share connections, look-ups and the restricted client."""
        async with serve(keys.app) as url, httpx.AsyncClient(base_url=url) as client:
            for number in range(20):
                name, device = ("devices", house.meter) if number % 2 else ("asset", house.spare)
                headers = {"X-API-Key": secret_of(name), "X-Request-ID": f"number-{number}"}
                answer = await client.get(f"{BASE}/devices/{device}/keys", headers=headers)
                assert answer.status_code == 404
            answer = await client.get(f"{BASE}/devices", headers={"X-API-Key": secret_of("free")})
            assert answer.status_code == 200
        events = told()
        assert [event["request_id"] for event in events] == [f"number-{number}" for number in range(20)]
        assert [event["key_id"] for event in events] == ["asset", "devices"] * 10

    async def test_a_websocket_that_lasts_tells_at_once(self, told: Told) -> None:
        seen: list[list[str]] = []

        async def subscriptions(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            for device_id in (MISSING, MISSING):
                note_denied_object("DEVICE", device_id)
                await send({"type": "websocket.send", "text": "refused"})

        async def sent(message: Message) -> None:
            seen.append([event["event"] for event in told()])

        async def nothing() -> Message:
            raise AssertionError

        stage = RequestId(ErrorSanitiser(subscriptions, security_log=SecurityLog(lambda _: "/ws")))
        await stage({"type": "websocket", "headers": [], "path": "/ws"}, nothing, sent)
        assert seen == [[], ["object_denied"], ["object_denied"]]


class TestLimits:
    """Whose limit, and not a line for each refusal."""

    async def test_one_line_for_a_flood(self, gateway: httpx.AsyncClient, told: Told) -> None:
        answers = [(await gateway.get(f"{BASE}/devices/name:a place")).status_code for _ in range(9)]
        assert answers == [404] * 3 + [429] * 6
        (event,) = told()
        assert (event["event"], event["counted_by"]) == ("limit_reached", "address")
        assert (event["limit"], event["window_seconds"], event["not_logged"]) == (3, 60, 0)
        assert shared(event) == ("reader", "127.0.0.1", REQUEST_ID, "GET", f"{BASE}/devices/{{device_id}}")

    async def test_one_line_for_a_flood_of_bad_keys(self, gateway: httpx.AsyncClient, told: Told) -> None:
        bad = {"X-API-Key": "nobodys-key-0123456789"}
        statuses = [(await gateway.get(WHOAMI, headers=bad)).status_code for _ in range(30)]
        assert statuses == [401] * 20 + [429] * 10
        *failed, limit = told()
        assert [event["event"] for event in failed] == ["unknown_key"] * 20
        assert (limit["event"], limit["counted_by"]) == ("limit_reached", "failed-keys")
        assert (limit["key_id"], limit["limit"]) == (None, 20)
        # The use of a key that was taken away is not hidden by such a flood.
        for _ in range(2):
            assert (await gateway.get(WHOAMI, headers={"X-API-Key": OFF})).status_code == 429
        (event,) = told()
        assert (event["event"], event["key_id"]) == ("limit_reached", "off")

    async def test_a_limit_of_the_key_and_of_its_devices(
        self, house: House, make_gateway: GatewayFactory, tmp_path: Path, told: Told
    ) -> None:
        path = write_keys(tmp_path / "keys.toml", [("own", ["*"], {"rate_limit": "5/minute"})])
        client = make_gateway(
            key=secret_of("own"), api_key=None, api_keys_file=path, rate_limit_bulk_cost="devices"
        )
        body = {"device_ids": [house.lamp, house.meter, house.spare], "keys": ["temperature"]}
        statuses = [(await client.post(f"{BASE}/telemetry/latest", json=body)).status_code for _ in range(3)]
        assert statuses == [200, 429, 429]
        (event,) = told()
        assert (event["counted_by"], event["key_id"], event["limit"]) == ("key", "own", 5)
        assert event["route"] == f"{BASE}/telemetry/latest"

    async def test_a_streamed_upload_beyond_the_limit(
        self, house: House, make_gateway: GatewayFactory, tmp_path: Path, told: Told
    ) -> None:
        path = write_keys(tmp_path / "keys.toml", [("own", ["*"], {"rate_limit": "2/minute"})])
        client = make_gateway(
            key=secret_of("own"), api_key=None, api_keys_file=path, rate_limit_bulk_cost="devices"
        )
        lines = "\n".join(
            json.dumps({"device_id": each, "ts": 1_700_000_000_000, "values": {"temperature": 1}})
            for each in (house.lamp, house.meter, house.spare)
        )
        answer = await client.post(
            f"{BASE}/telemetry/bulk", content=lines, headers={"Content-Type": "application/x-ndjson"}
        )
        assert answer.json()["summary"]["failed_devices"] == 1
        assert [event["event"] for event in told()] == ["limit_reached"]


async def test_credentials_that_were_read(make_gateway: GatewayFactory, told: Told) -> None:
    client: httpx.AsyncClient = make_gateway()
    (device, *_) = (await client.get(f"{BASE}/devices")).json()["data"]
    device_id = device["id"]["id"]
    answer = await client.get(
        f"{BASE}/devices/name:{device['name']}/credentials", headers={"X-Request-ID": REQUEST_ID}
    )
    assert answer.status_code == 200
    secret = answer.json()["data"]["credentialsId"]
    (event,) = told()
    assert secret not in json.dumps(event)
    assert (event["event"], event["device_id"]) == ("credentials_read", device_id)
    assert shared(event) == (
        "default", "127.0.0.1", REQUEST_ID, "GET", f"{BASE}/devices/{{device_id}}/credentials"
    )  # fmt: skip


async def test_keys_that_changed(
    gateway: httpx.AsyncClient, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SETTLE_SECONDS", 0.0)
    held = gateway.app.state.keys  # type: ignore[attr-defined]  # the fixture's own
    text = held.path.read_text()
    for changed in ("[[keys]]\nname = ", text.replace("disabled = true", "disabled = false")):
        held.path.write_text(changed)
        await held.poll(held.path)
    broken, reloaded = told()
    assert (broken["event"], broken["level"], broken["keys_in_use"]) == ("keys_file_broken", "error", 2)
    assert (reloaded["event"], reloaded["changed"]) == ("keys_reloaded", ["off"])


def test_the_page_shows_every_event() -> None:
    source = "\n".join(path.read_text() for path in (PAGE.parent.parent / "app").rglob("*.py"))
    names = set(re.findall(r'\bnote(?:_once)?\(\s*"(\w+)"', source)) | set(
        re.findall(r'\blog\.(?:info|error)\(\s*"(keys_\w+)"', source)
    )
    names |= {"unknown_key", "key_refused", "object_denied"}
    assert set(examples()) == names
    for name, line in examples().items():
        assert name.startswith("keys_") or set(line) >= SHARED, name


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Request-ID": 'two\\n{"event":"keys_reloaded"}'},
        {"X-Request-ID": "a" * 5_000},
        {"X-Forwarded-For": '198.51.100.1", "event": "keys_reloaded'},
        {"X-Forwarded-For": "::ffff:127.0.0.1%" + "x" * 5_000},
        {"X-API-Key": 'x"\\r\\n{"event":"keys_reloaded"}'},
    ],
    ids=["line in the id", "long id", "line in the address", "long zone", "line in the key"],
)
async def test_headers_cannot_write_into_the_log(
    make_gateway: GatewayFactory, told: Told, headers: dict[str, str]
) -> None:
    client = make_gateway(key="nobodys-key-0123456789", trusted_proxies="127.0.0.1")
    path = f"{BASE}/devices/name:%0A%7B%22event%22:%22keys_reloaded%22%7D{'x' * 3_000}"
    assert (await client.get(path, headers=headers)).status_code == 401
    (event,) = told()
    assert event["event"] == "unknown_key"
    assert (event["client"], event["route"]) == ("127.0.0.1", f"{BASE}/devices/{{device_id}}")
    assert re.fullmatch(r"[0-9a-f]{32}", event["request_id"])


class TestSeldom:
    """What is written once for many."""

    @staticmethod
    def line(log: SecurityLog, told: Told, subject: str, seconds: float = 60) -> list[int]:
        context = RequestContext("an-id")
        before = CURRENT.set(context)
        note_once("limit_reached", (subject,), seconds, counted_by="key", limit=1, window_seconds=60)
        CURRENT.reset(before)
        log.write({KEY: context})
        return [event["not_logged"] for event in told()]

    def test_the_next_line_says_how_many_were_left_out(self, told: Told) -> None:
        now = [0.0]
        log = SecurityLog(lambda _: None, clock=lambda: now[0])
        assert [self.line(log, told, "a") for _ in range(4)] == [[0], [], [], []]
        assert self.line(log, told, "b") == [0]
        now[0] = 59.9
        assert self.line(log, told, "a") == []
        now[0] = 60.0
        assert self.line(log, told, "a") == [4]
        now[0] = 120.0
        assert self.line(log, told, "a") == [0]

    def test_its_memory_is_bounded(self, told: Told) -> None:
        log = SecurityLog(lambda _: None, clock=lambda: 0.0)
        for number in range(MOST_SUBJECTS + 100):
            self.line(log, told, str(number))
        assert len(log._written) == MOST_SUBJECTS
        assert self.line(log, told, "0") == [0]
        assert self.line(log, told, str(MOST_SUBJECTS)) == []
