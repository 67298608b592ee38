"""The links of the OpenAPI document: what an answer names, and which operations take it.

Whoever reads the document finds the next call; tests walk them from call to call.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Link:
    """One answer of one operation.

    Args:
        parameters: what the targets take, each with where it stands in the answer.
        targets: operation ids; none: every operation that has all of the parameters in its path.
    """

    source: str
    status: int
    parameters: dict[str, str]
    targets: tuple[str, ...] = ()


_ID, _FIRST_ID, _RPC_ID = (
    "$response.body#/data/id/id",
    "$response.body#/data/0/id/id",
    "$response.body#/rpc_id",
)
_FROM, _TO = "$response.body#/data/from", "$response.body#/data/to"
#: What shows that points have arrived.
_READS = (
    "list_{}telemetry_keys",
    "get_{}latest_telemetry",
    "get_{}telemetry",
    "count_{}telemetry",
    "query_{}telemetry",
    "delete_{}telemetry",
)

LINKS = (
    Link("create_device", 201, {"device_id": _ID}),
    Link("create_asset", 201, {"asset_id": _ID}),
    Link("list_devices", 200, {"device_id": _FIRST_ID}, ("get_device",)),
    Link("list_assets", 200, {"asset_id": _FIRST_ID}, ("get_asset",)),
    Link(
        "upload_telemetry",
        201,
        {"device_id": "$response.body#/device_id"},
        tuple(read.format("") for read in _READS),
    ),
    Link(
        "upload_asset_telemetry",
        201,
        {"asset_id": "$response.body#/asset_id"},
        tuple(read.format("asset_") for read in _READS),
    ),
    Link("list_alarms", 200, {"alarm_id": _FIRST_ID}),
    Link("list_device_alarms", 200, {"alarm_id": _FIRST_ID}),
    Link("send_persistent_rpc", 202, {"rpc_id": _RPC_ID}),
    Link("send_oneway_rpc", 202, {"rpc_id": _RPC_ID}),
    Link("send_twoway_rpc", 202, {"rpc_id": _RPC_ID}),
    Link("list_rpcs", 200, {"rpc_id": _FIRST_ID}),
    Link(
        "create_relation",
        201,
        {
            "from_id": f"{_FROM}/id",
            "from_type": f"{_FROM}/entity_type",
            "to_id": f"{_TO}/id",
            "to_type": f"{_TO}/entity_type",
            "type": "$response.body#/data/type",
        },
        ("delete_relation",),
    ),
    Link(
        "create_relation",
        201,
        {"entity_id": f"{_FROM}/id", "entity_type": f"{_FROM}/entity_type"},
        ("list_relations",),
    ),
    Link(
        "create_relation",
        201,
        {"root_id": f"{_FROM}/id", "root_type": f"{_FROM}/entity_type"},
        ("get_graph",),
    ),
)


def add_links(paths: dict[str, Any]) -> None:
    """Add them to the answers of the operations."""
    operations = {
        operation["operationId"]: (path, operation)
        for path, item in paths.items()
        for operation in item.values()
    }
    for link in LINKS:
        targets = link.targets or [
            name
            for name, (path, _) in operations.items()
            if all(f"{{{parameter}}}" in path for parameter in link.parameters)
        ]
        answer = operations[link.source][1]["responses"][str(link.status)]
        answer.setdefault("links", {}).update(
            {name: {"operationId": name, "parameters": dict(link.parameters)} for name in targets}
        )
