"""Random keys, scopes, restrictions, routes and moves of objects, against the oracle of `world.py`.

No route answers what the oracle forbids, and none refuses what it allows: the whole application over HTTP.
"""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from app.factory import create_app
from app.settings import Settings
from tb_simulator.server import Simulator
from tb_simulator.world import NO_CUSTOMER
from tests.conftest import TENANT
from tests.restrictions.world import (
    BASE,
    MISSING,
    NAMES,
    TS,
    Clock,
    House,
    client_of,
    view_of,
    write_keys,
)

TYPES = ["lamp", "meter", "thermostat"]
#: Longer than any look-up is believed.
LONG = 11.0
#: Method, path below the object, scope that it needs, body.
ROUTES: list[tuple[str, str, str, Any]] = [
    ("GET", "", "{}:read", None),
    ("PATCH", "", "{}:write", {"label": "changed"}),
    ("GET", "/keys", "telemetry:read", None),
    ("GET", "/telemetry", "telemetry:read", None),
    ("GET", "/telemetry/latest", "telemetry:read", None),
    ("GET", "/telemetry/count", "telemetry:read", None),
    ("GET", "/telemetry/export?format=jsonl", "telemetry:read", None),
    ("POST", "/telemetry/query", "telemetry:read", {"start_ts": TS, "end_ts": TS + 1}),
    ("POST", "/telemetry", "telemetry:write", {"temperature": 1}),
    ("DELETE", "/telemetry?keys=other", "telemetry:delete", None),
    ("GET", "/attributes", "attributes:read", None),
    ("GET", "/attributes/server", "attributes:read", None),
    ("POST", "/attributes/server", "attributes:write", {"limit": 1}),
    ("DELETE", "/attributes/server?keys=limit", "attributes:write", None),
    ("GET", "/credentials", "devices:credentials", None),
]
SCOPES = [
    ["*"],
    ["devices:read", "assets:read", "telemetry:read", "relations:read"],
    ["telemetry:write", "devices:write", "assets:write", "attributes:write"],
    ["attributes:read", "relations:write", "devices:credentials", "telemetry:delete", "alarms:read"],
]
PLURALS = {"DEVICE": "devices", "ASSET": "assets"}


