"""Telemetry uploads: the forms callers write, as the one form that ThingsBoard reads, in bodies it takes.

ThingsBoard stores a map of arrays as JSON values at its own time, without a word: it is translated here.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from app.errors import InvalidRequest
from app.services.points import Points, overlay, warn_of_repetition
from app.services.sending import Sender
from app.services.values import Assay, InexactError, UnstorableError, Warnings, find_key_fault, is_plain
from app.thingsboard.client import ThingsBoardClient
from app.times import LATEST, SECONDS_TO, parse_time

#: What errors call a whole upload.
UPLOAD = "telemetry_data"
MOST_FAULTS = 20
LONGEST_FIELD = 120
#: Bodies from this size on are read in a thread, so that other callers are served meanwhile.
LARGE_BODY = 256 * 1024

NO_SERIES = 'is no list of {"ts","value"} alone, so it is stored as one JSON value, at this time'
POINT, TIMED = {"ts", "value"}, {"ts", "values"}

T = TypeVar("T")


class Document:
    """A JSON body, read quickly, and once more with exact integers if that turns out to matter."""

    def __init__(self, body: bytes) -> None:
        if not body or body.isspace():
            raise empty_upload()
        self._body = body
        self.value = decode(body)
        self._exact: Any = None

    def exact(self) -> Any:
        """Return the body with integers of any length as they were written."""
        if self._exact is None:
            self._exact = decode_exactly(self._body)
        return self._exact


def decode(body: bytes) -> Any:
    """Decode strict JSON, or raise InvalidRequest."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        too_large = error.msg.startswith("number is infinity")
        issue = "holds a number that is too large" if too_large else "not valid JSON"
        raise refused("body", f"{issue} (line {error.lineno}, column {error.colno})") from None


def decode_exactly(body: bytes) -> Any:
    """Decode JSON that `decode` has accepted, without rounding integers beyond 64 bits."""
    try:
        return json.loads(body.decode())
    except RecursionError:
        raise refused("body", "is nested too deeply") from None


class FormReader:
    """Reads one upload in any of its forms. Made for one body."""

    def __init__(self, *, is_exact: bool) -> None:
        self.warnings = Warnings()
        self.points = Points()
        self._take = Assay(self.warnings, is_exact=is_exact).take
        self._faults: list[dict[str, str]] = []

    def read(self, upload: Any) -> None:
        """Fill `points`.

        Raises:
            InvalidRequest: with the first faults in its details.
            InexactError: it has to be read again from exact integers.
        """
        if upload is None or upload in ({}, []):
            raise empty_upload()
        if isinstance(upload, list):
            for number, element in enumerate(upload):
                self._element(element, f"[{number}]", f"[{number}].")
        else:
            self._element(upload, UPLOAD, "")
        if self._faults:
            raise self._refusal()
        points = self.points
        points.count = sum(map(len, points.timed.values())) + len(points.untimed)

    def _element(self, element: Any, name: str, place: str) -> None:
        if not isinstance(element, dict):
            self._fault(name, "must be a JSON object")
        elif not element:
            self._fault(name, "must not be empty")
        elif "ts" in element:
            self._timed(element, place)
        elif isinstance(element.get("values"), dict):
            self._fault(f"{place}values", 'values without ts: write {"ts":T,"values":{...}}')
        else:
            self._map(element, place)

    def _timed(self, element: dict[str, Any], place: str) -> None:
        """Read ThingsBoard's `{"ts","values"}`."""
        if "values" not in element:
            return self._fault(f"{place}ts", 'ts without values: write {"ts":T,"values":{...}}')
        for extra in element.keys() - TIMED:
            self._fault(f"{place}{extra}", "must not stand beside ts and values")
        ts = self._time(element["ts"], f"{place}ts")
        values = element["values"]
        if not isinstance(values, dict) or not values:
            return self._fault(f"{place}values", "must be a JSON object that is not empty")
        for key, value in values.items():
            # Only the value of a known key changes, which iterating allows.
            values[key] = self._value(key, value, f"{place}values.{key}")
        if ts is not None:
            known = self.points.timed.setdefault(ts, values)
            if known is not values:
                overlay(known, values, self.warnings)
        return None

    def _map(self, element: dict[str, Any], place: str) -> None:
        """Read `{"key":[{"ts","value"}]}` and `{"key":value}`, which may be mixed."""
        untimed = self.points.untimed
        for key, value in element.items():
            if type(value) is list:
                if not self.points.timed and find_key_fault(key) is None:
                    self.points.timed = plain_points(key, value)
                    if self.points.timed:
                        continue
                if is_series(value):
                    self._series(key, value, f"{place}{key}")
                    continue
                if not value:
                    self._fault(f"{place}{key}", "must not be an empty list")
                    continue
                if any(type(item) is dict and "ts" in item for item in value):
                    self.warnings.add(key, NO_SERIES)
            taken = self._value(key, value, f"{place}{key}")
            if key in untimed:
                warn_of_repetition(key, self.warnings)
            untimed[key] = taken

    def _series(self, key: str, series: list[dict[str, Any]], place: str) -> None:
        fault = find_key_fault(key)
        if fault is not None:
            return self._fault(place, fault)
        take, timed = self._take, self.points.timed
        for number, point in enumerate(series):
            ts = point["ts"]
            if type(ts) is not int or not SECONDS_TO <= ts <= LATEST:
                ts = self._time(ts, f"{place}[{number}].ts")
            try:
                value = take(key, point["value"])
            except UnstorableError as error:
                self._fault(f"{place}[{number}].value", str(error))
                continue
            values = timed.get(ts)
            if values is None:
                timed[ts] = {key: value}
                continue
            if key in values:
                warn_of_repetition(key, self.warnings)
            values[key] = value
        return None

    def _value(self, key: str, value: Any, place: str) -> Any:
        fault = find_key_fault(key)
        if fault is None and key == "ts":
            fault = "the key ts is reserved"
        if fault is None:
            try:
                return self._take(key, value)
            except UnstorableError as error:
                fault = str(error)
        self._fault(place, fault)
        return None

    def _time(self, ts: Any, place: str) -> Any:
        try:
            return parse_time(ts, place[:LONGEST_FIELD])
        except InvalidRequest as error:
            self._fault(place, (error.details or {})["issue"])
            return None

    def _fault(self, place: str, issue: str) -> None:
        # An empty key names no field.
        self._faults.append({"field": place[:LONGEST_FIELD] or UPLOAD, "issue": issue})
        if len(self._faults) == MOST_FAULTS:
            raise self._refusal()

    def _refusal(self) -> InvalidRequest:
        error = refused(**self._faults[0])
        error.details = {**(error.details or {}), "errors": self._faults}
        return error


