"""What ThingsBoard does to values: our rules agree with the recordings, and nothing is silent."""

import json
import math
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.points import Points, iter_chunks
from app.services.uploads import read_upload
from app.services.values import (
    Assay,
    UnstorableError,
    WarningBudget,
    Warnings,
    find_key_fault,
    is_parsable,
    stored_number,
)
from tb_simulator.payloads import telemetry_points
from tb_simulator.values import JsonText, coerce, coerce_number

T = 1_760_000_000_000


def upload(body: bytes) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return what the simulator stores of an upload's first chunk, and the warnings."""
    reader = read_upload(orjson.loads(body), lambda: json.loads(body))
    stored = {}
    for chunk in iter_chunks(reader.points):
        for point in telemetry_points(chunk.body, T):
            value = point.value
            stored[point.key] = json.loads(value) if isinstance(value, JsonText) else value
    return stored, reader.warnings.listed()


#: value as sent, what ThingsBoard stores, part of the warning (None: none is due)
KNOWN: dict[str, tuple[str, Any, str | None]] = {
    "integer": ("25", 25, None),
    "float": ("25.6", 25.6, None),
    "whole float": ("25.0", 25.0, None),
    "boolean": ("true", True, None),
    "text": ('"on"', "on", None),
    "empty text": ('""', "", None),
    "beyond 53 bits": ("9007199254740993", 9007199254740993, None),
    "largest long": ("9223372036854775807", 9223372036854775807, None),
    "smallest long": ("-9223372036854775808", -9223372036854775808, None),
    "beyond int64": ("9223372036854775808", "9223372036854775808", "beyond 64 bits"),
    "beyond uint64": ("123456789012345678901234567890", "123456789012345678901234567890", "beyond 64 bits"),
    "below int64": ("-9223372036854775809", "-9223372036854775809", "beyond 64 bits"),
    "seventeen decimals": ("0.30000000000000004", 0.3, "rounded to 0.3"),
    "sixteen decimals": ("0.3000000000000001", 0.3000000000000001, None),
    "tiny": ("1e-20", "0.00000000000000000001", "as text"),
    "negative tiny": ("-1e-20", "-0.00000000000000000001", "as text"),
    "small": ("1e-16", 1e-16, None),
    "zero": ("0.0", 0.0, None),
    "huge": ("1e300", 1e300, None),
    "negative huge": ("-1e19", -1e19, None),
    "just beyond": ("9223372036854775808.0", 2.0**63, None),
    "ten to the sixteen": ("1e16", 10**16, None),
    "digits": ('"0042"', 42, "number 42"),
    "decimals": ('".5"', 0.5, "number 0.5"),
    "negative": ('"-12.50"', -12.5, "number -12.5"),
    "a version": ('"1.2"', 1.2, "number 1.2"),
    "arabic digits": ('"\u0661\u0662"', "\u0661\u0662", "number 12"),
    "exponent": ('"1e5"', "1e5", None),
    "plus": ('"+5"', "+5", None),
    "space": ('" 5"', " 5", None),
    "trailing point": ('"5."', "5.", None),
    "minus": ('"-"', "-", None),
    "two points": ('"1.2.3"', "1.2.3", None),
    "long digits": ('"' + "7" * 30 + '"', "7" * 30, None),
    "long digits with zeros": ('"00' + "7" * 30 + '"', "7" * 30, "spelt as 777"),
    "long decimals": ('"0.12345678901234567"', "0.12345678901234567", None),
    "long decimals without a zero": ('".12345678901234567"', "0.12345678901234567", "spelt as 0.123"),
    "object": ('{"a":[1,"2",null,0.30000000000000004]}', {"a": [1, "2", None, 0.30000000000000004]}, None),
    "object with a long integer": ('{"a":[18446744073709551616]}', {"a": [1.8446744073709552e19]}, None),
    "array": ("[1,2]", [1, 2], None),
}


