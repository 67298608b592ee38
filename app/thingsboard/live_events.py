"""What the live feed tells, and to whom."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Kind = Literal["telemetry", "attribute", "status", "gone", "gap", "dropped", "closing", "error"]


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One thing that happened. All listeners share the one object.

    `telemetry`: `key`, `ts`, `value`. `attribute`: `scope` besides. `status`: `value` says whether the device
    is active. `gap`: points may be missing, of `key` or of the whole device, up to `ts`. `gone`: the device
    was deleted, or is not to be seen any more. `dropped`, `closing`, `error`: the end, of all devices when
    `device_id` is empty. `reason` says why, for callers to read.
    """

    kind: Kind
    device_id: str = ""
    key: str | None = None
    #: ms since the epoch.
    ts: int | None = None
    value: Any = None
    scope: str | None = None
    reason: str | None = None
    #: The newest value from before the listener came.
    is_first: bool = False


class Sink(Protocol):
    """Takes the events of devices."""

    def deliver(self, event: LiveEvent) -> None:
        """Take one event, at once and without failing: others wait."""
