"""Writes whole histories as JSON, CSV and JSON lines: pieces of bytes, encoded in bulk.

A column of numbers is encoded by one call and cut at its commas: five times as fast as value by value.
"""

import math
import re
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, Protocol

import orjson

from app.services.history import Block, History
from app.thingsboard.telemetry import Point
from app.times import now_ms

#: Rows encoded at a time, some 2 ms: then other callers have their turn.
ROWS_AT_ONCE = 2_500
NUMERIC = frozenset({int, float})
TIMES, VALUES = itemgetter("ts"), itemgetter("value")
LINE_END = b"\r\n"
#: What makes a spreadsheet run a cell; the full-width forms count in East Asian settings.
FORMULA = frozenset("=+-@\t\r\n＝＋－＠")  # noqa: RUF001 - the full-width forms are meant
#: What a spreadsheet may skip before it looks.
SKIPPED = " \x00\x0b\x0c\xa0\u200b\u2060\u3000\ufeff"
#: ThingsBoard keeps long decimals as text; a plain number runs nothing.
PLAIN_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
NEEDS_QUOTES = re.compile(r'[",\r\n]')


def defuse(text: str) -> str:
    """Put a `'` before text that a spreadsheet would run as a formula."""
    first = text.lstrip(SKIPPED)[:1]
    return f"'{text}" if first in FORMULA and first and not PLAIN_NUMBER.fullmatch(text) else text


def csv_text(text: str, *, raw: bool) -> bytes:
    """Return text as a CSV cell, defused unless `raw`."""
    safe = text if raw else defuse(text)
    if NEEDS_QUOTES.search(safe):
        safe = '"' + safe.replace('"', '""') + '"'
    return safe.encode()


def csv_cell(value: Any, *, raw: bool) -> bytes:
    """Return any value as a CSV cell: objects and lists as JSON text, null as nothing."""
    if isinstance(value, str):
        return csv_text(value, raw=raw)
    if value is None:
        return b""
    encoded = orjson.dumps(value)
    return encoded if isinstance(value, bool | int | float) else csv_text(encoded.decode(), raw=raw)


def encode_numbers(numbers: Sequence[int | float]) -> list[bytes]:
    """Return the JSON text of each number."""
    return orjson.dumps(numbers)[1:-1].split(b",") if numbers else []


def csv_column(points: Sequence[Point], *, raw: bool) -> list[bytes]:
    """Return the values of points as CSV cells."""
    values = list(map(VALUES, points))
    if set(map(type, values)) <= NUMERIC:
        return encode_numbers(values)
    return [csv_cell(value, raw=raw) for value in values]


def json_column(points: Sequence[Point]) -> list[bytes]:
    """Return the values of points as JSON."""
    values = list(map(VALUES, points))
    if set(map(type, values)) <= NUMERIC:
        return encode_numbers(values)
    return [orjson.dumps(value) for value in values]


class Rows(Protocol):
    """A format of one row after the other."""

    def header(self) -> bytes:
        """Return what stands before all rows."""

    def rows(self, block: Block) -> bytes:
        """Return the rows of a block, by time."""


class CSVLong:
    """`ts,key,value`, a row a point."""

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw

    def header(self) -> bytes:
        """Return the names of the columns."""
        return b"ts,key,value" + LINE_END

    def rows(self, block: Block) -> bytes:
        """Return the rows of a block, by time."""
        return merge_rows(block, self._rows_of, LINE_END)

    def _rows_of(self, key: str, times: list[bytes], points: list[Point]) -> list[bytes]:
        middle = b"," + csv_text(key, raw=self._raw) + b","
        cells = csv_column(points, raw=self._raw)
        return list(map(middle.join, zip(times, cells, strict=True)))


class JSONLines:
    """`{"ts","key","value"}`, a line a point."""

    def header(self) -> bytes:
        """Return nothing: each line names its own fields."""
        return b""

    def rows(self, block: Block) -> bytes:
        """Return the lines of a block, by time."""
        return merge_rows(block, self._rows_of, b"}\n")

    def _rows_of(self, key: str, times: list[bytes], points: list[Point]) -> list[bytes]:
        middle = b',"key":' + orjson.dumps(key) + b',"value":'
        cells = json_column(points)
        parts = zip(repeat(b'{"ts":'), times, repeat(middle), cells, strict=False)
        return list(map(b"".join, parts))


