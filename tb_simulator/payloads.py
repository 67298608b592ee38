"""The telemetry and attribute bodies ThingsBoard reads, with its words for those it refuses."""

import re
from typing import Any

from tb_simulator.answers import PlainError
from tb_simulator.timeseries import Point
from tb_simulator.values import UnparsableValueError, Value, coerce, compact, load_json

LONGEST_KEY = 255
#: What the NoXss check of ThingsBoard finds, roughly: the beginning of a tag.
MARKUP = re.compile(r"<[A-Za-z]")


def utf16_length(text: str) -> int:
    """Return the length as Java counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _shown(value: Any) -> str:
    return "null" if value is None else compact(value)


def telemetry_points(body: bytes, now: int) -> list[Point]:
    """Return the points of ``{"k":v}``, ``{"ts","values"}`` or a list of those.

    A map of arrays is no such form: each array is one JSON value at the server's time (telemetry.json).

    Raises:
        PlainError: the recorded 400s.
    """
    try:
        payload = load_json(body)
    except ValueError:
        raise PlainError(400, "Unable to parse time series payload: Invalid JSON body!") from None
    try:
        points = parse_telemetry(payload, now)
    except UnparsableValueError as error:
        raise PlainError(400, f"Unable to parse time series payload. Invalid JSON body: {error}") from None
    if not points:
        raise PlainError(400, "No time series data found in request body!")
    for point in points:
        check_key(point.key)
    return points


def check_key(key: str) -> None:
    """Refuse a blank key, one over 255 characters (telemetry.json, "save a long key"), and markup."""
    if not key.strip():
        raise PlainError(400, "Key cannot be blank")
    if MARKUP.search(key):
        raise PlainError(400, "Validation error: key is malformed")
    if utf16_length(key) > LONGEST_KEY:
        raise PlainError(400, f"Validation error: key length must be equal or less than {LONGEST_KEY}")


def parse_telemetry(payload: Any, now: int) -> list[Point]:
    """Return the points of a payload, or raise ``UnparsableValueError``."""
    points: list[Point] = []
    for item in payload if isinstance(payload, list) else [payload]:
        if not isinstance(item, dict):
            raise UnparsableValueError(f"Can't parse value: {_shown(item)}")
        ts, values = now, item
        if "ts" in item and "values" in item:
            ts, values = _timestamp(item["ts"]), item["values"]
            if not isinstance(values, dict):
                raise UnparsableValueError(f"Not a JSON Object: {_shown(values)}")
        points.extend([Point(key, ts, coerce(value)) for key, value in values.items()])
    return points


def _timestamp(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UnparsableValueError(f'For input string: "{value}"') from None


def attribute_values(payload: dict[str, Any]) -> dict[str, Value]:
    """Return the attributes of a JSON object, or raise ``UnparsableValueError`` for a null."""
    return {key: coerce(value) for key, value in payload.items()}
