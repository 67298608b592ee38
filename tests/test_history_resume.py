"""Going on with an export: `cursor` is the last row that the caller has."""

import httpx
import pytest

from tb_simulator.server import Simulator
from tests.telemetry_world import DEVICES, START, device_id, load

#: Several keys at one time, one of them with a comma in its name.
KEYS = ("b", "a", "c,d", "Z")


@pytest.fixture
def export(simulator: Simulator) -> str:
    """The path of a small export whose rows share their times."""
    device = device_id(simulator)
    for number, key in enumerate(KEYS):
        load(simulator, device, key, [(START + n, n) for n in range(number, 30)])
    return f"{DEVICES}/{device}/telemetry/export"


async def test_rows_of_one_time_come_by_their_keys(gateway: httpx.AsyncClient, export: str) -> None:
    """Whatever the order in which they were asked for: a cursor must not depend on it."""
    lines = (await gateway.get(f"{export}?format=jsonl&start_ts={START + 5}&end_ts={START + 6}")).text
    assert [line.split('"')[5] for line in lines.splitlines()] == ["Z", "a", "b", "c,d"]
    rows = (await gateway.get(f"{export}?keys=b,a&start_ts={START + 5}&end_ts={START + 6}")).text
    assert [row.split(",")[1] for row in rows.splitlines()[1:]] == ["a", "b"]


async def test_every_row_can_be_the_last(gateway: httpx.AsyncClient, export: str) -> None:
    rows = (await gateway.get(export)).text.splitlines(keepends=True)
    lines = (await gateway.get(f"{export}?format=jsonl")).text.splitlines(keepends=True)
    for number, row in enumerate(rows[1:], start=1):
        cursor = ",".join(row.replace('"', "").split(",")[:-1])
        assert (await gateway.get(export, params={"cursor": cursor})).text == "".join(rows[number + 1 :])
        answer = await gateway.get(export, params={"cursor": cursor, "format": "jsonl"})
        assert answer.text == "".join(lines[number:])


async def test_a_time_alone_means_all_of_its_rows(gateway: httpx.AsyncClient, export: str) -> None:
    rows = (await gateway.get(export)).text.splitlines(keepends=True)[1:]
    expected = "".join(row for row in rows if int(row.split(",")[0]) > START + 7)
    assert (await gateway.get(f"{export}?cursor={START + 7}")).text == expected


async def test_a_wide_table_goes_on_row_by_row(gateway: httpx.AsyncClient, export: str) -> None:
    path = f"{export}?layout=wide&keys=a,b"
    rows = (await gateway.get(path)).text.splitlines(keepends=True)[1:]
    for number, row in enumerate(rows, start=1):
        answer = await gateway.get(f"{path}&cursor={row.split(',')[0]}")
        assert answer.text == "".join(rows[number:])


@pytest.mark.parametrize("cursor", [f"{START + 29},c,d", f"{START + 10**6}"])
async def test_behind_the_last_row_there_is_nothing(
    gateway: httpx.AsyncClient, export: str, cursor: str
) -> None:
    answer = await gateway.get(f"{export}?cursor={cursor}&end_ts={START + 30}")
    assert (answer.status_code, answer.text) == (200, "")


async def test_a_cursor_before_the_range_changes_nothing(gateway: httpx.AsyncClient, export: str) -> None:
    span = f"start_ts={START + 4}&end_ts={START + 9}"
    whole = (await gateway.get(f"{export}?{span}")).text.splitlines(keepends=True)
    assert (await gateway.get(f"{export}?{span}&cursor={START}")).text == "".join(whole[1:])


REFUSED = {
    "cursor=x": 422,
    "cursor=2026-01-01,a": 422,
    f"cursor={START},": 422,
    "cursor=": 422,
    "cursor=9999999999999999": 400,
    f"keys=a&cursor={START},b": 400,
    f"format=xlsx&cursor={START},a": 400,
    f"format=parquet&cursor={START},a": 400,
    f"layout=wide&keys=a&cursor={START},a": 400,
    f"layout=wide&cursor={START}": 400,
}


@pytest.mark.parametrize(("query", "status"), REFUSED.items())
async def test_a_cursor_that_fits_no_row_is_refused(
    gateway: httpx.AsyncClient, export: str, query: str, status: int
) -> None:
    answer = await gateway.get(f"{export}?{query}")
    assert answer.status_code == status
    assert answer.json()["details"]["field"] == "cursor"


async def test_json_has_no_cursor(gateway: httpx.AsyncClient, export: str) -> None:
    """It comes key after key, not by time."""
    answer = await gateway.get(f"{export.removesuffix('/export')}?cursor={START}")
    assert (answer.status_code, answer.json()["details"]["field"]) == (400, "cursor")
