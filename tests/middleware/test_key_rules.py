"""When a known key counts, from where, and what is told on the wire and in the log when it does not."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.keys import store
from app.keys.entries import parse_moment
from app.keys.key_format import make_key
from app.times import ms_of
from tb_simulator.server import Simulator
from tests.conftest import GatewayFactory
from tests.serving import serve

WHOAMI = "/api/v1/tb/whoami"
GOOD = "good-key-0123456789"
UUID = "784f394c-42b6-435a-983c-b7beff2784f9"
GENERATED = make_key("gen")
MISTYPED = GENERATED[:-1] + ("A" if GENERATED[-1] != "A" else "B")
ORIGIN = "https://app.example.com"
#: Keys that do not count, by the reason that the log gives.
REFUSED = {
    "disabled": "disabled = true",
    "expired": "expires_at = 2020-01-01T00:00:00Z",
    "not_yet_valid": "not_before = 2999-01-01T00:00:00Z",
}
Keyed = Callable[..., httpx.AsyncClient]


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def table(name: str, secret: str, more: str = "") -> str:
    fields = f'name = "{name}"\nid = "{name}"\nscopes = ["devices:read"]\nsha256 = "{digest(secret)}"'
    return f"[[keys]]\n{fields}\n{more}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def rewrite(path: Path, *tables: str) -> None:
    path.write_text("".join(tables))


@pytest.fixture
def keyed(make_gateway: GatewayFactory, path: Path) -> Keyed:
    """A gateway with these entries and a plain good key: `keyed(table(...), peer=...)`."""

    def make(*tables: str, **overrides: Any) -> httpx.AsyncClient:
        path.write_text("".join([table("good", GOOD), *tables]))
        client: httpx.AsyncClient = make_gateway(
            **{"key": GOOD, "api_key": None, "api_keys_file": path, **overrides}
        )
        return client

    return make


def events(capsys: pytest.CaptureFixture[str], *names: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] in names]


async def test_all_keys_that_do_not_count_look_the_same_on_the_wire(
    keyed: Keyed, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "SETTLE_SECONDS", 0.0)
    rotated = (
        '[[keys]]\nname = "rotated"\nid = "rotated"\nscopes = ["*"]\nsecrets = ['
        f'{{sha256 = "{digest("old-secret-0123456789")}", expires_at = 2020-01-01T00:00:00Z}}]\n'
    )
    refused = [table(name, f"{name}-key-0123456789", more) for name, more in REFUSED.items()]
    gateway = keyed(*refused, rotated, table("revoked", "revoked-key-0123456789"))
    # Revoked: taken out of the file under the running gateway.
    rewrite(path, table("good", GOOD), *refused, rotated)
    await gateway.app.state.keys.poll(path)  # type: ignore[attr-defined]  # the fixture's own
    reasons = {
        **{f"{name}-key-0123456789": name for name in (*REFUSED, "revoked")},
        "old-secret-0123456789": "rotated",
        "nobodys-key-0123456789": "unknown",
        MISTYPED: "mistyped",
    }
    capsys.readouterr()
    answers = set()
    for key, reason in reasons.items():
        answer = await gateway.get(WHOAMI, headers={"X-API-Key": key, "X-Request-ID": "one-and-the-same"})
        assert answer.status_code == 401
        body = re.sub(rb'"timestamp":[0-9]{13}', b'"timestamp":0', answer.content)
        answers.add((body, tuple(sorted(answer.headers.items()))))
        (told,) = events(capsys, "unknown_key", "key_refused")
        is_nobodys = reason in {"unknown", "mistyped"}
        assert told["event"] == ("unknown_key" if is_nobodys else "key_refused")
        assert told["key_id"] == (None if is_nobodys else reason)
        assert (told["reason"], told["client"]) == (reason, "127.0.0.1")
        assert told["request_id"] == "one-and-the-same"
    assert len(answers) == 1
    assert gateway.app.state.keys.refused == dict.fromkeys(reasons.values(), 1)  # type: ignore[attr-defined]


async def test_known_keys_that_do_not_count_are_limited_like_unknown_ones(keyed: Keyed) -> None:
    gateway = keyed(table("off", "off-key-0123456789", "disabled = true"))
    headers = {"X-API-Key": "off-key-0123456789"}
    statuses = [(await gateway.get(WHOAMI, headers=headers)).status_code for _ in range(21)]
    assert statuses == [401] * 20 + [429]
    assert gateway.app.state.keys.refused == {"disabled": 21}  # type: ignore[attr-defined]
    assert (await gateway.get(WHOAMI)).status_code == 200


@pytest.mark.parametrize(
    "presented",
    [f"{GOOD},{GOOD}", f"{GOOD}, other", f"other, {GOOD}", f" {GOOD} x", f'"{GOOD}"', GOOD.upper()],
)
async def test_only_the_whole_key_counts(keyed: Keyed, presented: str) -> None:
    """Two headers that something on the way has joined hold two credentials: neither is chosen."""
    assert (await keyed().get(WHOAMI, headers={"X-API-Key": presented})).status_code == 401


class TestAddresses:
    """allowed_ips."""

    @pytest.mark.parametrize(
        ("peer", "expected"),
        [
            ("10.1.2.3", 200),
            ("::ffff:10.1.2.3", 200),
            ("2001:db8::7", 200),
            ("11.1.2.3", 403),
            ("2001:db8::8", 403),
            ("::a01:203", 403),
            ("", 403),
        ],
    )
    async def test_a_key_counts_from_its_networks_only(
        self, keyed: Keyed, peer: str, expected: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bound = table("bound", "bound-key-0123456789", 'allowed_ips = ["10.0.0.0/8", "2001:db8::7"]')
        gateway = keyed(bound, key="bound-key-0123456789", peer=peer)
        answer = await gateway.get(WHOAMI)
        assert answer.status_code == expected
        told = events(capsys, "key_refused")
        if expected == 200:
            assert told == []
            return
        assert answer.json()["error_code"] == "AUTHORIZATION_FAILED"
        assert answer.json()["details"] == {"rule": "allowed_ips"}
        assert "10.0.0.0" not in answer.text
        assert [(line["reason"], line["key_id"], line["client"]) for line in told] == [
            ("address_not_allowed", "bound", peer)
        ]

    async def test_behind_a_proxy_the_callers_own_address_counts(self, keyed: Keyed) -> None:
        bound = table("bound", "bound-key-0123456789", 'allowed_ips = ["203.0.113.5"]')
        gateway = keyed(bound, key="bound-key-0123456789", trusted_proxies="127.0.0.1")
        for forwarded, expected in (
            ("203.0.113.5", 200),
            ("198.51.100.1, 203.0.113.5", 200),
            ("203.0.113.5, 198.51.100.1", 403),
        ):
            answer = await gateway.get(WHOAMI, headers={"X-Forwarded-For": forwarded})
            assert answer.status_code == expected
        assert (await gateway.get(WHOAMI)).status_code == 403

    async def test_an_invented_address_does_not_count(self, keyed: Keyed) -> None:
        bound = table("bound", "bound-key-0123456789", 'allowed_ips = ["203.0.113.5"]')
        gateway = keyed(bound, key="bound-key-0123456789")
        assert (await gateway.get(WHOAMI, headers={"X-Forwarded-For": "203.0.113.5"})).status_code == 403


class TestOrigins:
    """allowed_origins."""

    @pytest.mark.parametrize(
        ("origins", "expected"),
        [
            ([], 200),
            ([ORIGIN], 200),
            (["https://evil.example"], 403),
            (["null"], 403),
            ([f"{ORIGIN}.evil.example"], 403),
            (["http://app.example.com"], 403),
            ([ORIGIN, "https://evil.example"], 403),
        ],
    )
    async def test_a_page_of_another_origin_is_refused(
        self, keyed: Keyed, origins: list[str], expected: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bound = table("bound", "bound-key-0123456789", f'allowed_origins = ["{ORIGIN}"]')
        gateway = keyed(bound, key=None)
        headers = [("X-API-Key", "bound-key-0123456789"), *(("Origin", origin) for origin in origins)]
        answer = await gateway.get(WHOAMI, headers=headers)
        assert answer.status_code == expected
        told = events(capsys, "key_refused")
        assert [line["reason"] for line in told] == ["origin_not_allowed"] * (expected == 403)
        if expected == 403:
            assert answer.json()["details"] == {"rule": "allowed_origins"}
            assert ORIGIN not in answer.text

    async def test_a_page_can_read_its_refusal(self, keyed: Keyed) -> None:
        bound = table("bound", "bound-key-0123456789", f'allowed_origins = ["{ORIGIN}"]')
        other = "https://other.example.com"
        gateway = keyed(bound, key="bound-key-0123456789", backend_cors_origins=f"{ORIGIN},{other}")
        answer = await gateway.get(WHOAMI, headers={"Origin": other})
        assert answer.status_code == 403
        assert answer.headers["access-control-allow-origin"] == other


class TestExpiry:
    """The header of the last two weeks."""

    def gateway_at(self, keyed: Keyed, now: str, **overrides: Any) -> httpx.AsyncClient:
        """A gateway whose keys believe it is this time; the key ends 2099-01-31T00:00:00.500Z."""
        ending = table("ending", "ending-key-0123456789", "expires_at = 2099-01-31T01:00:00.500+01:00")
        gateway = keyed(ending, key="ending-key-0123456789", **overrides)
        keys = gateway.app.state.keys  # type: ignore[attr-defined]  # the fixture's own
        keys.clock = lambda: ms_of(parse_moment(now))
        return gateway

    @pytest.mark.parametrize(
        ("now", "expected"),
        [
            ("2099-01-17T00:00:00.499Z", None),
            ("2099-01-17T00:00:00.500Z", "2099-01-31T00:00:00Z"),
            ("2099-01-31T00:00:00.499Z", "2099-01-31T00:00:00Z"),
        ],
    )
    async def test_it_comes_in_the_last_fourteen_days(
        self, keyed: Keyed, now: str, expected: str | None
    ) -> None:
        answer = await self.gateway_at(keyed, now).get(WHOAMI)
        assert answer.status_code == 200
        assert answer.headers.get("api-key-expires") == expected

    async def test_the_key_ends_to_the_millisecond(self, keyed: Keyed) -> None:
        answer = await self.gateway_at(keyed, "2099-01-31T00:00:00.500Z").get(WHOAMI)
        assert answer.status_code == 401
        assert "api-key-expires" not in answer.headers

    async def test_errors_carry_it_and_pages_may_read_it(self, keyed: Keyed) -> None:
        gateway = self.gateway_at(keyed, "2099-01-20T00:00:00Z", backend_cors_origins=ORIGIN)
        for target, status in (("/api/v1/tb/relations", 403), ("/api/v1/tb/nowhere", 404)):
            answer = await gateway.get(target, headers={"Origin": ORIGIN})
            assert answer.status_code == status
            assert answer.headers["api-key-expires"] == "2099-01-31T00:00:00Z"
            assert "API-Key-Expires" in answer.headers["access-control-expose-headers"]

    async def test_a_key_without_an_end_has_no_such_header(self, keyed: Keyed) -> None:
        assert "api-key-expires" not in (await keyed().get(WHOAMI)).headers


async def test_whoami_tells_what_the_key_is_limited_to(keyed: Keyed) -> None:
    limited = table(
        "limited",
        "limited-key-0123456789",
        f'device_types = ["b", "a"]\ncustomer = "{UUID}"\nmax_streams = 2\n'
        "expires_at = 2099-01-31T00:00:00Z\nallowed_ips = ['127.0.0.0/8']",
    )
    body = (await keyed(limited, key="limited-key-0123456789").get(WHOAMI)).json()
    assert body["restrictions"] == {
        "devices": None,
        "device_types": ["a", "b"],
        "customer": UUID,
        "asset": None,
    }
    assert body["limits"]["max_streams"] == 2
    assert body["expires_at"] == "2099-01-31T00:00:00Z"
    body = (await keyed(limited).get(WHOAMI)).json()
    assert (body["restrictions"], body["limits"]["max_streams"], body["expires_at"]) == (None, None, None)


@pytest.fixture
async def tapped(simulator: Simulator) -> AsyncIterator[tuple[str, bytearray]]:
    """The simulator's address behind a relay, and all bytes that went to it."""
    seen = bytearray()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, note: bool) -> None:
        try:
            while data := await reader.read(65_536):
                if note:
                    seen.extend(data)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = simulator.url.removeprefix("http://").partition(":")
        there = await asyncio.open_connection(host, int(port))
        both = (relay(reader, there[1], note=True), relay(there[0], writer, note=False))
        await asyncio.gather(*both, return_exceptions=True)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    server.close()


