"""The HTTP API that devices use (device_transport.json); errors have empty bodies here."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from tb_simulator.answers import EMPTY, Answer, PlainError, empty, ok
from tb_simulator.attribute_store import CLIENT, SHARED, Stored
from tb_simulator.payloads import attribute_values, telemetry_points
from tb_simulator.routing import OPEN, Call, Routes
from tb_simulator.timeseries import Point
from tb_simulator.values import UnparsableValueError, as_typed, load_json

routes = Routes()

_BASE = "/api/v1/{token}"
_DEFAULT_TIMEOUT_MS = 60_000


def _device(call: Call) -> str | None:
    """Return the id of the device behind the token and note that it spoke."""
    device_id = call.world.device_of_token.get(call.params["token"])
    if device_id is not None:
        call.world.attributes.device_spoke(device_id)
    return device_id


def _timeout(call: Call) -> int:
    return call.number("timeout", _DEFAULT_TIMEOUT_MS) or _DEFAULT_TIMEOUT_MS


@routes.post(f"{_BASE}/telemetry", who=OPEN)
def post_telemetry(call: Call) -> Answer:
    """Store a device's points."""
    device_id = _device(call)
    if device_id is None:
        return empty(401)
    try:
        points = telemetry_points(call.body, call.world.now())
    except PlainError:
        return empty(400)
    call.world.telemetry.save(device_id, points)
    return EMPTY


@routes.post(f"{_BASE}/attributes", who=OPEN)
def post_attributes(call: Call) -> Answer:
    """Store a device's client attributes."""
    device_id = _device(call)
    if device_id is None:
        return empty(401)
    try:
        values = attribute_values(load_json(call.body))
    except (UnparsableValueError, ValueError, AttributeError):
        return empty(400)
    call.world.attributes.save(device_id, CLIENT, values)
    return EMPTY


@routes.get(f"{_BASE}/attributes", who=OPEN)
def get_attributes(call: Call) -> Answer:
    """Return the client and shared attributes a device asks for, all of them without keys."""
    device_id = _device(call)
    if device_id is None:
        return empty(401)
    found: dict[str, dict[str, Any]] = {}
    named = call.arg("clientKeys") or call.arg("sharedKeys")
    for name, scope in (("client", CLIENT), ("shared", SHARED)):
        keys = (call.arg(f"{name}Keys") or "").split(",")
        stored = call.world.attributes.of(device_id, scope)
        values = {key: as_typed(value) for key, (_, value) in stored.items() if not named or key in keys}
        if values:
            found[name] = values
    return ok(found)


class _AttributeWaiter:
    """Waits for the first change of a shared attribute."""

    def __init__(self) -> None:
        self.change: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def telemetry(self, points: Sequence[Point], newer: Sequence[Point]) -> None:
        """Points are none of a device's business here."""

    def telemetry_gone(self, key: str) -> None:
        """Nor are deleted keys."""

    def attributes(self, scope: str, values: Mapping[str, Stored]) -> None:
        """Wake the poll."""
        if scope == SHARED and not self.change.done():
            self.change.set_result({key: as_typed(value) for key, (_, value) in values.items()})


@routes.get(f"{_BASE}/attributes/updates", who=OPEN)
async def wait_for_attributes(call: Call) -> Answer:
    """Return the next change of shared attributes, or 408 when there is none in time."""
    device_id = _device(call)
    if device_id is None:
        return empty(401)
    waiter = _AttributeWaiter()
    call.world.feed.subscribe(device_id, waiter)
    try:
        seconds = _timeout(call) / 1000 * call.world.settings.time_scale
        return ok(await asyncio.wait_for(waiter.change, seconds))
    except TimeoutError:
        return empty(408)
    finally:
        call.world.feed.unsubscribe(device_id, waiter)


@routes.get(f"{_BASE}/rpc", who=OPEN)
async def poll_rpc(call: Call) -> Answer:
    """Return the next call for the device, or 408 when there is none in time."""
    device_id = _device(call)
    if device_id is None:
        return empty(401)
    poll = asyncio.ensure_future(call.world.rpcs.poll(device_id, _timeout(call)))
    hung_up = asyncio.ensure_future(call.hung_up())
    try:
        await asyncio.wait((poll, hung_up), return_when=asyncio.FIRST_COMPLETED)
        # A device that has left must not take a call into the void: to the caller it would look silent.
        rpc = poll.result() if poll.done() else None
    finally:
        poll.cancel()
        hung_up.cancel()
    return ok(rpc.message()) if rpc else empty(408)


@routes.post(f"{_BASE}/rpc/{{number}}", who=OPEN)
def answer_rpc(call: Call) -> Answer:
    """Take the device's answer to a call."""
    device_id = _device(call)
    if device_id is None:
        return empty(401)
    if not call.params["number"].isdigit():
        return empty(400)
    call.world.rpcs.answer(device_id, int(call.params["number"]), call.body)
    return EMPTY
