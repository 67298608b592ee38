"""What a caller may use up, such as `10/second;1000/hour`, and where a caller stands in it.

Only numbers and words: `counters.py` counts, `middleware/rate_limits.py` admits or refuses.
"""

import re
from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from limits import RateLimitItem, parse_many

#: Each window costs memory and time at every request.
MOST_WINDOWS = 4
LONGEST_WINDOW_SECONDS = 31 * 86_400
#: `limits` itself reads `5/0minute` as `5/minute` and lets a stray colon pass.
WINDOW = re.compile(r"\s*[1-9][0-9]{0,8}\s*(?:/|per)\s*(?:[1-9][0-9]{0,6}\s*)?([a-z]+)\s*", re.IGNORECASE)
UNITS = ("second", "minute", "hour", "day", "month")
SEPARATORS = re.compile("[,;|]")


class Window(NamedTuple):
    """So much in so many seconds; it begins with the first use."""

    amount: int
    seconds: int
    #: Which counters hold it: windows of one scope and length.
    place: tuple[str, int]
    #: Its item in `RateLimit`, without its two numbers.
    item: bytes


class Quota(NamedTuple):
    """All windows that one kind of caller must fit into, shortest first."""

    #: What is counted: `address`, `key` or `failed-keys`.
    scope: str
    windows: tuple[Window, ...]
    #: The value of `RateLimit-Policy`.
    policy: bytes

    @property
    def most_at_once(self) -> int:
        """What can be taken in one go at best."""
        return min(window.amount for window in self.windows)


class Standing(NamedTuple):
    """What came of one attempt, with what the headers need, as of one moment."""

    #: How much of what was asked for is granted; 0: refused, and nothing was used up.
    granted: int
    #: What has been used of each window, this attempt included.
    used: tuple[int, ...]
    #: Seconds until each window ends; 0 when it has not begun.
    left: tuple[float, ...]
    #: Seconds since the epoch by the clock that counts.
    now: float


def parse_limits(text: str) -> list[RateLimitItem]:
    """Read a limit such as `600/minute`, `5 per 10 second` or `10/second;1000/hour`.

    Raises:
        ValueError: it makes no sense; the message goes on from the name of what holds the text.
    """
    for part in SEPARATORS.split(text):
        found = WINDOW.fullmatch(part)
        if found is None or found[1].lower().removesuffix("s") not in UNITS:
            raise ValueError(f"must look like 10/second;1000/hour: whole numbers per {', '.join(UNITS)}")
    items = parse_many(text)
    lengths = {item.get_expiry() for item in items}
    if len(items) > MOST_WINDOWS:
        raise ValueError(f"must have at most {MOST_WINDOWS} windows")
    if len(lengths) < len(items):
        raise ValueError("must not have two windows of one length")
    if max(lengths) > LONGEST_WINDOW_SECONDS:
        raise ValueError(f"must not have a window above {LONGEST_WINDOW_SECONDS // 86_400} days")
    return items


def make_quota(scope: str, items: Iterable[RateLimitItem]) -> Quota:
    """Prepare what every request needs of these limits."""
    amounts = {item.get_expiry(): item.amount for item in items}
    windows, policies = [], []
    for seconds, amount in sorted(amounts.items()):
        name = "default" if len(amounts) == 1 else f"{seconds}s"
        windows.append(Window(amount, seconds, (scope, seconds), f'"{name}";r=%d;t=%d'.encode()))
        policies.append(f'"{name}";q={amount};w={seconds}')
    return Quota(scope, tuple(windows), ", ".join(policies).encode())


def parse_quota(scope: str, text: str) -> Quota:
    """Read a limit of callers who are counted in this scope; see `parse_limits`."""
    return make_quota(scope, parse_limits(text))


def tightest(quota: Quota, standing: Standing) -> int:
    """Return the place of the window of which least is left, of two alike that of the later one."""
    found, least = 0, quota.windows[0].amount - standing.used[0]
    # By place, as everything here runs for every request: `zip` with its check takes three times as long.
    for place in range(1, len(quota.windows)):
        rest = quota.windows[place].amount - standing.used[place]
        if rest < least or (rest == least and standing.left[place] > standing.left[found]):
            found, least = place, rest
    return found


def blocking(quota: Quota, standing: Standing, cost: int) -> tuple[Window, float]:
    """Return the window that refuses this cost longest, and the seconds until all windows admit it."""
    found, longest = quota.windows[0], 0.0
    for window, used, left in zip(quota.windows, standing.used, standing.left, strict=True):
        if used + cost > window.amount and left > longest:
            found, longest = window, left
    return found, longest


def items(quota: Quota, standing: Standing) -> bytes:
    """Return the value of `RateLimit`: what is left of each window, and for how long."""
    parts = []
    for place, window in enumerate(quota.windows):
        rest = window.amount - standing.used[place]
        parts.append(window.item % (max(0, rest), ceil(standing.left[place])))
    return b", ".join(parts)
