"""Times: ms since the epoch or ISO 8601 come in, ms since the epoch go out."""

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from app.errors import InvalidRequest

#: Numbers in this range can only be seconds: as ms they would be days of January 1970.
SECONDS_FROM, SECONDS_TO = 10**8, 10**11
#: The years that ISO 8601 and Python's datetime know.
EARLIEST, LATEST = -62_135_596_800_000, 253_402_300_799_999
NUMBER = re.compile(r"-?[0-9]{1,16}")
MS_PER_SECOND = 1_000
DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Return the present in ms since the epoch."""
    return time.time_ns() // 1_000_000


def parse_time(value: Any, field: str) -> int:
    """Read ms since the epoch (number or digits) or ISO 8601; without an offset it is UTC.

    Raises:
        InvalidRequest: naming the field and why; a number that can only be seconds says so.
    """
    if isinstance(value, str):
        value = int(value) if NUMBER.fullmatch(value.strip()) else _parse_iso(value, field)
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_time(field, "must be ms since the epoch or ISO 8601")
    if SECONDS_FROM <= value < SECONDS_TO:
        raise bad_time(field, f"{value} looks like seconds: times are in ms since the epoch")
    if not EARLIEST <= value <= LATEST:
        raise bad_time(field, "is outside the years 1 to 9999")
    return value


def _parse_iso(text: str, field: str) -> int:
    try:
        moment = datetime.fromisoformat(text.strip().upper())
    except ValueError:
        raise bad_time(field, "must be ms since the epoch or ISO 8601") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return ms_of(moment)


def ms_of(moment: datetime) -> int:
    """Return ms since the epoch of a moment that knows its offset."""
    # Whole numbers throughout: a float would round some ms to its neighbour.
    delta = moment - EPOCH
    return delta.days * DAY_MS + delta.seconds * MS_PER_SECOND + delta.microseconds // 1_000


def iso_of(ms: int) -> str:
    """Return ISO 8601 in UTC, to the second: `2027-01-31T00:00:00Z`."""
    return (EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="seconds").replace("+00:00", "Z")


def parse_range(start: Any, end: Any, *, default_start: int) -> tuple[int, int]:
    """Read `[start_ts, end_ts)`; the end is exclusive and now + 1 ms when it is not given."""
    start_ts = default_start if start is None else parse_time(start, "start_ts")
    end_ts = now_ms() + 1 if end is None else parse_time(end, "end_ts")
    if end_ts <= start_ts and end is None:
        raise bad_time("start_ts", "must be in the past when there is no end_ts")
    if end_ts <= start_ts:
        raise bad_time("end_ts", "must be after start_ts (the end is exclusive)")
    return start_ts, end_ts


def bad_time(field: str, issue: str) -> InvalidRequest:
    """Say which time is wrong and why."""
    return InvalidRequest(f"{field}: {issue}", details={"field": field, "issue": issue})
