"""Examples of the OpenAPI document for commands to devices."""

from typing import Any

from app.openapi_examples import BOILER, JSON, NOW, TENANT_ID, page_of, success


def command_examples() -> dict[str, dict[str, Any]]:
    """Return the examples of commands to devices."""
    rpc_id, params = "3915f972-8ff5-465d-9eba-3f3bfa8764e6", {"on": True}
    command = {"method": "setLight", "params": params, "timeout": 10_000, "fail_fast": False}
    answered = {"device_id": BOILER, "outcome": "answered", "response": {"on": True}, "elapsed_ms": 136}
    queued = {
        "device_id": BOILER,
        "outcome": "queued",
        "response": None,
        "elapsed_ms": 31,
        "rpc_id": rpc_id,
        "expires_ts": NOW + 3_600_000,
    }
    stored = {
        "id": {"entityType": "RPC", "id": rpc_id},
        "createdTime": NOW,
        "tenantId": TENANT_ID,
        "deviceId": {"entityType": "DEVICE", "id": BOILER},
        "expirationTime": NOW + 3_600_000,
        "request": {"oneway": False, "body": {"method": "setLight", "params": params}, "persisted": True},
        "response": {"on": True},
        "status": "SUCCESSFUL",
        "additionalInfo": None,
        "outcome": "answered",
        "is_final": True,
    }
    return {
        "send_oneway_rpc": {
            "request": {JSON: command},
            "response": success(**answered | {"outcome": "sent", "response": None}),
            "202": success(**queued),
        },
        "send_twoway_rpc": {
            "request": {JSON: command},
            "response": success(**answered),
            "202": success(**queued),
        },
        "send_persistent_rpc": {
            "request": {JSON: {"method": "setLight", "params": params, "expires_in": 3_600_000}},
            "response": success(**queued),
        },
        "set_light": {
            "request": {JSON: {"state": "on", "verify": True, "key": "light"}},
            "response": success(**answered, verified=True, observed={"ts": NOW - 20, "value": "on"}),
        },
        "list_rpcs": {"response": page_of(stored)},
        "get_rpc": {"response": success(data=stored)},
        "stream_rpc_events": {
            "response": {
                "text/event-stream": 'event: state\ndata: {"rpc_id":"3915f972-8ff5-465d-9eba-3f3bfa8764e6",'
                '"device_id":"065b2ed0-e62a-11f1-9212-1192b8cbba80","status":"SUCCESSFUL",'
                '"outcome":"answered","is_final":true,"is_oneway":false,"response":{"on":true}}\n\n'
            }
        },
        "delete_rpc": {"response": success(rpc_id=rpc_id, device_id=BOILER, message="RPC deleted.")},
    }


EXAMPLES = command_examples()