class Bench:
    """One gateway and one simulator, in an event loop of their own, for many runs of the machine."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.folder = folder
        self.clients: dict[str, httpx.AsyncClient] = {}
        self.scopes: dict[str, list[str]] = {}
        self.clock = Clock()
        self.numbers = itertools.count()
        self.run(self._open())

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    async def _open(self) -> None:
        self.simulator = Simulator()
        await self.simulator.start_listening()
        self.house = House(self.simulator)
        self.given = {"free": {}, **self.house.restrictions()}
        for index, name in enumerate(self.given):
            # Every restriction once with all scopes, and once with few of them.
            self.scopes[name] = ["*"]
            self.scopes[f"{name}_few"] = SCOPES[1 + index % (len(SCOPES) - 1)]
        keys = [(name, scopes, self.given[name.removesuffix("_few")]) for name, scopes in self.scopes.items()]
        self.app: FastAPI = create_app(
            Settings(
                _env_file=None,
                tb_host=self.simulator.url,
                tb_username=TENANT[0],
                tb_password=TENANT[1],
                api_keys_file=write_keys(self.folder / "keys.toml", keys),
                rate_limit_requests=10_000_000,
            )
        )
        for name in NAMES:
            view_of(self.app, self.given[name]).visibility.clock = self.clock
        self.clients = {name: client_of(self.app, name) for name in self.scopes}

    def close(self) -> None:
        self.run(self._close())
        self.runner.close()

    async def _close(self) -> None:
        for client in self.clients.values():
            await client.aclose()
        await self.app.state.upstreams.aclose()
        self.simulator.asgi.close()
        await self.simulator.stop_listening()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


class Machine(RuleBasedStateMachine):
    """The house changes hands; keys ask."""

    bench: Bench

    def __init__(self) -> None:
        super().__init__()
        self.house = house = self.bench.house
        devices = [house.lamp, house.meter, house.spare, house.loose]
        self.objects = [*devices, house.building, house.floor, house.shed]
        for device, kind, customer in zip(
            devices,
            ("lamp", "meter", "lamp", "meter"),
            (house.anna, house.bert, house.anna, NO_CUSTOMER),
            strict=True,
        ):
            house.retype(device, kind)
            house.give_to(device, customer)
        for start in self.objects:
            for end in self.objects:
                house.unrelate(start, end)
        for entity in [*house.world.every("DEVICE"), *house.world.every("ASSET")]:
            # Left over from a run that failed before its end.
            if entity.name.startswith("made "):
                house.world.remove(entity)
        house.relate(house.building, house.floor)
        house.relate(house.floor, house.lamp)
        house.relate(house.floor, house.meter)
        self.settle()

    def settle(self) -> None:
        """Let what was looked up before grow too old to be believed."""
        self.bench.clock.seconds += LONG

    def ask(self, key: str, method: str, path: str, **more: Any) -> httpx.Response:
        answer = self.bench.run(self.bench.clients[key].request(method, f"{BASE}{path}", **more))
        assert answer.status_code < 500, answer.text
        return answer

    def has(self, key: str, scope: str) -> bool:
        return "*" in self.bench.scopes[key] or scope in self.bench.scopes[key]

    def sees(self, key: str, kind: str, entity_id: str) -> bool:
        return self.house.sees(self.bench.given[key.removesuffix("_few")], kind, entity_id)

    def seen(self, key: str, kind: str) -> set[str]:
        return self.house.seen(self.bench.given[key.removesuffix("_few")], kind)

    KEYS = st.sampled_from([each for name in ("free", *NAMES) for each in (name, f"{name}_few")])
    NUMBERS = st.integers(0, 6)

    @rule(number=NUMBERS, customer=st.sampled_from(["anna", "bert", "nobody"]))
    def give(self, number: int, customer: str) -> None:
        owner = NO_CUSTOMER if customer == "nobody" else getattr(self.house, customer)
        self.house.give_to(self.objects[number], owner)
        self.settle()

    @rule(number=st.integers(0, 3), kind=st.sampled_from(TYPES))
    def retype(self, number: int, kind: str) -> None:
        self.house.retype(self.objects[number], kind)
        self.settle()

    @rule(start=NUMBERS, end=NUMBERS, is_new=st.booleans())
    def relate(self, start: int, end: int, *, is_new: bool) -> None:
        change = self.house.relate if is_new else self.house.unrelate
        change(self.objects[start], self.objects[end])
        self.settle()

    @rule(
        key=KEYS,
        number=NUMBERS,
        route=st.sampled_from(ROUTES),
        form=st.sampled_from(["id", "name", "wrong kind", "missing", "second tenant"]),
    )
    def use_an_object(self, key: str, number: int, route: tuple[str, str, str, Any], form: str) -> None:
        method, suffix, scope, body = route
        kind, entity_id = self.house.key(self.objects[number])
        if suffix == "/credentials" and (kind == "ASSET" or form == "wrong kind"):
            return
        reference = entity_id
        if form == "name":
            reference = f"name:{self.house.entity(entity_id).name}"
        elif form == "wrong kind":
            kind = "ASSET" if kind == "DEVICE" else "DEVICE"
        elif form == "missing":
            reference = entity_id = MISSING
        elif form == "second tenant":
            kind, reference, entity_id = "DEVICE", self.house.second, self.house.second
        answer = self.ask(key, method, f"/{PLURALS[kind]}/{reference}{suffix}", json=body)
        if not self.has(key, scope.format(PLURALS[kind])):
            assert answer.status_code == 403
        elif self.sees(key, kind, entity_id):
            assert answer.status_code in {200, 201}, answer.text
        else:
            assert answer.status_code == 404, answer.text

    @rule(key=KEYS, kind=st.sampled_from(["DEVICE", "ASSET"]), wanted=st.sampled_from([None, *TYPES]))
    def list_objects(self, key: str, kind: str, wanted: str | None) -> None:
        plural = PLURALS[kind]
        query = {f"{plural[:-1]}_type": wanted} if wanted else {}
        answer = self.ask(key, "GET", f"/{plural}", params=query)
        types = self.ask(key, "GET", f"/{plural[:-1]}-types")
        if not self.has(key, f"{plural}:read"):
            assert (answer.status_code, types.status_code) == (403, 403)
            return
        seen = self.seen(key, kind)
        in_use = {self.house.entity(each).body["type"] for each in seen}
        expected = {e for e in seen if wanted is None or self.house.entity(e).body["type"] == wanted}
        assert {item["id"]["id"] for item in answer.json()["data"]} == expected
        assert answer.json()["pagination"]["total_elements"] == len(expected)
        assert {entry["type"] for entry in types.json()["data"]} == in_use

    @rule(
        key=KEYS,
        number=NUMBERS,
        verb=st.sampled_from(["", "/ack", "/clear"]),
        form=st.sampled_from(["own", "missing", "second tenant"]),
    )
    def use_an_alarm(self, key: str, number: int, verb: str, form: str) -> None:
        kind, entity_id = self.house.key(self.objects[number])
        if form == "second tenant":
            kind, entity_id = "DEVICE", self.house.second
        alarm = MISSING if form == "missing" else self.house.alarm_of(entity_id)
        answer = self.ask(key, "POST" if verb else "GET", f"/alarms/{alarm}{verb}")
        if not self.has(key, "alarms:write" if verb else "alarms:read"):
            assert answer.status_code == 403
        else:
            is_seen = form != "missing" and self.sees(key, kind, entity_id)
            assert answer.status_code == (200 if is_seen else 404)
        listed = self.ask(key, "GET", "/alarms", params={"page_size": 1000})
        if not self.has(key, "alarms:read"):
            assert listed.status_code == 403
            return
        seen = self.seen(key, "DEVICE") | self.seen(key, "ASSET")
        stored = self.house.world.alarms.all
        expected = {each for each in stored if stored[each]["originator"]["id"] in seen}
        assert {item["id"]["id"] for item in listed.json()["data"]} == expected
        assert listed.json()["pagination"]["total_elements"] == len(expected)
        self.house.world.alarms.all.clear()

    @rule(key=KEYS, path=st.sampled_from(["latest", "latest inferred", "query", "bulk"]))
    def use_many(self, key: str, path: str) -> None:
        devices = [*self.objects[:4], MISSING, self.house.second, self.objects[4]]
        body: dict[str, Any] = {"device_ids": devices, "keys": ["temperature"]}
        if path == "bulk":
            body = {each: {"temperature": 2} for each in devices}
        elif path == "latest inferred":
            body["types"] = "inferred"
        answer = self.ask(key, "POST", f"/telemetry/{path.split(maxsplit=1)[0]}", json=body)
        if not self.has(key, "telemetry:write" if path == "bulk" else "telemetry:read"):
            assert answer.status_code == 403
            return
        expected = {each for each in devices if self.sees(key, "DEVICE", each)}
        if path == "bulk":
            results = answer.json()["results"]
            assert {each for each in results if results[each]["status"] == "success"} == expected
        else:
            assert set(answer.json()["data"]) == expected
            assert set(answer.json()["errors"]) == set(devices) - expected

    @rule(key=KEYS, start=NUMBERS, end=NUMBERS, is_new=st.booleans())
    def write_a_relation(self, key: str, start: int, end: int, *, is_new: bool) -> None:
        ends = [self.house.key(self.objects[each]) for each in (start, end)]
        allowed = all(self.sees(key, *each) for each in ends)
        exists = any(
            relation.key.target == ends[1] for relation in self.house.world.relations.leaving(ends[0], "FROM")
        )
        body = {
            side: {"entity_type": kind, "id": entity_id}
            for side, (kind, entity_id) in zip(("from", "to"), ends, strict=True)
        }
        method = "POST" if is_new else "DELETE"
        answer = self.ask(key, method, "/relations", json={**body, "type": "Contains"})
        if not self.has(key, "relations:write"):
            assert answer.status_code == 403
        elif not allowed or (not is_new and not exists):
            assert answer.status_code == 404
        else:
            assert answer.status_code in {200, 201}
        self.settle()

    @rule(key=KEYS, number=NUMBERS, direction=st.sampled_from(["FROM", "TO", "BOTH"]))
    def walk(self, key: str, number: int, direction: str) -> None:
        kind, root = self.house.key(self.objects[number])
        query = {"root_type": kind, "direction": direction}
        answer = self.ask(key, "GET", f"/graph/{root}", params=query)
        if not self.has(key, "relations:read"):
            assert answer.status_code == 403
        elif not self.sees(key, kind, root):
            assert answer.status_code == 404
        else:
            nodes = {(node["type"], node["id"]) for node in answer.json()["nodes"]}
            assert all(self.sees(key, *node) for node in nodes)
            near = self._neighbours((kind, root), direction)
            assert {node for node in near if self.sees(key, *node)} <= nodes

    def _neighbours(self, root: tuple[str, str], direction: str) -> set[tuple[str, str]]:
        directions = ("FROM", "TO") if direction == "BOTH" else (direction,)
        leaving = self.house.world.relations.leaving
        return {relation.end(each) for each in directions for relation in leaving(root, each)}

    @rule(key=KEYS, kind=st.sampled_from(["DEVICE", "ASSET"]), wanted=st.sampled_from(TYPES))
    def make(self, key: str, kind: str, wanted: str) -> None:
        plural = PLURALS[kind]
        name = f"made {next(self.bench.numbers)}"
        answer = self.ask(key, "POST", f"/{plural}", json={"name": name, "type": wanted})
        given = self.bench.given[key.removesuffix("_few")]
        is_sure = not given or (kind == "DEVICE" and set(given) == {"device_types"})
        if not self.has(key, f"{plural}:write"):
            assert answer.status_code == 403
        elif is_sure and (not given or wanted in given["device_types"]):
            assert answer.status_code == 201
            made = answer.json()["data"]["id"]["id"]
            assert self.sees(key, kind, made)
            assert self.ask("free", "DELETE", f"/{plural}/{made}").status_code == 200
        else:
            assert answer.status_code == 403

    @rule(key=KEYS, number=st.integers(0, 3), wanted=st.sampled_from(TYPES))
    def change_the_type(self, key: str, number: int, wanted: str) -> None:
        device = self.objects[number]
        given = self.bench.given[key.removesuffix("_few")]
        was_seen = self.sees(key, "DEVICE", device)
        answer = self.ask(key, "PATCH", f"/devices/{device}", json={"type": wanted})
        if not self.has(key, "devices:write"):
            assert answer.status_code == 403
        elif not was_seen:
            assert answer.status_code == 404
        elif "device_types" in given and wanted not in given["device_types"]:
            assert answer.status_code == 403
        else:
            assert answer.status_code == 200
            assert self.sees(key, "DEVICE", device)
        self.settle()


def test_no_route_answers_what_is_forbidden_and_none_refuses_what_is_allowed(bench: Bench) -> None:
    class BenchMachine(Machine):
        pass

    BenchMachine.bench = bench
    run_state_machine_as_test(
        BenchMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
