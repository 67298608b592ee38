"""Hands what was saved to the open WebSocket sessions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tb_simulator.attribute_store import Stored
    from tb_simulator.timeseries import Point
    from tb_simulator.world import World


class Listener(Protocol):
    """A subscription to one entity."""

    def telemetry(self, points: "Sequence[Point]", newer: "Sequence[Point]") -> None:
        """Take saved points; ``newer`` are those that moved the latest value."""

    def telemetry_gone(self, key: str) -> None:
        """Take the end of a key."""

    def attributes(self, scope: str, values: "Mapping[str, Stored]") -> None:
        """Take saved attributes."""


class Connection(Protocol):
    """An open WebSocket session."""

    def cut(self) -> None:
        """End it without a close frame."""

    def close(self, code: int, reason: str) -> None:
        """End it with a close frame."""


class FeedHub:
    """Subscriptions by entity id; saving costs one dictionary look-up while nobody listens.

    ``sessions`` are the open WebSockets; while ``muted`` they are sent nothing, as by a stalled ThingsBoard.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self._listeners: dict[str, dict[Listener, None]] = {}
        self.sessions: set[Connection] = set()
        self.muted = False

    def cut_sessions(self) -> None:
        """End all WebSockets without a close frame."""
        for session in list(self.sessions):
            session.cut()

    def close_sessions(self, code: int, reason: str = "") -> None:
        """End all WebSockets with a close frame, as tenant-profile limits do with 1008."""
        for session in list(self.sessions):
            session.close(code, reason)

    def subscribe(self, entity_id: str, listener: Listener) -> None:
        """Start telling a listener about an entity."""
        self._listeners.setdefault(entity_id, {})[listener] = None

    def unsubscribe(self, entity_id: str, listener: Listener) -> None:
        """Stop telling a listener about an entity."""
        listeners = self._listeners.get(entity_id)
        if listeners is not None:
            listeners.pop(listener, None)
            if not listeners:
                del self._listeners[entity_id]

    def _of(self, entity_id: str) -> list[Listener]:
        return list(self._listeners.get(entity_id, ())) if self._listeners else []

    def telemetry_saved(self, entity_id: str, points: "Sequence[Point]", newer: "Sequence[Point]") -> None:
        """Tell of saved points."""
        for listener in self._of(entity_id):
            listener.telemetry(points, newer)

    def telemetry_deleted(self, entity_id: str, key: str) -> None:
        """Tell of a key without a latest value."""
        for listener in self._of(entity_id):
            listener.telemetry_gone(key)

    def attributes_saved(self, entity_id: str, scope: str, values: "Mapping[str, Stored]") -> None:
        """Tell of saved attributes."""
        for listener in self._of(entity_id):
            listener.attributes(scope, values)

    def attributes_deleted(self, entity_id: str, scope: str, keys: Iterable[str]) -> None:
        """Tell of deleted attributes, which come as time 0 and an empty text."""
        gone: dict[str, Stored] = dict.fromkeys(keys, (0, ""))
        if gone:
            self.attributes_saved(entity_id, scope, gone)