@pytest.mark.parametrize(("sent", "stored", "warning"), KNOWN.values(), ids=KNOWN)
def test_a_value_is_stored_as_sent_or_a_warning_says_what_is(
    sent: str, stored: Any, warning: str | None
) -> None:
    found, warnings = upload(f'{{"ts":{T},"values":{{"k":{sent}}}}}'.encode())
    assert (found["k"], type(found["k"])) == (stored, type(stored))
    if warning is None:
        assert warnings == []
    else:
        assert [entry["key"] for entry in warnings] == ["k"]
        assert warning in warnings[0]["reason"]


def test_long_integers_in_objects_are_sent_digit_by_digit() -> None:
    body = b'{"k":{"a":[123456789012345678901234567890,{"b":18446744073709551615}]}}'
    reader = read_upload(orjson.loads(body), lambda: json.loads(body))
    assert [chunk.body for chunk in iter_chunks(reader.points)] == [b"[" + body + b"]"]


texts = (
    st.text()
    | st.from_regex(r"\A-?[0-9]{0,25}\.?[0-9]{0,25}\Z")
    | st.sampled_from(["", "-", ".", "-.", "0", "-0.0"])
)
scalars = (
    st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-1, 1)
    | st.booleans()
    | texts.filter(lambda text: "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text))
)


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(scalars)
def test_no_scalar_is_stored_otherwise_without_a_warning(value: Any) -> None:
    try:
        found, warnings = upload(json.dumps({"ts": T, "values": {"k": value}}).encode())
    except orjson.JSONDecodeError:
        assert isinstance(value, int)
        assert abs(value) > 10**300
        return
    stored = found["k"]
    same_kind = isinstance(stored, str) == isinstance(value, str) and isinstance(stored, bool) == isinstance(
        value, bool
    )
    same = float(stored) == value if same_kind and isinstance(value, float) else stored == value
    assert (same_kind and same) or [entry["key"] for entry in warnings] == ["k"]


@settings(max_examples=500, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1, 1) | st.integers(-(2**63), 2**63 - 1))
def test_no_number_that_can_be_kept_becomes_text(value: float) -> None:
    found, _ = upload(orjson.dumps({"ts": T, "values": {"k": value}}))
    if isinstance(value, int) or value == 0 or abs(value) > 1e-7:
        assert math.isclose(found["k"], value, rel_tol=1e-9)


@settings(max_examples=500, deadline=None)
@given(texts)
def test_our_rule_for_text_is_the_simulators(text: str) -> None:
    # Java knows no negative zero; the simulator is laxer there.
    if text.isascii() and not (is_parsable(text) and text.startswith("-") and float(text) == 0):
        expected = coerce(text)
        found = stored_number(text) if is_parsable(text) else text
        assert (found, type(found)) == (expected, type(expected))


def test_the_rules_are_those_of_the_recorded_thingsboard() -> None:
    """Save decimals beyond 16 places and integers beyond int64; read them back."""
    raw = (
        '{"d17": 0.30000000000000004, "d16": 0.3000000000000001, "tiny": 1e-20, "i65": 9223372036854775808,'
        ' "t1": "0042", "t2": ".5", "t3": "1e5", "t4": "+5", "t5": " 5"}'
    )
    recorded_answer = {
        "d17": "0.30000000000000004",
        "d16": 0.3000000000000001,
        "tiny": "0.00000000000000000001",
        "i65": "9223372036854775808",
        "t1": 42,
        "t2": 0.5,
        "t3": "1e5",
        "t4": "+5",
        "t5": " 5",
    }
    direct = {point.key: point.value for point in telemetry_points(raw.encode(), T)}
    assert direct == recorded_answer
    stored, warnings = upload(raw.encode())
    assert stored == recorded_answer | {"d17": 0.3}
    assert {entry["key"] for entry in warnings} == {"d17", "tiny", "i65", "t1", "t2"}


@pytest.mark.parametrize("number", ["5", "5.0", "1e16", "9.3e18", "1e-17", "-0.0", "5.00000000000000000"])
def test_the_simulator_coerces_numbers_as_thingsboard(number: str) -> None:
    stored = {
        "5": 5,
        "5.0": 5.0,
        "1e16": 10**16,
        "9.3e18": "9300000000000000000",
        "1e-17": "0.00000000000000001",
        "-0.0": 0.0,
        "5.00000000000000000": "5.00000000000000000",
    }[number]
    assert (coerce_number(number), type(coerce_number(number))) == (stored, type(stored))