async def test_the_key_goes_no_further_than_the_gateway(
    make_gateway: GatewayFactory, tapped: tuple[str, bytearray]
) -> None:
    url, seen = tapped
    gateway = make_gateway(tb_host=url, api_key=GENERATED, key=GENERATED)
    device = "/api/v1/tb/devices/name:DHT11 Demo Device"
    points = {"a": [{"ts": 1_767_139_200_000, "value": 1}]}
    assert (await gateway.post(f"{device}/telemetry", json=points)).status_code == 201
    headers = {"Authorization": f"Bearer {GENERATED}", "X-Request-ID": "an-id-of-our-own"}
    for target in ("/api/v1/tb/devices?page_size=1", f"{device}/telemetry/latest", f"{device}/telemetry"):
        assert (await gateway.get(target, headers=headers)).status_code == 200
    assert seen.count(b"HTTP/1.1\r\n") >= 4
    assert GENERATED.encode() not in seen
    assert GENERATED.rpartition("_")[2].encode() not in seen
    assert digest(GENERATED).encode() not in seen
    assert b"x-api-key" not in seen.lower()
    await gateway.aclose()


class TestReadiness:
    """What /health/ready says of the keys."""

    async def test_a_broken_file_shows_and_drains_nobody(
        self, keyed: Keyed, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "SETTLE_SECONDS", 0.0)
        gateway = keyed()
        keys = gateway.app.state.keys  # type: ignore[attr-defined]  # the fixture's own
        good = (await gateway.get("/health/ready")).json()["checks"]["api_keys"]
        assert good == {"status": "up", "keys": 1, "since": keys.since}
        rewrite(path, "[[keys]]\nname = 'a secret'\n")
        await keys.poll(path)
        for query in ("", "?strict=1"):
            answer = await gateway.get(f"/health/ready{query}")
            assert answer.status_code == 200
            assert answer.json()["status"] == "success"
            stale = answer.json()["checks"]["api_keys"]
            assert stale == {"status": "stale", "keys": 1, "since": keys.since}
            assert "keys.toml" not in answer.text
        assert (await gateway.get(WHOAMI)).status_code == 200


async def test_a_served_gateway_follows_its_file(keyed: Keyed, path: Path) -> None:
    """The whole way: lifespan, watcher, stage."""
    app = keyed().app  # type: ignore[attr-defined]  # the fixture's own
    async with serve(app) as url, httpx.AsyncClient(base_url=url) as client:

        async def until(key: str, status: int) -> None:
            async with asyncio.timeout(30):
                while (await client.get(WHOAMI, headers={"X-API-Key": key})).status_code != status:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

        await until(GOOD, 200)
        rewrite(path, table("good", GOOD, "disabled = true"), table("next", "next-key-0123456789"))
        await until(GOOD, 401)
        await until("next-key-0123456789", 200)
        rewrite(path, "")
        async with asyncio.timeout(30):
            while (await client.get("/health/ready")).json()["checks"]["api_keys"]["status"] == "up":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await until("next-key-0123456789", 200)
