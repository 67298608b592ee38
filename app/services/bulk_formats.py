"""Reading bulk uploads line by line: NDJSON and CSV, at constant memory and however the bytes are cut."""

import csv
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import orjson

from app.errors import InvalidRequest
from app.services.uploads import decode, decode_exactly, refused

LONGEST_LINE = 1 << 20
LONGEST_REFERENCE = 300
COLUMNS = ("device_id", "ts", "key", "value")
JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
WORDS = {"true": True, "false": False}
BOM = b"\xef\xbb\xbf"
#: Python's own bound on the digits of an integer in text is 4,300; ThingsBoard makes text of them anyway.
LONGEST_NUMBER = 400
#: Of ms since the epoch from 2001 to 2286.
PRESENT_DIGITS = 13
TOO_LONG = f"is longer than {LONGEST_LINE} bytes"


class Line(NamedTuple):
    """One line as read: an upload of one device, or why it is none."""

    number: int
    size: int
    reference: str | None = None
    upload: Any = None
    exact: Callable[[], Any] = lambda: None
    fault: str | None = None


class LineFormat(Protocol):
    """Turns bytes into lines."""

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Return the lines that this chunk completes."""

    def close(self) -> Iterator[Line]:
        """Return the last line, which need not end in a newline."""


class LineSplitter:
    """Cuts chunks into numbered lines; a line that is too long is None."""

    def __init__(self) -> None:
        self._tail = bytearray()
        self._is_too_long = False
        self._number = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Return the lines that this chunk completes."""
        *whole, tail = chunk.split(b"\n")
        for part in whole:
            self._grow(part)
            yield self._finish()
        self._grow(tail)

    def close(self) -> Iterator[tuple[int, bytes | None]]:
        """Return what follows the last newline."""
        if self._tail or self._is_too_long:
            yield self._finish()

    def _grow(self, part: bytes) -> None:
        if len(self._tail) + len(part) > LONGEST_LINE:
            self._is_too_long = True
            self._tail.clear()
        elif not self._is_too_long:
            self._tail += part

    def _finish(self) -> tuple[int, bytes | None]:
        self._number += 1
        line = None if self._is_too_long else bytes(self._tail)
        self._tail.clear()
        self._is_too_long = False
        if self._number == 1 and line is not None:
            line = line.removeprefix(BOM)
        return self._number, line


class NDJSON:
    """`{"device_id","ts","values":{}}` or `{"device_id","telemetry":<upload>}` a line."""

    def __init__(self) -> None:
        self._splitter = LineSplitter()

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Return the lines that this chunk completes."""
        return self._read(self._splitter.feed(chunk))

    def close(self) -> Iterator[Line]:
        """Return the last line."""
        return self._read(self._splitter.close())

    def _read(self, lines: Iterator[tuple[int, bytes | None]]) -> Iterator[Line]:
        for number, line in lines:
            if line is None:
                yield Line(number, 0, fault=TOO_LONG)
            elif line and not line.isspace():
                yield read_ndjson_line(number, line)


def read_ndjson_line(number: int, line: bytes) -> Line:
    """Read one line; whatever is wrong with it is its fault, never an exception."""
    size = len(line)
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Line(number, size, fault=f"not valid JSON (column {error.colno})")
    if not isinstance(record, dict):
        return Line(number, size, fault="must be a JSON object")
    reference = record.pop("device_id", None)
    if not is_reference(reference):
        return Line(number, size, fault="device_id must be a UUID, or name: and the exact name")
    if record.keys() == {"telemetry"}:
        exact = lambda: decode_exactly(line)["telemetry"]  # noqa: E731 - it says where the upload is
        return Line(number, size, reference, record["telemetry"], exact)
    if not record or record.keys() - {"ts", "values"}:
        fault = "must have ts and values, or telemetry, beside device_id"
        return Line(number, size, reference, fault=fault)
    return Line(number, size, reference, record, lambda: _without_device(decode_exactly(line)))


def _without_device(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "device_id"}


def is_reference(reference: Any) -> bool:
    """Tell whether this may name a device at all."""
    return isinstance(reference, str) and 0 < len(reference) <= LONGEST_REFERENCE and "\0" not in reference


class CSV:
    """`device_id,ts,key,value`, columns in any order, RFC 4180 quoting."""

    def __init__(self) -> None:
        self._splitter = LineSplitter()
        self._order: list[int] | None = None
        self._open = bytearray()
        self._opened_at = 0
        self._is_quoted = False

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Return the records that this chunk completes."""
        for number, line in self._splitter.feed(chunk):
            yield from self._line(number, line)

    def close(self) -> Iterator[Line]:
        """Return the last record."""
        for number, line in self._splitter.close():
            yield from self._line(number, line)
        if self._is_quoted:
            yield self._overlong("has a quote that is never closed")

    def _line(self, number: int, line: bytes | None) -> Iterator[Line]:
        if not self._is_quoted:
            self._opened_at = number
            if line is not None and b'"' not in line:
                if line.strip():
                    yield from self._record(line)
                return
        if line is None or len(self._open) + len(line) > LONGEST_LINE:
            yield self._overlong(TOO_LONG)
            return
        # A newline inside quotes belongs to the value: the record goes on until the quotes are even.
        self._open += line
        self._is_quoted ^= line.count(b'"') % 2 == 1
        if self._is_quoted:
            self._open += b"\n"
            return
        record = bytes(self._open)
        self._open.clear()
        yield from self._record(record)

    def _overlong(self, fault: str) -> Line:
        self._open.clear()
        self._is_quoted = False
        if self._order is None:
            raise bad_header(fault)
        return Line(self._opened_at, 0, fault=fault)

    def _record(self, record: bytes) -> Iterator[Line]:
        try:
            text = record.decode().removesuffix("\r")
            cells = next(csv.reader([text], strict=True)) if '"' in text else text.split(",")
        except (UnicodeDecodeError, csv.Error) as error:
            cells = []
            fault = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else "is not valid CSV"
        else:
            fault = f"must have {len(COLUMNS)} columns, not {len(cells)}"
        if self._order is None:
            self._order = read_header(cells)
        elif len(cells) != len(COLUMNS):
            yield Line(self._opened_at, len(record), fault=fault)
        else:
            yield read_csv_cells(self._opened_at, len(record), [cells[place] for place in self._order])


