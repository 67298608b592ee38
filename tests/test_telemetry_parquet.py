"""Parquet: a column for each type of value, or a clear word where pyarrow is missing."""

import io
import sys
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.services import parquet
from app.services.parquet import ParquetFile, typed
from app.thingsboard.telemetry import Point
from tb_simulator.server import Simulator
from tests.telemetry_world import DEVICES, START, VALUES, device_id, json_value, load

COLUMNS = {
    "ts": pa.timestamp("ms", tz="UTC"),
    "key": pa.string(),
    "value_double": pa.float64(),
    "value_long": pa.int64(),
    "value_bool": pa.bool_(),
    "value_text": pa.string(),
    "value_json": pa.string(),
}


async def export(gateway: httpx.AsyncClient, device: str, query: str = "") -> pq.ParquetFile:
    answer = await gateway.get(f"{DEVICES}/{device}/telemetry/export?format=parquet{query}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    assert answer.headers["content-disposition"] == f'attachment; filename="telemetry-{device}.parquet"'
    # It is compressed inside.
    assert "content-encoding" not in answer.headers
    return pq.ParquetFile(io.BytesIO(answer.content))


async def test_all_points_come_by_time_and_key(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    load(simulator, device, "b", [(START + 1000 * n, n / 4) for n in range(120_000)])
    load(simulator, device, "a", [(START + 3000 * n, n) for n in range(40_000)])
    file = await export(gateway, device)
    assert file.num_row_groups > 1
    table = file.read()
    assert {field.name: field.type for field in table.schema} == COLUMNS
    ts = table["ts"].cast(pa.int64()).to_pylist()
    keys = table["key"].to_pylist()
    assert list(zip(ts, keys, strict=True)) == sorted(zip(ts, keys, strict=True))
    values = list(zip(ts, keys, table["value_double"].to_pylist(), strict=True))
    assert [(t, v) for t, k, v in values if k == "b"] == [(START + 1000 * n, n / 4) for n in range(120_000)]
    assert [(t, v) for t, k, v in values if k == "a"] == [(START + 3000 * n, n) for n in range(40_000)]
    assert simulator.calls[VALUES] <= 22


async def test_each_type_has_its_column(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    device = device_id(simulator)
    stored = [1.5, 7, 2**63 - 1, True, False, "ON", "", json_value('{"a":[1,null]}')]
    load(simulator, device, "k", [(START + n, value) for n, value in enumerate(stored)])
    rows = (await export(gateway, device)).read().drop_columns(["ts", "key"]).to_pylist()
    found = [{name.removeprefix("value_"): v for name, v in row.items() if v is not None} for row in rows]
    assert found == [
        {"double": 1.5},
        {"double": 7.0, "long": 7},
        {"double": float(2**63 - 1), "long": 2**63 - 1},
        {"bool": True},
        {"bool": False},
        {"text": "ON"},
        {"text": ""},
        {"json": '{"a":[1,null]}'},
    ]


async def test_nothing_is_a_whole_file_too(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    table = (await export(gateway, device_id(simulator))).read()
    assert (table.num_rows, table.column_names) == (0, list(COLUMNS))


async def test_without_pyarrow_it_says_what_is_missing(
    gateway: httpx.AsyncClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    url = f"{DEVICES}/{device_id(simulator)}/telemetry/export?format=parquet"
    answer = await gateway.get(url)
    assert (answer.status_code, answer.json()["error_code"]) == (422, "VALIDATION_ERROR")
    assert answer.json()["details"] == {"field": "format", "issue": parquet.MISSING}
    assert "requirements/parquet.txt" in parquet.MISSING
    assert (await gateway.head(url)).status_code == 422
    assert simulator.calls[VALUES] == 0


@pytest.mark.parametrize("values", [[1, 2**63], [-(2**63) - 1], [1, 1.5], [None], [[1], {}]])
def test_any_value_finds_a_column(values: list[Any]) -> None:
    file = io.BytesIO()
    written = ParquetFile(file)
    written.add({"k": [Point(ts=n, value=value) for n, value in enumerate(values)]})
    written.close()
    assert pq.read_table(file).num_rows == len(values)


def test_numbers_are_all_doubles_too() -> None:
    columns = typed([1, 2.5, "x"])
    assert columns["value_double"] == [1.0, 2.5, None]
    assert columns["value_long"] == [1, None, None]
    assert columns["value_text"] == [None, None, "x"]


def test_large_values_make_small_row_groups() -> None:
    """A row group is in memory as a whole."""
    file = io.BytesIO()
    written = ParquetFile(file)
    for n in range(20):
        written.add({"k": [Point(ts=n * 100 + m, value="x" * 10_000) for m in range(100)]})
    written.close()
    assert pq.ParquetFile(file).num_row_groups >= 2


def test_an_unfinished_file_is_let_go() -> None:
    file = io.BytesIO()
    written = ParquetFile(file)
    written.add({"k": [Point(ts=0, value=1)]})
    written.discard()
    file.close()
    del written
