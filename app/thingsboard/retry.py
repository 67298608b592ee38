"""When to try once more, and how often in all."""

import random

#: Each call earns a tenth of a retry: amplification stays at 1.1 however much fails.
EARNED_PER_CALL = 0.1
MAXIMUM_SAVED = 10.0
ATTEMPTS = 3
BASE_DELAY_SECONDS = 0.05


class RetryBudget:
    """A purse of retries shared by all calls of an upstream, or of one upload."""

    def __init__(self, most_saved: float = MAXIMUM_SAVED) -> None:
        self._most_saved = self._saved = most_saved

    def earn(self) -> None:
        """Note a call made for a caller."""
        self._saved = min(self._most_saved, self._saved + EARNED_PER_CALL)

    def spend(self) -> bool:
        """Take one retry out, or say that none is left."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


def delay_before(attempt: int) -> float:
    """Return the wait in seconds before the given retry (1, 2, ...): jittered, on a doubling base."""
    return random.uniform(0.5, 1.0) * BASE_DELAY_SECONDS * float(2 ** (attempt - 1))
