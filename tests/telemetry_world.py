"""Devices and points in the simulator, for the tests of telemetry reads."""

from collections.abc import Iterable
from typing import Any

import httpx

from app.thingsboard.transport import Answer, Transport
from tb_simulator.server import Simulator
from tb_simulator.values import JsonText

PREFIX = "/api/v1/tb"
DEVICES = f"{PREFIX}/devices"
START = 1_760_000_000_000
VALUES = "GET /api/plugins/telemetry/DEVICE/{id}/values/timeseries"
KEYS = "GET /api/plugins/telemetry/DEVICE/{id}/keys/timeseries"
UNKNOWN = "00000000-0000-0000-0000-000000000007"


def device_id(simulator: Simulator, name: str = "Test Device A1") -> str:
    """Return the id of a demo device of the first tenant; A devices belong to Customer A, B to Customer B."""
    tenant = next(entity.id for entity in simulator.world.every("TENANT") if entity.name == "Tenant")
    found = simulator.world.find_by_name("DEVICE", tenant, name)
    assert found is not None
    return found.id


def load(simulator: Simulator, device: str, key: str, points: Iterable[tuple[int, Any]]) -> None:
    """Put sorted points into the simulator; objects and lists become what ThingsBoard stores for them."""
    times, values = zip(*points, strict=True) if points else ((), ())
    simulator.world.telemetry.load(device, key, times, values)


def json_value(text: str) -> JsonText:
    """Return an object or list as the simulator stores it."""
    return JsonText(text)


class FailingLater:
    """A transport whose calls of one kind fail from the nth on; the others go through."""

    def __init__(self, inner: Transport, *, part: str, first_failure: int) -> None:
        self.inner, self.part, self.first_failure = inner, part, first_failure
        self.seen = 0

    async def send(self, method: str, target: str, **options: Any) -> Answer:
        """Send, or answer 500."""
        if self.part in target:
            self.seen += 1
            if self.seen >= self.first_failure:
                return Answer(500, "application/json", b"{}")
        return await self.inner.send(method, target, **options)

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self.inner.aclose()


def fail_history_from(gateway: httpx.AsyncClient, page: int) -> FailingLater:
    """Make the history calls of this gateway fail from a page on."""
    connection = gateway.app.state.upstreams["default"].client.connection  # type: ignore[attr-defined]  # set by `make_gateway`
    connection.transport = FailingLater(connection.transport, part="values/timeseries", first_failure=page)
    return connection.transport
