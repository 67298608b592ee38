"""The stage alone: what passes, what it leaves in the context, and the words of its refusals."""

import hashlib
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.context import CURRENT, KEY, TURN, RequestContext
from app.counters import MemoryCounters
from app.errors import GatewayError, InvalidRequest, NotAllowed, NotAuthenticated, RateLimited
from app.keys import key_file
from app.keys.key_ring import Refusal
from app.keys.store import APIKeys
from app.middleware.api_keys import APIKeyStage
from app.middleware.rate_limits import address_key, declare

GOOD, BOUND = b"good-key-0123456789", b"bound-key-0123456789"
ADDRESS = "192.0.2.1"


def table(name: str, secret: bytes, more: str = "") -> str:
    digest = hashlib.sha256(secret).hexdigest()
    return f'[[keys]]\nname = "{name}"\nid = "{name}"\nscopes = ["*"]\nsha256 = "{digest}"\n{more}\n'


class Door:
    """The stage before an application that notes who came through."""

    def __init__(self) -> None:
        restrictions = 'allowed_ips = ["192.0.2.0/24"]\nallowed_origins = ["https://app.example.com"]'
        text = table("good", GOOD) + table("bound", BOUND, restrictions)
        self.came: list[tuple[Scope, str]] = []
        self.keys = APIKeys(key_file.parse(text.encode()))
        self.stage = APIKeyStage(
            self.app,
            keys=self.keys,
            public_paths=frozenset({"/health"}),
            counters=MemoryCounters(),
            failures=declare("failed-keys", "2/minute", address_key),
        )

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive(), await send({"type": "sent"})) == ({"type": "received"}, None)
        self.came.append((scope, TURN.get()))

    async def enter(
        self, *keys: bytes, kind: str = "http", path: str = "/a", address: str = ADDRESS, origin: bytes = b""
    ) -> RequestContext:
        headers = [(b"x-api-key", key) for key in keys] + [(b"origin", origin)] * bool(origin)
        context = RequestContext("request-0001", address)
        CURRENT.set(context)

        async def receive() -> Message:
            return {"type": "received"}

        async def send(_: Message) -> None:
            return None

        await self.stage({"type": kind, "path": path, "headers": headers, KEY: context}, receive, send)
        return context

    async def refused(self, *keys: bytes, **more: Any) -> GatewayError:
        came = len(self.came)
        with pytest.raises(GatewayError) as caught:
            await self.enter(*keys, **more)
        assert len(self.came) == came
        return caught.value


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_whoever_has_a_key_comes_in_and_takes_its_turn(door: Door, kind: str) -> None:
    context = await door.enter(GOOD, kind=kind)
    assert context.caller
    assert context.caller.id == "good"
    ((scope, turn),) = door.came
    assert (scope["type"], turn) == (kind, "good")


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("keys", [[], [b""]], ids=["none", "empty"])
async def test_nobody_comes_in_without(door: Door, kind: str, keys: list[bytes]) -> None:
    assert type(await door.refused(*keys, kind=kind)) is NotAuthenticated


async def test_a_public_path_is_open_and_nobodys_turn(door: Door) -> None:
    await door.enter(GOOD)
    context = await door.enter(path="/health")
    assert (context.caller, door.came[-1][1]) == (None, "")
    assert type(await door.refused(path="/health/")) is NotAuthenticated


async def test_the_lifespan_passes(door: Door) -> None:
    await door.enter(kind="lifespan")
    assert len(door.came) == 1


async def test_two_keys_are_told_so_and_count_as_no_failure(door: Door) -> None:
    for _ in range(5):
        error = await door.refused(GOOD, GOOD)
        assert (type(error), error.message) == (InvalidRequest, "Send one X-API-Key header.")
        assert error.details == {"field": "X-API-Key", "issue": "sent more than once"}


@pytest.mark.parametrize(
    ("more", "rule", "message", "reason"),
    [
        (
            {"address": "198.51.100.1"},
            "allowed_ips",
            "This API key may not be used from this address.",
            Refusal.ADDRESS,
        ),
        (
            {"origin": b"https://evil.example.com"},
            "allowed_origins",
            "This API key may not be used by pages of this origin.",
            Refusal.ORIGIN,
        ),
    ],
    ids=["address", "origin"],
)
async def test_a_place_the_key_is_not_for_is_told_by_its_rule(
    door: Door, more: dict[str, Any], rule: str, message: str, reason: Refusal
) -> None:
    assert (await door.enter(BOUND, origin=b"https://app.example.com")).caller
    error = await door.refused(BOUND, **more)
    assert (type(error), error.message, error.details) == (NotAllowed, message, {"rule": rule})
    assert door.keys.refused == {reason: 1}
    notes = CURRENT.get().notes  # type: ignore[union-attr]
    assert [(note.event, note.fields["key_id"]) for note in notes] == [("key_refused", "bound")]


async def test_failures_of_all_kinds_are_counted_together_by_address(door: Door) -> None:
    await door.refused()
    await door.refused(b"nobodys-key")
    for keys in ([], [b"nobodys-key"]):
        error = await door.refused(*keys)
        assert (type(error), error.message) == (
            RateLimited,
            "Too many requests without a valid API key from this address.",
        )
        assert error.details
        assert error.details["counted_by"] == "failed-keys"
    assert type(await door.refused(address="192.0.2.2")) is NotAuthenticated
    assert (await door.enter(GOOD)).caller


async def test_a_flood_is_noted_by_the_key_that_was_refused(door: Door) -> None:
    await door.refused(BOUND, address="198.51.100.1")
    notes = CURRENT.get().notes  # type: ignore[union-attr]
    assert [(note.event, note.fields["key_id"]) for note in notes] == [("key_refused", "bound")]
    for _ in range(2):
        await door.refused(BOUND, address="198.51.100.1")
    notes = CURRENT.get().notes  # type: ignore[union-attr]
    assert [(note.event, note.fields["key_id"]) for note in notes] == [("limit_reached", "bound")]
    assert notes[0].subject == ("failed-keys", "198.51.100.1", "bound")
