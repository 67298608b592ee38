"""Telemetry uploads and deletions over HTTP."""

from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest

from tb_simulator.faults import Fault
from tb_simulator.server import Simulator

API = "/api/v1/tb"
NAME = "Test Device A1"
PATH = f"{API}/devices/name:{NAME}/telemetry"
T = 1_760_000_000_000
UNKNOWN = "00000000-0000-0000-0000-000000000007"


def device_id(simulator: Simulator, name: str = NAME) -> str:
    return next(device.id for device in simulator.world.every("DEVICE") if device.body["name"] == name)


async def stored(simulator: Simulator, keys: str, name: str = NAME) -> dict[str, list[tuple[int, Any]]]:
    """Read back through ThingsBoard's own API."""
    async with httpx.AsyncClient(base_url=simulator.url) as client:
        login = {"username": "tenant@thingsboard.org", "password": "tenant"}
        token = (await client.post("/api/auth/login", json=login)).json()["token"]
        answer = await client.get(
            f"/api/plugins/telemetry/DEVICE/{device_id(simulator, name)}/values/timeseries",
            params={
                "keys": keys,
                "startTs": -(10**14),
                "endTs": 10**15,
                "orderBy": "ASC",
                "limit": 10**6,
                "useStrictDataTypes": "true",
            },
            headers={"X-Authorization": f"Bearer {token}"},
        )
    return {key: [(point["ts"], point["value"]) for point in points] for key, points in answer.json().items()}


