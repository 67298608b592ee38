"""Examples of the OpenAPI document, by operation. A test validates each against its schema."""

from typing import Any

JSON = "application/json"
NOW = 1_767_225_600_000
TS = 1_767_225_540_000
TENANT_ID = {"entityType": "TENANT", "id": "b7048f20-e61f-11f1-8bad-23cb275c33c1"}
NO_CUSTOMER = {"entityType": "CUSTOMER", "id": "13814000-1dd2-11b2-8080-808080808080"}
BOILER = "065b2ed0-e62a-11f1-9212-1192b8cbba80"
BUILDING = "069d19d0-e62a-11f1-9212-1192b8cbba80"
FLOOR = "06a13880-e62a-11f1-9212-1192b8cbba80"

STREAM = {
    "text/event-stream": "event: telemetry\nid: AQkpiVz2\n"
    f'data: {{"device_id":"{BOILER}","key":"temperature","ts":{TS},"value":21.5}}\n\n'
}
DEVICE = {
    "id": {"entityType": "DEVICE", "id": BOILER},
    "createdTime": 1_767_139_200_000,
    "tenantId": TENANT_ID,
    "customerId": NO_CUSTOMER,
    "name": "boiler-1",
    "type": "thermostat",
    "label": "boiler room",
    "deviceProfileId": {"entityType": "DEVICE_PROFILE", "id": "b7190180-e61f-11f1-8bad-23cb275c33c1"},
    "version": 1,
    "additionalInfo": {"floor": 0},
}
ASSET = {
    "id": {"entityType": "ASSET", "id": BUILDING},
    "createdTime": 1_767_139_200_000,
    "tenantId": TENANT_ID,
    "customerId": NO_CUSTOMER,
    "name": "Building A",
    "type": "building",
    "label": "headquarters",
    "assetProfileId": {"entityType": "ASSET_PROFILE", "id": "069bba40-e62a-11f1-9212-1192b8cbba80"},
    "version": 1,
    "additionalInfo": None,
}
RELATION = {
    "from": {"id": BUILDING, "entity_type": "ASSET"},
    "to": {"id": FLOOR, "entity_type": "ASSET"},
    "type": "Contains",
}
LISTED_RELATION = {
    "from": {"entityType": "ASSET", "id": BUILDING},
    "to": {"entityType": "ASSET", "id": FLOOR},
    "type": "Contains",
    "typeGroup": "COMMON",
    "fromName": None,
    "toName": "Ground floor",
}

ALARM = {
    "id": {"entityType": "ALARM", "id": "ef4df485-11b3-45eb-91e8-b8e6899e55a6"},
    "createdTime": TS,
    "tenantId": TENANT_ID,
    "customerId": None,
    "type": "Too hot",
    "originator": {"entityType": "DEVICE", "id": BOILER},
    "originatorName": "boiler-1",
    "originatorLabel": "boiler room",
    "severity": "CRITICAL",
    "status": "ACTIVE_UNACK",
    "acknowledged": False,
    "cleared": False,
    "assigneeId": None,
    "startTs": TS,
    "endTs": TS,
    "ackTs": 0,
    "clearTs": 0,
    "details": {"temperature": 99.5},
}


def success(**members: Any) -> dict[str, Any]:
    """Return a JSON answer in its envelope, by media type."""
    return {JSON: {"status": "success", "timestamp": NOW, **members}}


def page_of(item: dict[str, Any]) -> dict[str, Any]:
    """Return a list of one."""
    return success(
        data=[item],
        pagination={
            "page": 0,
            "page_size": 100,
            "total_pages": 1,
            "total_elements": 1,
            "has_next": False,
        },
    )


HEALTH = {"response": success(service="ThingsBoard gateway", version="0.1.0")}

