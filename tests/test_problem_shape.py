"""Every error, from any stage, has the one shape and gives nothing away."""

import gzip
import inspect
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from app import errors
from app.problems import ANSWERS, answer_for
from app.thingsboard.errors import error_for
from app.thingsboard.transport import Answer
from tb_simulator.server import Simulator
from tests.conftest import API_KEY, GatewayFactory

DEVICES = "/api/v1/tb/devices"
UNKNOWN = "00000000-0000-0000-0000-000000000007"
CODES = {code for _, code in ANSWERS.values()}


def check_shape(answer: httpx.Response) -> dict[str, Any]:
    """Assert the contract's error shape and return the body."""
    assert answer.headers["content-type"] == "application/json", answer.text
    body: dict[str, Any] = answer.json()
    assert {"status", "message", "error_code", "timestamp", "details", "request_id"} <= set(body)
    assert body["status"] == answer.status_code
    assert body["error_code"] in CODES
    assert body["request_id"] == answer.headers["x-request-id"]
    assert isinstance(body["timestamp"], int)
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.status_code == 429:
        assert body["retry_after"] == int(answer.headers["retry-after"]) >= 1
        assert {"error", "detail"} <= set(body)
    return body


REFUSALS: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "no key": ("GET", DEVICES, {"headers": {"X-API-Key": ""}}, 401, "AUTHENTICATION_FAILED"),
    "wrong key": ("GET", DEVICES, {"headers": {"X-API-Key": "x" * 32}}, 401, "AUTHENTICATION_FAILED"),
    "unknown path without a key": (
        "GET",
        "/nope",
        {"headers": {"X-API-Key": ""}},
        401,
        "AUTHENTICATION_FAILED",
    ),
    "unknown path": ("GET", "/nope", {}, 404, "RESOURCE_NOT_FOUND"),
    "trailing slash": ("GET", f"{DEVICES}/", {}, 404, "RESOURCE_NOT_FOUND"),
    "unknown method": ("PUT", DEVICES, {}, 405, "METHOD_NOT_ALLOWED"),
    "odd method": ("BREW", DEVICES, {}, 405, "METHOD_NOT_ALLOWED"),
    "unknown parameter": ("GET", f"{DEVICES}?pagesize=3", {}, 422, "VALIDATION_ERROR"),
    "repeated parameter": ("GET", f"{DEVICES}?page=0&page=1", {}, 422, "VALIDATION_ERROR"),
    "page out of range": ("GET", f"{DEVICES}?page_size=1001", {}, 422, "VALIDATION_ERROR"),
    "page that is no number": ("GET", f"{DEVICES}?page=one", {}, 422, "VALIDATION_ERROR"),
    "unknown sort field": ("GET", f"{DEVICES}?sort_by=password", {}, 422, "VALIDATION_ERROR"),
    "malformed id": ("GET", f"{DEVICES}/nope", {}, 422, "VALIDATION_ERROR"),
    "empty name": ("GET", f"{DEVICES}/name:", {}, 422, "VALIDATION_ERROR"),
    "unknown id": ("GET", f"{DEVICES}/{UNKNOWN}", {}, 404, "RESOURCE_NOT_FOUND"),
    "unknown name": ("GET", f"{DEVICES}/name:nobody", {}, 404, "RESOURCE_NOT_FOUND"),
    "malformed JSON": ("POST", DEVICES, {"content": b"{oops"}, 400, "VALIDATION_ERROR"),
    "missing field": ("POST", DEVICES, {"json": {}}, 422, "VALIDATION_ERROR"),
    "blank name": ("POST", DEVICES, {"json": {"name": "  "}}, 422, "VALIDATION_ERROR"),
    "unknown field": ("POST", DEVICES, {"json": {"name": "a", "tpye": "b"}}, 422, "VALIDATION_ERROR"),
    "wrong content type": (
        "POST",
        DEVICES,
        {"content": b"a=b", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    ),
    "unknown encoding": (
        "POST",
        DEVICES,
        {"content": b"{}", "headers": {"Content-Encoding": "br"}},
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    ),
    "false gzip": (
        "POST",
        DEVICES,
        {"content": b"{}", "headers": {"Content-Encoding": "gzip"}},
        400,
        "VALIDATION_ERROR",
    ),
    "too large": ("POST", DEVICES, {"content": b" " * (16 * 1024 * 1024 + 1)}, 413, "PAYLOAD_TOO_LARGE"),
    "gzip bomb": (
        "POST",
        DEVICES,
        {"content": gzip.compress(b" " * (17 * 1024 * 1024)), "headers": {"Content-Encoding": "gzip"}},
        413,
        "PAYLOAD_TOO_LARGE",
    ),
}


