"""The gateway as this product uses it: the only code that speaks to it over HTTP."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import structlog

from examples.smart_home.errors import (
    DeviceOffline,
    DeviceSilent,
    GatewayFailed,
    GatewayUnavailable,
    NotFound,
    SmartHomeError,
)

log = structlog.get_logger("smart_home")

API = "/api/v1/tb"
#: A light waits up to 5 s for the device and as long again for its telemetry; the gateway ends first.
TIMEOUT_SECONDS = 30.0
CLAIM_CODE = "claim_code"
AT_ONCE = 8
GONE = "The device of this room is no longer known."

Values = dict[str, dict[str, Any] | None]


@dataclass(frozen=True)
class Claimable:
    """A device and the code on its label, if it has one."""

    device_id: UUID
    code: str | None


class Gateway:
    """A client of the gateway, shared by all requests."""

    def __init__(self, url: str, key: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        # The gateway is a neighbour: no proxy of the environment stands between.
        self._client = httpx.AsyncClient(
            base_url=url + API,
            headers={"X-API-Key": key},
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
            transport=transport,
        )

    async def find_device(self, name: str) -> Claimable | None:
        """Return the device of this name, or None when our key sees none."""
        path = f"/devices/name:{quote(name, safe='')}/attributes/server"
        try:
            answer = await self._call("GET", path, params={"keys": CLAIM_CODE})
        except NotFound:
            return None
        code = answer["data"].get(CLAIM_CODE, {}).get("value")
        return Claimable(UUID(answer["device_id"]), None if code is None else str(code))

    async def latest(self, device_ids: Iterable[UUID]) -> dict[UUID, Values]:
        """Return the newest values of devices; those that cannot be read are left out."""
        names = [str(each) for each in device_ids]
        if not names:
            return {}
        answer = await self._call("POST", "/telemetry/latest", json={"device_ids": names})
        return {UUID(name): values for name, values in answer["data"].items()}

    async def online(self, device_ids: Iterable[UUID]) -> dict[UUID, bool | None]:
        """Tell which devices ThingsBoard takes for active; None where that is not known."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def ask(device_id: UUID) -> tuple[UUID, bool | None]:
            async with slots:
                try:
                    path = f"/devices/{device_id}/attributes/server"
                    answer = await self._call("GET", path, params={"keys": "active"})
                except SmartHomeError:
                    return device_id, None
                return device_id, answer["data"].get("active", {}).get("value") is True

        return dict(await asyncio.gather(*map(ask, device_ids)))

    async def query(self, device_id: UUID, query: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a telemetry query."""
        return await self._call("POST", f"/devices/{device_id}/telemetry/query", json=dict(query))

    async def switch_light(self, device_id: UUID, *, on: bool) -> dict[str, Any]:
        """Switch a light and wait until its telemetry says so."""
        body = {"state": "on" if on else "off", "verify": True}
        return await self._call("POST", f"/devices/{device_id}/light", json=body)

    async def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            response = await self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            log.warning("gateway_unreachable", reason=type(error).__name__)
            raise GatewayUnavailable(retry_after=1) from None
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            log.error("gateway_garbled", status=response.status_code)
            raise GatewayFailed
        if not response.is_success:
            raise _error_of(response, body)
        return body

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def _error_of(response: httpx.Response, body: Mapping[str, Any]) -> SmartHomeError:
    """Return what to tell the user; what is between us and the gateway is for the log."""
    status, code = response.status_code, body.get("error_code")
    if status == httpx.codes.NOT_FOUND:
        return NotFound(GONE)
    if code == "DEVICE_OFFLINE":
        return DeviceOffline()
    details = body.get("details")
    if status == httpx.codes.GATEWAY_TIMEOUT and isinstance(details, dict) and "outcome" in details:
        return DeviceSilent()
    log.error("gateway_refused", status=status, code=code, request_id=body.get("request_id"))
    if status in {
        httpx.codes.TOO_MANY_REQUESTS,
        httpx.codes.SERVICE_UNAVAILABLE,
        httpx.codes.GATEWAY_TIMEOUT,
    }:
        wait = response.headers.get("Retry-After", "1")
        return GatewayUnavailable(retry_after=int(wait) if wait.isdigit() else 1)
    return GatewayFailed()