EXAMPLES: dict[str, dict[str, Any]] = {
    "get_root": {
        "response": success(
            service="ThingsBoard gateway",
            version="0.1.0",
            documentation="/docs",
            openapi="/openapi.json",
            api="/api/v1/tb",
        )
    },
    "get_health": HEALTH,
    "get_liveness": HEALTH,
    "get_health_v1": HEALTH,
    "get_readiness": {
        "response": success(
            service="ThingsBoard gateway",
            version="0.1.0",
            checks={
                "configuration": {"status": "up"},
                "process": {"status": "up"},
                "thingsboard": {"status": "up"},
                "api_keys": {"status": "up", "keys": 12, "since": 1_767_139_200_000},
            },
        )
    },
    "stream_telemetry": {"response": STREAM},
    "stream_telemetry_of_devices": {"response": STREAM},
    "get_whoami": {
        "response": success(
            name="analytics",
            id="analytics",
            upstream="default",
            scopes=["devices:read", "telemetry:read"],
            restrictions={
                "devices": None,
                "device_types": ["thermostat"],
                "customer": None,
                "asset": None,
            },
            limits={
                "limit": 100,
                "remaining": 99,
                "reset_seconds": 60,
                "window_seconds": 60,
                "max_streams": None,
            },
            expires_at="2027-01-31T00:00:00Z",
        )
    },
    "list_devices": {"response": page_of({**DEVICE, "active": True})},
    "create_device": {
        "request": {JSON: {"name": "boiler-1", "type": "thermostat", "label": "boiler room"}},
        "response": success(data=DEVICE),
    },
    "get_device": {"response": success(data=DEVICE)},
    "update_device": {
        "request": {JSON: {"label": "attic"}},
        "response": success(data={**DEVICE, "label": "attic", "version": 2}),
    },
    "delete_device": {"response": success(device_id=BOILER, message="Device deleted.")},
    "get_device_credentials": {
        "response": success(
            data={
                "id": {"id": "065cb570-e62a-11f1-9212-1192b8cbba80"},
                "createdTime": 1_767_139_200_000,
                "deviceId": {"entityType": "DEVICE", "id": BOILER},
                "credentialsType": "ACCESS_TOKEN",
                "credentialsId": "an-access-token",
                "credentialsValue": None,
            }
        )
    },
    "list_device_types": {
        "response": page_of({"tenantId": TENANT_ID, "entityType": "DEVICE", "type": "thermostat"})
    },
    "list_assets": {"response": page_of(ASSET)},
    "create_asset": {
        "request": {JSON: {"name": "Building A", "type": "building", "label": "headquarters"}},
        "response": success(data=ASSET),
    },
    "get_asset": {"response": success(data=ASSET)},
    "update_asset": {
        "request": {JSON: {"label": "annex"}},
        "response": success(data={**ASSET, "label": "annex", "version": 2}),
    },
    "delete_asset": {"response": success(asset_id=BUILDING, message="Asset deleted.")},
    "list_asset_types": {
        "response": page_of({"tenantId": TENANT_ID, "entityType": "ASSET", "type": "building"})
    },
    "list_alarms": {"response": page_of(ALARM)},
    "list_device_alarms": {"response": page_of(ALARM)},
    "get_alarm": {"response": success(data=ALARM)},
    "acknowledge_alarm": {
        "response": success(data={**ALARM, "acknowledged": True, "ackTs": NOW, "status": "ACTIVE_ACK"})
    },
    "clear_alarm": {
        "response": success(data={**ALARM, "cleared": True, "clearTs": NOW, "status": "CLEARED_UNACK"})
    },
    "list_relations": {"response": page_of(LISTED_RELATION)},
    "create_relation": {"request": {JSON: RELATION}, "response": success(data=RELATION)},
    "delete_relation": {"response": success(data=RELATION)},
    "get_graph": {
        "response": success(
            root={"id": BUILDING, "type": "ASSET", "name": "Building A"},
            nodes=[
                {"id": BUILDING, "type": "ASSET", "name": "Building A", "depth": 0},
                {"id": FLOOR, "type": "ASSET", "name": "Ground floor", "depth": 1},
                {"id": BOILER, "type": "DEVICE", "name": "boiler-1", "depth": 2},
            ],
            edges=[
                {"from": BUILDING, "to": FLOOR, "relation_type": "Contains"},
                {"from": FLOOR, "to": BOILER, "relation_type": "Contains"},
            ],
            depth=2,
            truncated=False,
        )
    },
}

