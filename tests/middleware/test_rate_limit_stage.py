"""Who is counted together, and what callers are told."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.context import CURRENT, KEY, Caller, RequestContext
from app.counters import MemoryCounters
from app.errors import RateLimited
from app.middleware.rate_limits import RateLimitStage, address_key, declare, tell
from app.quotas import Standing, parse_quota
from tests.conftest import API_KEY, GatewayFactory

WHOAMI = "/api/v1/tb/whoami"
OTHER = "other-key-0123456789"
KeysFile = Callable[..., Path]


def from_address(gateway: httpx.AsyncClient, address: str) -> httpx.AsyncClient:
    """Another caller of the same gateway."""
    app: Any = gateway.app  # type: ignore[attr-defined]
    transport = httpx.ASGITransport(app=app, client=(address, 1), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=gateway.headers)


def left_of(answer: httpx.Response) -> list[tuple[str, int, int]]:
    """Read `RateLimit`: name, remaining and seconds of each window."""
    items = re.findall(r'"([^"]+)";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    return [(name, int(rest), int(seconds)) for name, rest, seconds in items]


async def statuses(gateway: httpx.AsyncClient, times: int, **options: Any) -> list[int]:
    return [(await gateway.get(WHOAMI, **options)).status_code for _ in range(times)]


class TestSeveralWindows:
    """`RATE_LIMIT=3/minute;5/hour`."""

    async def test_each_of_them_is_told(self, make_gateway: GatewayFactory) -> None:
        gateway = make_gateway(rate_limit="5/hour;3/minute")
        answer = await gateway.get(WHOAMI)
        assert answer.headers["ratelimit-policy"] == '"60s";q=3;w=60, "3600s";q=5;w=3600'
        (first, second) = left_of(answer)
        assert first[:2] == ("60s", 2)
        assert second[:2] == ("3600s", 4)
        assert 0 < first[2] <= 60 < second[2] <= 3600
        assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("3", "2")

    async def test_a_refusal_names_its_window_and_uses_up_nothing(self, make_gateway: GatewayFactory) -> None:
        gateway = make_gateway(rate_limit="3/minute;5/hour")
        answers = [await gateway.get(WHOAMI) for _ in range(9)]
        refused = answers[-1]
        assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 6
        assert [rest for _, rest, _ in left_of(refused)] == [0, 2]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        body = refused.json()
        assert body["message"] == "Rate limit exceeded: 3 requests per 60 seconds."
        assert (body["error"], body["detail"]) == ("Rate limit exceeded", body["message"])
        assert body["retry_after"] == int(refused.headers["retry-after"])
        assert body["details"] == {
            "limited_by": "gateway",
            "counted_by": "address",
            "limit": 3,
            "window_seconds": 60,
        }

    async def test_the_longest_refusing_window_says_when_to_come_back(
        self, make_gateway: GatewayFactory
    ) -> None:
        gateway = make_gateway(rate_limit="5/minute;5/hour")
        answers = [await gateway.get(WHOAMI) for _ in range(6)]
        assert int(answers[-1].headers["retry-after"]) > 60
        assert answers[-1].json()["details"]["window_seconds"] == 3600
        assert answers[-1].headers["x-ratelimit-limit"] == "5"
        assert int(answers[-1].headers["x-ratelimit-reset"]) > 1_700_000_000

    async def test_a_crowd_gets_exactly_the_least(self, make_gateway: GatewayFactory) -> None:
        gateway = make_gateway(rate_limit="30/minute;20/hour;25/day")
        answers = await asyncio.gather(*(gateway.get(WHOAMI) for _ in range(60)))
        assert sorted(answer.status_code for answer in answers) == [200] * 20 + [429] * 40


class TestKeysWithALimit:
    """`rate_limit` of a key in place of the limit of the address."""

    @pytest.fixture
    def gateway(self, make_gateway: GatewayFactory, keys_file: KeysFile) -> httpx.AsyncClient:
        path = keys_file(limited=(API_KEY, ["devices:read"]), plain=(OTHER, ["devices:read"]))
        text = path.read_text().replace('name = "limited"', 'name = "limited"\nrate_limit = "4/hour;9/day"')
        path.write_text(text)
        client: httpx.AsyncClient = make_gateway(api_key=None, api_keys_file=path, rate_limit_requests=2)
        return client

    async def test_it_is_counted_by_key_wherever_it_comes_from(self, gateway: httpx.AsyncClient) -> None:
        elsewhere = from_address(gateway, "192.0.2.9")
        assert await statuses(gateway, 3) == [200] * 3
        assert await statuses(elsewhere, 2) == [200, 429]
        refused = await gateway.get(WHOAMI)
        assert refused.json()["details"]["counted_by"] == "key"

    async def test_the_address_is_not_charged_for_it(self, gateway: httpx.AsyncClient) -> None:
        assert await statuses(gateway, 5) == [200] * 4 + [429]
        assert await statuses(gateway, 3, headers={"X-API-Key": OTHER}) == [200, 200, 429]

    async def test_two_keys_with_like_limits_are_counted_apart(
        self, make_gateway: GatewayFactory, keys_file: KeysFile
    ) -> None:
        path = keys_file(one=(API_KEY, ["devices:read"]), other=(OTHER, ["devices:read"]))
        path.write_text(path.read_text().replace("scopes", 'rate_limit = "2/hour"\nscopes'))
        gateway = make_gateway(api_key=None, api_keys_file=path)
        assert await statuses(gateway, 3) == [200, 200, 429]
        assert await statuses(gateway, 3, headers={"X-API-Key": OTHER}) == [200, 200, 429]

    async def test_a_key_without_one_is_counted_by_address(self, gateway: httpx.AsyncClient) -> None:
        assert await statuses(gateway, 3, headers={"X-API-Key": OTHER}) == [200, 200, 429]
        assert await statuses(gateway, 1) == [200]


class TestRequestsWithoutAKey:
    """They are counted like wrong keys, apart from everybody else."""

    async def test_an_address_cannot_hammer_for_free(self, make_gateway: GatewayFactory) -> None:
        gateway = make_gateway(key=None)
        answers = [await gateway.get(WHOAMI) for _ in range(22)]
        assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 2
        assert answers[-1].json()["details"] == {
            "limited_by": "gateway",
            "counted_by": "failed-keys",
            "limit": 20,
            "window_seconds": 60,
        }
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60

    async def test_wrong_keys_and_none_are_counted_together(self, make_gateway: GatewayFactory) -> None:
        gateway = make_gateway(key=None)
        assert await statuses(gateway, 10) == [401] * 10
        assert await statuses(gateway, 11, headers={"X-API-Key": OTHER}) == [401] * 10 + [429]
        assert await statuses(from_address(gateway, "192.0.2.9"), 1) == [401]

    async def test_a_neighbour_with_a_key_is_not_locked_out(self, make_gateway: GatewayFactory) -> None:
        gateway = make_gateway(key=None, rate_limit_requests=3)
        assert await statuses(gateway, 30) == [401] * 20 + [429] * 10
        assert await statuses(gateway, 4, headers={"X-API-Key": API_KEY}) == [200] * 3 + [429]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:7::1", "20010db800000007"),
        ("2001:db8:0:7:ffff::1", "20010db800000007"),
        ("2001:db8:0:8::1", "20010db800000008"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("", ""),
    ],
)
def test_addresses_of_one_customer_are_counted_together(address: str, expected: str) -> None:
    assert address_key({KEY: RequestContext("id", address)}) == expected


class TestTelling:
    """The headers, and what `whoami` shows."""

    QUOTA = parse_quota("address", "5/second;8/minute")

    def told(self, standing: Standing, context: RequestContext | None = None) -> RequestContext:
        context = context or RequestContext("request-0001")
        tell(context, self.QUOTA, standing)
        return context

    def test_the_tightest_window_and_each_of_them(self) -> None:
        context = self.told(Standing(1, (2, 6), (0.2, 30.5), 1_700_000_000.7))
        assert context.rate_limit == {
            "limit": 8,
            "remaining": 2,
            "reset_seconds": 31,
            "window_seconds": 60,
        }
        assert context.response_headers == [
            (b"x-ratelimit-limit", b"8"),
            (b"x-ratelimit-remaining", b"2"),
            (b"x-ratelimit-reset", b"1700000032"),
            (b"ratelimit", b'"1s";r=3;t=1, "60s";r=2;t=31'),
            (b"ratelimit-policy", b'"1s";q=5;w=1, "60s";q=8;w=60'),
        ]

    def test_a_limit_that_was_lowered_leaves_nothing(self) -> None:
        context = self.told(Standing(0, (2, 9), (0.2, 30.0), 0.0))
        assert context.rate_limit
        assert (context.rate_limit["remaining"], context.response_headers[1][1]) == (0, b"0")

    def test_what_is_told_later_stands_in_place_of_what_was_told_before(self) -> None:
        context = RequestContext("request-0001", response_headers=[(b"api-key-expires", b"soon")])
        self.told(Standing(1, (1, 1), (1.0, 60.0), 0.0), context)
        context.response_headers.append((b"etag", b"x"))
        self.told(Standing(1, (3, 3), (1.0, 60.0), 0.0), context)
        fresh = self.told(Standing(1, (3, 3), (1.0, 60.0), 0.0))
        others = [(b"api-key-expires", b"soon"), (b"etag", b"x")]
        assert context.response_headers == others + fresh.response_headers
        assert context.rate_limit == fresh.rate_limit


class TestTheStageAlone:
    """What it counts."""

    async def enter(
        self, kind: str, *, caller: Caller | None, by_device: bool = False, quota: str = "1/minute"
    ) -> tuple[RequestContext, list[Any]]:
        """Send a request twice; return the last one's context, and what came of both."""
        came: list[Any] = []

        async def app(*given: Any) -> None:
            came.append(given)

        stage = RateLimitStage(
            app,
            default=declare("address", quota, address_key),
            counters=MemoryCounters(),
            is_charged_by_device=by_device,
        )
        for _ in range(2):
            context = RequestContext("request-0001", "192.0.2.1", caller=caller)
            CURRENT.set(context)
            given: Any = ({"type": kind, KEY: context}, "receive", "send")
            try:
                await stage(*given)
            except RateLimited as refused:
                came.append(refused)
            else:
                assert came[-1] == given
        return context, came

    @pytest.mark.parametrize("kind", ["http", "websocket"])
    async def test_callers_are_counted_by_address(self, kind: str) -> None:
        context, (_, refused) = await self.enter(kind, caller=Caller("a", "A", frozenset()))
        assert refused.details["counted_by"] == "address"
        assert refused.message == "Rate limit exceeded: 1 requests per 60 seconds."
        (note,) = context.notes
        assert note.subject == ("address", "192.0.2.1", "")

    async def test_callers_with_a_limit_of_their_own_by_key(self) -> None:
        context, (_, refused) = await self.enter(
            "http", caller=Caller("a", "A", frozenset(), rate_limit="1/hour")
        )
        assert (refused.details["counted_by"], refused.details["window_seconds"]) == ("key", 3_600)
        (note,) = context.notes
        assert note.subject == ("key", "a", "")

    @pytest.mark.parametrize("kind", ["http", "lifespan"])
    async def test_what_has_no_caller_is_not_counted(self, kind: str) -> None:
        context, came = await self.enter(kind, caller=None)
        assert (len(came), context.rate_limit) == (2, None)

    async def test_devices_are_charged_where_that_is_asked_for(self) -> None:
        caller = Caller("a", "A", frozenset())
        context, _ = await self.enter("http", caller=caller, quota="10/minute")
        assert context.meter is None
        context, _ = await self.enter("http", caller=caller, quota="10/minute", by_device=True)
        assert context.meter
        await context.meter.charge(5, "device_ids")
        # Two requests, and four devices beyond the one that its request has paid for.
        assert context.rate_limit
        assert context.rate_limit["remaining"] == 10 - 2 - 4