class CSVWide:
    """`ts,key1,key2`, a row a time, a column a key; an empty cell where a key has no point at that time."""

    def __init__(self, keys: Sequence[str], *, raw: bool) -> None:
        self._keys, self._raw = keys, raw

    def header(self) -> bytes:
        """Return the names of the columns."""
        return b",".join([b"ts", *(csv_text(key, raw=self._raw) for key in self._keys)]) + LINE_END

    def rows(self, block: Block) -> bytes:
        """Return the rows of a block, by time."""
        times = sorted(set(chain.from_iterable(map(TIMES, points) for points in block.values())))
        columns = [self._column(block.get(key, []), times) for key in self._keys]
        lines = map(b",".join, zip(encode_numbers(times), *columns, strict=True))
        return LINE_END.join(chain(lines, (b"",)))

    def _column(self, points: list[Point], times: list[int]) -> list[bytes]:
        cells = csv_column(points, raw=self._raw)
        if len(points) == len(times):
            return cells
        by_time = dict(zip(map(TIMES, points), cells, strict=True))
        return [by_time.get(ts, b"") for ts in times]


class RowsOf(Protocol):
    """Writes the points of one key as rows."""

    def __call__(self, key: str, times: list[bytes], points: list[Point]) -> list[bytes]:
        """Return a row a point, without its end; `times` are the points' own, encoded."""


def merge_rows(block: Block, rows_of: RowsOf, end: bytes) -> bytes:
    """Write each key's points in bulk and put the rows in the order of time, keys in their own order."""
    columns = [list(map(TIMES, points)) for points in block.values()]
    same_times = all(column == columns[0] for column in columns)
    encoded = encode_numbers(columns[0]) if same_times else []
    rows = [
        rows_of(key, encoded or encode_numbers(column), points)
        for (key, points), column in zip(block.items(), columns, strict=True)
    ]
    if len(rows) == 1:
        ordered = rows[0]
    elif same_times:
        ordered = list(chain.from_iterable(zip(*rows, strict=True)))
    else:
        # Each column is sorted already: the sort finds these runs and merges them, fastest by floats.
        flat = list(chain.from_iterable(rows))
        order = sorted(range(len(flat)), key=list(map(float, chain.from_iterable(columns))).__getitem__)
        ordered = list(map(flat.__getitem__, order))
    ordered.append(b"")
    return end.join(ordered)


def parts_of(block: Block) -> Iterator[Block]:
    """Cut a block into later and later ones of some `ROWS_AT_ONCE` points each."""
    count = sum(map(len, block.values()))
    longest = max(block.values(), key=len)
    step = max(1, len(longest) * ROWS_AT_ONCE // count)
    begun = dict.fromkeys(block, 0)
    for until in [*(point["ts"] for point in longest[step::step]), math.inf]:
        part = {}
        for key, points in block.items():
            cut = bisect_left(points, until, begun[key], key=TIMES)
            if cut > begun[key]:
                part[key] = points[begun[key] : cut]
                begun[key] = cut
        if part:
            yield part


async def row_stream(history: History, rows: Rows, *, headed: bool = True) -> AsyncGenerator[bytes, None]:
    """Yield a whole file of rows; without its header when it goes on from an earlier one."""
    head = rows.header() if headed else b""
    async with aclosing(history.merged()) as blocks:
        async for block in blocks:
            for part in parts_of(block):
                yield head + rows.rows(part)
                head = b""
    if head:
        yield head


async def json_stream(history: History, identified: dict[str, str]) -> AsyncGenerator[bytes, None]:
    """Yield the success envelope with `data` by key, key after key."""
    envelope = {"status": "success", "timestamp": now_ms(), **identified}
    piece = orjson.dumps(envelope)[:-1] + b',"data":{'
    current: str | None = None
    separator = b""
    async with aclosing(history.by_key()) as pages:
        async for key, points in pages:
            if key != current:
                piece += b"" if current is None else b"],"
                piece += orjson.dumps(key) + b":["
                current, separator = key, b""
            if points:
                piece += separator + orjson.dumps(points)[1:-1]
                separator = b","
            if len(piece) > SMALLEST_PIECE:
                yield piece
                piece = b""
    yield piece + (b"" if current is None else b"]") + b"}}"


#: Pages of few points are gathered until a piece is worth sending.
SMALLEST_PIECE = 16_384
