"""What a third party does through the gateway, from the first list to the graph."""

import csv
import io
import json
from typing import Any

import httpx
import openpyxl
import pytest

from tests.e2e.conftest import Made

T = 1_760_000_000_000
UNKNOWN = "00000000-0000-0000-0000-000000000007"
FORMATS = ("json", "csv", "jsonl", "xlsx")


async def upload(client: httpx.AsyncClient, device: Made, body: Any) -> dict[str, Any]:
    answer = await client.post(f"/devices/{device.id}/telemetry", json=body)
    assert answer.status_code == 201, answer.text
    result: dict[str, Any] = answer.json()
    return result


async def test_a_device_is_listed_found_changed_and_deleted(served: httpx.AsyncClient, make: Any) -> None:
    device = await make(label="first")
    listed = (await served.get("/devices", params={"text_search": device.name})).json()
    assert [each["name"] for each in listed["data"]] == [device.name]
    assert listed["pagination"] == {
        "page": 0,
        "page_size": 100,
        "total_pages": 1,
        "total_elements": 1,
        "has_next": False,
    }
    assert listed["data"][0]["active"] is False
    by_name = (await served.get(f"/devices/name:{device.name}")).json()["data"]
    assert by_name["id"]["id"] == device.id
    patched = await served.patch(f"/devices/{device.id}", json={"label": "second"})
    assert patched.json()["data"]["label"] == "second"
    again = await served.post("/devices", json={"name": device.name})
    assert (again.status_code, again.json()["error_code"]) == (409, "CONFLICT")
    credentials = (await served.get(f"/devices/{device.id}/credentials")).json()["data"]
    assert credentials["credentialsType"] == "ACCESS_TOKEN"
    assert (await served.delete(f"/devices/{device.id}")).status_code == 200
    assert (await served.get(f"/devices/{device.id}")).status_code == 404


async def test_pages_joined_are_the_whole_list(served: httpx.AsyncClient, make: Any) -> None:
    made = sorted([(await make(type="e2e-pages")).name for _ in range(5)])
    names: list[str] = []
    page = 0
    while True:
        query = {"page": page, "page_size": 2, "device_type": "e2e-pages", "sort_by": "name"}
        body = (await served.get("/devices", params=query)).json()
        names += [device["name"] for device in body["data"]]
        if not body["pagination"]["has_next"]:
            break
        page += 1
    assert [name for name in names if name in made] == made


async def test_an_uploaded_point_comes_back_exactly(served: httpx.AsyncClient, make: Any) -> None:
    device = await make()
    answer = await upload(served, device, {"temperature": [{"ts": T, "value": 25.6}]})
    assert (answer["keys_uploaded"], answer["total_data_points"]) == (["temperature"], 1)
    assert answer["warnings"] == []
    latest = (await served.get(f"/devices/{device.id}/telemetry/latest?keys=temperature,nope")).json()
    assert latest["data"] == {"temperature": {"ts": T, "value": 25.6}, "nope": None}
    history = (await served.get(f"/devices/{device.id}/telemetry?keys=temperature,nope")).json()
    assert history["data"] == {"temperature": [{"ts": T, "value": 25.6}], "nope": []}