LATEST = {"temperature": {"ts": TS, "value": 21.5}, "on": {"ts": TS, "value": True}, "unknown": None}
UPLOAD = {"temperature": [{"ts": TS, "value": 21.5}], "on": [{"ts": TS, "value": True}]}
WARNING = {"key": "serial", "reason": "is text that reads as a number; ThingsBoard stores the number 42"}
HOURLY = {
    "keys": ["temperature"],
    "start_ts": TS - 3_600_000,
    "end_ts": TS,
    "interval": "hour",
    "agg": "AVG",
    "time_zone": "Europe/Berlin",
}
ANSWERED = {
    "query": {**HOURLY, "limit": 1000, "fill": None, "order": "ASC"},
    "data": {"temperature": [{"ts": TS - 3_600_000, "end_ts": TS, "value": 21.25}]},
    "metadata": {
        "total_points": 1,
        "keys_found": ["temperature"],
        "keys_missing": [],
        "time_range": {"start": TS - 3_600_000, "end": TS, "duration_hours": 1.0},
        "truncated": False,
        "next_cursor": None,
    },
    "warnings": [],
}
ATTRIBUTE = {"serial": {"value": "SN-1", "last_update_ts": TS}}
MISSING = {
    "error": "Nothing is here, or nothing that this key may see: check path and id.",
    "error_code": "RESOURCE_NOT_FOUND",
    "status": 404,
}
BULK = success(
    summary={"total_devices": 2, "successful_devices": 1, "failed_devices": 1, "total_data_points": 2},
    results={
        BOILER: {
            "status": "success",
            "device_id": BOILER,
            "keys_uploaded": ["temperature", "on"],
            "data_points": 2,
            "error": None,
            "error_code": None,
            "warnings": [],
        },
        "name:nobody": {
            "status": "error",
            "device_id": None,
            "keys_uploaded": [],
            "data_points": 0,
            "error": "Nothing is here, or nothing that this key may see: check path and id.",
            "error_code": "RESOURCE_NOT_FOUND",
            "warnings": [],
        },
    },
    line_errors=[],
    total_line_errors=0,
    message="Stored 2 data points of 1 of 2 devices.",
)
BULK[JSON]["status"] = "partial"


def telemetry_examples(infix: str, owner: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the examples of the routes that devices and assets share."""
    return {
        f"list_{infix}telemetry_keys": {"response": success(**owner, keys=["temperature", "on"])},
        f"get_{infix}latest_telemetry": {
            "response": success(**owner, keys_requested=list(LATEST), data=LATEST)
        },
        f"get_{infix}telemetry": {
            "response": success(**owner, data={"temperature": [{"ts": TS, "value": 21.5}], "unknown": []})
        },
        f"export_{infix}telemetry": {
            "response": {"application/octet-stream": f"ts,key,value\r\n{TS},temperature,21.5\r\n"}
        },
        f"count_{infix}telemetry": {
            "response": success(**owner, counts={"temperature": 1440}, total=1440, exact=True, at_least=[])
        },
        f"query_{infix}telemetry": {"request": {JSON: HOURLY}, "response": success(**owner, **ANSWERED)},
        f"upload_{infix}telemetry": {
            "request": {JSON: UPLOAD},
            "response": success(
                **owner,
                keys_uploaded=["temperature", "on"],
                total_data_points=2,
                message="Stored 2 data points.",
                warnings=[WARNING],
            ),
        },
        f"delete_{infix}telemetry": {
            "response": success(**owner, keys_deleted=["temperature"], message="Telemetry deleted.")
        },
        f"get_{infix}attributes": {
            "response": success(**owner, scope="SERVER_SCOPE", data=ATTRIBUTE),
        },
        f"get_all_{infix}attributes": {
            "response": success(
                **owner, data={"SERVER_SCOPE": ATTRIBUTE, "SHARED_SCOPE": {}, "CLIENT_SCOPE": {}}
            ),
        },
        f"upload_{infix}attributes": {
            "request": {JSON: {"serial": "SN-1", "limit": 30.5}},
            "response": success(
                **owner,
                scope="SERVER_SCOPE",
                attributes_uploaded=["serial", "limit"],
                count=2,
                message="Stored 2 attributes.",
                warnings=[],
            ),
        },
        f"delete_{infix}attributes": {
            "response": success(
                **owner,
                scope="SERVER_SCOPE",
                attributes_deleted=["serial"],
                count=1,
                message="Attributes deleted.",
            )
        },
    }


EXAMPLES |= telemetry_examples("", {"device_id": BOILER})
EXAMPLES |= telemetry_examples("asset_", {"asset_id": BUILDING})
EXAMPLES |= {
    "get_latest_telemetry_of_devices": {
        "request": {JSON: {"device_ids": [BOILER, "name:nobody"], "keys": ["temperature", "on", "unknown"]}},
        "response": success(
            data={BOILER: LATEST}, errors={"name:nobody": MISSING}, device_ids={BOILER: BOILER}
        ),
    },
    "query_telemetry_of_devices": {
        "request": {JSON: {"device_ids": [BOILER, "name:nobody"], **HOURLY}},
        "response": success(
            data={BOILER: {"device_id": BOILER, **ANSWERED}},
            errors={"name:nobody": MISSING},
            device_ids={BOILER: BOILER},
        ),
    },
    "upload_bulk_telemetry": {
        "request": {JSON: {BOILER: UPLOAD, "name:nobody": UPLOAD}},
        "response": BULK,
    },
}
