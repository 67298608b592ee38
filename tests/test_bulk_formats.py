"""Lines of bulk uploads: the same however the bytes are cut, at bounded memory."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.bulk_formats import CSV, LONGEST_LINE, NDJSON, Line, LineFormat


def read_all(lines: LineFormat, chunks: list[bytes]) -> list[tuple[Any, ...]]:
    found: list[Line] = []
    try:
        for chunk in chunks:
            found += lines.feed(chunk)
        found += lines.close()
    except Exception as error:  # noqa: BLE001 - the verdict, whatever it is, is compared
        return [("refused", str(error))]
    return [(line.number, line.reference, repr(line.upload), line.fault) for line in found]


NDJSON_PARTS = st.sampled_from(
    [
        b'{"device_id":"a","ts":1,"values":{"k":"',
        b"\xc3\xa9",
        b"\n",
        b"\r\n",
        b'"}}',
        b"{}",
        b"\xef\xbb\xbf",
        b"\xff",
        b" ",
    ]
)
CSV_PARTS = st.sampled_from(
    [
        b"device_id,ts,key,value\n",
        b"a,1,k,",
        b'"',
        b'""',
        b"\n",
        b"\r\n",
        b"\xc3\xa9",
        b"\xff",
        b",",
        b"1.5",
        b"{}",
        b"\xef\xbb\xbf",
    ]
)


@pytest.mark.parametrize(("make", "parts"), [(NDJSON, NDJSON_PARTS), (CSV, CSV_PARTS)], ids=["ndjson", "csv"])
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_the_verdict_ignores_how_the_bytes_are_cut(make: Any, parts: Any, data: st.DataObject) -> None:
    body = b"".join(data.draw(st.lists(parts, max_size=40)))
    if make is CSV and data.draw(st.booleans()):
        body = b"device_id,ts,key,value\n" + body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=10)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    whole = read_all(make(), [body])
    assert read_all(make(), chunks) == whole
    assert read_all(make(), [bytes([byte]) for byte in body]) == whole


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=10))
def test_csv_that_python_writes_is_read_back(rows: list[tuple[str, str]]) -> None:
    rows = [
        row
        for row in rows
        if "\0" not in "".join(row) and not any("\ud800" <= c <= "\udfff" for c in "".join(row))
    ]
    table = io.StringIO()
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerow(["device_id", "ts", "key", "value"])
    for key, value in rows:
        writer.writerow(["a", "1", key, f"x{value}"])
    found = read_all(CSV(), [table.getvalue().encode()])
    assert [line[2] for line in found] == [
        repr({"ts": "1", "values": {key: f"x{value}"}}) for key, value in rows
    ]


def test_an_endless_line_is_held_to_its_bound() -> None:
    lines = NDJSON()
    for _ in range(40):
        assert list(lines.feed(b"x" * 100_000)) == []
    assert len(lines._splitter._tail) <= LONGEST_LINE
    good = json.dumps({"device_id": "a", "ts": 1, "values": {"k": 1}}).encode()
    found = list(lines.feed(b"\n" + good + b"\n"))
    assert [(line.number, line.fault is None) for line in found] == [(1, False), (2, True)]
