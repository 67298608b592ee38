"""What `scripts/run_adversarial.py` adds to schemathesis: checks of ours, real objects, faults."""

import itertools
import json
import os
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.core.failures import Failure

from benchmarks.processes import fetch

#: The port of the simulator whose calls are to fail; 0: none is.
SIMULATOR = int(os.environ["ADVERSARIAL_SIMULATOR"] or 0)
#: The objects that the examples name.
KEPT = frozenset(os.environ["ADVERSARIAL_KEPT"].split(","))
NOBODY = "13814000-1dd2-11b2-8080-000000000000"
#: What becomes of a call to ThingsBoard, in turn: one of three cases meets a fault.
FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429},
    {"kind": "reset"},
    {"kind": "truncate"},
    {"kind": "malformed"},
    {"kind": "content_type"},
    {"kind": "status", "status": 302},
    {"kind": "status", "status": 403},
    {"kind": "status", "status": 200, "body": "[]"},
]
EVERY = 3
#: Of the gateway or of ThingsBoard, not of the caller.
NOT_THE_CALLERS = {502, 503, 504}
#: An answer that is to say what is wrong with which field.
EXPLAINED = {400, 422}
COMMANDS = ("/rpc/oneway", "/rpc/twoway")
#: What is not as the document says, and is to stay so.
MEANT = {
    # SDKs are to hand over the bytes of a file; text/csv in the document makes some of them parse it.
    ("UndefinedContentType", "export_telemetry"),
    ("UndefinedContentType", "export_asset_telemetry"),
    # Uploads take more forms than the one that the document declares; it describes them in words.
    ("AcceptedNegativeData", "upload_telemetry"),
    ("AcceptedNegativeData", "upload_asset_telemetry"),
    # Of many devices each has its own result, the refusal of what was sent for it too.
    ("AcceptedNegativeData", "upload_bulk_telemetry"),
}
calls = itertools.count()


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _kwargs: dict[str, Any]) -> None:
    """Give every call an address of its own, no patience for devices that are away, and maybe a fault."""
    number = next(calls)
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    case.headers["X-Forwarded-For"] = address
    # ThingsBoard tells offline from silent after 5 s at least, and nobody listens here.
    body = case.body
    if case.path.endswith(COMMANDS) and isinstance(body, dict) and body.get("fail_fast", False) is False:
        body["fail_fast"] = True
    # What all other cases ask for stays; objects that were made in between are deleted.
    if case.method == "DELETE" and case.path.endswith(("{device_id}", "{asset_id}")):
        for name, value in case.path_parameters.items():
            case.path_parameters[name] = NOBODY if value in KEPT else value
    if SIMULATOR and number % EVERY == 0:
        fault = {**FAULTS[number // EVERY % len(FAULTS)], "count": 1}
        content = json.dumps(fault).encode()
        fetch(SIMULATOR, "/__simulator/faults", {}, method="DELETE")
        fetch(SIMULATOR, "/__simulator/faults", {}, method="POST", body=content)


@schemathesis.hook
def filter_failure(_context: HookContext, failure: Failure, case: Case[Any], _response: Response) -> bool:
    """Drop what is known and meant."""
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
