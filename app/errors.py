"""What can go wrong, without HTTP. `problems.py` says which answer each of these becomes.

`message` and `details` are shown to callers and therefore hold nothing internal. `note` is for the log
only; it names the condition, never upstream text. `retry_after` is in seconds.
"""

from collections.abc import Mapping
from typing import Any


class GatewayError(Exception):
    """Base of every error that a caller may be told about."""

    default_message = "The request failed."

    def __init__(
        self,
        message: str | None = None,
        *,
        details: dict[str, Any] | None = None,
        note: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or self.default_message
        self.details = details
        self.note = note
        self.retry_after = retry_after
        self.headers = headers or {}
        super().__init__(self.message)


class CallerError(GatewayError):
    """The caller can mend this."""


class InvalidRequest(CallerError):
    """Well-formed, but it makes no sense (400)."""

    default_message = "The request cannot be read: check its syntax and its headers."


class UnprocessableRequest(CallerError):
    """It does not fit the documented schema (422)."""

    default_message = "The request does not fit the schema of this operation, which /docs shows."


class NotAuthenticated(CallerError):
    """No key, or none that is known (401)."""

    default_message = "A valid API key is needed in the X-API-Key header."


class NotAllowed(CallerError):
    """The key is known, but not allowed to do this (403)."""

    default_message = "This API key is not allowed to do that. `GET /api/v1/tb/whoami` tells what it is for."


class NotFound(CallerError):
    """No such thing, or not for this caller: the two look the same (404)."""

    default_message = "Nothing is here, or nothing that this key may see: check path and id."


class MethodNotAllowed(CallerError):
    """The path exists, not with this method (405)."""

    default_message = "This path does not take that method; the Allow header names those it takes."


class Conflict(CallerError):
    """It exists already, or changed meanwhile (409)."""

    default_message = "The resource has changed, or is in another state than this needs: read it again first."


class DeviceOffline(GatewayError):
    """The device did not come for its command (409)."""

    default_message = (
        "The device is offline. Try again once it is connected, or store the command (rpc/persistent)."
    )


class DeviceSilent(GatewayError):
    """The device has its command and did not answer in time (504)."""

    default_message = (
        "The device took the command and did not answer in time: look whether it acted before you repeat it."
    )


class PayloadTooLarge(CallerError):
    """More bytes than the limit (413)."""

    default_message = "The request body is too large: send it in parts."


class UnsupportedMediaType(CallerError):
    """A body in a format this operation does not read (415)."""

    default_message = "This operation does not read that content type; /docs names those it reads."


class RateLimited(CallerError):
    """The gateway's own limit is used up (429)."""

    default_message = "Rate limit exceeded."


class Overloaded(GatewayError):
    """The gateway has more work waiting than it will keep (503)."""

    default_message = "The gateway is busy. Try again shortly."


class InternalError(GatewayError):
    """A bug of ours (500)."""

    default_message = "The gateway failed to answer this request. Tell its operator the request_id."


class UpstreamError(GatewayError):
    """ThingsBoard, or the way to it, failed."""

    default_message = (
        "ThingsBoard did not answer as expected. Try again, then tell the operator the request_id."
    )


class UpstreamUnreachable(UpstreamError):
    """Refused, unresolvable, or TLS failed: nothing was sent (503)."""

    default_message = "ThingsBoard cannot be reached. Try again shortly."


class UpstreamReset(UpstreamError):
    """The connection broke after the request may have been sent (503)."""

    default_message = "The connection to ThingsBoard was lost. Try again shortly."


class BreakerOpen(UpstreamError):
    """ThingsBoard timed out repeatedly; it is left alone for a moment (503)."""

    default_message = "ThingsBoard is not answering. Try again shortly."


class UpstreamTimeout(UpstreamError):
    """No answer in time, or ThingsBoard's own `Request timeout` (504)."""

    default_message = "ThingsBoard did not answer in time. Try again, or ask for less at once."


class UpstreamBusy(UpstreamError):
    """ThingsBoard's own rate limit, which all callers of the gateway share (429)."""

    default_message = "ThingsBoard's rate limit is used up. Try again shortly."


class UpstreamGarbled(UpstreamError):
    """An answer that is not what its status promises (502)."""

    default_message = (
        "ThingsBoard sent an answer that cannot be read. Try again, then tell the operator the request_id."
    )


class UpstreamFailed(UpstreamError):
    """ThingsBoard answered with a server error (502)."""

    default_message = (
        "ThingsBoard failed to process the request. Try again, then tell the operator the request_id."
    )


class LoginRefused(UpstreamError):
    """ThingsBoard refuses the gateway's own credentials: never the caller's fault (502)."""

    default_message = "The gateway cannot log in to ThingsBoard. Tell its operator: its log says why."


class ConfigurationError(Exception):
    """Start-up only: the message names the setting and what is wrong with it."""
