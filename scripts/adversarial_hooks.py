"""What `scripts/run_adversarial.py` adds to schemathesis: checks of ours, real objects, faults."""

import atexit
import itertools
import json
import os
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import EnsureResourceAvailability, UseAfterFree

from benchmarks.processes import fetch, say
from scripts.adversarial_thingsboard import LIGHT

#: The port of the simulator whose calls are to fail; 0: none is.
SIMULATOR = int(os.environ["ADVERSARIAL_SIMULATOR"] or 0)
#: The objects that the examples name.
KEPT = frozenset(os.environ["ADVERSARIAL_KEPT"].split(","))
DELETABLE = ("{device_id}", "{asset_id}", "{rpc_id}")
CREATING = ("/devices", "/assets")
LONGEST_NAME = 255
NOBODY = "13814000-1dd2-11b2-8080-000000000000"
#: What becomes of a call to ThingsBoard, in turn: one of three cases meets a fault.
FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
    {"kind": "reset"},
    {"kind": "truncate"},
    {"kind": "malformed"},
    {"kind": "content_type"},
    {"kind": "status", "status": 302},
    {"kind": "status", "status": 403},
    {"kind": "status", "status": 200, "body": "[]"},
]
EVERY = 3
#: One of so many faults is this one instead: for some seconds after it the gateway calls more slowly.
BUSY_EVERY = 50
BUSY: dict[str, Any] = {"kind": "status", "status": 429}
#: Of the gateway or of ThingsBoard, not of the caller.
NOT_THE_CALLERS = {502, 503, 504}
#: An answer that is to say what is wrong with which field.
EXPLAINED = {400, 422}
#: What is not as the document says, and is to stay so.
MEANT = {
    # SDKs are to hand over the bytes of a file; text/csv in the document makes some of them parse it.
    ("UndefinedContentType", "export_telemetry"),
    ("UndefinedContentType", "export_asset_telemetry"),
    # The same for a history in another format than JSON; the document says in words which there are.
    ("UndefinedContentType", "get_telemetry"),
    ("UndefinedContentType", "get_asset_telemetry"),
    # Uploads take more forms than the one that the document declares; it describes them in words.
    ("AcceptedNegativeData", "upload_telemetry"),
    ("AcceptedNegativeData", "upload_asset_telemetry"),
    # Of many devices each has its own result, the refusal of what was sent for it too.
    ("AcceptedNegativeData", "upload_bulk_telemetry"),
}
#: The objects that were deleted, and how often somebody asked for one of them later.
deleted: set[object] = set()
too_late = itertools.count()
calls = itertools.count()
atexit.register(lambda: say(f"📊 {next(too_late)} calls of what had been deleted"))


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _kwargs: dict[str, Any]) -> None:
    """Give every call an address of its own and maybe a fault; keep what is to stay."""
    number = next(calls)
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    case.headers["X-Forwarded-For"] = address
    # For what no device will ever say the gateway waits 5 s.
    body = case.body
    if case.path.endswith("/light") and isinstance(body, dict) and body.get("key", LIGHT) != LIGHT:
        body["verify"] = False if body.get("verify", True) is True else body["verify"]
    # Of the same chain, tried again, the same has to come: a name that is taken by now is another answer.
    name = body.get("name") if isinstance(body, dict) and case.path.endswith(CREATING) else None
    if isinstance(body, dict) and isinstance(name, str) and is_chained(case):
        body["name"] = renamed(name, number)
    # What all other cases ask for stays; objects that were made in between are deleted.
    if case.method == "DELETE" and case.path.endswith(DELETABLE):
        for name, value in case.path_parameters.items():
            # In capitals it is the same id.
            case.path_parameters[name] = NOBODY if str(value).lower() in KEPT else value
    if SIMULATOR and number % EVERY == 0:
        turn = number // EVERY
        fault = FAULTS[turn % len(FAULTS)] if turn % BUSY_EVERY else BUSY
        content = json.dumps({**fault, "count": 1}).encode()
        fetch(SIMULATOR, "/__simulator/faults", {}, method="DELETE")
        fetch(SIMULATOR, "/__simulator/faults", {}, method="POST", body=content)


def is_chained(case: Case[Any]) -> bool:
    """Tell whether a case is part of a chain."""
    return case.meta is not None and case.meta.phase.name == TestPhase.STATEFUL


def renamed(name: str, number: int) -> str:
    """Return a name that nothing has; what is no good name stays as it is."""
    is_good = name.strip() and "\0" not in name and len(name) <= LONGEST_NAME
    return f"{number} {name}"[:LONGEST_NAME] if is_good else name


@schemathesis.hook
def filter_failure(_context: HookContext, failure: Failure, case: Case[Any], _response: Response) -> bool:
    """Drop what is known and meant."""
    # Points and attributes are deleted from an object: what is read there later is there, and empty.
    if isinstance(failure, UseAfterFree) and not str(failure.operation).endswith(DELETABLE):
        return False
    # It is we who asked for nobody.
    if isinstance(failure, EnsureResourceAvailability) and NOBODY in case.path_parameters.values():
        return False
    return (type(failure).__name__, case.operation.definition.raw["operationId"]) not in MEANT


@schemathesis.check
def blames_whose_fault_it_is(_ctx: CheckContext, response: Response, _case: Case[Any]) -> None:
    """Without a fault there is no 5xx but that of a device that is silent; with one, never a 500."""
    allowed = NOT_THE_CALLERS if SIMULATOR else {504}
    assert response.status_code < 500 or response.status_code in allowed, (  # noqa: PLR2004
        f"a {response.status_code} that is nobody's fault but the gateway's"
    )


@schemathesis.check
def explains_refusals(_ctx: CheckContext, response: Response, _case: Case[Any]) -> None:
    """What the gateway takes for the caller's mistake names the field and what is wrong with it."""
    if response.status_code in EXPLAINED:
        details = response.json()["details"]
        assert details, "no details"
        assert details.get("field"), "no field is named"
        assert details.get("issue"), "nothing is said about the field"


@schemathesis.check
def stays_deleted(_ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """What was deleted is neither read nor written, by whatever operation."""
    named = next(iter(case.path_parameters.values()), None)
    was_granted = 200 <= response.status_code < 300  # noqa: PLR2004 - HTTP's successes
    if named in deleted:
        next(too_late)
        assert not was_granted, "it had been deleted"
    elif was_granted and case.method == "DELETE" and case.path.endswith(DELETABLE):
        deleted.add(named)
