"""Something that goes on beside a measurement, in a thread of its own."""

import threading
from typing import Self


class Background:
    """Does one thing again and again while it is open.

    Args:
        pause: seconds before each time.
    """

    def __init__(self, pause: float) -> None:
        self._pause, self._is_over = pause, threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._is_over.wait(self._pause):
            self.act()

    def act(self) -> None:
        """Do it once."""
        raise NotImplementedError
