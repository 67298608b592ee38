"""What the framework raises, as ours: which field is named, and how."""

from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app import errors
from app.problems import as_gateway_error


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
