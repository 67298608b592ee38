"""Remote calls to devices."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tb_simulator.world import World


class RpcStore:
    """The calls on their way to devices."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def forget(self, entity_id: str) -> None:
        """Drop the calls of a deleted device."""

    def close(self) -> None:
        """Stop all timers."""