def test_megabytes_of_digits_are_judged_in_linear_time() -> None:
    text = "1" * 2_000_000
    assert not is_parsable(f"{text}x")
    assert not is_parsable(f"{text}.{text}x")
    assert is_parsable(text)


def test_warnings_of_one_kind_are_counted_not_repeated() -> None:
    warnings = Warnings()
    assay = Assay(warnings, is_exact=False)
    for number in range(5):
        assay.take("k", str(number))
    assert [entry["key"] for entry in warnings.listed()] == ["k"]
    assert "the number 0; 4 more" in warnings.listed()[0]["reason"]


def test_warnings_are_bounded_and_say_so() -> None:
    warnings = Warnings()
    for number in range(150):
        warnings.add(f"k{number}", "reason")
    listed = warnings.listed()
    assert len(listed) == 101
    assert listed[-1] == {"key": "", "reason": "50 further warnings are not listed"}


def test_entities_of_one_call_share_a_budget_of_warnings() -> None:
    budget = WarningBudget(1)
    first, second = Warnings(budget), Warnings(budget)
    first.add("a", "reason")
    second.add("a", "reason")
    assert [entry["key"] for entry in (*first.listed(), *second.listed())] == ["a", ""]


@pytest.mark.parametrize("value", [None, "a\0b", "9" * 310 + ".0"])
def test_what_cannot_be_stored_is_refused(value: Any) -> None:
    with pytest.raises(UnstorableError):
        Assay(Warnings(), is_exact=False).take("k", value)


@pytest.mark.parametrize("key", ["a", "k" * 255, "\u00e9" * 255, "\U0001f600" * 127, "with space", "a.b"])
def test_good_keys(key: str) -> None:
    assert find_key_fault(key) is None


@pytest.mark.parametrize("key", ["", "k" * 256, "\U0001f600" * 128, "a,b", "a\0"])
def test_bad_keys(key: str) -> None:
    assert find_key_fault(key) is not None


async def test_a_number_beyond_64_bits_is_uploaded_exactly(gateway: httpx.AsyncClient) -> None:
    path = "/api/v1/tb/devices/name:Test Device A1/telemetry"
    answer = await gateway.post(path, content=b'{"big": 123456789012345678901234567890, "x": 1.5}')
    assert answer.status_code == 201
    assert [entry["key"] for entry in answer.json()["warnings"]] == ["big"]


def test_merged_warnings_keep_their_counts_and_bounds() -> None:
    whole, first, second = Warnings(WarningBudget(1)), Warnings(), Warnings()
    first.add("a", "reason")
    second.add("a", "reason")
    second.add("b", "reason")
    whole.merge(first)
    whole.merge(second)
    assert whole.listed() == [
        {"key": "a", "reason": "reason; 1 more of this key likewise"},
        {"key": "", "reason": "1 further warnings are not listed"},
    ]


@settings(deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 20),
        st.dictionaries(st.text("abc", min_size=1), st.text(max_size=30), min_size=1),
        max_size=8,
    ),
    st.dictionaries(st.text("xyz", min_size=1), st.integers(), max_size=5),
    st.integers(1, 300),
)
def test_chunks_hold_all_points_within_the_limit(
    timed: dict[int, dict[str, Any]], untimed: dict[str, Any], limit: int
) -> None:
    untimed = {key: value for key, value in untimed.items() if -(2**63) <= value < 2**63}
    count = sum(map(len, timed.values())) + len(untimed)
    chunks = list(iter_chunks(Points(timed, untimed, count), limit))
    assert sum(chunk.points for chunk in chunks) == count
    found_timed: dict[int, dict[str, Any]] = {}
    found_untimed: dict[str, Any] = {}
    for chunk in chunks:
        items = orjson.loads(chunk.body)
        assert len(chunk.body) <= limit + 2 or chunk.points == 1
        assert chunk.is_idempotent == all("ts" in item for item in items)
        for item in items:
            if "ts" in item:
                found_timed.setdefault(item["ts"], {}).update(item["values"])
            else:
                found_untimed |= item
    assert (found_timed, found_untimed) == (timed, untimed)
