"""Alarms: which are listed, in which order, and what becomes of one."""

from typing import Any

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.alarm_world import raise_alarm
from tests.conftest import GatewayFactory
from tests.documented import check_answer
from tests.telemetry_world import DEVICES, PREFIX, START, UNKNOWN, device_id

ALARMS = f"{PREFIX}/alarms"
OTHERS = "Test Device B1"


@pytest.fixture
def device(simulator: Simulator) -> str:
    return device_id(simulator)


@pytest.fixture
def many(simulator: Simulator, device: str) -> dict[str, str]:
    """Alarms by what they are, a ms apart each."""
    fields: dict[str, dict[str, Any]] = {
        "active": {"severity": "MAJOR"},
        "acknowledged": {"acknowledged": True, "ackTs": START + 9},
        "cleared": {"cleared": True, "clearTs": START + 8, "severity": "MINOR"},
        "over": {"acknowledged": True, "cleared": True, "ackTs": START + 7, "severity": "WARNING"},
        "smoke, or fire": {},
    }
    return {
        kind: raise_alarm(simulator, device, kind, createdTime=START + number, **each)
        for number, (kind, each) in enumerate(fields.items())
    }


def kinds(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    listed: list[str] = [alarm["type"] for alarm in answer.json()["data"]]
    assert answer.json()["pagination"]["total_elements"] >= len(listed)
    return listed


EVERY = ["smoke, or fire", "over", "cleared", "acknowledged", "active"]
FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, EVERY),
    ({"status": "ACTIVE"}, ["smoke, or fire", "acknowledged", "active"]),
    ({"status": "cleared"}, ["over", "cleared"]),
    ({"status": "ACK"}, ["over", "acknowledged"]),
    ({"status": "UNACK"}, ["smoke, or fire", "cleared", "active"]),
    ({"status": "ACTIVE_ACK"}, ["acknowledged"]),
    ({"status": "CLEARED_UNACK"}, ["cleared"]),
    ({"severity": "CRITICAL"}, ["smoke, or fire", "acknowledged"]),
    ({"severity": "major,MINOR"}, ["cleared", "active"]),
    ({"type": "cleared"}, ["cleared"]),
    ({"type": "smoke, or fire"}, ["smoke, or fire"]),
    ({"type": "clear"}, []),
    ({"start_ts": START + 3}, ["smoke, or fire", "over"]),
    ({"end_ts": START + 1}, ["active"]),
    ({"start_ts": START + 1, "end_ts": START + 3}, ["cleared", "acknowledged"]),
    ({"end_ts": "2025-10-09T08:53:20.001Z"}, ["active"]),
    ({"end_ts": 1}, []),
    ({"status": "ACTIVE", "severity": "CRITICAL", "start_ts": START + 2}, ["smoke, or fire"]),
    ({"sort_order": "asc"}, EVERY[::-1]),
    ({"sort_by": "type", "sort_order": "ASC"}, sorted(EVERY)),
    ({"sort_by": "createdTime"}, EVERY),
    ({"page": 1, "page_size": 2}, ["cleared", "acknowledged"]),
    ({"page": 9, "page_size": 2}, []),
]


@pytest.mark.parametrize(("query", "expected"), FILTERS, ids=str)
async def test_lists_are_filtered_sorted_and_cut(
    gateway: httpx.AsyncClient, device: str, many: dict[str, str], query: dict[str, Any], expected: list[str]
) -> None:
    """Ranges end before `end_ts`, of which ThingsBoard knows only the last moment."""
    assert kinds(await gateway.get(ALARMS, params=query)) == expected
    assert kinds(await gateway.get(f"{DEVICES}/{device}/alarms", params=query)) == expected


@pytest.mark.parametrize(
    "field", ["created_time", "start_ts", "end_ts", "ack_ts", "clear_ts", "severity", "status", "type"]
)
async def test_every_sort_field_is_one_of_thingsboard(
    gateway: httpx.AsyncClient, device: str, many: dict[str, str], field: str
) -> None:
    for path in (ALARMS, f"{DEVICES}/{device}/alarms"):
        assert len(kinds(await gateway.get(path, params={"sort_by": field}))) == len(many)


