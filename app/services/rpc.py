"""Commands to devices: what became of one, in one word, and how long that took."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from app.errors import DeviceOffline, DeviceSilent, GatewayError, UpstreamGarbled
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.rpc import Command, Silence
from app.thingsboard.rpc_states import DELETED, is_final, is_oneway, status_of
from app.times import now_ms

Outcome = Literal["answered", "sent", "queued", "offline", "timeout"]

#: Beyond it ThingsBoard itself gives up a request (30 s): a longer wait is stored.
LONGEST_WAIT_MS = 25_000
#: How long a stored command waits for its device unless its caller says so.
DEFAULT_EXPIRY_MS = 3_600_000

#: What each of ThingsBoard's states comes to. `DELIVERED` is the end of a one-way command.
OUTCOMES: dict[str, Outcome] = {
    "QUEUED": "queued",
    "SENT": "sent",
    "DELIVERED": "sent",
    "SUCCESSFUL": "answered",
    "TIMEOUT": "timeout",
    "EXPIRED": "timeout",
    "FAILED": "timeout",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """How a command is sent. Times are in ms.

    Args:
        fail_fast: refuse, without sending, when ThingsBoard holds the device for inactive.
        expires_in: of a command that is stored; None: as long as the wait that was asked for, or an hour.
    """

    timeout: int
    fail_fast: bool = False
    expires_in: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a command. `rpc_id` and `expires_ts` belong to one that is stored."""

    outcome: Outcome
    response: orjson.Fragment | None
    elapsed_ms: int
    rpc_id: str | None = None
    expires_ts: int | None = None


async def send(upstream: ThingsBoardClient, device_id: str, command: Command, terms: Terms) -> Result:
    """Send a command and wait for the device; store it when the wait would be longer than ThingsBoard's.

    Raises:
        DeviceOffline: the device did not fetch it in time, or `fail_fast` found it inactive.
        DeviceSilent: it fetched it and did not answer in time.
        UpstreamGarbled: it answered something that is not JSON.
        NotFound: there is no such device.
    """
    if terms.timeout > LONGEST_WAIT_MS:
        waits = Terms(terms.timeout, terms.fail_fast, terms.expires_in or terms.timeout)
        return await store(upstream, device_id, command, waits)
    elapsed = _stopwatch()
    if terms.fail_fast:
        await refuse_inactive(upstream, device_id)
    reply = await upstream.rpc.send(device_id, command, timeout_ms=terms.timeout)
    if isinstance(reply, Silence):
        raise _failure(reply, elapsed())
    return Result("sent" if command.is_oneway else "answered", reply, elapsed())


async def store(upstream: ThingsBoardClient, device_id: str, command: Command, terms: Terms) -> Result:
    """Store a command until the device comes. It may have been delivered already when this returns.

    Raises:
        DeviceOffline: `fail_fast` found the device inactive.
        InvalidRequest: it had expired when ThingsBoard took it.
        NotFound: there is no such device.
    """
    elapsed = _stopwatch()
    if terms.fail_fast:
        await refuse_inactive(upstream, device_id)
    expires_ts = now_ms() + (terms.expires_in or DEFAULT_EXPIRY_MS)
    rpc_id = await upstream.rpc.store(device_id, command, expires_ts=expires_ts)
    return Result("queued", None, elapsed(), rpc_id, expires_ts)


def described(record: dict[str, Any]) -> dict[str, Any]:
    """Return a stored RPC with our word for its state, and whether that is the last one."""
    status = status_of(record)
    return {**record, "outcome": OUTCOMES.get(status, "queued"), "is_final": is_final(record)}


def event_of(record: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the data of the event that tells of a state; `gone` when there is none any more."""
    status = status_of(record)
    whose = {"rpc_id": record["id"]["id"], "device_id": record["deviceId"]["id"]}
    if status == DELETED:
        return "gone", whose
    return "state", {
        **whose,
        "status": status,
        "outcome": OUTCOMES.get(status, "queued"),
        "is_final": is_final(record),
        "is_oneway": is_oneway(record),
        "response": record.get("response"),
    }


def _stopwatch() -> Callable[[], int]:
    started = time.monotonic()
    return lambda: int((time.monotonic() - started) * 1_000)


async def refuse_inactive(upstream: ThingsBoardClient, device_id: str) -> None:
    """Raise DeviceOffline when ThingsBoard holds the device for inactive."""
    elapsed = _stopwatch()
    rows = await upstream.attributes.read("DEVICE", device_id, "SERVER_SCOPE", ["active"])
    # A device that ThingsBoard says nothing about gets its chance.
    if any(row.get("key") == "active" and row.get("value") is False for row in rows):
        raise DeviceOffline(
            "The device is not active. Nothing was sent.",
            details=_details("offline", "ThingsBoard holds the device for inactive", elapsed()),
            note="rpc_fail_fast",
        )


def _failure(silence: Silence, elapsed_ms: int) -> GatewayError:
    if silence is Silence.OFFLINE:
        issue = "the device did not come for the command in time"
        return DeviceOffline(details=_details("offline", issue, elapsed_ms), note="rpc_offline")
    if silence is Silence.SILENT:
        issue = "the device took the command and did not answer in time"
        return DeviceSilent(details=_details("timeout", issue, elapsed_ms), note="rpc_silent")
    return UpstreamGarbled(
        "The device answered something that is not JSON.",
        details=_details("answered", "reply is not JSON", elapsed_ms),
        note="rpc_not_json",
    )


def _details(outcome: Outcome, issue: str, elapsed_ms: int) -> dict[str, Any]:
    return {"outcome": outcome, "issue": issue, "elapsed_ms": elapsed_ms}
