"""From an error to an answer: what the framework raises, as ours, and what callers get of it."""

import time
from typing import Any

import orjson
import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app import errors
from app.context import KEY, RequestContext
from app.problems import answer_for, as_gateway_error, render, wants_problem_json


def refusal(*faults: tuple[tuple[str | int, ...], str]) -> errors.GatewayError:
    """Return what becomes of faults at these places, each with pydantic's words."""
    found: list[dict[str, Any]] = [{"type": "value_error", "loc": loc, "msg": text} for loc, text in faults]
    return as_gateway_error(RequestValidationError(found))


def fields_of(error: errors.GatewayError) -> list[str]:
    assert error.details
    return [fault["field"] for fault in error.details["errors"]]


@pytest.mark.parametrize(
    ("place", "field"),
    [
        (("body", "a", "b"), "a.b"),
        (("body", "keys", 0), "keys.0"),
        (("query", "limit", "int"), "limit"),
        (("body", "points", 3, "value", "str"), "points.3.value"),
        (("body", "points", "value", "float", "none"), "points.value"),
        # What looks like a member of a union may be a field of the caller's own.
        (("body", "str"), "str"),
        (("body", "str", "a"), "str.a"),
        (("body",), "body"),
    ],
)
def test_a_field_is_named_by_its_path(place: tuple[str | int, ...], field: str) -> None:
    error = refusal((place, "is wrong"))
    assert (type(error), error.message) == (errors.UnprocessableRequest, f"{field}: is wrong")
    assert error.details == {
        "field": field,
        "issue": "is wrong",
        "errors": [{"in": place[0], "field": field, "issue": "is wrong"}],
    }


def test_our_own_words_stand_without_pydantics() -> None:
    assert refusal((("query", "keys"), "Value error, must not be blank")).message == "keys: must not be blank"
    assert refusal((("query", "keys"), "a Value error, ")).message == "keys: a Value error, "


def test_a_field_is_named_once_by_what_was_found_first() -> None:
    error = refusal((("body", "a", "int"), "no int"), (("body", "a", "str"), "no str"), (("body", "b"), "no"))
    assert (error.message, fields_of(error)) == ("a: no int", ["a", "b"])


def test_a_bounded_number_of_faults_is_named() -> None:
    error = refusal(*((("body", f"f{number}"), "is wrong") for number in range(150)))
    assert fields_of(error) == [f"f{number}" for number in range(100)]


def test_a_long_name_is_cut() -> None:
    assert fields_of(refusal((("body", "x" * 300), "no"), (("body", "y" * 301), "no"))) == [
        "x" * 300,
        "y" * 300,
    ]


@pytest.mark.parametrize("kind", [HTTPException, RuntimeError])
def test_what_the_framework_wraps_is_taken_out(kind: type[Exception]) -> None:
    """It does so with what a stage raises while a body is read, and what a stream raises underway."""
    wrapper = HTTPException(400) if kind is HTTPException else RuntimeError()
    wrapper.__cause__ = errors.PayloadTooLarge()
    assert as_gateway_error(wrapper) is wrapper.__cause__


def test_what_anything_else_was_raised_from_does_not_count() -> None:
    error = ValueError()
    error.__cause__ = errors.PayloadTooLarge()
    assert type(as_gateway_error(error)) is errors.InternalError
    assert type(as_gateway_error(RuntimeError())) is errors.InternalError


@pytest.mark.parametrize(
    "cause", [ValueError(), UnicodeDecodeError("utf-8", b"", 0, 1, ""), RecursionError()]
)
def test_a_body_that_cannot_be_read_is_said_so(cause: Exception) -> None:
    wrapper = HTTPException(400)
    wrapper.__cause__ = cause
    error = as_gateway_error(wrapper)
    assert (type(error), error.message) == (errors.InvalidRequest, "The request body is not valid JSON.")
    assert error.details == {"field": "body", "issue": "not valid JSON"}


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, errors.InvalidRequest),
        (404, errors.NotFound),
        (405, errors.MethodNotAllowed),
        (413, errors.PayloadTooLarge),
        (415, errors.UnsupportedMediaType),
        (418, errors.InternalError),
    ],
)
def test_a_refusal_of_the_framework_keeps_its_headers(status: int, cls: type[errors.GatewayError]) -> None:
    error = as_gateway_error(HTTPException(status, detail="theirs", headers={"Allow": "GET"}))
    assert (type(error), error.headers) == (cls, {"Allow": "GET"})
    assert error.message == cls.default_message


