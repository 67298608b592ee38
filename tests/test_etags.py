"""Entity tags: what has not changed is not sent again, and what has changed always is."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.envelope import paged
from app.api.etags import holds, tag_of
from app.factory import create_app
from app.thingsboard.pages import Page
from tb_simulator.server import Simulator
from tests.alarm_world import raise_alarm
from tests.conftest import KEY_HEADER, GatewayFactory, SettingsFactory
from tests.documented import DOCUMENT, answer_of
from tests.serving import serve
from tests.telemetry_world import DEVICES, PREFIX, START, UNKNOWN, device_id, load

#: Not a request to the gateway: the device fetches a command that has been stored for it.
DELIVERY = "delivery"
#: Every route whose answers have a tag, and the change that each of them shows.
TAGGED = {
    "list_devices": ("/devices", "label"),
    "list_assets": ("/assets", "asset"),
    "get_device": ("/devices/{device}", "label"),
    "get_asset": ("/assets/{asset}", "asset label"),
    "list_device_types": ("/device-types", "device"),
    "list_asset_types": ("/asset-types", "asset"),
    "list_telemetry_keys": ("/devices/{device}/keys", "point"),
    "list_asset_telemetry_keys": ("/assets/{asset}/keys", "asset point"),
    "get_latest_telemetry": ("/devices/{device}/telemetry/latest", "point"),
    "get_asset_latest_telemetry": ("/assets/{asset}/telemetry/latest", "asset point"),
    "get_all_attributes": ("/devices/{device}/attributes", "attribute"),
    "get_attributes": ("/devices/{device}/attributes/server", "attribute"),
    "get_all_asset_attributes": ("/assets/{asset}/attributes", "asset attribute"),
    "get_asset_attributes": ("/assets/{asset}/attributes/server", "asset attribute"),
    "list_alarms": ("/alarms", "alarm"),
    "list_device_alarms": ("/devices/{device}/alarms", "alarm"),
    "get_alarm": ("/alarms/{alarm}", "alarm"),
    "list_rpcs": ("/devices/{device}/rpc", DELIVERY),
    "get_rpc": ("/rpc/{rpc}", DELIVERY),
    "list_relations": ("/relations?entity_id={asset}&entity_type=ASSET", "relation"),
    "get_graph": ("/graph/{asset}", "relation"),
}
CHANGES: dict[str, tuple[str, str, Any]] = {
    "label": ("PATCH", "/devices/{device}", {"label": "new"}),
    "device": ("POST", "/devices", {"name": "another", "type": "new type"}),
    "asset": ("POST", "/assets", {"name": "another", "type": "new type"}),
    "asset label": ("PATCH", "/assets/{asset}", {"label": "new"}),
    "point": ("POST", "/devices/{device}/telemetry", {"new": [{"ts": START, "value": 1}]}),
    "asset point": ("POST", "/assets/{asset}/telemetry", {"new": [{"ts": START, "value": 1}]}),
    "attribute": ("POST", "/devices/{device}/attributes/server", {"new": 1}),
    "asset attribute": ("POST", "/assets/{asset}/attributes/server", {"new": 1}),
    "relation": ("POST", "/relations", None),
    "alarm": ("POST", "/alarms/{alarm}/ack", {}),
}


@pytest.mark.parametrize("operation", TAGGED)
async def test_an_answer_is_sent_again_only_when_it_has_changed(
    gateway: httpx.AsyncClient, simulator: Simulator, operation: str
) -> None:
    path, change = TAGGED[operation]
    asset = (await gateway.post(f"{PREFIX}/assets", json={"name": "hall"})).json()["data"]["id"]["id"]
    device = device_id(simulator)
    load(simulator, device, "a", [(START, 1)])
    ids = {"device": device, "asset": asset, "alarm": raise_alarm(simulator, device)}
    if change == DELIVERY:
        stored = await gateway.post(f"{DEVICES}/{device}/rpc/persistent", json={"method": "blink"})
        ids["rpc"] = stored.headers["location"].rsplit("/", 1)[-1]
    url = PREFIX + path.format(**ids)

    first = await gateway.get(url)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    assert (await gateway.get(url)).headers["etag"] == tag
    same = await gateway.get(url, headers={"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert answer_of("GET", url.partition("?")[0], 304)

    if change == DELIVERY:
        await simulator.world.rpcs.poll(device, timeout_ms=0)
    else:
        await make(gateway, change, ids)
    other = await gateway.get(url, headers={"If-None-Match": tag})
    assert other.status_code == 200
    assert other.headers["etag"] != tag
    assert other.json()["status"] == "success"


async def make(gateway: httpx.AsyncClient, change: str, ids: dict[str, str]) -> None:
    method, where, body = CHANGES[change]
    if body is None:
        ends = {
            "from": {"id": ids["asset"], "entity_type": "ASSET"},
            "to": {"id": ids["device"], "entity_type": "DEVICE"},
        }
        body = {**ends, "type": "Contains"}
    changed = await gateway.request(method, PREFIX + where.format(**ids), json=body)
    assert changed.status_code in {200, 201}, changed.text


def test_the_document_names_the_routes_with_tags() -> None:
    operations = [operation for item in DOCUMENT["paths"].values() for operation in item.values()]
    tagged = {each["operationId"] for each in operations if "304" in each["responses"]}
    assert tagged == set(TAGGED)
    for each in operations:
        named = {"$ref": "urn:document#/components/parameters/IfNoneMatch"} in each.get("parameters", [])
        assert named == (each["operationId"] in TAGGED)
        if named:
            assert set(each["responses"]["200"]["headers"]) == {"ETag"}


async def test_pages_have_tags_of_their_own(gateway: httpx.AsyncClient) -> None:
    """Beyond the last page all pages hold the same: nothing."""
    tags = [(await gateway.get(f"{DEVICES}?page={page}")).headers["etag"] for page in (0, 7, 8)]
    assert len(set(tags)) == 3


async def test_a_tag_does_not_serve_for_another_device(
    gateway: httpx.AsyncClient, simulator: Simulator
) -> None:
    """Two devices may hold the same values: their answers differ by the id."""
    paths = [f"{DEVICES}/{device_id(simulator, f'Test Device A{n}')}/telemetry/latest?keys=a" for n in (1, 2)]
    tag = (await gateway.get(paths[0])).headers["etag"]
    assert (await gateway.get(paths[1], headers={"If-None-Match": tag})).status_code == 200


@pytest.mark.parametrize(
    ("template", "status"),
    [
        ("{tag}", 304),
        ("{strong}", 304),
        ('"other", {tag}', 304),
        ('W/"other",{strong},"third"', 304),
        ("*", 304),
        (" * ", 304),
        ('"other"', 200),
        ('W/"*"', 200),
        ("{bare}", 200),
        ("", 200),
        ('"', 200),
    ],
)
async def test_the_header_is_a_list_compared_weakly(
    gateway: httpx.AsyncClient, template: str, status: int
) -> None:
    tag = (await gateway.get(DEVICES)).headers["etag"]
    strong = tag.removeprefix("W/")
    value = template.format(tag=tag, strong=strong, bare=strong.strip('"'))
    assert (await gateway.get(DEVICES, headers={"If-None-Match": value})).status_code == status


async def test_the_header_may_come_twice(gateway: httpx.AsyncClient) -> None:
    tag = (await gateway.get(DEVICES)).headers["etag"]
    headers = [("If-None-Match", '"other"'), ("If-None-Match", tag), *KEY_HEADER.items()]
    assert (await gateway.get(DEVICES, headers=headers)).status_code == 304


TAGS = st.text("abcdef0123456789W/, *\xe9", max_size=40)


@given(contents=st.lists(st.binary(), min_size=1, max_size=4), others=st.lists(TAGS), weak=st.booleans())
def test_a_tag_is_found_where_it_stands_and_nowhere_else(
    contents: list[bytes], others: list[str], weak: bool
) -> None:
    tag = tag_of(memoryview(contents[0]))
    strange = [f'"{each}"' for each in others] + [tag_of(memoryview(b"!" + each)) for each in contents]
    absent = [each for each in strange if each != tag]
    assert not holds(", ".join(absent).encode("latin-1"), tag)
    present = [*absent[:2], f"W/{tag}" if weak else tag, *absent[2:]]
    assert holds(",".join(present).encode("latin-1"), tag)


async def test_a_304_has_the_headers_of_every_answer(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(rate_limit_requests=10, backend_cors_origins=("https://panel.example",))
    headers = {"Origin": "https://panel.example"}
    tag = (await gateway.get(DEVICES, headers=headers)).headers["etag"]
    same = await gateway.get(DEVICES, headers={**headers, "If-None-Match": tag})
    assert same.status_code == 304
    assert same.headers["x-ratelimit-remaining"] == "8"
    assert same.headers["access-control-allow-origin"] == "https://panel.example"
    assert "ETag" in same.headers["access-control-expose-headers"]
    assert same.headers["x-content-type-options"] == "nosniff"
    assert same.headers["x-request-id"]
    assert same.headers["cache-control"] == "private, no-cache"
    assert not {"content-type", "content-length"} & set(same.headers)


@pytest.mark.parametrize("path", ["", "/telemetry/latest", "/attributes"])
async def test_what_is_gone_is_a_404_whatever_the_caller_has(gateway: httpx.AsyncClient, path: str) -> None:
    answer = await gateway.get(f"{DEVICES}/{UNKNOWN}{path}", headers={"If-None-Match": "*"})
    assert (answer.status_code, "etag" in answer.headers) == (404, False)
    assert answer.headers["cache-control"] == "no-store"


async def test_secrets_are_not_kept(gateway: httpx.AsyncClient, simulator: Simulator) -> None:
    answer = await gateway.get(f"{DEVICES}/{device_id(simulator)}/credentials")
    assert (answer.headers["cache-control"], "etag" in answer.headers) == ("no-store", False)


async def test_an_unknown_key_learns_nothing_by_guessing(gateway: httpx.AsyncClient) -> None:
    headers = {"X-API-Key": "no-such-key", "If-None-Match": "*"}
    assert (await gateway.get(DEVICES, headers=headers)).status_code == 401


async def test_a_connection_goes_on_after_a_304(make_settings: SettingsFactory) -> None:
    """A body, or a wrong length, would be read as the beginning of the next answer."""
    async with serve(create_app(make_settings())) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        ask = f"GET {DEVICES} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY_HEADER['X-API-Key']}\r\n"
        writer.write(f"{ask}If-None-Match: *\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(f"{ask}Connection: close\r\n\r\n".encode())
        rest = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 304")
    assert b"transfer-encoding" not in head.lower()
    assert rest.startswith(b"HTTP/1.1 200")


def test_a_page_that_is_shared_is_answered_as_each_caller_asked() -> None:
    page = Page([{"name": "kitchen"}], 1, 1, has_next=False)
    first, again, other = (paged(page, number=number, size=10) for number in (0, 0, 1))
    assert first.headers["etag"] == again.headers["etag"] != other.headers["etag"]
    for number, answer in ((0, first), (0, again), (1, other)):
        body = json.loads(bytes(answer.body))
        assert list(body) == ["status", "timestamp", "data", "pagination"]
        assert body["data"] == [{"name": "kitchen"}]
        assert body["pagination"]["page"] == number
