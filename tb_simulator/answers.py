"""What a route gives back, and the three error bodies of ThingsBoard."""

import time
from typing import Any, NamedTuple

import orjson

JSON = b"application/json"
SPRING_JSON = b"application/json;charset=ISO-8859-1"
PLAIN = b"text/plain;charset=UTF-8"

NO_PERMISSION = "You don't have permission to perform this operation!"


class Answer(NamedTuple):
    """One HTTP answer; ``content_type`` is None for the empty bodies that ThingsBoard sends without one."""

    status: int
    body: bytes = b""
    content_type: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class ApiError(Exception):
    """An error that ThingsBoard answers as ``{"status","message","errorCode","timestamp"}``."""

    def __init__(self, status: int, message: str, code: int) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code

    def answer(self) -> Answer:
        """Return the answer as Spring's exception handler writes it, charset included."""
        return error_answer(self.status, self.message, self.code)


class PlainError(Exception):
    """An error of the telemetry, attribute and RPC routes: bare text (telemetry.json, attributes.json)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message

    def answer(self) -> Answer:
        """Return the bare text answer."""
        return Answer(self.status, self.message.encode(), PLAIN)


EMPTY = Answer(200)


def empty(status: int) -> Answer:
    """Return an answer without body and content type."""
    return Answer(status)


def ok(value: Any) -> Answer:
    """Return 200 with the value as JSON."""
    return Answer(200, orjson.dumps(value), JSON)


def error_answer(status: int, message: str, code: int) -> Answer:
    """Return the error body of Spring's handlers, in the charset the recordings show."""
    body = {"status": status, "message": message, "errorCode": code, "timestamp": time.time_ns() // 1_000_000}
    return Answer(status, orjson.dumps(body), SPRING_JSON)


def framework_error(status: int, message: str, code: int) -> Answer:
    """Return the error of an unknown route or method, which names no charset (auth.json, "unknown route")."""
    body = {"message": message, "errorCode": code, "status": status, "timestamp": time.time_ns() // 1_000_000}
    return Answer(status, orjson.dumps(body), JSON)


def forbidden() -> ApiError:
    """Return the error for a caller without the permission."""
    return ApiError(403, NO_PERMISSION, 20)


def not_found() -> ApiError:
    """Return the error of look-ups by name and of missing relations."""
    return ApiError(404, "Requested item wasn't found!", 32)


def bad_request(message: str) -> ApiError:
    """Return a 400 with ThingsBoard's code for bad parameters."""
    return ApiError(400, message, 31)


def server_error(message: str, code: int = 2) -> ApiError:
    """Return one of the 500s that ThingsBoard answers to faulty requests."""
    return ApiError(500, message, code)


def database_error() -> ApiError:
    """Return the 500 of an unknown sort property or an empty entity list (devices.json, facts)."""
    return ApiError(500, "Database error", 46)
