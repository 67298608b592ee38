"""From what ThingsBoard answers to what we raise. Upstream text is read here and goes no further."""

import orjson

from app import errors
from app.thingsboard.transport import Answer

#: ThingsBoard says 400 to these; they are conflicts (recordings devices.json, facts on alarms).
CONFLICT_PHRASES = ("already exists", "already acknowledged", "already cleared")
#: ThingsBoard's own limit on one query: 500 with this text.
TIMEOUT_PHRASES = ("request timeout",)

#: Error class of each status that has one. Other 4xx: InvalidRequest; other 5xx: UpstreamFailed.
BY_STATUS: dict[int, type[errors.GatewayError]] = {
    403: errors.NotAllowed,
    404: errors.NotFound,
    408: errors.UpstreamTimeout,
    409: errors.Conflict,
    413: errors.PayloadTooLarge,
    429: errors.UpstreamBusy,
    504: errors.UpstreamTimeout,
}

MESSAGES: dict[type[errors.GatewayError], str] = {
    errors.NotAllowed: "The gateway's ThingsBoard account is not allowed to do that.",
    errors.InvalidRequest: "ThingsBoard refused the request as not valid.",
    errors.PayloadTooLarge: "The data is larger than ThingsBoard takes in one request.",
}
#: ThingsBoard sends no Retry-After; its buckets refill continuously.
BUSY_RETRY_AFTER_SECONDS = 1.0


def upstream_text(answer: Answer) -> str:
    """Return the message in an error body, lower case: JSON, bare text or nothing, all occur."""
    if answer.content_type == "application/json":
        try:
            message = orjson.loads(answer.body)["message"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return ""
        return str(message).lower()
    return answer.body[:500].decode("utf-8", "replace").lower()


def error_for(answer: Answer) -> errors.GatewayError:
    """Return the error that an answer outside 2xx means."""
    text = upstream_text(answer)
    status = answer.status
    if status == 400 and any(phrase in text for phrase in CONFLICT_PHRASES):  # noqa: PLR2004 - HTTP status
        return errors.Conflict("It exists already." if "exists" in text else "It is in that state already.")
    if status == 500 and any(phrase in text for phrase in TIMEOUT_PHRASES):  # noqa: PLR2004 - HTTP status
        return errors.UpstreamTimeout(note="upstream_request_timeout")
    if status == 429:  # noqa: PLR2004 - HTTP status
        return errors.UpstreamBusy(
            details={"limited_by": "thingsboard"}, retry_after=BUSY_RETRY_AFTER_SECONDS, note="upstream_429"
        )
    cls = BY_STATUS.get(status)
    if cls is None:
        if 300 <= status < 400:  # noqa: PLR2004 - HTTP redirects: only a login page or a wrong TB_HOST redirects
            return errors.UpstreamGarbled(note=f"upstream_{status}")
        cls = errors.InvalidRequest if status < 500 else errors.UpstreamFailed  # noqa: PLR2004 - HTTP status
    return cls(MESSAGES.get(cls), note=f"upstream_{status}")