async def test_every_kind_of_value_survives(served: httpx.AsyncClient, make: Any) -> None:
    device = await make()
    values = {
        "int": 25,
        "float": 25.6,
        "bool": True,
        "text": "on",
        "big": 9007199254740993,
        "largest": 2**63 - 1,
        "smallest": -(2**63),
        "object": {"a": [1, {"b": None}]},
        "list": [1, 2, 3],
        "unicode": "Grüße 🌡️",
    }
    answer = await upload(served, device, {"ts": T, "values": values})
    assert answer["warnings"] == []
    latest = (await served.get(f"/devices/{device.id}/telemetry/latest")).json()["data"]
    assert {key: point["value"] for key, point in latest.items()} == values
    assert type(latest["int"]["value"]) is int
    assert latest["bool"]["value"] is True


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("0042", 42),
        (".5", 0.5),
        (0.30000000000000004, 0.3),
        (2**63, str(2**63)),
        ("12", 12),
        ("true", "true"),
    ],
)
async def test_what_thingsboard_changes_is_warned_about(
    served: httpx.AsyncClient, make: Any, value: Any, stored: Any
) -> None:
    device = await make()
    answer = await upload(served, device, {"k": [{"ts": T, "value": value}]})
    read = (await served.get(f"/devices/{device.id}/telemetry/latest?keys=k")).json()["data"]["k"]["value"]
    assert read == stored
    warned = {warning["key"] for warning in answer["warnings"]}
    assert warned == (set() if value == stored and type(value) is type(stored) else {"k"})


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"ts": T, "temperature": 1},
        {"values": {}},
        {"ts": T, "values": {}},
        {"a,b": [{"ts": T, "value": 1}]},
        {"k": [{"ts": T // 1000, "value": 1}]},
        {"k": None},
        {"k": [{"ts": T, "value": None}]},
        "text",
        {"k" * 256: 1},
    ],
    ids=str,
)
async def test_uploads_that_make_no_sense_are_refused(
    served: httpx.AsyncClient, make: Any, body: Any
) -> None:
    device = await make()
    answer = await served.post(f"/devices/{device.id}/telemetry", json=body)
    assert answer.status_code == 400, answer.text
    assert {"field", "issue"} <= set(answer.json()["details"])
    assert (await served.get(f"/devices/{device.id}/keys")).json()["keys"] == []


async def test_all_four_forms_are_stored(served: httpx.AsyncClient, make: Any) -> None:
    device = await make()
    await upload(served, device, {"a": [{"ts": T, "value": 1}, {"ts": T + 1, "value": 2}]})
    await upload(served, device, {"b": 1.5, "c": "x"})
    await upload(served, device, {"ts": T, "values": {"d": True}})
    await upload(served, device, [{"ts": T, "values": {"e": 1}}, {"ts": T + 1, "values": {"e": 2}}])
    latest = (await served.get(f"/devices/{device.id}/telemetry/latest")).json()["data"]
    assert {key: point["value"] for key, point in latest.items()} == {
        "a": 2,
        "b": 1.5,
        "c": "x",
        "d": True,
        "e": 2,
    }


def read_points(file_format: str, answer: httpx.Response) -> list[tuple[int, str, Any]]:
    """Return the points of an export, in its order."""
    if file_format == "json":
        data = answer.json()["data"]
        return [(point["ts"], key, point["value"]) for key, points in data.items() for point in points]
    if file_format == "jsonl":
        lines = [json.loads(line) for line in answer.text.splitlines()]
        return [(line["ts"], line["key"], line["value"]) for line in lines]
    if file_format == "csv":
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        return [(int(row["ts"]), row["key"], float(row["value"])) for row in rows]
    book = openpyxl.load_workbook(io.BytesIO(answer.content), read_only=True)
    return [
        (row[0], sheet.title, row[1])
        for sheet in book
        for row in sheet.iter_rows(min_row=2, values_only=True)
    ]


async def test_a_long_history_with_a_sparse_key_comes_back_whole(
    served: httpx.AsyncClient, make: Any
) -> None:
    device = await make()
    dense = [{"ts": T + n * 1000, "value": n + 0.5} for n in range(12_000)]
    sparse = [{"ts": T + n * 1000, "value": n + 0.25} for n in range(0, 12_000, 997)]
    await upload(served, device, {"dense": dense, "sparse": sparse})
    expected = {
        "dense": [(point["ts"], point["value"]) for point in dense],
        "sparse": [(point["ts"], point["value"]) for point in sparse],
    }
    for file_format in FORMATS:
        answer = await served.get(f"/devices/{device.id}/telemetry", params={"format": file_format})
        assert answer.status_code == 200, answer.text
        read: dict[str, list[tuple[int, Any]]] = {"dense": [], "sparse": []}
        points = read_points(file_format, answer)
        for ts, key, value in points:
            read[key].append((ts, value))
        assert read == expected, file_format
        if file_format in {"csv", "jsonl"}:
            assert [ts for ts, _, _ in points] == sorted(ts for ts, _, _ in points)
    count = (await served.get(f"/devices/{device.id}/telemetry/count")).json()
    assert count["counts"] == {"dense": 12_000, "sparse": len(sparse)}


async def test_a_range_ends_before_its_end(served: httpx.AsyncClient, make: Any) -> None:
    device = await make()
    await upload(served, device, {"k": [{"ts": T + n, "value": n} for n in range(5)]})
    query = {"keys": "k", "start_ts": T + 1, "end_ts": T + 3}
    body = (await served.get(f"/devices/{device.id}/telemetry", params=query)).json()
    assert [point["value"] for point in body["data"]["k"]] == [1, 2]
    iso = {"keys": "k", "start_ts": "2025-10-09T08:53:20.001Z", "end_ts": "2025-10-09T10:53:20.003+02:00"}
    body = (await served.get(f"/devices/{device.id}/telemetry", params=iso)).json()
    assert [point["value"] for point in body["data"]["k"]] == [1, 2]


async def test_queries_page_by_cursor(served: httpx.AsyncClient, make: Any) -> None:
    device = await make()
    await upload(served, device, {"k": [{"ts": T + n, "value": n} for n in range(25)]})
    query: dict[str, Any] = {"keys": ["k"], "start_ts": T, "end_ts": T + 100, "limit": 10}
    values: list[int] = []
    while True:
        body = (await served.post(f"/devices/{device.id}/telemetry/query", json=query)).json()
        values += [point["value"] for point in body["data"]["k"]]
        if not body["metadata"]["truncated"]:
            break
        query["cursor"] = body["metadata"]["next_cursor"]
    assert values == list(range(25))


async def test_aggregates_name_their_buckets(served: httpx.AsyncClient, make: Any) -> None:
    device = await make()
    points = [{"ts": T + n * 1000, "value": n} for n in range(25)]
    await upload(served, device, {"k": points, "text": [{"ts": T, "value": "on"}]})
    query = {"keys": ["k"], "start_ts": T + 1000, "end_ts": T + 12_500, "interval": 5000, "agg": "COUNT"}
    body = (await served.post(f"/devices/{device.id}/telemetry/query", json=query)).json()
    assert body["data"]["k"] == [
        {"ts": T + 1000, "end_ts": T + 6000, "value": 5},
        {"ts": T + 6000, "end_ts": T + 11_000, "value": 5},
        {"ts": T + 11_000, "end_ts": T + 12_500, "value": 2},
    ]
    query = {"keys": ["k", "text"], "start_ts": T, "end_ts": T + 25_000, "interval": 25_000, "agg": "AVG"}
    body = (await served.post(f"/devices/{device.id}/telemetry/query", json=query)).json()
    assert body["data"]["k"][0]["value"] == 12.0
    assert [point["value"] for point in body["data"]["text"]] in ([None], [])
    assert {warning["key"] for warning in body["warnings"]} == {"text"}


async def test_days_follow_the_clocks_of_their_zone(served: httpx.AsyncClient, make: Any) -> None:
    """2025-10-26 has 25 hours in Berlin."""
    device = await make()
    start = 1_761_343_200_000  # 2025-10-25T00:00 in Berlin.
    hours = [{"ts": start + n * 3_600_000, "value": n} for n in range(24 + 25 + 24)]
    await upload(served, device, {"k": hours})
    query = {
        "keys": ["k"],
        "start_ts": start,
        "end_ts": start + (24 + 25 + 24) * 3_600_000,
        "interval": "day",
        "time_zone": "Europe/Berlin",
        "agg": "COUNT",
    }
    body = (await served.post(f"/devices/{device.id}/telemetry/query", json=query)).json()
    assert [point["value"] for point in body["data"]["k"]] == [24, 25, 24]
    query |= {"interval": "month", "agg": "SUM", "end_ts": start + 30 * 86_400_000}
    body = (await served.post(f"/devices/{device.id}/telemetry/query", json=query)).json()
    assert body["data"]["k"][0]["value"] == sum(range(73))


@pytest.mark.parametrize("file_format", FORMATS)
async def test_an_unknown_device_is_not_found_before_the_first_byte(
    served: httpx.AsyncClient, file_format: str
) -> None:
    for path in ("telemetry", "telemetry/export"):
        if path == "telemetry/export" and file_format == "json":
            continue
        answer = await served.get(
            f"/devices/{UNKNOWN}/{path}", params={"format": file_format, "keys": "temperature"}
        )
        assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_NOT_FOUND")


async def test_a_customer_user_never_gets_anothers_history(
    served: httpx.AsyncClient, served_customer: httpx.AsyncClient, make: Any
) -> None:
    device = await make()
    await upload(served, device, {"temperature": [{"ts": T, "value": 25.6}]})
    for file_format in FORMATS:
        answer = await served_customer.get(
            f"/devices/{device.id}/telemetry",
            params={"format": file_format, "keys": "temperature", "start_ts": T - 1, "end_ts": T + 1},
        )
        assert answer.status_code == 404, file_format
    query = {"keys": ["temperature"], "start_ts": T - 1, "end_ts": T + 1}
    for extra in ({}, {"agg": "AVG", "interval": 1000}, {"agg": "COUNT", "interval": "day"}):
        answer = await served_customer.post(f"/devices/{device.id}/telemetry/query", json={**query, **extra})
        assert answer.status_code == 404, extra
    assert (await served_customer.get(f"/devices/{device.id}/telemetry/count")).status_code == 404
    assert (await served_customer.get(f"/devices/{device.id}/telemetry/latest")).status_code == 404
    wrong_type = await served_customer.get(f"/assets/{device.id}/telemetry?keys=temperature")
    assert wrong_type.status_code == 404
    many = {"device_ids": [device.id], "keys": ["temperature"]}
    for path, extra in (
        ("latest", {}),
        ("latest", {"types": "inferred"}),
        ("query", {"start_ts": T - 1, "end_ts": T + 1}),
    ):
        body = (await served_customer.post(f"/telemetry/{path}", json={**many, **extra})).json()
        assert body["data"] == {}
        assert body["errors"][device.id]["error_code"] == "RESOURCE_NOT_FOUND"


async def test_one_bad_device_in_a_bulk_leaves_the_good_ones_stored(
    served: httpx.AsyncClient, make: Any
) -> None:
    devices = [await make() for _ in range(10)]
    body: dict[str, Any] = {device.id: {"k": [{"ts": T, "value": 1}]} for device in devices[:9]}
    body[f"name:{devices[9].name}"] = {"ts": T, "values": {"k": 1}}
    body[UNKNOWN] = {"k": [{"ts": T, "value": 1}]}
    answer = await served.post("/telemetry/bulk", json=body)
    assert answer.status_code == 207, answer.text
    result = answer.json()
    assert result["status"] == "partial"
    assert result["summary"] == {
        "total_devices": 11,
        "successful_devices": 10,
        "failed_devices": 1,
        "total_data_points": 10,
    }
    assert result["results"][UNKNOWN]["status"] == "error"
    for device in devices:
        latest = (await served.get(f"/devices/{device.id}/telemetry/latest?keys=k")).json()
        assert latest["data"]["k"] == {"ts": T, "value": 1}


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "text/csv"])
async def test_bulk_streams_are_stored_by_device(
    served: httpx.AsyncClient, make: Any, content_type: str
) -> None:
    devices = [await make() for _ in range(3)]
    rows = [(device.id, T + n, "k", n) for n in range(50) for device in devices]
    if content_type == "text/csv":
        body = "device_id,ts,key,value\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    else:
        body = "".join(
            json.dumps({"device_id": row[0], "ts": row[1], "values": {row[2]: row[3]}}) + "\n" for row in rows
        )
    answer = await served.post("/telemetry/bulk", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 200, answer.text
    assert answer.json()["summary"]["total_data_points"] == 150
    for device in devices:
        history = (await served.get(f"/devices/{device.id}/telemetry?keys=k")).json()
        assert [point["value"] for point in history["data"]["k"]] == list(range(50))


async def test_many_devices_are_read_in_one_call(served: httpx.AsyncClient, make: Any) -> None:
    devices = [await make() for _ in range(3)]
    for number, device in enumerate(devices):
        await upload(served, device, {"n": [{"ts": T, "value": number}], "on": [{"ts": T, "value": True}]})
    ids = [device.id for device in devices[:2]] + [f"name:{devices[2].name}", UNKNOWN]
    for types in ("strict", "inferred"):
        answer = await served.post(
            "/telemetry/latest", json={"device_ids": ids, "keys": ["n", "on", "nope"], "types": types}
        )
        body = answer.json()
        assert answer.status_code == 200, answer.text
        assert [body["data"][each]["n"] for each in ids[:3]] == [{"ts": T, "value": n} for n in range(3)]
        assert body["data"][ids[0]]["on"]["value"] is True
        assert body["data"][ids[0]]["nope"] is None
        assert set(body["errors"]) == {UNKNOWN}


async def test_deleting_a_range_moves_latest_back(served: httpx.AsyncClient, make: Any) -> None:
    device = await make()
    await upload(served, device, {"k": [{"ts": T + n, "value": n} for n in range(5)]})
    path = f"/devices/{device.id}/telemetry"
    assert (await served.delete(path, params={"keys": "k", "start_ts": T + 3})).status_code == 200
    latest = (await served.get(f"{path}/latest?keys=k")).json()["data"]["k"]
    assert latest == {"ts": T + 2, "value": 2}
    assert (await served.delete(path, params={"keys": "k"})).status_code == 200
    assert (await served.get(f"/devices/{device.id}/keys")).json()["keys"] == []


async def test_attributes_are_written_read_and_deleted_by_scope(served: httpx.AsyncClient, make: Any) -> None:
    device = await make()
    path = f"/devices/{device.id}/attributes"
    written = await served.post(f"{path}/server", json={"serial": "SN-1", "limit": 30.5, "cfg": {"a": 1}})
    assert written.status_code in {200, 201}, written.text
    assert written.json()["scope"] == "SERVER_SCOPE"
    await served.post(f"{path}/shared", json={"firmware": "v1.2"})
    server = (await served.get(f"{path}/server")).json()["data"]
    assert {key: server[key]["value"] for key in ("serial", "limit", "cfg")} == {
        "serial": "SN-1",
        "limit": 30.5,
        "cfg": {"a": 1},
    }
    everything = (await served.get(path)).json()["data"]
    assert everything["SHARED_SCOPE"]["firmware"]["value"] == "v1.2"
    assert everything["CLIENT_SCOPE"] == {}
    assert (await served.delete(f"{path}/server?keys=serial")).status_code == 200
    assert "serial" not in (await served.get(f"{path}/server")).json()["data"]
    assert (await served.get(f"/devices/{UNKNOWN}/attributes/server")).status_code == 404
    assert (await served.post(f"{path}/server", json={})).status_code == 400


async def test_assets_have_telemetry_and_attributes_too(served: httpx.AsyncClient, make: Any) -> None:
    asset = await make("assets", type="e2e-building")
    path = f"/assets/name:{asset.name}"
    assert (
        await served.post(f"{path}/telemetry", json={"power": [{"ts": T, "value": 12.5}]})
    ).status_code == 201
    latest = (await served.get(f"{path}/telemetry/latest")).json()
    assert (latest["asset_id"], latest["data"]) == (asset.id, {"power": {"ts": T, "value": 12.5}})
    history = (await served.get(f"{path}/telemetry")).json()
    assert history["data"]["power"] == [{"ts": T, "value": 12.5}]
    await served.post(f"{path}/attributes/server", json={"floors": 3})
    assert (await served.get(f"{path}/attributes/server")).json()["data"]["floors"]["value"] == 3


async def test_the_graph_of_a_building(served: httpx.AsyncClient, make: Any) -> None:
    building, floor = await make("assets"), await make("assets")
    lamp, meter = await make(), await make()
    for start, end, kind in (
        (("ASSET", building), ("ASSET", floor), "Contains"),
        (("ASSET", floor), ("DEVICE", lamp), "Contains"),
        (("ASSET", floor), ("DEVICE", meter), "Manages"),
        (("DEVICE", lamp), ("ASSET", building), "BelongsTo"),
    ):
        body = {
            "from": {"entity_type": start[0], "id": start[1].id},
            "to": {"entity_type": end[0], "id": end[1].id},
            "type": kind,
        }
        assert (await served.post("/relations", json=body)).status_code == 201
    graph = (await served.get(f"/graph/{building.id}?root_type=ASSET&max_depth=5")).json()
    assert {(node["name"], node["type"], node["depth"]) for node in graph["nodes"]} == {
        (building.name, "ASSET", 0),
        (floor.name, "ASSET", 1),
        (lamp.name, "DEVICE", 2),
        (meter.name, "DEVICE", 2),
    }
    assert len(graph["edges"]) == 4
    up = (await served.get(f"/graph/{meter.id}?root_type=DEVICE&direction=TO")).json()
    assert {node["name"] for node in up["nodes"]} >= {meter.name, floor.name, building.name}
