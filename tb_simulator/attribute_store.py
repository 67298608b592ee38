"""Attributes by entity and scope, and the ``active`` attribute that follows a device's life."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tb_simulator.values import Value

if TYPE_CHECKING:
    from tb_simulator.world import World

CLIENT, SERVER, SHARED = "CLIENT_SCOPE", "SERVER_SCOPE", "SHARED_SCOPE"
SCOPES = (SERVER, SHARED, CLIENT)

Stored = tuple[int, Value]


class AttributeStore:
    """All attributes. ``(last update, value)`` by key, in the order of their first saving."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._attributes: dict[tuple[str, str], dict[str, Stored]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def of(self, entity_id: str, scope: str) -> dict[str, Stored]:
        """Return the attributes of one scope."""
        return self._attributes.get((entity_id, scope), {})

    def save(self, entity_id: str, scope: str, values: Mapping[str, Value], *, ts: int | None = None) -> None:
        """Store attributes and tell the subscribers, of unchanged values too."""
        now = self._world.now() if ts is None else ts
        stored = self._attributes.setdefault((entity_id, scope), {})
        for key, value in values.items():
            stored[key] = (now, value)
        self._world.feed.attributes_saved(entity_id, scope, {key: stored[key] for key in values})

    def delete(self, entity_id: str, scope: str, keys: Iterable[str]) -> None:
        """Delete attributes; unknown keys are passed over in silence (attributes.json)."""
        stored = self._attributes.get((entity_id, scope), {})
        gone = [key for key in keys if stored.pop(key, None) is not None]
        self._world.feed.attributes_deleted(entity_id, scope, gone)

    def is_active(self, device_id: str) -> bool:
        """Return the ``active`` server attribute of a device."""
        return self.of(device_id, SERVER).get("active", (0, False))[1] is True

    def forget(self, entity_id: str) -> None:
        """Drop all attributes of a deleted entity."""
        for scope in SCOPES:
            self._attributes.pop((entity_id, scope), None)
        timer = self._timers.pop(entity_id, None)
        if timer:
            timer.cancel()

    def device_spoke(self, device_id: str) -> None:
        """Note a device's activity; ``active`` follows about 1.3 s later (facts)."""
        if device_id in self._timers:
            if self.is_active(device_id):
                self._last_activity(device_id)
            return
        lag = self._world.settings.active_lag_seconds
        if lag <= 0:
            self._become_active(device_id)
        else:
            loop = asyncio.get_running_loop()
            self._timers[device_id] = loop.call_later(lag, self._become_active, device_id)

    def _last_activity(self, device_id: str) -> None:
        self.save(device_id, SERVER, {"lastActivityTime": self._world.now()})

    def _become_active(self, device_id: str) -> None:
        self._last_activity(device_id)
        if not self.is_active(device_id):
            self.save(device_id, SERVER, {"active": True})
            self._world.list_cache.clear()
        self._watch(device_id, self._world.settings.inactivity_seconds)

    def _watch(self, device_id: str, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[device_id] = loop.call_later(seconds, self._check_inactivity, device_id)

    def _check_inactivity(self, device_id: str) -> None:
        last = self.of(device_id, SERVER).get("lastActivityTime", (0, 0))[1]
        silent = (self._world.now() - int(last)) / 1000
        left = self._world.settings.inactivity_seconds - silent
        if left > 0:
            self._watch(device_id, left + 0.001)
            return
        self._timers.pop(device_id, None)
        self.save(device_id, SERVER, {"active": False, "inactivityAlarmTime": self._world.now()})
        self._world.list_cache.clear()

    def close(self) -> None:
        """Stop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