def rendered(
    error: errors.GatewayError, *accept: bytes, context: RequestContext | None = None
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return status, headers and body of the answer to a caller who accepts this."""
    scope: dict[str, Any] = {"type": "http", "headers": [(b"accept", each) for each in accept]}
    if context is not None:
        scope[KEY] = context
    answer = render(error, scope)
    return answer.status_code, dict(answer.headers), orjson.loads(answer.body)


def test_an_answer_says_what_the_error_says_and_notes_it_for_the_log() -> None:
    context = RequestContext("request-0001")
    error = errors.NotFound("No.", details={"field": "id"}, note="noted", headers={"Allow": "GET"})
    before = time.time_ns() // 1_000_000
    status, headers, body = rendered(error, context=context)
    assert before <= body.pop("timestamp") <= time.time_ns() // 1_000_000
    assert (status, headers["allow"], headers["content-type"]) == (404, "GET", "application/json")
    assert body == {
        "status": 404,
        "message": "No.",
        "error_code": "RESOURCE_NOT_FOUND",
        "details": {"field": "id"},
        "request_id": "request-0001",
    }
    assert "retry-after" not in headers
    assert (context.error_code, context.error_note) == ("RESOURCE_NOT_FOUND", "noted")


def test_before_a_request_has_an_id_there_is_none() -> None:
    """The protocol refuses what cannot be read before any stage has seen it."""
    assert rendered(errors.InvalidRequest())[2]["request_id"] is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.Overloaded(), "1"),
        (errors.UpstreamUnreachable(), "1"),
        (errors.BreakerOpen(retry_after=0.0), "1"),
        (errors.BreakerOpen(retry_after=7.2), "8"),
        (errors.UpstreamTimeout(retry_after=2.0), "2"),
        (errors.UpstreamTimeout(), None),
        (errors.RateLimited(), "1"),
        (errors.RateLimited(retry_after=0.2), "1"),
        (errors.RateLimited(retry_after=61.0), "61"),
    ],
)
def test_who_may_come_again_is_told_when_in_whole_seconds(
    error: errors.GatewayError, expected: str | None
) -> None:
    status, headers, body = rendered(error)
    assert headers.get("retry-after") == expected
    too_many = {name: body[name] for name in ("error", "detail", "retry_after") if name in body}
    if status == 429:
        assert too_many == {
            "error": "Rate limit exceeded",
            "detail": body["message"],
            "retry_after": int(expected or 0),
        }
    else:
        assert too_many == {}


def test_a_problem_is_one_of_rfc_9457_and_has_our_members_too() -> None:
    status, headers, body = rendered(errors.RateLimited(retry_after=3.0), b"application/problem+json")
    assert (status, headers["content-type"]) == (429, "application/problem+json")
    assert (body["type"], body["title"], body["status"]) == ("about:blank", "Rate limit exceeded", 429)
    assert body["detail"] == body["message"] == errors.RateLimited.default_message
    assert (body["error_code"], body["retry_after"]) == ("RATE_LIMIT_EXCEEDED", 3)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ([], False),
        ([b"application/problem+json, application/json"], True),
        ([b"application/problem+json;q=0.1"], True),
        ([b"application/json;q=0.5", b"application/problem+json;q=0.6"], True),
        ([b"application/problem+json;q=0.5", b"application/json;q=0.6"], False),
        ([b"application/problem+json;q=0", b"application/json;q=0"], False),
        ([b"\xff, application/problem+json"], True),
    ],
)
def test_who_prefers_a_problem_gets_one(accept: list[bytes], expected: bool) -> None:
    headers = [(b"accept", each) for each in accept]
    # Other headers are none of its business.
    others = [(b"content-type", b"application/problem+json"), (b"accepting", b"application/problem+json")]
    assert wants_problem_json({"headers": others + headers}) is expected


def test_a_subclass_without_a_row_is_answered_like_its_base() -> None:
    class Taken(errors.Conflict):
        pass

    assert answer_for(Taken()) == (409, "CONFLICT")
    assert answer_for(errors.GatewayError()) == (500, "INTERNAL_ERROR")


def test_an_error_is_its_message_in_a_traceback() -> None:
    assert str(errors.NotFound("No such device.")) == "No such device."
