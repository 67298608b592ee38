"""Homes and rooms: whose they are, what they show, how their devices are claimed."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest

from examples.smart_home.services.homes import MOST_HOMES
from examples.smart_home.services.rooms import MOST_ROOMS
from tb_simulator.demo import CLAIM_CODES, ROOMS, SILENT_CODE, SILENT_ROOM, SampleDevices
from tb_simulator.makers import make_device
from tb_simulator.server import Simulator
from tests.smart_home.conftest import Product


async def test_homes_are_made_renamed_and_deleted(lonely: Product) -> None:
    alice = await lonely.person()
    first, second = await alice.add_home("Villa"), await alice.add_home("Cabin")
    assert [home["name"] for home in await alice.call("GET", "/homes")] == ["Villa", "Cabin"]
    await alice.call("PATCH", f"/homes/{first}", json={"name": " Castle "})
    assert await alice.call("GET", f"/homes/{first}") == {"id": first, "name": "Castle"}
    await alice.call("DELETE", f"/homes/{first}", 204)
    assert [home["id"] for home in await alice.call("GET", "/homes")] == [second]
    await alice.call("GET", f"/homes/{first}", 404)


async def test_the_number_of_homes_is_limited(lonely: Product) -> None:
    alice = await lonely.person()
    for number in range(MOST_HOMES):
        await alice.add_home(str(number))
    refused = await alice.call("POST", "/homes", 409, json={"name": "one more"})
    assert str(MOST_HOMES) in refused["message"]


async def test_another_users_home_and_rooms_are_missing_in_every_route(product: Product) -> None:
    alice, bob = await product.person("alice"), await product.person("bob")
    home = await alice.add_home()
    room = (await alice.add_room(home))["id"]
    bodies: dict[str, Any] = {
        "PATCH": {"name": "mine now"},
        "/rooms": {"name": "x", "device": f"Demo {ROOMS[1]}", "claim_code": CLAIM_CODES[1]},
        "/light": {"state": "on"},
    }
    tried = 0
    for path, item in product.app.openapi()["paths"].items():
        if "{" not in path:
            continue
        for method in map(str.upper, item):
            body = bodies.get("PATCH" if method == "PATCH" else path[path.rindex("/") :])
            of_hers = path.replace("{home_id}", home).replace("{room_id}", room)
            of_nobody = path.replace("{home_id}", str(uuid.uuid4())).replace("{room_id}", str(uuid.uuid4()))
            arguments = {"json": body if method != "GET" else None, "params": {"key": "temperature"}}
            hers = await bob.call(method, of_hers, 404, **arguments)
            nobodys = await bob.call(method, of_nobody, 404, **arguments)
            assert hers == nobodys, "whether it exists must not be seen"
            tried += 1
    assert tried >= 12
    assert [each["id"] for each in await alice.call("GET", f"/homes/{home}/rooms")] == [room]
    assert await bob.call("GET", "/homes") == []


async def test_a_room_shows_the_values_of_its_device_with_their_types(product: Product) -> None:
    alice = await product.person()
    home = await alice.add_home()
    room = await alice.add_room(home)
    assert set(room) == {"id", "home_id", "name"}, "a browser learns nothing of ThingsBoard's ids"
    state = await alice.call("GET", f"/rooms/{room['id']}/latest")
    assert state["online"] is True
    assert isinstance(state["values"]["temperature"]["value"], float)
    assert state["values"]["light"]["value"] is False
    assert [each["room_id"] for each in await alice.call("GET", f"/homes/{home}/latest")] == [room["id"]]


async def test_a_silent_device_is_shown_offline_with_what_it_sent_last(product: Product) -> None:
    alice = await product.person()
    home = await alice.add_home()
    body = {"name": "Garage", "device": f"Demo {SILENT_ROOM}", "claim_code": SILENT_CODE}
    room = (await alice.call("POST", f"/homes/{home}/rooms", 201, json=body))["id"]
    state = await alice.call("GET", f"/rooms/{room}/latest")
    assert state["online"] is False
    assert isinstance(state["values"]["temperature"]["value"], float)


async def test_history_is_averages_or_points(product: Product) -> None:
    alice = await product.person()
    room = (await alice.add_room(await alice.add_home()))["id"]
    averages = await alice.call("GET", f"/rooms/{room}/history?key=temperature&hours=24&buckets=24")
    assert 24 <= len(averages["points"]) <= 26
    assert all(15 < point["value"] < 27 and point["end_ts"] > point["ts"] for point in averages["points"])
    points = await alice.call("GET", f"/rooms/{room}/history?key=temperature&hours=1&values=raw")
    times = [point["ts"] for point in points["points"]]
    assert times == sorted(times)
    assert len(times) >= 59
    assert points["start_ts"] <= times[0]
    assert times[-1] < points["end_ts"]
    nothing = await alice.call("GET", f"/rooms/{room}/history?key=unknown")
    assert nothing["points"] == []


@pytest.mark.parametrize("query", ["", "key=temperature&hours=0", "key=t&buckets=0", "key=t&values=all"])
async def test_a_bad_history_query_is_refused(product: Product, query: str) -> None:
    alice = await product.person()
    await alice.call("GET", f"/rooms/{uuid.uuid4()}/history?{query}", 422)


@pytest.mark.parametrize("code", ["live-4821", " LIVE 4821 ", "live4821"])
async def test_a_claim_code_may_be_typed_as_people_type(product: Product, code: str) -> None:
    alice = await product.person()
    home = await alice.add_home()
    body = {"name": "x", "device": f" Demo {ROOMS[0]} ", "claim_code": code}
    await alice.call("POST", f"/homes/{home}/rooms", 201, json=body)


@pytest.mark.parametrize(
    ("device", "code"),
    [
        (f"Demo {ROOMS[0]}", "LIVE-4822"),
        (f"Demo {ROOMS[0]}", "-"),
        ("Demo Nowhere", CLAIM_CODES[0]),
        ("Thermostat T1", "THERMO-1"),
        ("No code", "None"),
        ("a/b", "x"),
        ("../x?y=1&z#", "x"),
    ],
    ids=["wrong code", "empty code", "unknown", "other type", "no code", "slash", "odd name"],
)
async def test_what_cannot_be_claimed_is_answered_alike(
    product: Product, simulator: Simulator, devices: SampleDevices, device: str, code: str
) -> None:
    world = simulator.world
    thermostat = next(each for each in world.every("DEVICE") if each.body["name"] == "Thermostat T1")
    world.attributes.save(thermostat.id, "SERVER_SCOPE", {"claim_code": "THERMO-1"})
    make_device(world, next(world.every("TENANT")).id, "No code", kind="smart-room", token="NO_CODE_TOKEN")
    alice = await product.person()
    home = await alice.add_home()
    body = {"name": "x", "device": device, "claim_code": code}
    refused = await alice.call("POST", f"/homes/{home}/rooms", 404, json=body)
    assert refused["message"].startswith("There is no device with this name and claim code.")


async def test_a_device_is_claimed_once(product: Product) -> None:
    alice, bob = await product.person("alice"), await product.person("bob")
    room = (await alice.add_room(await alice.add_home()))["id"]
    bobs_home = await bob.add_home()
    refused = await bob.add_room(bobs_home, status=409)
    assert "already" in refused["message"]
    await alice.call("DELETE", f"/rooms/{room}", 204)
    await bob.add_room(bobs_home)


async def test_of_claims_at_the_same_time_one_succeeds(product: Product) -> None:
    people = [await product.person(name) for name in ("alice", "bob", "carol")]
    homes = [await person.add_home() for person in people]
    body = {"name": "x", "device": f"Demo {ROOMS[0]}", "claim_code": CLAIM_CODES[0]}
    answers = await asyncio.gather(
        *(
            person.client.post(f"/homes/{home}/rooms", json=body)
            for person, home in zip(people, homes, strict=True)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]


async def test_the_next_user_of_a_device_sees_nothing_of_the_time_before(product: Product) -> None:
    alice, bob = await product.person("alice"), await product.person("bob")
    room = (await alice.add_room(await alice.add_home()))["id"]
    hers = await alice.call("GET", f"/rooms/{room}/history?key=temperature&hours=2&values=raw")
    assert len(hers["points"]) > 100
    await alice.call("DELETE", f"/rooms/{room}", 204)
    room = (await bob.add_room(await bob.add_home()))["id"]
    his = await bob.call("GET", f"/rooms/{room}/history?key=temperature&hours=2&values=raw")
    assert not {point["ts"] for point in his["points"]} & {point["ts"] for point in hers["points"]}
    averages = await bob.call("GET", f"/rooms/{room}/history?key=temperature&hours=2&buckets=4")
    assert all(point["ts"] > hers["points"][-1]["ts"] for point in averages["points"])


async def test_who_removes_a_room_by_mistake_gets_its_past_back(product: Product) -> None:
    alice = await product.person()
    home = await alice.add_home()
    room = (await alice.add_room(home))["id"]
    await alice.call("DELETE", f"/rooms/{room}", 204)
    room = (await alice.add_room(home))["id"]
    history = await alice.call("GET", f"/rooms/{room}/history?key=temperature&hours=2&values=raw")
    assert len(history["points"]) > 100


async def test_a_deleted_home_gives_its_devices_back(product: Product) -> None:
    alice, bob = await product.person("alice"), await product.person("bob")
    home = await alice.add_home()
    room = (await alice.add_room(home))["id"]
    await alice.call("DELETE", f"/homes/{home}", 204)
    await alice.call("GET", f"/rooms/{room}", 404)
    await bob.add_room(await bob.add_home())


async def test_guessing_claim_codes_ends_soon(product: Product) -> None:
    alice = await product.person()
    home = await alice.add_home()
    body = {"name": "x", "device": f"Demo {ROOMS[0]}", "claim_code": "0000"}
    answers = [await alice.client.post(f"/homes/{home}/rooms", json=body) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [404] * 10 + [429]
    assert int(answers[-1].headers["Retry-After"]) >= 1


async def test_rooms_are_renamed_and_listed_in_order(product: Product) -> None:
    alice = await product.person()
    home = await alice.add_home()
    first, second = await alice.add_room(home, 0), await alice.add_room(home, 1)
    await alice.call("PATCH", f"/rooms/{first['id']}", json={"name": "Den"})
    assert [room["name"] for room in await alice.call("GET", f"/homes/{home}/rooms")] == ["Den", ROOMS[1]]
    assert await alice.call("GET", f"/rooms/{second['id']}") == second


async def test_a_device_that_is_gone_spoils_no_other_room(
    product: Product, simulator: Simulator, devices: SampleDevices
) -> None:
    alice = await product.person()
    home = await alice.add_home()
    gone, there = await alice.add_room(home, 0), await alice.add_room(home, 1)
    simulator.world.remove(devices.devices[0])
    states = {each["room_id"]: each for each in await alice.call("GET", f"/homes/{home}/latest")}
    assert states[gone["id"]] == {"room_id": gone["id"], "online": None, "values": {}}
    assert states[there["id"]]["online"] is True
    refused = await alice.call("GET", f"/rooms/{gone['id']}/history?key=temperature", 404)
    assert refused["message"] == "The device of this room is no longer known."


def test_the_number_of_rooms_is_within_one_call_to_the_gateway() -> None:
    assert MOST_ROOMS <= 1000


async def test_pages_and_answers_carry_their_headers(lonely: Product) -> None:
    async with httpx.AsyncClient(base_url=lonely.url, trust_env=False) as client:
        page = await client.get("/")
        missing = await client.get("/nowhere")
        health = await client.get("/health")
        large = await client.post("/auth/login", content=b"x" * 70_000)
        method = await client.put("/homes")
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Cache-Control"] == "no-cache"
    assert health.headers["Cache-Control"] == "no-store"
    assert health.json() == {"status": "ok", "live": False}
    assert (missing.status_code, large.status_code, method.status_code) == (404, 413, 405)
    for answer in (page, missing, health):
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
