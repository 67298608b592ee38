"""Some objects of one tenant, keys that see some of them each, and what each of them ought to see."""

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from app.context import Restrictions
from app.services.restricted import RestrictedClient, restricted
from tb_simulator.makers import make_asset, make_customer, make_device, make_entity_view, profile_for
from tb_simulator.relation_store import RelationKey
from tb_simulator.server import Simulator
from tb_simulator.timeseries import Point
from tb_simulator.world import NO_CUSTOMER, Entity
from tb_simulator.world_types import reference
from tests.alarm_world import raise_alarm

BASE = "/api/v1/tb"
#: The id of nothing.
MISSING = "0b5e7d20-0000-11f1-8bad-23cb275c33c1"
TS = 1_760_000_000_000
#: Id and what is left of the rate limit.
OWN_HEADERS = {"x-request-id", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit"}
#: Of `House.restrictions`.
NAMES = [
    "devices",
    "types",
    "two_types",
    "customer",
    "asset",
    "asset_of_customer",
    "type_of_customer",
    "types_of_customer",
    "type_below",
    "device_of_customer",
    "all",
    "nothing",
    "no_such_asset",
    "no_such_customer",
]


@dataclass
class Clock:
    """Monotonic seconds that only tests move."""

    seconds: float = 1_000.0

    def __call__(self) -> float:
        return self.seconds


class House:
    """building > floor > lamp, meter; shed > spare lamp; a loose meter; two customers; a second tenant."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator, self.world = simulator, simulator.world
        self.tenant, other = (each.id for each in self.world.every("TENANT"))
        made = itertools.count(1)
        number = next(made)
        self.anna = make_customer(self.world, self.tenant, f"Anna {number}").id
        self.bert = make_customer(self.world, self.tenant, f"Bert {number}").id
        self.building = self._asset("building", "building", self.anna)
        self.floor = self._asset("floor", "floor", self.anna)
        self.shed = self._asset("shed", "shed", self.bert)
        self.lamp = self._device("lamp", "lamp", self.anna)
        self.meter = self._device("meter", "meter", self.bert)
        self.spare = self._device("spare lamp", "lamp", self.anna)
        self.loose = self._device("loose meter", "meter", NO_CUSTOMER)
        for start, end in (
            (self.building, self.floor),
            (self.floor, self.lamp),
            (self.floor, self.meter),
            (self.lamp, self.building),
            (self.shed, self.spare),
        ):
            self.relate(start, end)
        second = next(e for e in self.world.every("DEVICE") if e.tenant == other)
        self.second = second.id
        view = make_entity_view(
            self.world, self.tenant, {"name": "view", "entityId": reference("DEVICE", self.loose)}
        )
        self.view = view.id
        for device in self.world.every("DEVICE"):
            self.world.telemetry.save(device.id, [Point("temperature", TS, 20.5)])

    def alarm_of(self, entity_id: str, kind: str = "too hot", **fields: Any) -> str:
        """Return the id of a new alarm of an entity, of any tenant."""
        entity = next(e for each in ("DEVICE", "ASSET") for e in self.world.every(each) if e.id == entity_id)
        return raise_alarm(self.simulator, entity.id, kind, entity_type=entity.kind, **fields)

    def _device(self, name: str, kind: str, customer: str) -> str:
        return make_device(
            self.world, self.tenant, name, kind=kind, customer=customer, more={"label": f"the {name}"}
        ).id

    def _asset(self, name: str, kind: str, customer: str) -> str:
        return make_asset(self.world, self.tenant, name, kind=kind, customer=customer).id

    def add_device(self, name: str, kind: str, customer: str, parent: str) -> str:
        made = self._device(name, kind, customer)
        self.relate(parent, made)
        return made

    def entity(self, entity_id: str) -> Entity:
        found = next(
            (
                self.world.find(kind, entity_id)
                for kind in ("DEVICE", "ASSET", "CUSTOMER")
                if self.world.find(kind, entity_id)
            ),
            None,
        )
        assert found is not None
        return found

    def key(self, entity_id: str) -> tuple[str, str]:
        return self.entity(entity_id).kind, entity_id

    def relate(self, start: str, end: str, relation_type: str = "Contains") -> None:
        self.world.relations.save(self._relation(start, end, relation_type))

    def relate_to_view(self, start: str) -> None:
        end = ("ENTITY_VIEW", self.view)
        self.world.relations.save(RelationKey(self.key(start), end, "Contains", "COMMON"))

    def unrelate(self, start: str, end: str, relation_type: str = "Contains") -> None:
        self.world.relations.delete(self._relation(start, end, relation_type))

    def _relation(self, start: str, end: str, relation_type: str) -> RelationKey:
        return RelationKey(self.key(start), self.key(end), relation_type, "COMMON")

    def give_to(self, entity_id: str, customer: str) -> None:
        entity = self.entity(entity_id)
        entity.customer = customer
        entity.body["customerId"] = reference("CUSTOMER", customer)
        entity.body["version"] += 1
        self.world.touch(entity)

    def retype(self, entity_id: str, kind: str) -> None:
        entity = self.entity(entity_id)
        entity.body["type"] = kind
        # A device's type is its profile's name.
        entity.body["deviceProfileId"] = profile_for(self.world, "DEVICE", self.tenant, kind).body["id"]
        entity.body["version"] += 1
        self.world.touch(entity)

    def below(self, root: str) -> set[str]:
        """Return the ids of what lies below an asset, and its own."""
        found, waiting = {root}, [self.key(root)]
        while waiting:
            for relation in self.world.relations.leaving(waiting.pop(), "FROM"):
                if relation.key.target[1] not in found:
                    found.add(relation.key.target[1])
                    waiting.append(relation.key.target)
        return found

    def sees(self, given: Mapping[str, Any], kind: str, entity_id: str) -> bool:
        """The oracle: whether a key with these restrictions sees an entity."""
        entity = self.world.find(kind, entity_id)
        if entity is None or entity.tenant != self.tenant:
            return False
        if kind == "CUSTOMER":
            return not given or given.get("customer") == entity_id
        if kind == "ENTITY_VIEW":
            return not given
        return (
            ("devices" not in given or (kind == "DEVICE" and entity_id in given["devices"]))
            and (
                "device_types" not in given
                or (kind == "DEVICE" and entity.body["type"] in given["device_types"])
            )
            and ("customer" not in given or entity.customer == given["customer"])
            and (
                "asset" not in given
                or (
                    self.world.find("ASSET", given["asset"]) is not None
                    and entity_id in self.below(given["asset"])
                )
            )
        )

    def seen(self, given: Mapping[str, Any], kind: str) -> set[str]:
        return {e.id for e in self.world.every(kind, self.tenant) if self.sees(given, kind, e.id)}

    def restrictions(self) -> dict[str, dict[str, Any]]:
        """Return restrictions by name: each alone, and together."""
        return {
            "devices": {"devices": [self.lamp, self.loose]},
            "types": {"device_types": ["meter"]},
            "two_types": {"device_types": ["meter", "thermostat"]},
            "customer": {"customer": self.anna},
            "asset": {"asset": self.building},
            "asset_of_customer": {"asset": self.building, "customer": self.anna},
            "type_of_customer": {"device_types": ["lamp"], "customer": self.anna},
            "types_of_customer": {"device_types": ["lamp", "meter"], "customer": self.bert},
            "type_below": {"device_types": ["meter"], "asset": self.building},
            "device_of_customer": {"devices": [self.lamp, self.meter, self.loose], "customer": self.bert},
            "all": {
                "devices": [self.lamp, self.meter],
                "device_types": ["lamp"],
                "customer": self.anna,
                "asset": self.building,
            },
            "nothing": {"device_types": ["no such type"]},
            "no_such_asset": {"asset": MISSING},
            "no_such_customer": {"customer": MISSING},
        }


def secret_of(name: str) -> str:
    return f"secret-of-the-key-named-{name}"


def write_keys(path: Path, keys: Iterable[tuple[str, Iterable[str], Mapping[str, Any]]]) -> Path:
    """Write a key file: name, scopes and restrictions of each key."""
    lines = []
    for name, scopes, given in keys:
        digest = hashlib.sha256(secret_of(name).encode()).hexdigest()
        lines += ["[[keys]]", f'name = "{name}"', f'id = "{name}"', f'sha256 = "{digest}"']
        lines.append(f"scopes = {list(scopes)}")
        lines += [f"{field} = {value!r}" for field, value in given.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def client_of(app: FastAPI, name: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, raise_app_exceptions=False),
        base_url="http://gateway",
        headers={"X-API-Key": secret_of(name)},
    )


def view_of(app: FastAPI, given: Mapping[str, Any]) -> RestrictedClient:
    """Return what the gateway holds for all keys with these restrictions."""
    found = restricted(
        app.state.upstreams["default"].client,
        Restrictions(
            devices=frozenset(given["devices"]) if "devices" in given else None,
            device_types=frozenset(given["device_types"]) if "device_types" in given else None,
            customer=given.get("customer"),
            asset=given.get("asset"),
        ),
    )
    assert isinstance(found, RestrictedClient)
    return found


def told(answer: httpx.Response) -> tuple[int, Any, dict[str, str]]:
    """Return what a caller can tell apart: all but what each answer has of its own."""
    body = answer.json() if answer.content else {}
    own = ("request_id", "timestamp")
    headers = {name: value for name, value in answer.headers.items() if name not in OWN_HEADERS}
    return answer.status_code, {key: body[key] for key in body if key not in own}, headers
