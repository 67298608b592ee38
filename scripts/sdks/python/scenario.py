"""The scenario of `docs/sdks.md`, in Python."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from thingsboard_gateway_client import Gateway, GatewayError, iterate
from thingsboard_gateway_client.models import JsonObject

T0 = 1_767_225_600_000
ANSWERING, OFFLINE = "name:Demo Kitchen", "name:Demo Garage"
NAME = f"sdk-python-{time.time_ns() // 1_000_000}"
DEVICE, MISSING = f"name:{NAME}", f"name:{NAME}-missing"
VALUES: dict[str, Any] = {
    "integer": 25,
    "decimal": 25.6,
    "flag": True,
    "word": "true",
    "text": "größer ✓",
    "digits": "12",
    "large": 9_007_199_254_740_993,
    "object": {"mode": "eco", "limits": [18, 21.5], "note": None},
}
COUNT = 250


def check(found: object, wanted: object) -> None:
    """Compare value and type: in Python 1 == True."""
    if type(found) is not type(wanted) or found != wanted:
        raise AssertionError(f"{found!r} is not {wanted!r}")


def refusal(call: Callable[[], object]) -> GatewayError:
    """Return the error that a call raises."""
    try:
        call()
    except GatewayError as error:
        return error
    raise AssertionError("the call should have been refused")


def list_devices(gateway: Gateway) -> None:
    names = [device.name for device in iterate(gateway.devices.list, page_size=5)]
    check(len(names), gateway.devices.list().pagination.total_elements)
    check(len(set(names)), len(names))
    check("Demo Kitchen" in names, True)


def upload(gateway: Gateway) -> None:
    gateway.devices.create({"name": NAME, "type": "sdk"})
    answer = gateway.telemetry.upload(
        DEVICE, {key: [{"ts": T0, "value": value}] for key, value in VALUES.items()}
    )
    check(answer.total_data_points, len(VALUES))
    check([warning.key for warning in answer.warnings], ["digits"])


def read_back(gateway: Gateway) -> None:
    latest = gateway.telemetry.get_latest(DEVICE, keys=",".join([*VALUES, "missing"])).data
    for key, sent in VALUES.items():
        point = latest[key]
        assert point is not None
        check(point.ts, T0)
        value = point.value.to_dict() if isinstance(point.value, JsonObject) else point.value
        check(value, 12 if key == "digits" else sent)
    check(latest["missing"], None)


def history(gateway: Gateway) -> None:
    points = [{"ts": T0 + 1_000 * number, "value": number} for number in range(COUNT)]
    gateway.telemetry.upload(DEVICE, {"count": points})
    found = gateway.telemetry.get(DEVICE, keys="count", start_ts=T0).data["count"]
    check([point.to_dict() for point in found], points)


def export(gateway: Gateway) -> None:
    csv = gateway.telemetry.export(DEVICE, keys="count", start_ts=T0, format_="csv").payload.read().decode()
    lines = csv.split("\r\n")
    check(lines[0], "ts,key,value")
    check(lines[1], f"{T0},count,0")
    check(len(lines), COUNT + 2)


def bulk(gateway: Gateway) -> None:
    one = {"bulk": [{"ts": T0, "value": 1}]}
    answer = gateway.telemetry.upload_bulk({DEVICE: one, MISSING: one})
    check(answer.status, "partial")
    check((answer.summary.successful_devices, answer.summary.failed_devices), (1, 1))
    check(answer.results[DEVICE].status, "success")
    check(answer.results[MISSING].error_code, "RESOURCE_NOT_FOUND")


def not_found(gateway: Gateway) -> None:
    error = refusal(lambda: gateway.devices.get(MISSING))
    check((error.status, error.code), (404, "RESOURCE_NOT_FOUND"))
    check(bool(error.message and error.request_id), True)


def conflict(gateway: Gateway) -> None:
    error = refusal(lambda: gateway.devices.create({"name": NAME, "type": "sdk"}))
    check((error.status, error.code), (409, "CONFLICT"))


def rate_limit(_gateway: Gateway) -> None:
    url, key = os.environ["GATEWAY_URL"], os.environ["LIMITED_API_KEY"]
    with Gateway(url, key, max_wait=0) as hasty:
        error = refusal(lambda: [hasty.keys.get_whoami() for _ in range(3)])
    check((error.status, error.code), (429, "RATE_LIMIT_EXCEEDED"))
    check(error.details["limited_by"], "gateway")
    assert error.retry_after is not None
    check(error.retry_after >= 1, True)
    with Gateway(url, key) as patient:
        check(patient.keys.get_whoami().name, "limited")


def command_answered(gateway: Gateway) -> None:
    answer = gateway.rpc.send_twoway(ANSWERING, {"method": "setLight", "params": {"on": True}})
    check(answer.outcome, "answered")
    assert isinstance(answer.response, JsonObject)
    check(answer.response.to_dict(), {"on": True})


def device_offline(gateway: Gateway) -> None:
    command = {"method": "setLight", "params": {"on": True}, "fail_fast": True}
    error = refusal(lambda: gateway.rpc.send_twoway(OFFLINE, command))
    check((error.status, error.code), (409, "DEVICE_OFFLINE"))
    check(error.details["outcome"], "offline")


def live_events(gateway: Gateway) -> None:
    events = gateway.stream(DEVICE, keys=["count"])
    first = next(event for event in events if event.type == "telemetry")
    check((first.data.first, first.data.value), (True, COUNT - 1))
    gateway.telemetry.upload(DEVICE, {"count": [{"ts": T0 + 1_000_000, "value": "live"}]})
    live = next(event for event in events if event.type == "telemetry")
    check((live.data.key, live.data.ts, live.data.value), ("count", T0 + 1_000_000, "live"))
    events.close()
    gateway.telemetry.upload(DEVICE, {"count": [{"ts": T0 + 1_001_000, "value": "missed"}]})
    resumed = gateway.stream(DEVICE, keys=["count"], last_event_id=live.id)
    missed = next(event for event in resumed if event.type == "telemetry")
    check(missed.data.value, "missed")
    resumed.close()


STEPS = (
    list_devices,
    upload,
    read_back,
    history,
    export,
    bulk,
    not_found,
    conflict,
    rate_limit,
    command_answered,
    device_offline,
    live_events,
)


def main() -> None:
    with Gateway(os.environ["GATEWAY_URL"], os.environ["API_KEY"]) as gateway:
        try:
            for step in STEPS:
                name = step.__name__.replace("_", " ")
                try:
                    step(gateway)
                except Exception:
                    sys.stdout.write(f"❌ {name}\n")
                    raise
                sys.stdout.write(f"✅ {name}\n")
        finally:
            gateway.devices.delete(DEVICE)


main()
