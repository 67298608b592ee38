"""What one answer may cost ThingsBoard; what that does not cover is left to the next page, or named."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from app.errors import InvalidRequest
from app.thingsboard.telemetry import keys_by_call

#: Calls of one answer about one device, and of one about many. A year of days takes 5: clocks change, and it
#: may begin within a day. It takes as many again where a zero may be none: 10 for each of 100 devices.
MOST_CALLS, MOST_CALLS_OF_MANY = 80, 1_000
#: Points that one answer reads to be exact, all its keys together: 20 calls, a second or so of ThingsBoard's.
MOST_RAW_POINTS = 200_000


class AllowanceSpent(Exception):
    """The next call is not covered."""


@dataclass(slots=True)
class Allowance:
    """What is left of it: calls to ThingsBoard, and points that are read to be looked through."""

    calls: int
    raw_points: int

    @classmethod
    def of_one_in(cls, devices: int) -> Self:
        """Return the share of one device in an answer about so many."""
        return cls(min(MOST_CALLS, MOST_CALLS_OF_MANY // devices), MOST_RAW_POINTS // devices)

    def covers(self, keys: Sequence[str], times: int = 1) -> bool:
        """Tell whether a history of these keys may be read so many times more."""
        return calls_for(keys) * times <= self.calls

    def times(self, keys: Sequence[str], looks: int) -> int:
        """Return how many runs of these keys may be read, so often each."""
        return self.calls // (calls_for(keys) * looks or 1)

    def covers_more(self, keys: Sequence[str], times: int) -> bool:
        """Tell whether it is worth going on: not where points could no longer be looked through."""
        return self.raw_points >= 0 and self.covers(keys, times)

    def check(self, keys: Sequence[str], times: int) -> None:
        """Refuse keys of which a history cannot even be read so many times.

        Raises:
            InvalidRequest: there are too many of them that ThingsBoard has to be asked for one by one.
        """
        if not self.covers(keys, times):
            issue = (
                f"too many names hold a comma or are very long: they take {calls_for(keys)} calls, name fewer"
            )
            raise InvalidRequest(f"keys: {issue}", details={"field": "keys", "issue": issue})

    def spend(self, keys: Sequence[str]) -> None:
        """Take off what a history of these keys costs."""
        self.calls -= calls_for(keys)

    @contextmanager
    def without(self, keys: Sequence[str]) -> Iterator[None]:
        """Keep what one more history of these keys costs back for afterwards."""
        kept = calls_for(keys)
        self.calls -= kept
        try:
            yield
        finally:
            self.calls += kept


def calls_for(keys: Sequence[str]) -> int:
    """Return how many calls a history of these keys takes: one, if their names are of the usual kind."""
    return len(keys_by_call(keys))
