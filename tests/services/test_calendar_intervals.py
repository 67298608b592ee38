"""Buckets by the calendar: exact where clocks change."""

from datetime import date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.services.calendar_intervals import (
    buckets_backward,
    buckets_forward,
    build_grid,
    local_date,
    start_of_day,
)
from app.times import EARLIEST, LATEST

HOUR = 3_600_000
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Havana",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
]
UNITS = ["hour", "day", "week", "month"]


def ms(text: str, zone: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def local(ts: int, zone: str) -> str:
    return datetime.fromtimestamp(ts / 1000, ZoneInfo(zone)).isoformat()


FIRST_MOMENTS = [
    ("Europe/Berlin", date(2026, 3, 29), "2026-03-29T00:00:00+01:00"),
    ("America/Sao_Paulo", date(2018, 11, 4), "2018-11-04T01:00:00-02:00"),
    ("Asia/Beirut", date(2021, 3, 28), "2021-03-28T01:00:00+03:00"),
    ("America/Havana", date(2025, 11, 2), "2025-11-02T00:00:00-04:00"),
    ("America/Toronto", date(1919, 3, 31), "1919-03-31T00:30:00-04:00"),
    ("Pacific/Apia", date(2011, 12, 31), "2011-12-31T00:00:00+14:00"),
]


@pytest.mark.parametrize(("zone", "day", "first"), FIRST_MOMENTS, ids=lambda value: str(value)[:20])
def test_a_day_begins_with_its_first_moment(zone: str, day: date, first: str) -> None:
    """Midnight may be skipped or come twice; in Toronto 1919 clocks went from 23:30 to 00:30."""
    start = start_of_day(day, ZoneInfo(zone))
    assert local(start, zone) == first
    assert local_date(start, ZoneInfo(zone)) == day
    assert local_date(start - 1, ZoneInfo(zone)) < day


def test_a_skipped_day_is_no_bucket() -> None:
    zone = "Pacific/Apia"
    span = ms("2011-12-28", zone), ms("2012-01-02", zone)
    buckets = list(buckets_forward(build_grid("day", ZoneInfo(zone), span), *span))
    assert [local(start, zone)[:10] for start, _ in buckets] == [
        "2011-12-28",
        "2011-12-29",
        "2011-12-31",
        "2012-01-01",
    ]


def test_a_half_hour_change_makes_a_longer_hour() -> None:
    zone = "Australia/Lord_Howe"
    for day, offset in (("2025-10-05", "+10:30"), ("2026-04-05", "+11:00")):
        span = ms(day, zone), ms(day, zone) + 6 * HOUR
        buckets = list(buckets_forward(build_grid("hour", ZoneInfo(zone), span), *span))
        long = [bucket for bucket in buckets if bucket[1] - bucket[0] > HOUR]
        assert [local(start, zone) for start, _ in long] == [f"{day}T01:00:00{offset}"]
        assert long[0][1] - long[0][0] == HOUR * 3 // 2
        assert all(local(start, zone)[14:16] == "00" for start, _ in buckets)


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    zone = "Europe/Berlin"
    span = ms("2025-12-31T15:00", zone), ms("2026-03-10", zone)
    weeks = list(buckets_forward(build_grid("week", ZoneInfo(zone), span), *span))
    assert [local(start, zone)[:10] for start, _ in weeks[:3]] == ["2025-12-31", "2026-01-05", "2026-01-12"]
    months = list(buckets_forward(build_grid("month", ZoneInfo(zone), span), *span))
    assert [local(start, zone)[:10] for start, _ in months] == [
        "2025-12-31",
        "2026-01-01",
        "2026-02-01",
        "2026-03-01",
    ]


@given(
    zone=st.sampled_from(ZONES),
    unit=st.sampled_from([*UNITS, 1, 7_000, 86_400_000]),
    start=st.datetimes(datetime(1905, 1, 1), datetime(2035, 1, 1)),  # noqa: DTZ001 - hypothesis wants naive ones
    length=st.timedeltas(timedelta(milliseconds=1), timedelta(days=500)),
)
@settings(deadline=None, max_examples=150)
def test_buckets_cover_the_range_from_either_end_alike(
    zone: str, unit: int | str, start: datetime, length: timedelta
) -> None:
    first = ms(start.isoformat(), "UTC")
    span = first, first + max(1, length // timedelta(milliseconds=1))
    grid = build_grid(unit, ZoneInfo(zone), span)
    forward = list(islice(buckets_forward(grid, *span), 200))
    assert forward[0][0] == span[0]
    assert all(before[1] == after[0] for before, after in pairwise(forward))
    assert all(start < end for start, end in forward)
    backward = list(buckets_backward(grid, span[0], forward[-1][1]))
    if forward[-1][1] == span[1] or isinstance(unit, str):
        assert backward == forward[::-1]
    for begin, end in forward[1:-1]:
        assert grid.floor(begin) == grid.floor(end - 1) == begin
        assert grid.ceiling(begin) == grid.ceiling(end - 1) == end


@given(zone=st.sampled_from(ZONES), day=st.dates(date(1905, 1, 1), date(2035, 1, 1)))
@settings(deadline=None)
def test_days_hold_their_own_moments(zone: str, day: date) -> None:
    start = start_of_day(day, ZoneInfo(zone))
    if local_date(start, ZoneInfo(zone)) == day:
        assert local_date(start - 1, ZoneInfo(zone)) < day


@pytest.mark.parametrize("unit", UNITS)
def test_the_calendar_ends_before_pythons_does(unit: str) -> None:
    for span in ((EARLIEST, 0), (0, LATEST)):
        with pytest.raises(InvalidRequest):
            build_grid(unit, ZoneInfo("UTC"), span)
