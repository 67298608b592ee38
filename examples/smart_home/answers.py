"""From an error to an answer, and the headers that every answer has."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from sqlalchemy.orm.exc import StaleDataError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from examples.smart_home import errors
from examples.smart_home.database import DATABASE_FAULTS

log = structlog.get_logger("smart_home")

#: The framework's own refusals.
REFUSALS = {
    404: (errors.NotFound.code, errors.NotFound.message),
    405: ("METHOD_NOT_ALLOWED", "This cannot be done here."),
    413: ("PAYLOAD_TOO_LARGE", "This is too much at once."),
}
#: Scripts, styles and calls are our own and nothing else is loaded: what a user types can never run.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


#: Everything that is raised, each class as the framework looks it up.
ANSWERED = (
    errors.SmartHomeError,
    StaleDataError,
    *DATABASE_FAULTS,
    RequestValidationError,
    HTTPException,
    Exception,
)


class Headers:
    """Puts the headers on every HTTP answer; answers of the API are never kept by anybody."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                # Only files have tags: they are kept and asked for again. Nobody keeps answers of the API.
                headers["Cache-Control"] = "no-cache" if "etag" in headers else "no-store"
            await send(message)

        await self.app(scope, receive, with_headers)


async def answer_error(_: Request, error: Exception) -> JSONResponse:
    """Answer whatever was raised, in one shape."""
    if isinstance(error, StaleDataError):
        # What was to be changed has been deleted meanwhile.
        error = errors.NotFound()
    elif isinstance(error, DATABASE_FAULTS):
        log.error("database_failed", reason=type(error).__name__)
        error = errors.DatabaseUnavailable(retry_after=1)
    if isinstance(error, errors.SmartHomeError):
        headers = {}
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        if isinstance(error, errors.NotAuthenticated):
            headers["WWW-Authenticate"] = "Bearer"
        return _answer(error.status, error.code, error.message, error.details, headers)
    if isinstance(error, RequestValidationError):
        faults = [_fault_of(each) for each in error.errors()]
        sentence = "; ".join(f"{each['field']}: {each['issue']}" for each in faults)
        return _answer(
            422, "VALIDATION_ERROR", f"Please check what you entered: {sentence}.", {"fields": faults}
        )
    if isinstance(error, HTTPException):
        code, message = REFUSALS.get(error.status_code, (errors.InvalidRequest.code, str(error.detail)))
        return _answer(error.status_code, code, message, None, error.headers)
    logging.getLogger("smart_home").error("internal error", exc_info=error)
    # The framework answers this one outside of all stages.
    return _answer(500, errors.SmartHomeError.code, errors.SmartHomeError.message, None, HEADERS)


def _fault_of(fault: Mapping[str, Any]) -> dict[str, str]:
    location: Sequence[Any] = fault["loc"]
    message = str(fault["msg"]).removeprefix("Value error, ")
    return {"field": ".".join(map(str, location[1:])) or str(location[0]), "issue": message}


def _answer(
    status: int,
    code: str,
    message: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body = {"status": status, "message": message, "error_code": code, "details": details}
    return JSONResponse(body, status, dict(headers or {}))
