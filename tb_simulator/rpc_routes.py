"""RPC routes of both versions (rpc.json)."""

from typing import Any

import orjson

from tb_simulator.access import can_read, check_uuid, checked, checked_plain, no_such
from tb_simulator.answers import EMPTY, JSON, Answer, bad_request, empty, forbidden, ok, server_error
from tb_simulator.pages import page_data, page_link
from tb_simulator.routing import CUSTOMER_USER, Call, Routes
from tb_simulator.rpc_store import Rpc, Silence

routes = Routes()

# Offline and silent: version 1 tells them apart, version 2 does not.
_SILENCE = {
    "v1": {Silence.OFFLINE: 409, Silence.SILENT: 408},
    "v2": {Silence.OFFLINE: 504, Silence.SILENT: 504},
}


def _number(value: Any, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        # Jackson's asLong() of anything else is 0: ThingsBoard takes ``"timeout":"x"``.
        return 0
    return int(value)


def _request(call: Call) -> dict[str, Any]:
    try:
        body = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        raise bad_request("Invalid request body") from None
    if not isinstance(body, dict) or "method" not in body:
        raise server_error(
            'Cannot invoke "com.fasterxml.jackson.databind.JsonNode.asText()" because the return value of '
            '"com.fasterxml.jackson.databind.JsonNode.get(String)" is null',
        )
    return body


def _rpc(call: Call, *, oneway: bool) -> tuple[Rpc, bool]:
    body = _request(call)
    settings = call.world.settings
    timeout = max(_number(body.get("timeout"), settings.rpc_default_ms), settings.rpc_minimum_ms)
    expires_at = _number(body.get("expirationTime"), 0) or call.world.now() + timeout
    device = checked_plain(call, "DEVICE", call.params["id"])
    retries = body.get("retries")
    rpc = Rpc(
        device.id,
        device.tenant,
        str(body["method"]),
        body.get("params"),
        oneway,
        expires_at,
        retries=retries if isinstance(retries, int) else None,
        info=body.get("additionalInfo"),
    )
    return rpc, body.get("persistent") is True


async def _send(call: Call, version: str, *, oneway: bool) -> Answer:
    rpc, persistent = _rpc(call, oneway=oneway)
    rpc = call.world.rpcs.send(rpc, persistent=persistent)
    if rpc.record is not None:
        return ok({"rpcId": rpc.record["id"]["id"]})
    if rpc.outcome is None:
        raise server_error("RPC was not sent")
    result = await rpc.outcome
    if isinstance(result, Silence):
        return empty(_SILENCE[version][result])
    if oneway:
        return EMPTY
    try:
        return Answer(200, orjson.dumps(orjson.loads(result)), JSON)
    except orjson.JSONDecodeError:
        return empty(406)


@routes.post("/api/plugins/rpc/oneway/{id}")
async def send_oneway_v1(call: Call) -> Answer:
    """Send without waiting for an answer; an offline device is 409 after the whole timeout."""
    return await _send(call, "v1", oneway=True)


@routes.post("/api/plugins/rpc/twoway/{id}")
async def send_twoway_v1(call: Call) -> Answer:
    """Send and wait for the answer; offline is 409, silent 408, both after the whole timeout."""
    return await _send(call, "v1", oneway=False)


@routes.post("/api/rpc/oneway/{id}")
async def send_oneway_v2(call: Call) -> Answer:
    """Send without waiting for an answer; an offline device is 504 after the whole timeout."""
    return await _send(call, "v2", oneway=True)


@routes.post("/api/rpc/twoway/{id}")
async def send_twoway_v2(call: Call) -> Answer:
    """Send and wait for the answer; offline and silent are both 504 after the whole timeout."""
    return await _send(call, "v2", oneway=False)


def _record(call: Call) -> dict[str, Any]:
    identifier = check_uuid(call.params["rpcId"])
    record = call.world.rpcs.record(identifier)
    if record is None or record["tenantId"]["id"] != call.user.tenant:
        raise no_such("RPC", identifier)
    return record


@routes.get("/api/rpc/persistent/{rpcId}")
def persistent_rpc(call: Call) -> Answer:
    """Return a persistent call to any login of the tenant: the device is not checked (facts)."""
    return ok(_record(call))


@routes.delete("/api/rpc/persistent/{rpcId}")
def delete_persistent_rpc(call: Call) -> Answer:
    """Delete a persistent call; customers may not, even on their own devices (facts)."""
    record = _record(call)
    if call.user.authority == CUSTOMER_USER or not can_read(call, "DEVICE", record["deviceId"]["id"]):
        raise forbidden()
    call.world.rpcs.delete(record["id"]["id"])
    return EMPTY


@routes.get("/api/rpc/persistent/device/{id}")
def persistent_rpcs(call: Call) -> Answer:
    """Return a page of a device's persistent calls."""
    link = page_link(call)
    device = checked(call, "DEVICE", call.params["id"])
    status = call.arg("rpcStatus")
    records = [r for r in call.world.rpcs.records(device.id) if status in {None, "", r["status"]}]
    if link.descending:
        records.reverse()
    return ok(page_data(records, link))