def read_header(cells: list[str]) -> list[int]:
    """Return where each of our columns stands."""
    names = [cell.strip() for cell in cells]
    if sorted(names) != sorted(COLUMNS):
        raise bad_header(f"must name the columns {','.join(COLUMNS)}")
    return [names.index(column) for column in COLUMNS]


def bad_header(issue: str) -> InvalidRequest:
    """Refuse a CSV upload whole: without its header no line means anything."""
    return refused("header", f"the first line {issue}")


def read_csv_cells(number: int, size: int, cells: list[str]) -> Line:
    """Read one record."""
    reference, ts, key, cell = cells
    reference = reference.strip()
    if not is_reference(reference):
        return Line(number, size, fault="device_id must be a UUID, or name: and the exact name")
    try:
        value = read_cell(cell)
    except InvalidRequest as error:
        return Line(number, size, reference, fault=error.message)
    # The usual time is read here, others by whoever names what is wrong with them.
    moment = int(ts) if len(ts) == PRESENT_DIGITS and ts.isascii() and ts.isdigit() else ts
    upload = {"ts": moment, "values": {key: value}}
    return Line(
        number, size, reference, upload, lambda: {"ts": ts, "values": {key: read_cell(cell, exactly=True)}}
    )


def read_cell(cell: str, *, exactly: bool = False) -> Any:
    """Return a cell as the JSON number, boolean, object or array that it spells, else as text.

    Raises:
        InvalidRequest: the cell is empty, or its number is no 64-bit float.
    """
    if not cell:
        raise refused("value", "must not be empty")
    number = JSON_NUMBER.fullmatch(cell)
    if number is not None:
        return _read_number(cell, is_integer=number.lastindex is None)
    if cell in WORDS:
        return WORDS[cell]
    if cell[0] in "{[":
        try:
            return decode_exactly(cell.encode()) if exactly else decode(cell.encode())
        except InvalidRequest:
            return cell
    return cell


def _read_number(cell: str, *, is_integer: bool) -> float:
    if len(cell) > LONGEST_NUMBER:
        raise refused("value", f"is a number of more than {LONGEST_NUMBER} digits")
    value = int(cell) if is_integer else float(cell)
    if isinstance(value, float) and value in {float("inf"), float("-inf")}:
        raise refused("value", "is a number that is too large")
    return value


#: Formats of streamed uploads by media type.
FORMATS: dict[str, type[LineFormat]] = {
    "application/x-ndjson": NDJSON,
    "application/ndjson": NDJSON,
    "application/jsonl": NDJSON,
    "text/csv": CSV,
}
