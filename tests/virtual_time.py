"""An event loop whose clock only waiting moves: timers ring in order and at once."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):
    """Never waits: what would have been waited for has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class VirtualTime(asyncio.SelectorEventLoop):
    """For code that takes its time from the event loop and does no input or output."""

    def __init__(self) -> None:
        self.clock = _Selector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now

    def settle(self, seconds: float = 0.0) -> None:
        """Let time pass and everything happen that it brings."""
        self.run_until_complete(asyncio.sleep(seconds))
        # What a timer sets off may take some turns of the loop.
        for _ in range(10):
            self.run_until_complete(asyncio.sleep(0))


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(work)