async def test_lists_say_where_they_stand_and_hold_thingsboards_alarms(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str, many: dict[str, str]
) -> None:
    for path in (ALARMS, f"{DEVICES}/name:Test Device A1/alarms"):
        answer = await gateway.get(path, params={"page_size": 2})
        await check_answer(answer)
        assert answer.json()["pagination"] == {
            "page": 0,
            "page_size": 2,
            "total_pages": 3,
            "total_elements": 5,
            "has_next": True,
        }
        alarm = answer.json()["data"][0]
        stored = simulator.world.alarms.all[many["smoke, or fire"]]
        assert {name: alarm[name] for name in stored} == stored
        assert (alarm["status"], alarm["originatorName"]) == ("ACTIVE_UNACK", "Test Device A1")
        assert not {"entityId", "latest"} & set(alarm)


async def test_a_device_has_its_own_alarms(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str
) -> None:
    raise_alarm(simulator, device, "mine")
    raise_alarm(simulator, device_id(simulator, OTHERS), "theirs", createdTime=START + 1)
    assert kinds(await gateway.get(f"{DEVICES}/{device}/alarms")) == ["mine"]
    assert kinds(await gateway.get(ALARMS)) == ["theirs", "mine"]


async def test_a_device_without_alarms_has_none_and_a_missing_one_is_missing(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str
) -> None:
    assert kinds(await gateway.get(f"{DEVICES}/{device}/alarms")) == []
    raise_alarm(simulator, device)
    simulator.calls.clear()
    assert len(kinds(await gateway.get(f"{DEVICES}/{device}/alarms"))) == 1
    assert simulator.calls["GET /api/device/{id}"] == 0
    for missing in (UNKNOWN, "name:nobody"):
        assert (await gateway.get(f"{DEVICES}/{missing}/alarms")).status_code == 404


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ({"status": "OLD"}, 422, "status"),
        ({"status": ""}, 422, "status"),
        ({"severity": "BAD"}, 422, "severity"),
        ({"severity": "CRITICAL,"}, 422, "severity"),
        ({"type": ""}, 422, "type"),
        ({"type": "a\0"}, 422, "type"),
        ({"sort_by": "details"}, 422, "sort_by"),
        ({"sort_order": "UP"}, 422, "sort_order"),
        ({"page_size": 1001}, 422, "page_size"),
        ({"text_search": "x"}, 422, "text_search"),
        ({"start_ts": START // 1000}, 400, "start_ts"),
        ({"end_ts": "soon"}, 400, "end_ts"),
        ({"start_ts": START, "end_ts": START}, 400, "end_ts"),
    ],
    ids=str,
)
async def test_bad_wishes_are_named(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str, query: Any, status: int, field: str
) -> None:
    for path in (ALARMS, f"{DEVICES}/{device}/alarms"):
        answer = await gateway.get(path, params=query)
        assert (answer.status_code, answer.json()["details"]["field"]) == (status, field)
    assert not [call for call in simulator.calls if "larm" in call]


async def test_an_alarm_is_read_acknowledged_and_cleared_once_each(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str
) -> None:
    alarm = raise_alarm(simulator, device)
    path = f"{ALARMS}/{alarm}"
    for verb, status in (("", "ACTIVE_UNACK"), ("/ack", "ACTIVE_ACK"), ("/clear", "CLEARED_ACK")):
        answer = await (
            gateway.post(path + verb) if verb else gateway.get(path.replace(alarm, alarm.upper()))
        )
        await check_answer(answer)
        assert (answer.status_code, answer.json()["data"]["status"]) == (200, status)
        assert answer.json()["data"]["originatorName"] == "Test Device A1"
    for verb in ("/ack", "/clear"):
        again = await gateway.post(path + verb)
        assert (again.status_code, again.json()["error_code"]) == (409, "CONFLICT")
        assert "Alarm" not in again.text
    assert (await gateway.get(path)).json()["data"]["status"] == "CLEARED_ACK"


