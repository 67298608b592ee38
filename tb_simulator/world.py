"""The entities of the simulated ThingsBoard and the indexes over them; all its other state hangs here too."""

import itertools
import secrets
import string
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from tb_simulator.alarms_store import AlarmStore
from tb_simulator.answers import bad_request
from tb_simulator.attribute_store import AttributeStore
from tb_simulator.auth import Tokens
from tb_simulator.faults import Faults
from tb_simulator.feed_hub import FeedHub
from tb_simulator.rate_limits import RateLimits
from tb_simulator.relation_store import RelationStore
from tb_simulator.rpc_store import RpcStore
from tb_simulator.timeseries import TimeSeriesStore
from tb_simulator.world_types import reference

NO_CUSTOMER = "13814000-1dd2-11b2-8080-808080808080"
SYSTEM_TENANT = NO_CUSTOMER
_GREGORIAN_OFFSET = 0x01B21DD213814000
_TOKEN_LETTERS = string.ascii_letters + string.digits


def system_now_ms() -> int:
    """Return the wall clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Settings:
    """What a test or the command line may change about the simulated ThingsBoard.

    Attributes:
        rpc_minimum_ms: ThingsBoard raises every RPC timeout to at least 5 s (rpc.json).
        active_lag_seconds: how long after a device's post ``active`` becomes true; about 1.3 s measured.
        inactivity_seconds: how long after the last post ``active`` becomes false again.
        time_scale: what RPC and long-poll waits are multiplied by, so that tests need not wait them out.
    """

    access_token_seconds: int = 9_000
    refresh_token_seconds: int = 604_800
    rpc_minimum_ms: int = 5_000
    rpc_default_ms: int = 10_000
    time_scale: float = 1.0
    active_lag_seconds: float = 1.3
    inactivity_seconds: float = 600.0
    demo_data: bool = True
    now_ms: Callable[[], int] = system_now_ms


class Entity:
    """One entity: its JSON as ThingsBoard shows it, and what look-ups need beside it."""

    __slots__ = ("_fragment", "body", "customer", "id", "kind", "name", "tenant")

    def __init__(
        self, kind: str, body: dict[str, Any], *, tenant: str, customer: str | None, name: str
    ) -> None:
        self.kind, self.body, self.tenant, self.customer, self.name = kind, body, tenant, customer, name
        self.id: str = body["id"]["id"]
        self._fragment: orjson.Fragment | None = None

    @property
    def fragment(self) -> orjson.Fragment:
        """The body, encoded once."""
        if self._fragment is None:
            self._fragment = orjson.Fragment(orjson.dumps(self.body))
        return self._fragment

    def changed(self) -> None:
        """Forget the encoded body after a change."""
        self._fragment = None


class World:
    """Everything a ThingsBoard knows. One world serves one app; it is not shared between event loops."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._entities: dict[str, dict[str, Entity]] = {}
        self._by_name: dict[tuple[str, str, str], Entity] = {}
        self.credentials: dict[str, dict[str, Any]] = {}
        self.device_of_token: dict[str, str] = {}
        self.passwords: dict[str, tuple[str, Entity]] = {}
        self.list_cache: dict[tuple[Any, ...], list[Entity]] = {}
        self.tokens = Tokens(self)
        self.telemetry = TimeSeriesStore(self)
        self.attributes = AttributeStore(self)
        self.relations = RelationStore()
        self.alarms = AlarmStore()
        self.rpcs = RpcStore(self)
        self.rate_limits = RateLimits()
        self.faults = Faults(self)
        self.feed = FeedHub(self)
        self._clock_sequence = secrets.randbits(14)
        self._last_tick = 0
        self.versions = itertools.count(1)

    def now(self) -> int:
        """Return the time in milliseconds."""
        return self.settings.now_ms()

    def new_id(self) -> tuple[str, int]:
        """Return a time-based UUID and its time, as ThingsBoard makes for entities.

        Their text does not sort by time, and lists without a sort property come in the order of that text.
        """
        now = self.now()
        tick = max(now * 10_000 + _GREGORIAN_OFFSET, self._last_tick + 1)
        self._last_tick = tick
        low, middle, high = tick & 0xFFFFFFFF, (tick >> 32) & 0xFFFF, (tick >> 48) & 0x0FFF
        sequence = self._clock_sequence
        fields = (low, middle, high, (sequence >> 8) & 0x3F, sequence & 0xFF, 0x1192B8CBBA80)
        return str(uuid.UUID(fields=fields, version=1)), now

    def add(self, entity: Entity) -> Entity:
        """Index a new entity."""
        self._entities.setdefault(entity.kind, {})[entity.id] = entity
        self._by_name[(entity.kind, entity.tenant, entity.name)] = entity
        self.list_cache.clear()
        return entity

    def rename(self, entity: Entity, name: str) -> None:
        """Index a changed entity under its new name."""
        self._by_name.pop((entity.kind, entity.tenant, entity.name), None)
        entity.name = name
        self._by_name[(entity.kind, entity.tenant, name)] = entity
        self.touch(entity)

    def touch(self, entity: Entity) -> None:
        """Forget what was derived from an entity that changed."""
        entity.changed()
        self.list_cache.clear()

    def find(self, kind: str, identifier: str) -> Entity | None:
        """Return an entity of any tenant."""
        return self._entities.get(kind, {}).get(identifier)

    def find_by_name(self, kind: str, tenant: str, name: str) -> Entity | None:
        """Return the entity with exactly this name."""
        return self._by_name.get((kind, tenant, name))

    def every(self, kind: str, tenant: str | None = None) -> Iterator[Entity]:
        """Yield the entities of a kind, of one tenant or of all."""
        entities: Iterable[Entity] = self._entities.get(kind, {}).values()
        return (entity for entity in entities if tenant is None or entity.tenant == tenant)

    def remove(self, entity: Entity) -> None:
        """Delete an entity and all that hangs on it; WebSockets are told nothing (facts)."""
        self._entities[entity.kind].pop(entity.id, None)
        self._by_name.pop((entity.kind, entity.tenant, entity.name), None)
        self.relations.forget(entity.kind, entity.id)
        self.attributes.forget(entity.id)
        self.telemetry.forget(entity.id)
        self.alarms.forget(entity.id)
        self.rpcs.forget(entity.id)
        credentials = self.credentials.pop(entity.id, None)
        if credentials:
            self.device_of_token.pop(credentials["credentialsId"], None)
        self.list_cache.clear()

    def set_access_token(self, device_id: str, token: str | None = None) -> dict[str, Any]:
        """Give a device its access token, a random one of 20 letters unless named."""
        token = token or "".join(secrets.choice(_TOKEN_LETTERS) for _ in range(20))
        if self.device_of_token.get(token, device_id) != device_id:
            raise bad_request("Device credentials are already assigned to another device!")
        identifier, created = self.new_id()
        old = self.credentials.get(device_id)
        if old:
            self.device_of_token.pop(old["credentialsId"], None)
        credentials = {
            "id": {"id": identifier},
            "createdTime": created,
            "deviceId": reference("DEVICE", device_id),
            "credentialsType": "ACCESS_TOKEN",
            "credentialsId": token,
            "credentialsValue": None,
            "version": 1,
        }
        self.credentials[device_id] = credentials
        self.device_of_token[token] = device_id
        return credentials

    def close(self) -> None:
        """Stop the timers of this world."""
        self.attributes.close()
        self.rpcs.close()
