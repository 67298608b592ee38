"""How much one history call asks for: less when ThingsBoard is too slow for it, more while it is quick."""

#: Seconds of ThingsBoard's 30: quicker answers let the next call ask for more, slower ones for less.
QUICK_SECONDS, SLOW_SECONDS = 3.0, 10.0
#: What is left of a call's points and of its window after each refusal in a row. A refusal may take
#: ThingsBoard's whole 30 s, so the steps grow: five make less than two minutes of all the time since 1970.
STEPS = (8, 8, 64, 64, 64)
#: After so many quick answers it is tried again whether more goes than what was refused.
TRIES_AGAIN_AFTER = 16


class Dial:
    """How much of one thing (points, or ms) to ask for, at least 1. Half of what was refused is the limit."""

    __slots__ = ("_ceiling", "_most", "_quick", "size")

    def __init__(self, most: int) -> None:
        self.size = self._most = self._ceiling = max(1, most)
        self._quick = 0

    def refused(self, asked: int, step: int) -> None:
        """Ask for much less than what was too much."""
        self._ceiling, self._quick = max(1, asked // 2), 0
        self.size = max(1, asked // step)

    def answered(self, asked: int, seconds: float) -> None:
        """Learn from an answer that this dial had limited."""
        if seconds > SLOW_SECONDS:
            self.size = max(1, min(self.size, asked // 2))
        elif seconds < QUICK_SECONDS:
            self._quick += 1
            if self._quick % TRIES_AGAIN_AFTER == 0:
                self._ceiling = min(self._most, self._ceiling * 2)
            self.size = min(self._ceiling, self.size * 2)
