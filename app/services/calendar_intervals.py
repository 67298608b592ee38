"""Cuts time into buckets: of equal length, or by the calendar of a time zone, exact across clock changes.

A bucket is half open, `[start, end)`, in ms since the epoch. Nothing here walks a whole range: callers take
as many buckets as they need, from either end.
"""

from bisect import bisect_left
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from app.errors import InvalidRequest
from app.schemas.telemetry import CalendarUnit
from app.times import DAY_MS, EARLIEST, LATEST, MS_PER_SECOND

HOUR_MS = 3_600_000
#: Room for the bucket around the first and the last moment.
MARGIN_MS = 400 * DAY_MS
DECEMBER = 12
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Grid(Protocol):
    """The rule by which time is cut."""

    def floor(self, ts: int) -> int:
        """Return the start of the bucket that holds this moment."""

    def ceiling(self, ts: int) -> int:
        """Return the end of the bucket that holds this moment."""


class EqualGrid:
    """Buckets of one length, counted from an origin."""

    def __init__(self, origin: int, length: int) -> None:
        self._origin, self._length = origin, length

    def floor(self, ts: int) -> int:
        """Return the start of the bucket that holds this moment."""
        return ts - (ts - self._origin) % self._length

    def ceiling(self, ts: int) -> int:
        """Return the end of the bucket that holds this moment."""
        return self.floor(ts) + self._length


class HourGrid:
    """Hours of the local clock, bounded where it reads :00: a half-hour change makes a longer hour."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone

    def floor(self, ts: int) -> int:
        """Return the last moment, not after this one, at which the local clock reads :00."""
        offset = offset_at(ts, self._zone)
        start = ts - (ts + offset) % HOUR_MS
        if offset_at(start, self._zone) == offset:
            return start
        change = first_moment(start, ts, lambda moment: offset_at(moment, self._zone) == offset)
        return change if (change + offset) % HOUR_MS == 0 else self.floor(change - 1)

    def ceiling(self, ts: int) -> int:
        """Return the next moment after this one at which the local clock reads :00."""
        offset = offset_at(ts, self._zone)
        end = ts - (ts + offset) % HOUR_MS + HOUR_MS
        later = offset_at(end, self._zone)
        if later == offset:
            return end
        change = first_moment(ts, end, lambda moment: offset_at(moment, self._zone) == later)
        return change + -(change + later) % HOUR_MS


class DateGrid:
    """Days, ISO weeks or months of a zone; a bucket begins with the first moment of its first day."""

    def __init__(self, unit: CalendarUnit, zone: ZoneInfo) -> None:
        self._unit, self._zone = unit, zone
        self._starts: dict[date, int] = {}

    def floor(self, ts: int) -> int:
        """Return the first moment of the day, week or month that holds this moment."""
        day = self._first_day(local_date(ts, self._zone))
        # Where clocks go back over midnight a date comes twice: the later part belongs to the first one.
        while self._start(self._next(day)) <= ts:
            day = self._next(day)
        while self._start(day) > ts:
            day = self._first_day(day - timedelta(days=1))
        return self._start(day)

    def ceiling(self, ts: int) -> int:
        """Return the first moment of the day, week or month after the one that holds this moment."""
        day = self._next(self._first_day(local_date(ts, self._zone)))
        # A day that a zone has skipped altogether (Samoa, 30 December 2011) is no bucket.
        while self._start(day) <= ts:
            day = self._next(day)
        return self._start(day)

    def _first_day(self, day: date) -> date:
        if self._unit == "week":
            return day - timedelta(days=day.weekday())
        return day.replace(day=1) if self._unit == "month" else day

    def _next(self, day: date) -> date:
        if self._unit == "month":
            return date(day.year + day.month // DECEMBER, day.month % DECEMBER + 1, 1)
        return day + timedelta(days=7 if self._unit == "week" else 1)

    def _start(self, day: date) -> int:
        if day not in self._starts:
            self._starts[day] = start_of_day(day, self._zone)
        return self._starts[day]


def build_grid(interval: int | CalendarUnit, zone: ZoneInfo, span: tuple[int, int]) -> Grid:
    """Return the grid of an interval in ms (counted from the start of the range) or of a calendar unit.

    Raises:
        InvalidRequest: the calendar does not reach as far as the range.
    """
    if isinstance(interval, int):
        return EqualGrid(span[0], interval)
    if span[0] < EARLIEST + MARGIN_MS or span[1] > LATEST - MARGIN_MS:
        issue = "a calendar interval needs a range within the years 3 to 9997"
        raise InvalidRequest(f"interval: {issue}", details={"field": "interval", "issue": issue})
    return HourGrid(zone) if interval == "hour" else DateGrid(interval, zone)


def buckets_forward(grid: Grid, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the buckets of `[start, end)`, oldest first, the outer ones clipped to it."""
    while start < end:
        stop = min(grid.ceiling(start), end)
        yield start, stop
        start = stop


def buckets_backward(grid: Grid, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the same buckets, newest first."""
    while start < end:
        begin = max(grid.floor(end - 1), start)
        yield begin, end
        end = begin


def offset_at(ts: int, zone: ZoneInfo) -> int:
    """Return how far the local clock is ahead of UTC at this moment, in ms."""
    offset = _moment(ts).astimezone(zone).utcoffset() or timedelta()
    return (offset.days * DAY_MS) + offset.seconds * MS_PER_SECOND


def local_date(ts: int, zone: ZoneInfo) -> date:
    """Return the date on the local calendar at this moment."""
    return _moment(ts).astimezone(zone).date()


def start_of_day(day: date, zone: ZoneInfo) -> int:
    """Return the first moment of a local date; where midnight is skipped, the moment of the change."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    early, late = _ms(midnight.replace(fold=1)), _ms(midnight)
    if early >= late:
        return late
    # The two readings of a time that does not exist lie on both sides of the change.
    wall = _ms(midnight.replace(tzinfo=UTC))
    return first_moment(early - 1, late, lambda ts: ts + offset_at(ts, zone) >= wall)


class _Test(Protocol):
    def __call__(self, moment: int, /) -> bool: ...


def first_moment(before: int, after: int, has_changed: _Test) -> int:
    """Return the first moment in `(before, after]` that passes a test which all later ones pass too."""
    moments = range(before + 1, after + 1)
    return moments[bisect_left(moments, True, key=has_changed)]


def _moment(ts: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ts)


def _ms(moment: datetime) -> int:
    delta = moment.astimezone(UTC) - EPOCH
    return delta.days * DAY_MS + delta.seconds * MS_PER_SECOND + delta.microseconds // 1_000
