"""From an error to an answer: status, code, headers and body, in this one place."""

import time
from collections.abc import Mapping
from math import ceil
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from app import errors
from app.context import KEY, RequestContext
from app.preferences import weights_of

PROBLEM_JSON = "application/problem+json"

#: Status and code of each error class; a subclass without a row takes its base's.
ANSWERS: dict[type[errors.GatewayError], tuple[int, str]] = {
    errors.InvalidRequest: (400, "VALIDATION_ERROR"),
    errors.UnprocessableRequest: (422, "VALIDATION_ERROR"),
    errors.NotAuthenticated: (401, "AUTHENTICATION_FAILED"),
    errors.NotAllowed: (403, "AUTHORIZATION_FAILED"),
    errors.NotFound: (404, "RESOURCE_NOT_FOUND"),
    errors.MethodNotAllowed: (405, "METHOD_NOT_ALLOWED"),
    errors.Conflict: (409, "CONFLICT"),
    errors.DeviceOffline: (409, "DEVICE_OFFLINE"),
    errors.DeviceSilent: (504, "UPSTREAM_TIMEOUT"),
    errors.PayloadTooLarge: (413, "PAYLOAD_TOO_LARGE"),
    errors.UnsupportedMediaType: (415, "UNSUPPORTED_MEDIA_TYPE"),
    errors.RateLimited: (429, "RATE_LIMIT_EXCEEDED"),
    errors.Overloaded: (503, "OVERLOADED"),
    errors.InternalError: (500, "INTERNAL_ERROR"),
    errors.UpstreamUnreachable: (503, "UPSTREAM_UNAVAILABLE"),
    errors.UpstreamReset: (503, "UPSTREAM_UNAVAILABLE"),
    errors.BreakerOpen: (503, "UPSTREAM_UNAVAILABLE"),
    errors.UpstreamTimeout: (504, "UPSTREAM_TIMEOUT"),
    errors.UpstreamBusy: (429, "RATE_LIMIT_EXCEEDED"),
    errors.UpstreamGarbled: (502, "UPSTREAM_ERROR"),
    errors.UpstreamFailed: (502, "UPSTREAM_ERROR"),
    errors.LoginRefused: (502, "UPSTREAM_ERROR"),
    errors.UpstreamError: (502, "UPSTREAM_ERROR"),
}

#: Starlette's and FastAPI's own refusals, as ours.
FRAMEWORK_ERRORS: dict[int, type[errors.GatewayError]] = {
    400: errors.InvalidRequest,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMediaType,
}

#: What pydantic adds to the path of a fault in a union.
UNION_MEMBERS = frozenset({"int", "str", "float", "bool", "none"})

#: Fields at fault that one answer names: a body may have a million of them.
MOST_FAULTS = 100
LONGEST_FIELD = 300

#: A 503 without a better estimate asks for this many seconds of patience.
DEFAULT_RETRY_AFTER_SECONDS = 1


def answer_for(error: errors.GatewayError) -> tuple[int, str]:
    """Return (HTTP status, error code) of this error."""
    for cls in type(error).__mro__:
        if cls in ANSWERS:
            return ANSWERS[cls]
    return ANSWERS[errors.InternalError]


def as_gateway_error(error: Exception) -> errors.GatewayError:
    """Translate what the framework raises; anything unknown is our bug."""
    if isinstance(error, errors.GatewayError):
        return error
    if isinstance(error, RequestValidationError):
        return from_validation(error)
    # FastAPI wraps what a stage of ours raises while it reads the body, and what a stream raises underway.
    if isinstance(error, HTTPException | RuntimeError) and isinstance(error.__cause__, errors.GatewayError):
        return error.__cause__
    if isinstance(error, HTTPException) and isinstance(error.__cause__, ValueError | RecursionError):
        # Not UTF-8, a number of more than 4,300 digits, nested too deeply.
        return unreadable_json()
    if isinstance(error, HTTPException):
        return FRAMEWORK_ERRORS.get(error.status_code, errors.InternalError)(headers=error.headers)
    return errors.InternalError()


def from_validation(error: RequestValidationError) -> errors.GatewayError:
    """Name the first offending fields and why; never echo the input, which may hold a secret."""
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        return unreadable_json()
    faults: dict[str, dict[str, str]] = {}
    for fault in found[:MOST_FAULTS]:
        place, *path = fault["loc"]
        # The members of a union are no fields of the caller's.
        while len(path) > 1 and str(path[-1]) in UNION_MEMBERS:
            path.pop()
        # The names of unknown fields are the caller's, and may be as long as the body.
        field = (".".join(str(part) for part in path) or str(place))[:LONGEST_FIELD]
        is_unknown = fault["type"] == "extra_forbidden"
        issue = "unknown field" if is_unknown else str(fault["msg"]).removeprefix("Value error, ")
        faults.setdefault(field, {"in": str(place), "field": field, "issue": issue})
    first = next(iter(faults.values()))
    return errors.UnprocessableRequest(
        f"{first['field']}: {first['issue']}",
        details={"field": first["field"], "issue": first["issue"], "errors": list(faults.values())},
    )


def unreadable_json() -> errors.InvalidRequest:
    """Say that the body is no JSON that can be read."""
    return errors.InvalidRequest(
        "The request body is not valid JSON.", details={"field": "body", "issue": "not valid JSON"}
    )


def wants_problem_json(scope: Scope) -> bool:
    """Tell whether the caller prefers RFC 9457 to plain JSON (RFC 9110, 12.5.1)."""
    accepted = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
    weights = weights_of(",".join(accepted))
    wanted = weights.get(PROBLEM_JSON, 0.0)
    return wanted > 0 and wanted >= weights.get("application/json", 0.0)


def wait_of(error: errors.GatewayError) -> int | None:
    """Return after how many seconds the caller may try again, if that would help."""
    status, _ = answer_for(error)
    if error.retry_after is not None:
        return max(1, ceil(error.retry_after))
    return {429: 1, 503: DEFAULT_RETRY_AFTER_SECONDS}.get(status)


def body_of(error: errors.GatewayError, scope: Scope) -> dict[str, Any]:
    """Return the members of the one error shape."""
    status, code = answer_for(error)
    context: RequestContext | None = scope.get(KEY)
    return {
        "status": status,
        "message": error.message,
        "error_code": code,
        "timestamp": time.time_ns() // 1_000_000,
        "details": error.details,
        "request_id": context.request_id if context else None,
    }


def render(error: errors.GatewayError, scope: Scope) -> Response:
    """Make the one error shape (or RFC 9457 when asked for) of this error."""
    status, code = answer_for(error)
    context: RequestContext | None = scope.get(KEY)
    if context is not None:
        context.error_code, context.error_note = code, error.note
    body = body_of(error, scope)
    headers: dict[str, str] = dict(error.headers)
    wait = wait_of(error)
    if wait is not None:
        headers["Retry-After"] = str(wait)
    if status == 429:  # noqa: PLR2004 - the HTTP status itself
        body |= {"error": "Rate limit exceeded", "detail": error.message, "retry_after": wait}
    return _response(body, status, headers, problem=wants_problem_json(scope))


def _response(body: dict[str, Any], status: int, headers: Mapping[str, str], *, problem: bool) -> Response:
    if problem:
        body = {"type": "about:blank", "title": body["error_code"].replace("_", " ").capitalize(), **body}
        # RFC 9457 wants the explanation in `detail`.
        body["detail"] = body["message"]
    return Response(
        orjson.dumps(body),
        status_code=status,
        headers=dict(headers),
        media_type=PROBLEM_JSON if problem else "application/json",
    )