def is_series(value: list[Any]) -> bool:
    """Tell the map form from a JSON array: every element has exactly `ts` and `value`."""
    return bool(value) and all(type(item) is dict and item.keys() == POINT for item in value)


def plain_points(key: str, series: list[Any]) -> dict[int, dict[str, Any]]:
    """Return the points of one key by time, quickly; none when they need a closer look."""
    points: dict[int, dict[str, Any]] = {}
    for point in series:
        if type(point) is not dict or len(point) != len(POINT):
            return {}
        # A missing one is None, which neither a time nor a plain value is.
        ts, value = point.get("ts"), point.get("value")
        if type(ts) is not int or not SECONDS_TO <= ts <= LATEST or not is_plain(value):
            return {}
        points[ts] = {key: value}
    return points if len(points) == len(series) else {}


def is_plain_upload(upload: Any) -> bool:
    """Tell, quickly, that an upload is `{"ts","values"}` and stored as it is; False says nothing."""
    if type(upload) is not dict or len(upload) != len(TIMED):
        return False
    ts, values = upload.get("ts"), upload.get("values")
    if type(ts) is not int or not SECONDS_TO <= ts <= LATEST or type(values) is not dict or not values:
        return False
    for key, value in values.items():
        if not is_plain(value) or key == "ts" or find_key_fault(key) is not None:
            return False
    return True


def refused(field: str, issue: str) -> InvalidRequest:
    """Say which part of an upload is wrong and why."""
    return InvalidRequest(f"{field}: {issue}", details={"field": field, "issue": issue})


def empty_upload(field: str = UPLOAD) -> InvalidRequest:
    """Refuse a body with nothing in it."""
    return refused(field, "empty request body")


def read_upload(upload: Any, exact: Callable[[], Any]) -> FormReader:
    """Read one upload; `exact` gives it with exact integers, if they turn out to matter."""
    reader = FormReader(is_exact=False)
    try:
        reader.read(upload)
    except InexactError:
        reader = FormReader(is_exact=True)
        reader.read(exact())
    return reader


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one upload stored."""

    keys: list[str]
    points: int
    warnings: list[dict[str, str]]


async def upload(
    upstream: ThingsBoardClient, entity_type: str, entity_id: str, body: bytes, ttl_seconds: int | None
) -> Receipt:
    """Read a body in any of the forms, and store it."""
    reader = await off_the_loop(body, _read_body)
    sender = Sender(upstream, ttl_seconds=ttl_seconds)
    stored = await sender.store(entity_type, entity_id, reader.points)
    return Receipt(list(reader.points.keys()), stored, reader.warnings.listed())


def _read_body(body: bytes) -> FormReader:
    document = Document(body)
    return read_upload(document.value, document.exact)


async def off_the_loop(body: bytes, read: Callable[[bytes], T]) -> T:
    """Read a body, a large one in a thread."""
    return read(body) if len(body) < LARGE_BODY else await asyncio.to_thread(read, body)


def split_keys(keys: str) -> list[str]:
    """Split a comma list of keys and drop repetitions."""
    # As they are: a blank at an edge may belong to the key, and deleting ` lead` must not delete `lead`.
    names = [name for name in dict.fromkeys(keys.split(",")) if name]
    if not names:
        raise refused("keys", "names no key")
    for name in names:
        fault = find_key_fault(name)
        if fault is not None:
            raise refused("keys", fault)
    return names