@pytest.mark.parametrize(("method", "path", "options", "status", "code"), REFUSALS.values(), ids=REFUSALS)
async def test_refusals_have_the_one_shape(
    gateway: httpx.AsyncClient, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    answer = await gateway.request(method, path, **options)
    body = check_shape(answer)
    assert (answer.status_code, body["error_code"]) == (status, code), answer.text
    if status == 405:
        assert "GET" in answer.headers["allow"]


async def test_validation_names_the_field_and_never_echoes_the_value(gateway: httpx.AsyncClient) -> None:
    secret = "hunter2-in-the-wrong-place"
    answer = await gateway.post(DEVICES, json={"name": 5, "label": secret * 20})
    fields = {fault["field"] for fault in check_shape(answer)["details"]["errors"]}
    assert fields == {"name", "label"}
    assert secret not in answer.text


async def test_a_bug_is_a_500_without_internals(
    gateway: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(request: Request) -> None:
        raise RuntimeError("password=hunter2")

    gateway.app.add_api_route("/api/v1/tb/broken", broken)  # type: ignore[attr-defined]
    answer = await gateway.get("/api/v1/tb/broken")
    assert check_shape(answer)["error_code"] == "INTERNAL_ERROR"
    assert "hunter2" not in answer.text
    assert "hunter2" not in capsys.readouterr().out


async def test_problem_json_is_given_to_those_who_ask(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.get(f"{DEVICES}/{UNKNOWN}", headers={"Accept": "application/problem+json"})
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["error_code"]) == (404, "RESOURCE_NOT_FOUND")
    assert {"type", "title", "detail"} <= set(body)


def test_every_error_class_has_an_answer() -> None:
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.GatewayError) and cls not in {errors.GatewayError, errors.CallerError}:
            assert answer_for(cls()) != answer_for(errors.InternalError()) or cls is errors.InternalError, cls


@given(
    status=st.integers(300, 599),
    content_type=st.sampled_from(["application/json", "text/plain", "text/html", ""]),
    body=st.one_of(
        st.binary(max_size=200),
        st.just(b'{"message":"%MARK%","errorCode":31}'),
        st.just(b"already exists %MARK%"),
        st.just(b'{"message":["%MARK%"]}'),
    ),
)
def test_no_upstream_text_reaches_an_error(status: int, content_type: str, body: bytes) -> None:
    error = error_for(Answer(status, content_type, body + b"MARKER-9f3a"))
    shown = f"{error.message} {error.details} {error.note} {error}"
    assert "MARK" not in shown


@pytest.fixture
def impatient_gateway(make_gateway: GatewayFactory) -> httpx.AsyncClient:
    """A gateway that waits for no rate limit of ThingsBoard."""
    made: httpx.AsyncClient = make_gateway(tb_queue_seconds=0.01)
    return made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(status=st.integers(400, 599), is_json=st.booleans())
@example(status=401, is_json=True)
@example(status=429, is_json=True)
async def test_no_upstream_byte_leaks_through_an_error(
    impatient_gateway: httpx.AsyncClient, simulator: Simulator, status: int, is_json: bool
) -> None:
    marker = "MARKER-9f3a"
    body = f'{{"message":"{marker}","stack":"{marker}"}}' if is_json else f"<html>{marker}</html>"
    simulator.faults.clear()
    simulator.faults.status(status, path="/api/device/", body=body)
    answer = await impatient_gateway.get(f"{DEVICES}/{UNKNOWN}")
    check_shape(answer)
    assert marker not in answer.text
    assert marker not in str(answer.headers)


async def test_the_callers_request_id_is_kept_when_it_is_harmless(make_gateway: GatewayFactory) -> None:
    gateway = make_gateway(key=API_KEY)
    kept = await gateway.get("/health", headers={"X-Request-ID": "order-4711-abc"})
    assert kept.headers["x-request-id"] == "order-4711-abc"
    replaced = await gateway.get("/health", headers={"X-Request-ID": "spaces and\tmore"})
    assert replaced.headers["x-request-id"] != "spaces and\tmore"


async def test_allow_names_every_method_of_a_path(gateway: httpx.AsyncClient) -> None:
    for path, methods in (
        (DEVICES, "GET, POST"),
        (f"{DEVICES}/{UNKNOWN}", "DELETE, GET, PATCH"),
        ("/health", "GET, HEAD"),
    ):
        assert (await gateway.put(path)).headers["allow"] == methods


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/problem+json", True),
        ("APPLICATION/PROBLEM+JSON; q=0.8", True),
        ("application/json;q=0.5, application/problem+json", True),
        ("application/problem+json;q=0", False),
        ("application/problem+json;q=0.5, application/json;q=0.9", False),
        ("application/json", False),
        ("*/*", False),
    ],
)
async def test_the_preferred_media_type_decides(
    gateway: httpx.AsyncClient, accept: str, expected: bool
) -> None:
    answer = await gateway.get(f"{DEVICES}/{UNKNOWN}", headers={"Accept": accept})
    assert (answer.headers["content-type"] == "application/problem+json") is expected


@pytest.mark.parametrize(
    ("method", "path", "options", "field"),
    [
        ("POST", f"{DEVICES}/{UNKNOWN}/telemetry/query", {"json": {"start_ts": True}}, "start_ts"),
        ("DELETE", "/api/v1/tb/relations", {"params": {"type": "Contains"}}, "from_id"),
        ("DELETE", "/api/v1/tb/relations", {"json": {"type": "Contains"}}, "body"),
        ("GET", f"{DEVICES}/{UNKNOWN}/telemetry?start_ts=2100-01-01T00:00:00z", {}, "start_ts"),
        ("GET", "/openapi.json?x=1", {}, "x"),
        ("GET", f"{DEVICES}/{UNKNOWN}/telemetry?start_ts=" + "\u0661" * 13, {}, "start_ts"),
    ],
)
async def test_the_field_at_fault_is_one_the_caller_knows(
    gateway: httpx.AsyncClient, method: str, path: str, options: dict[str, Any], field: str
) -> None:
    answer = await gateway.request(method, path, **options)
    assert answer.status_code in {400, 422}
    assert answer.json()["details"]["field"] in {field, "from"}
