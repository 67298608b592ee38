"""Heads of requests: which are refused before any application sees them, and how that is told."""

import re
import time
from collections.abc import Iterable, Sequence

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

RawHeader = tuple[bytes, bytes]

#: A DNS name, an IPv4 or a bracketed IPv6 address, with or without a port.
HOST = re.compile(rb"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,254}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class RefusedRequest(Exception):
    """This request, or its whole connection, is refused before the application sees anything of it.

    Args:
        field: what is at fault, and
        issue: why; neither where it is no fault of the request's.
        retry_after: seconds.
        headers: more of its answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        field: str | None = None,
        issue: str | None = None,
        *,
        error_code: str = "VALIDATION_ERROR",
        retry_after: int | None = None,
        headers: Sequence[RawHeader] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.error_code = status, message, error_code
        self.details = {"field": field, "issue": issue} if field else None
        self.retry_after, self.headers = retry_after, headers


def check_head(version: str, target: bytes, headers: Sequence[RawHeader]) -> None:
    """Refuse a head that another server on the way might understand differently.

    Raises:
        RefusedRequest: with status 400, 501 or 505.
    """
    if version not in {"1.0", "1.1"}:
        raise RefusedRequest(505, "Only HTTP/1.1 and HTTP/1.0 are served.", "version", "not supported")
    if not target.startswith(b"/") or b"#" in target:
        raise RefusedRequest(400, "The request target must be a path.", "url", "not a path with a query")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
        raise RefusedRequest(400, "Exactly one valid Host header is needed.", "Host", "missing or invalid")
    encodings = [value for name, value in headers if name == b"transfer-encoding"]
    if not encodings:
        return
    if version == "1.0":
        issue = "not allowed in HTTP/1.0"
        raise RefusedRequest(400, "HTTP/1.0 has no Transfer-Encoding.", "Transfer-Encoding", issue)
    if len(encodings) > 1 or encodings[0].strip().lower() != b"chunked":
        issue = "not implemented"
        raise RefusedRequest(501, "Only chunked Transfer-Encoding is read.", "Transfer-Encoding", issue)


def reason_of(error: httptools.HttpParserError) -> RefusedRequest:
    """Return what a callback of ours raised; the parser only links to it."""
    if isinstance(error.__context__, RefusedRequest):
        return error.__context__
    return RefusedRequest(400, "The request is not valid HTTP.", "request", "malformed")


def render(
    refusal: RefusedRequest,
    request_id: str,
    default_headers: Iterable[RawHeader],
    *,
    closes: bool = True,
    is_head: bool = False,
) -> bytes:
    """Return the whole answer, in the gateway's one error shape.

    Args:
        closes: whether it is the last one on its connection.
        is_head: whether HEAD asked, which wants no body.
    """
    body = orjson.dumps(
        {
            "status": refusal.status,
            "message": refusal.message,
            "error_code": refusal.error_code,
            "timestamp": time.time_ns() // 1_000_000,
            "details": refusal.details,
            "request_id": request_id,
        }
    )
    headers = [
        *default_headers,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        *refusal.headers,
    ]
    if closes:
        headers.append((b"connection", b"close"))
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after))
    lines = [STATUS_LINE[refusal.status], *(b"%b: %b\r\n" % header for header in headers), b"\r\n"]
    return b"".join(lines if is_head else [*lines, body])


def without_upgrade(method: bytes, target: bytes, version: str, headers: Iterable[RawHeader]) -> bytes:
    """Return the head again without its wish for another protocol."""
    hidden = {b"upgrade", b"http2-settings"}
    lines = [b"%b %b HTTP/%b\r\n" % (method, target, version.encode())]
    for name, value in headers:
        if name == b"connection":
            kept = [token for token in value.split(b",") if token.strip().lower() not in hidden]
            lines.append(b"connection: %b\r\n" % b",".join(kept))
        elif name not in hidden:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join([*lines, b"\r\n"])
