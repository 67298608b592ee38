"""The text of a limit, and what it says about a caller's standing."""

import pytest

from app.quotas import Standing, blocking, items, parse_quota, tightest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("600/minute", [(600, 60)]),
        ("10/second;1000/hour", [(10, 1), (1000, 3600)]),
        ("1000/hour, 10/SECOND", [(10, 1), (1000, 3600)]),
        ("5 per 10 seconds | 1/day", [(5, 10), (1, 86_400)]),
        ("100/60 second", [(100, 60)]),
        ("7/month", [(7, 30 * 86_400)]),
        ("1/second;2/minute;3/hour;4/day", [(1, 1), (2, 60), (3, 3_600), (4, 86_400)]),
        ("7/31 day", [(7, 31 * 86_400)]),
    ],
)
def test_windows_are_read_shortest_first(text: str, expected: list[tuple[int, int]]) -> None:
    assert [(window.amount, window.seconds) for window in parse_quota("key", text).windows] == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must look like"),
        ("ten/second", "must look like"),
        ("10", "must look like"),
        ("0/second", "must look like"),
        ("-1/second", "must look like"),
        ("1.5/second", "must look like"),
        ("5/0minute", "must look like"),
        ("5/second:", "must look like"),
        ("5/second;", "must look like"),
        ("5/fortnight", "must look like"),
        ("5/secondss", "must look like"),
        ("5/year", "must look like"),
        ("٣/second", "must look like"),
        ("9999999999/second", "must look like"),
        ("5/minute;6/60 second", "two windows of one length"),
        ("1/second;2/minute;3/hour;4/day;5/month", "at most 4 windows"),
        ("5/2 month", "above 31 days"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_quota("key", text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5/year", "must look like 10/second;1000/hour: whole numbers per second, minute, hour, day, month"),
        ("5/minute;6/60 second", "must not have two windows of one length"),
    ],
)
def test_a_refusal_goes_on_from_the_name_of_the_setting(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^must") as refused:
        parse_quota("key", text)
    assert str(refused.value) == words


def test_one_window_is_the_default_policy_and_several_have_names() -> None:
    assert parse_quota("key", "9/minute").policy == b'"default";q=9;w=60'
    assert parse_quota("key", "9/minute;2/second").policy == b'"1s";q=2;w=1, "60s";q=9;w=60'


@pytest.mark.parametrize(
    ("used", "seconds"), [((2, 6), 60), ((1, 3), 1), ((4, 7), 60), ((5, 7), 1), ((5, 8), 60)]
)
def test_the_tightest_window_is_the_one_of_which_least_is_left(used: tuple[int, ...], seconds: int) -> None:
    quota = parse_quota("key", "5/second;8/minute")
    place = tightest(quota, Standing(1, used, (0.4, 30.0), 0.0))
    assert quota.windows[place].seconds == seconds


@pytest.mark.parametrize(("left", "seconds"), [((0.9, 0.5), 1), ((0.5, 0.5), 1), ((0.5, 0.9), 60)])
def test_of_two_windows_alike_the_one_that_ends_later_is_the_tightest(
    left: tuple[float, ...], seconds: int
) -> None:
    quota = parse_quota("key", "5/second;8/minute")
    assert quota.windows[tightest(quota, Standing(1, (4, 7), left, 0.0))].seconds == seconds


def test_every_window_is_an_item_of_the_header() -> None:
    quota = parse_quota("key", "5/second;8/minute")
    assert items(quota, Standing(1, (2, 3), (0.4, 30.0), 0.0)) == b'"1s";r=3;t=1, "60s";r=5;t=30'


def test_a_refused_caller_waits_for_all_windows_that_refuse() -> None:
    quota = parse_quota("key", "5/second;8/minute")
    refused = Standing(0, (5, 8), (0.4, 30.0), 0.0)
    assert blocking(quota, refused, 1) == (quota.windows[1], 30.0)
    assert blocking(quota, refused._replace(used=(5, 7)), 1) == (quota.windows[0], 0.4)
    assert blocking(quota, refused._replace(used=(3, 5)), 4) == (quota.windows[1], 30.0)
    assert blocking(quota, refused._replace(left=(0.4, 0.4)), 1) == (quota.windows[0], 0.4)


def test_a_limit_that_was_lowered_leaves_nothing_rather_than_less() -> None:
    quota = parse_quota("key", "5/minute")
    standing = Standing(0, (7,), (30.0,), 0.0)
    assert items(quota, standing) == b'"default";r=0;t=30'
