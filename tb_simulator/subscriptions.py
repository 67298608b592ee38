"""What a WebSocket session subscribes to, and the frames it gets: values are text, ``[[ts,"text"]]``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tb_simulator.attribute_store import SCOPES, Stored
from tb_simulator.feed_hub import Listener
from tb_simulator.timeseries import Point
from tb_simulator.values import as_text
from tb_simulator.world import Entity

Push = Callable[[dict[str, Any]], None]

_ATTRIBUTE_TYPES = dict(
    zip(SCOPES, ("SERVER_ATTRIBUTE", "SHARED_ATTRIBUTE", "CLIENT_ATTRIBUTE"), strict=True)
)
MOST_ENTITIES = 10_000


def error_frame(number: int, code: int, message: str) -> dict[str, Any]:
    """Return the frame of a refused command."""
    return {
        "subscriptionId": number,
        "errorCode": code,
        "errorMsg": message,
        "data": None,
        "latestValues": {},
    }


def _data_frame(number: int, data: Mapping[str, list[list[Any]]]) -> dict[str, Any]:
    return {
        "subscriptionId": number,
        "errorCode": 0,
        "errorMsg": None,
        "data": data,
        "latestValues": {key: rows[-1][0] for key, rows in data.items()},
    }


def first_frame(number: int, values: Mapping[str, Stored]) -> dict[str, Any]:
    """Return the frame that answers a subscription: all values there are."""
    return _data_frame(number, {key: [[ts, as_text(value)]] for key, (ts, value) in values.items()})


class Subscription:
    """One subscription of one session; the hub tells it what happens to its entities."""

    def __init__(self, push: Push, number: int, entity_ids: Iterable[str]) -> None:
        self._push, self.number, self.entity_ids = push, number, tuple(entity_ids)

    def listener(self, entity_id: str) -> Listener:  # noqa: ARG002 - entity data subscriptions tell them apart
        """Return what the hub tells about one of the entities."""
        return self

    def telemetry(self, points: Sequence[Point], newer: Sequence[Point]) -> None:
        """Take saved points."""

    def telemetry_gone(self, key: str) -> None:
        """Take the end of a key."""

    def attributes(self, scope: str, values: Mapping[str, Stored]) -> None:
        """Take saved attributes."""


class TelemetrySubscription(Subscription):
    """``TIMESERIES``: every saved point, or with ``LATEST_TELEMETRY`` those newer than the latest."""

    def __init__(
        self, push: Push, number: int, entity_id: str, keys: frozenset[str], *, newer_only: bool
    ) -> None:
        super().__init__(push, number, (entity_id,))
        self._keys, self._newer_only = keys, newer_only

    def telemetry(self, points: Sequence[Point], newer: Sequence[Point]) -> None:
        """Push the points this subscription wants in one frame, in the order they were saved."""
        data: dict[str, list[list[Any]]] = {}
        for key, ts, value in newer if self._newer_only else points:
            if not self._keys or key in self._keys:
                data.setdefault(key, []).append([ts, as_text(value)])
        if data or not (points or self._keys or self._newer_only):
            self._push(_data_frame(self.number, data))

    def telemetry_gone(self, key: str) -> None:
        """Push a deleted key as ThingsBoard does: time 0, empty text."""
        if not self._keys or key in self._keys:
            self._push(_data_frame(self.number, {key: [[0, ""]]}))


class AttributeSubscription(Subscription):
    """``ATTRIBUTES``: the changes of one scope, or of all of them unnamed."""

    def __init__(
        self, push: Push, number: int, entity_id: str, scope: str | None, keys: frozenset[str]
    ) -> None:
        super().__init__(push, number, (entity_id,))
        self._scope, self._keys = scope, keys

    def attributes(self, scope: str, values: Mapping[str, Stored]) -> None:
        """Push saved attributes, unchanged ones too."""
        if self._scope not in {None, scope}:
            return
        wanted = {key: value for key, value in values.items() if not self._keys or key in self._keys}
        if wanted:
            self._push(first_frame(self.number, wanted))


class EntityDataSubscription(Subscription):
    """``ENTITY_DATA``: the latest values of the entities of a query; late points never come (facts)."""

    def __init__(
        self, push: Push, number: int, entities: Sequence[Entity], keys: Iterable[dict[str, Any]]
    ) -> None:
        super().__init__(push, number, (entity.id for entity in entities))
        self._keys = {(str(key.get("type")), str(key.get("key"))) for key in keys}
        # The hub does not say whose values come, and an entity data frame must: one relay an entity.
        self._relays = {entity.id: _Relay(self, entity.body["id"]) for entity in entities}

    def frame(self, data: Any, changes: Any) -> dict[str, Any]:
        """Return a frame of this subscription."""
        return {
            "cmdId": self.number,
            "data": data,
            "update": changes,
            "errorCode": 0,
            "errorMsg": None,
            "allowedEntities": MOST_ENTITIES,
            "cmdUpdateType": "ENTITY_DATA",
        }

    def listener(self, entity_id: str) -> Listener:
        """Return the relay of one entity."""
        return self._relays[entity_id]

    def changed(self, reference: Any, latest: dict[str, dict[str, Any]]) -> None:
        """Push new latest values of one entity, of the keys asked for."""
        wanted = {
            kind: {key: value for key, value in values.items() if (kind, key) in self._keys}
            for kind, values in latest.items()
        }
        wanted = {kind: values for kind, values in wanted.items() if values}
        if wanted:
            change = {"entityId": reference, "latest": wanted, "timeseries": None, "aggLatest": None}
            self._push(self.frame(None, [change]))


class _Relay:
    """Listens to one entity of an ``ENTITY_DATA`` subscription."""

    def __init__(self, owner: EntityDataSubscription, reference: Any) -> None:
        self._owner, self._reference = owner, reference

    def telemetry(self, points: Sequence[Point], newer: Sequence[Point]) -> None:  # noqa: ARG002 - see Listener
        values = {key: {"ts": ts, "value": as_text(value)} for key, ts, value in newer}
        self._owner.changed(self._reference, {"TIME_SERIES": values})

    def telemetry_gone(self, key: str) -> None:
        self._owner.changed(self._reference, {"TIME_SERIES": {key: {"ts": 0, "value": ""}}})

    def attributes(self, scope: str, values: Mapping[str, Stored]) -> None:
        shown = {key: {"ts": ts, "value": as_text(value)} for key, (ts, value) in values.items()}
        self._owner.changed(self._reference, {_ATTRIBUTE_TYPES[scope]: shown, "ATTRIBUTE": shown})