async def test_a_point_in_the_map_form_is_stored_with_exactly_its_time_and_value(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    answer = await gateway.post(PATH, json={"temperature": [{"ts": T, "value": 25.6}]})
    body = answer.json()
    assert answer.status_code == 201
    assert body.pop("timestamp") > T
    assert body == {
        "status": "success",
        "device_id": device_id(simulator),
        "keys_uploaded": ["temperature"],
        "total_data_points": 1,
        "message": "Stored 1 data points.",
        "warnings": [],
    }
    assert await stored(simulator, "temperature") == {"temperature": [(T, 25.6)]}


async def test_the_map_form_is_grouped_by_time(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    upload = {
        "a": [{"ts": T + 1, "value": 1}, {"ts": T, "value": True}],
        "b": [{"ts": "2025-10-09T08:53:20Z", "value": "on"}, {"ts": T + 2, "value": {"x": [1, None]}}],
    }
    answer = await gateway.post(PATH, json=upload)
    assert (answer.json()["keys_uploaded"], answer.json()["total_data_points"]) == (["a", "b"], 4)
    assert await stored(simulator, "a,b") == {
        "a": [(T, True), (T + 1, 1)],
        "b": [(T, "on"), (T + 2, {"x": [1, None]})],
    }
    assert simulator.calls[SAVES] == 1


@pytest.mark.parametrize(
    "upload",
    [
        {"ts": T, "values": {"a": 1, "b": "x"}},
        [{"ts": T, "values": {"a": 1}}, {"ts": T, "values": {"b": "x"}}],
        {"a": [{"ts": T, "value": 1}], "b": [{"ts": str(T), "value": "x"}]},
        [{"a": [{"ts": T, "value": 1}]}, {"ts": T, "values": {"b": "x"}}],
    ],
    ids=["values", "list", "map", "list of both"],
)
async def test_all_forms_with_times_store_the_same(
    gateway: httpx.AsyncClient, simulator: Simulator, upload: Any
) -> None:
    answer = await gateway.post(PATH, json=upload)
    assert (answer.status_code, answer.json()["total_data_points"]) == (201, 2)
    assert await stored(simulator, "a,b") == {"a": [(T, 1)], "b": [(T, "x")]}


@pytest.mark.parametrize(
    "upload", [{"a": 1, "b": [1, 2]}, [{"a": 1}, {"b": [1, 2]}]], ids=["plain", "list of plain"]
)
async def test_values_without_a_time_get_thingsboards(
    gateway: httpx.AsyncClient, simulator: Simulator, upload: Any
) -> None:
    assert (await gateway.post(PATH, json=upload)).json()["total_data_points"] == 2
    found = await stored(simulator, "a,b")
    assert [value for _, value in found["a"]] == [1]
    assert [value for _, value in found["b"]] == [[1, 2]]
    assert found["a"][0][0] == found["b"][0][0] > T


async def test_points_and_plain_values_may_be_mixed(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    answer = await gateway.post(PATH, json={"a": [{"ts": T, "value": 1}], "state": "on"})
    assert answer.json()["keys_uploaded"] == ["a", "state"]
    found = await stored(simulator, "a,state")
    assert found["a"] == [(T, 1)]
    assert [value for _, value in found["state"]] == ["on"]


async def test_a_point_without_a_key_of_its_own_is_a_json_value_and_a_warning(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    value = [{"ts": T, "value": 1}, {"ts": T}]
    answer = await gateway.post(PATH, json={"a": value})
    assert [warning["key"] for warning in answer.json()["warnings"]] == ["a"]
    assert [stored_value for _, stored_value in (await stored(simulator, "a"))["a"]] == [value]


EMPTY = ("telemetry_data", "empty request body")
REFUSED: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", *EMPTY),
    "blank": (b" \n", *EMPTY),
    "empty object": (b"{}", *EMPTY),
    "empty list": (b"[]", *EMPTY),
    "null": (b"null", *EMPTY),
    "number": (b"5", "telemetry_data", "must be a JSON object"),
    "zero": (b"0", "telemetry_data", "must be a JSON object"),
    "text": (b'"x"', "telemetry_data", "must be a JSON object"),
    "list of scalars": (b"[1]", "[0]", "must be a JSON object"),
    "list with an empty object": (b'[{"a":1},{}]', "[1]", "must not be empty"),
    "ts without values": (b'{"ts":1760000000000,"temp":1}', "ts", "ts without values"),
    "ts as a map key": (b'{"ts":[{"ts":1760000000000,"value":1}]}', "ts", "ts without values"),
    "ts as a key of values": (b'{"ts":1760000000000,"values":{"ts":1}}', "values.ts", "reserved"),
    "values without ts": (b'{"values":{"a":1}}', "values", "values without ts"),
    "values empty": (b'{"ts":1760000000000,"values":{}}', "values", "not empty"),
    "values no object": (b'{"ts":1760000000000,"values":[1]}', "values", "must be a JSON object"),
    "extra member": (b'{"ts":1760000000000,"values":{"a":1},"b":2}', "b", "beside ts and values"),
    "null value": (b'{"a":null}', "a", "must not be null"),
    "null in a point": (b'{"a":[{"ts":1760000000000,"value":null}]}', "a[0].value", "must not be null"),
    "null in values": (b'[{"ts":1760000000000,"values":{"a":null}}]', "[0].values.a", "must not be null"),
    "empty array": (b'{"a":[]}', "a", "must not be an empty list"),
    "empty key": (b'{"":1}', "telemetry_data", "the key is empty"),
    "long key": (b'{"' + b"k" * 256 + b'":1}', "k" * 120, "longer than 255"),
    "long key in UTF-16": (
        ('{"' + "\U0001f600" * 128 + '":1}').encode(),
        "\U0001f600" * 120,
        "longer than 255",
    ),
    "key with a comma": (b'{"a,b":[{"ts":1760000000000,"value":1}]}', "a,b", "comma"),
    "key with NUL": (b'{"a\\u0000":1}', "a\0", "NUL"),
    "text with NUL": (b'{"a":"x\\u0000"}', "a", "NUL"),
    "lone surrogate": (b'{"a":"\\ud800"}', "body", "not valid JSON"),
    "NaN": (b'{"a":NaN}', "body", "not valid JSON"),
    "Infinity": (b'{"a":-Infinity}', "body", "not valid JSON"),
    "malformed": (b"{oops", "body", "not valid JSON"),
    "not UTF-8": (b'{"a":"\xff"}', "body", "not valid JSON"),
    "beyond a float": (b'{"a":1e400}', "body", "too large"),
    "text beyond a float": (b'{"a":"' + b"9" * 400 + b'.5"}', "a", "infinite"),
    "too deep": (b'{"a":' + b"[" * 250 + b"]" * 250 + b"}", "a", "nested"),
    "much too deep": (b'{"a":9223372036854775808,"b":' + b"[" * 1020 + b"]" * 1020 + b"}", "", "nested"),
    "ts in seconds": (b'{"a":[{"ts":1760000000,"value":1}]}', "a[0].ts", "looks like seconds"),
    "ts a float": (b'{"a":[{"ts":1760000000000,"value":1},{"ts":1.5,"value":1}]}', "a[1].ts", "must be ms"),
    "ts a boolean": (b'{"ts":true,"values":{"a":1}}', "ts", "must be ms"),
    "ts null": (b'{"ts":null,"values":{"a":1}}', "ts", "must be ms"),
    "ts no date": (b'[{"ts":"yesterday","values":{"a":1}}]', "[0].ts", "must be ms"),
    "ts too far": (b'{"a":[{"ts":1760000000000000,"value":1}]}', "a[0].ts", "years"),
}


@pytest.mark.parametrize(("body", "field", "issue"), REFUSED.values(), ids=REFUSED)
async def test_what_would_be_stored_wrong_is_refused_and_nothing_is_sent(
    gateway: httpx.AsyncClient, simulator: Simulator, body: bytes, field: str, issue: str
) -> None:
    path = f"{API}/devices/{device_id(simulator)}/telemetry"
    answer = await gateway.post(path, content=body, headers={"content-type": "application/json"})
    error = answer.json()
    assert (answer.status_code, error["error_code"]) == (400, "VALIDATION_ERROR")
    assert issue in error["details"]["issue"]
    if field:
        assert error["details"]["field"] == field
    assert not any("timeseries" in call for call in simulator.calls)


async def test_many_faults_are_listed_together(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(PATH, json={f"k{number}": None for number in range(50)})
    errors = answer.json()["details"]["errors"]
    assert len(errors) == 20
    assert errors[1] == {"field": "k1", "issue": "must not be null"}


async def test_repeated_points_count_once_and_are_named(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    points = [{"ts": T, "value": 1}, {"ts": T, "value": 2}, {"ts": T, "value": 3}]
    body = (await gateway.post(PATH, json={"a": points, "b": 5})).json()
    assert body["total_data_points"] == 2
    assert [warning["key"] for warning in body["warnings"]] == ["a"]
    assert "last one" in body["warnings"][0]["reason"]
    assert (await stored(simulator, "a"))["a"] == [(T, 3)]


@pytest.mark.parametrize(
    "upload",
    [[{"ts": T, "values": {"a": 1}}, {"ts": T, "values": {"a": 2}}], [{"a": 1}, {"a": 2}]],
    ids=["timed", "plain"],
)
async def test_repeated_values_in_a_list_are_named(gateway: httpx.AsyncClient, upload: Any) -> None:
    body = (await gateway.post(PATH, json=upload)).json()
    assert (body["total_data_points"], [warning["key"] for warning in body["warnings"]]) == (1, ["a"])


@pytest.mark.parametrize(
    ("content_type", "status"), [("text/csv", 415), ("application/json; charset=utf-8", 201), (None, 201)]
)
async def test_only_json_is_read(gateway: httpx.AsyncClient, content_type: str | None, status: int) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await gateway.post(PATH, content=b'{"a":1}', headers=headers)
    assert answer.status_code == status


async def test_an_unknown_device_is_not_found(gateway: httpx.AsyncClient) -> None:
    path = f"{API}/devices/{UNKNOWN}/telemetry"
    assert (await gateway.post(path, json={"a": 1})).status_code == 404
    assert (await gateway.post(f"{API}/devices/name:nobody/telemetry", json={"a": 1})).status_code == 404
    assert (await gateway.delete(path, params={"keys": "a"})).status_code == 404


async def test_a_customers_gateway_cannot_write_to_anothers_device(
    customer_gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    foreign = device_id(simulator, "Test Device B1")
    assert (
        await customer_gateway.post(f"{API}/devices/{foreign}/telemetry", json={"a": 1})
    ).status_code == 404
    assert (await customer_gateway.post(PATH, json={"a": 1})).status_code == 201


async def test_a_time_to_live_is_passed_on(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    assert (await gateway.post(f"{PATH}?ttl=3600", json={"a": [{"ts": T, "value": 1}]})).status_code == 201
    series = simulator.world.telemetry.series(device_id(simulator), "a")
    assert series is not None
    assert set(series.expiry) == {T}
    for ttl in ("0", "-1", "x", "1.5", str(10**12)):
        assert (await gateway.post(f"{PATH}?ttl={ttl}", json={"a": 1})).status_code == 422


async def test_assets_have_telemetry_too(gateway: httpx.AsyncClient) -> None:
    made = await gateway.post(f"{API}/assets", json={"name": "house"})
    asset = made.json()["data"]["id"]["id"]
    answer = await gateway.post(
        f"{API}/assets/name:house/telemetry", json={"power": [{"ts": T, "value": 12.5}]}
    )
    assert (answer.status_code, answer.json()["asset_id"]) == (201, asset)
    assert (await gateway.delete(f"{API}/assets/{asset}/telemetry?keys=power")).json()["asset_id"] == asset


async def test_points_with_times_are_sent_again_after_a_reset(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.faults.reset(method="POST", path="timeseries", count=1, after=True)
    answer = await gateway.post(PATH, json={"a": [{"ts": T, "value": 1}]})
    assert answer.status_code == 201
    assert (await stored(simulator, "a"))["a"] == [(T, 1)]


async def test_points_without_times_are_not_sent_again(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.faults.reset(method="POST", path="timeseries", count=1, after=True)
    answer = await gateway.post(PATH, json={"a": [{"ts": T, "value": 1}], "b": 2})
    assert (answer.status_code, answer.json()["error_code"]) == (503, "UPSTREAM_UNAVAILABLE")
    assert len((await stored(simulator, "b"))["b"]) == 1


def big_upload(points: int, key: str = "k" * 200) -> bytes:
    """About 16 MiB once it is translated, less as it is sent."""
    return orjson.dumps({key: [{"ts": T + number, "value": number} for number in range(points)]})


SAVES = "POST /api/plugins/telemetry/DEVICE/{id}/timeseries/ANY"


async def test_an_upload_that_grows_beyond_thingsboards_limit_is_split(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    answer = await gateway.post(PATH, content=big_upload(100_000))
    assert (answer.status_code, answer.json()["total_data_points"]) == (201, 100_000)
    assert simulator.calls[SAVES] == 2
    found = (await stored(simulator, "k" * 200))["k" * 200]
    assert found == [(T + number, number) for number in range(100_000)]


@dataclass(slots=True)
class LaterFault(Fault):
    """Strikes after some calls that it lets pass."""

    passing: int = 1

    def strikes(self, method: str, path: str) -> bool:
        if not Fault.strikes(self, method, path):
            return False
        self.passing -= 1
        return self.passing < 0


async def test_an_upload_that_fails_midway_says_what_is_stored(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    simulator.faults._faults.append(LaterFault("status", path="timeseries", method="POST", status=500))
    simulator.faults.active = True
    answer = await gateway.post(PATH, content=big_upload(100_000))
    stored_points = answer.json()["details"]["stored_points"]
    assert answer.status_code == 502
    assert len((await stored(simulator, "k" * 200))["k" * 200]) == stored_points > 50_000


def limit_bodies(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Let ThingsBoard, or a proxy in front of it, take no more than this in one request."""
    monkeypatch.setattr("tb_simulator.app.LARGEST_BODY", limit)


async def test_an_upload_is_halved_until_a_proxy_takes_it(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_bodies(monkeypatch, 10_000)
    points = [{"ts": T + number, "value": number} for number in range(2_000)]
    answer = await gateway.post(PATH, json={"a": points, "b": points, "c": "now"})
    assert (answer.status_code, answer.json()["total_data_points"]) == (201, 4_001)
    found = await stored(simulator, "a,b,c")
    assert found["a"] == found["b"] == [(T + number, number) for number in range(2_000)]
    assert [value for _, value in found["c"]] == ["now"]
    # 90 KB as they are sent: 90, 45, 22 and 11 KB are refused, the rest goes in parts of more than 2.5 KB.
    assert simulator.calls[SAVES] < 4 + 90_000 / 2_500


async def test_many_values_of_one_time_are_halved_by_key(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_bodies(monkeypatch, 1_000)
    values = {f"key{number}": number for number in range(300)}
    answer = await gateway.post(PATH, json={"ts": T, "values": values})
    assert (answer.status_code, answer.json()["total_data_points"]) == (201, 300)
    assert simulator.world.telemetry.latest(device_id(simulator)) == {
        key: (T, value) for key, value in values.items()
    }


async def test_one_value_that_is_too_large_is_named_with_what_was_stored_before_it(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_bodies(monkeypatch, 10_000)
    points = [{"ts": T + number, "value": number} for number in range(50)]
    upload = {"a": points, "b": [{"ts": T + 20, "value": "x" * 20_000}], "c": [{"ts": T + 99, "value": 1}]}
    answer = await gateway.post(PATH, json=upload)
    error = answer.json()
    assert (answer.status_code, error["error_code"]) == (413, "PAYLOAD_TOO_LARGE")
    stored_points = error["details"].pop("stored_points")
    assert error["details"] == {
        "field": "b",
        "ts": T + 20,
        "issue": "one value is larger than ThingsBoard, or a proxy in front of it, takes",
    }
    found = await stored(simulator, "a,b,c")
    assert {key: len(points) for key, points in found.items()} == {"a": stored_points}
    assert stored_points == 21


async def test_values_without_times_are_halved_too(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_bodies(monkeypatch, 1_000)
    answer = await gateway.post(PATH, json={f"key{number}": number for number in range(200)})
    assert (answer.status_code, answer.json()["total_data_points"]) == (201, 200)
    assert len(simulator.world.telemetry.latest(device_id(simulator))) == 200


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("keys=a", {}),
        ("keys=a,a,nope", {}),
        (f"keys=a&start_ts={T}", {"a": [-5]}),
        (f"keys=a&end_ts={T + 1}", {"a": [T + 1, 4 * 10**12]}),
        (f"keys=a&start_ts={T}&end_ts={T + 1}", {"a": [-5, T + 1, 4 * 10**12]}),
        (
            "keys=a&start_ts=2025-10-09T08:53:20Z&end_ts=2025-10-09T08:53:20.001Z",
            {"a": [-5, T + 1, 4 * 10**12]},
        ),
    ],
)
async def test_deleting(gateway: httpx.AsyncClient, simulator: Simulator, query: str, left: Any) -> None:
    if "start_ts" in query and "end_ts" not in query:
        left = {"a": [-5, 4 * 10**12]}
    points = [{"ts": ts, "value": ts} for ts in (-5, T, T + 1, 4 * 10**12)]
    await gateway.post(PATH, json={"a": points, "b": points})
    answer = await gateway.delete(f"{PATH}?{query}")
    assert answer.status_code == 200
    assert answer.json()["keys_deleted"][0] == "a"
    assert answer.json()["device_id"] == device_id(simulator)
    found = await stored(simulator, "a,b")
    assert {key: [ts for ts, _ in found[key]] for key in found if key != "b"} == left
    assert len(found["b"]) == 4


async def test_deleting_the_newest_point_moves_latest_back(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    await gateway.post(PATH, json={"a": [{"ts": T, "value": 1}, {"ts": T + 1, "value": 2}]})
    await gateway.delete(f"{PATH}?keys=a&start_ts={T + 1}")
    assert simulator.world.telemetry.latest(device_id(simulator)) == {"a": (T, 1)}


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("", 422, "keys"),
        ("keys=", 422, "keys"),
        ("keys=,%20,", 400, "keys"),
        (f"keys={'k' * 300}", 400, "keys"),
        (f"keys=a&start_ts={T}&end_ts={T}", 400, "end_ts"),
        ("keys=a&start_ts=1760000000", 400, "start_ts"),
        ("keys=a&end_ts=soon", 400, "end_ts"),
        ("keys=a&all=true", 422, "all"),
    ],
)
async def test_a_deletion_that_makes_no_sense_is_refused(
    gateway: httpx.AsyncClient, query: str, status: int, field: str
) -> None:
    answer = await gateway.delete(f"{PATH}?{query}")
    assert (answer.status_code, answer.json()["details"]["field"]) == (status, field)