async def test_a_cleared_alarm_can_be_acknowledged(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str
) -> None:
    path = f"{ALARMS}/{raise_alarm(simulator, device)}"
    assert (await gateway.post(f"{path}/clear")).json()["data"]["status"] == "CLEARED_UNACK"
    assert (await gateway.post(f"{path}/ack")).json()["data"]["status"] == "CLEARED_ACK"


@pytest.mark.parametrize("verb", ["", "/ack", "/clear"])
async def test_a_missing_alarm_is_a_404_and_no_uuid_a_422(gateway: httpx.AsyncClient, verb: str) -> None:
    method = "POST" if verb else "GET"
    assert (await gateway.request(method, f"{ALARMS}/{UNKNOWN}{verb}")).status_code == 404
    answer = await gateway.request(method, f"{ALARMS}/name:hot{verb}")
    assert (answer.status_code, answer.json()["details"]["field"]) == (422, "alarm_id")


@pytest.mark.parametrize("verb", ["ack", "clear"])
async def test_a_change_is_not_repeated_when_its_answer_is_lost(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str, verb: str
) -> None:
    """Done twice it would be a conflict with itself."""
    alarm = raise_alarm(simulator, device)
    assert (await gateway.get(f"{ALARMS}/{alarm}")).status_code == 200
    simulator.faults.reset(path=verb, after=True, count=1)
    assert (await gateway.post(f"{ALARMS}/{alarm}/{verb}")).status_code == 503
    assert simulator.calls[f"POST /api/alarm/{{id}}/{verb}"] == 1
    assert simulator.world.alarms.all[alarm]["acknowledged" if verb == "ack" else "cleared"]


async def test_scopes_are_needed(make_gateway: GatewayFactory, simulator: Simulator, keys_file: Any) -> None:
    device = device_id(simulator)
    alarm = raise_alarm(simulator, device)
    file = keys_file(
        reader=("reader-secret-0001", ["alarms:read"]), writer=("writer-secret-0001", ["alarms:write"])
    )
    made = make_gateway(api_key=None, api_keys_file=file, key=None)
    reads = [("GET", path) for path in (ALARMS, f"{ALARMS}/{alarm}", f"{DEVICES}/{device}/alarms")]
    writes = [("POST", f"{ALARMS}/{alarm}/{verb}") for verb in ("ack", "clear")]
    for secret, allowed in (("reader-secret-0001", reads), ("writer-secret-0001", writes)):
        for method, path in (*reads, *writes):
            answer = await made.request(method, path, headers={"X-API-Key": secret})
            assert answer.status_code == (200 if (method, path) in allowed else 403), (secret, path)


async def test_a_customer_login_gets_no_alarm_of_another(
    customer_gateway: httpx.AsyncClient, simulator: Simulator, device: str
) -> None:
    other = device_id(simulator, OTHERS)
    mine, theirs = raise_alarm(simulator, device, "mine"), raise_alarm(simulator, other, "theirs")
    assert kinds(await customer_gateway.get(ALARMS)) == ["mine"]
    assert kinds(await customer_gateway.get(f"{DEVICES}/{device}/alarms")) == ["mine"]
    for method, path in (
        ("GET", f"{DEVICES}/{other}/alarms"),
        ("GET", f"{ALARMS}/{theirs}"),
        ("POST", f"{ALARMS}/{theirs}/ack"),
        ("POST", f"{ALARMS}/{theirs}/clear"),
    ):
        assert (await customer_gateway.request(method, path)).status_code == 404
    assert not simulator.world.alarms.all[theirs]["acknowledged"]
    assert (await customer_gateway.post(f"{ALARMS}/{mine}/ack")).status_code == 200


@pytest.mark.parametrize("body", ["[]", "{oops", "5"])
async def test_answers_that_are_no_alarms_are_faults_of_thingsboard(
    gateway: httpx.AsyncClient, simulator: Simulator, device: str, body: str
) -> None:
    alarm = raise_alarm(simulator, device)
    simulator.faults.status(200, path="/api/.*larm", body=body, content_type="application/json")
    for path in (ALARMS, f"{ALARMS}/{alarm}", f"{DEVICES}/{device}/alarms"):
        answer = await gateway.get(path)
        assert (answer.status_code, answer.json()["error_code"]) == (502, "UPSTREAM_ERROR")
