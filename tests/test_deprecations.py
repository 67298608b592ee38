"""What is declared deprecated says so in the document and on every answer: shown on routes of the tests."""

from datetime import date, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate
from starlette.responses import Response

from app.api.deprecations import NOTICE, Deprecation, deprecates
from app.api.direct import RouteIndex
from app.api.envelope import success
from app.api.route import requires, versioned_router
from app.api.v1 import ROUTERS
from app.schemas.entities import EntityCreate
from tests.conftest import GatewayFactory

SINCE, SUNSET = date(2027, 1, 1), date(2027, 7, 1)
#: RFC 9745: an Item of structured fields, a Date.
DEPRECATION = "@1798761600"
WHOLE = Deprecation(SINCE, SUNSET, "Use `list_devices`.")
PARAMETER = Deprecation(SINCE, SUNSET, "Use `new`.", parameter="old")

router = versioned_router("devices")


@router.get(
    "/old", operation_id="get_old", openapi_extra=requires("devices:read") | deprecates(WHOLE, PARAMETER)
)
async def get_old(old: str | None = None) -> Response:
    """Answer by the direct way."""
    return success({"old": old})


@router.post("/old", operation_id="create_old", openapi_extra=requires("devices:write") | deprecates(WHOLE))
async def create_old(entity: EntityCreate) -> Response:
    """Answer FastAPI's way."""
    return success({"name": entity.name})


@router.get("/half", operation_id="get_half", openapi_extra=requires("devices:read") | deprecates(PARAMETER))
async def get_half(old: int | None = None, new: int | None = None) -> Response:
    """Answer with one parameter that is to go."""
    return success({"old": old, "new": new})


@pytest.fixture
def with_old_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.factory.ROUTERS", (*ROUTERS, router))


@pytest.fixture
def gateway(with_old_routes: None, make_gateway: GatewayFactory) -> httpx.AsyncClient:
    client: httpx.AsyncClient = make_gateway(backend_cors_origins=("https://app.example.com",))
    return client


def is_told(answer: httpx.Response, operation: str) -> bool:
    told = {"deprecation", "sunset", "link"} & answer.headers.keys()
    if not told:
        return False
    assert answer.headers["deprecation"] == DEPRECATION
    assert parsedate_to_datetime(answer.headers["sunset"]).date() == SUNSET
    link = f'</docs#/devices/{operation}>; rel="deprecation"; type="text/html"'
    assert answer.headers.get_list("link") == [link]
    return True


async def test_a_deprecated_operation_says_so_on_every_answer(gateway: httpx.AsyncClient) -> None:
    for status, answer in (
        (200, await gateway.get("/api/v1/tb/old")),
        (200, await gateway.get("/api/v1/tb/old?old=1")),
        (422, await gateway.get("/api/v1/tb/old?unknown=1")),
    ):
        assert answer.status_code == status
        assert is_told(answer, "get_old")
    for status, body in ((200, {"name": "n", "type": "t"}), (422, {"nonsense": 1})):
        answer = await gateway.post("/api/v1/tb/old", json=body)
        assert answer.status_code == status, answer.text
        assert is_told(answer, "create_old")


async def test_a_key_without_the_scope_is_told_too(
    with_old_routes: None, make_gateway: GatewayFactory, keys_file: Any
) -> None:
    secret = "a-key-without-the-scope-000001"
    file = keys_file(reader=(secret, ["alarms:read"]))
    answer = await make_gateway(api_key=None, api_keys_file=file, key=secret).get("/api/v1/tb/old")
    assert answer.status_code == 403
    assert is_told(answer, "get_old")


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "FastAPI's way"])
async def test_a_deprecated_parameter_says_so_where_it_is_used(
    with_old_routes: None, make_gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    if not direct:
        monkeypatch.setattr(RouteIndex, "find", lambda index, scope: None)
    gateway = make_gateway()
    for target, used in (("half?old=1", True), ("half?old=x", True), ("half?new=1", False), ("half", False)):
        answer = await gateway.get(f"/api/v1/tb/{target}")
        assert answer.status_code == (422 if "x" in target else 200)
        assert is_told(answer, "get_half") is used, target


async def test_nothing_else_is_called_deprecated(gateway: httpx.AsyncClient) -> None:
    assert not is_told(await gateway.get("/api/v1/tb/devices"), "list_devices")


async def test_a_browser_may_read_the_headers(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.get("/api/v1/tb/old", headers={"Origin": "https://app.example.com"})
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert {"Deprecation", "Sunset", "Link"} <= exposed


async def test_the_document_marks_it_and_says_what_to_use(gateway: httpx.AsyncClient) -> None:
    document = (await gateway.get("/openapi.json")).json()
    validate(document)
    assert "x-deprecations" not in str(document)
    paths = document["paths"]
    parameter = paths["/api/v1/tb/half"]["get"]["parameters"][0]
    for marked, instead in (
        (paths["/api/v1/tb/old"]["get"], "Use `list_devices`."),
        (paths["/api/v1/tb/old"]["get"]["parameters"][0], "Use `new`."),
        (paths["/api/v1/tb/old"]["post"], "Use `list_devices`."),
        (parameter, "Use `new`."),
    ):
        assert marked["deprecated"] is True
        assert marked["x-sunset"] == "2027-07-01"
        assert (
            f"Deprecated since 2027-01-01, may be gone from 2027-07-01 on. {instead}" in marked["description"]
        )
    assert parameter["name"] == "old"
    assert "deprecated" not in paths["/api/v1/tb/half"]["get"]
    assert "deprecated" not in paths["/api/v1/tb/devices"]["get"]


def test_a_notice_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 180 days after since"):
        Deprecation(SINCE, SINCE + NOTICE - timedelta(days=1), "Use another.")
