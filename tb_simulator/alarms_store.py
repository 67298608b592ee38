"""Alarms in memory."""

from typing import Any


class AlarmStore:
    """All alarms by id; bodies are as ``POST /api/alarm`` answers them."""

    def __init__(self) -> None:
        self.all: dict[str, dict[str, Any]] = {}

    def forget(self, entity_id: str) -> None:
        """Delete the alarms of a deleted entity."""
        for identifier in [i for i, alarm in self.all.items() if alarm["originator"]["id"] == entity_id]:
            del self.all[identifier]
