"""From what ThingsBoard answers to what we raise. Upstream text is read here and goes no further."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import orjson

from app import errors
from app.thingsboard.transport import Answer

#: ThingsBoard says 400 to these; they are conflicts (recordings devices.json, facts on alarms).
CONFLICT_PHRASES = ("already exists", "already acknowledged", "already cleared")
#: ThingsBoard's own limit on one query: 500 with this text.
TIMEOUT_PHRASES = ("request timeout",)

#: What it says of a device that an entity view or a calculated field refers to (400).
IN_USE_PHRASES = ("can't delete", "cannot be deleted")
#: Its check of text, `Validation error: name is malformed`. Only these words and the number are passed on.
FAULTY_TEXT = re.compile(
    r"\b(?P<field>key|value|name|label|type|additionalinfo) "
    r"(?:is (?P<markup>malformed)|length must be equal or less than (?P<limit>\d{1,9}))"
)
FIELDS = {"additionalinfo": "additional_info"}
MARKUP = "looks like markup, which ThingsBoard refuses"

#: Error class of each status that has one. Other 5xx: UpstreamFailed; anything else: UpstreamGarbled.
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
    errors.InvalidRequest: "ThingsBoard refused the request without saying why: check names and values.",
    errors.PayloadTooLarge: "The data is larger than ThingsBoard takes in one request: send it in parts.",
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
        if "exists" in text:
            return errors.Conflict("It exists already.", details={"field": "name", "issue": "is taken"})
        return errors.Conflict("It is in that state already.")
    if status == 400:  # noqa: PLR2004 - HTTP status
        return _refusal(text)
    if status == 500 and any(phrase in text for phrase in TIMEOUT_PHRASES):  # noqa: PLR2004 - HTTP status
        return errors.UpstreamTimeout(note="upstream_request_timeout")
    if status == 429:  # noqa: PLR2004 - HTTP status
        return errors.UpstreamBusy(
            details={"limited_by": "thingsboard"}, retry_after=BUSY_RETRY_AFTER_SECONDS, note="upstream_429"
        )
    cls = BY_STATUS.get(status)
    if cls is None:
        # Redirects to a login page, statuses of a proxy: ThingsBoard itself says none of these.
        cls = errors.UpstreamGarbled if status < 500 else errors.UpstreamFailed  # noqa: PLR2004 - HTTP status
    return cls(MESSAGES.get(cls), note=f"upstream_{status}")


def _refusal(text: str) -> errors.InvalidRequest:
    """Say in our own words which text ThingsBoard refused, as far as it tells."""
    note = "upstream_400"
    fault = FAULTY_TEXT.search(text)
    if fault is not None:
        field = FIELDS.get(fault["field"], fault["field"])
        issue = MARKUP if fault["markup"] else f"is longer than {fault['limit']} characters"
        return errors.InvalidRequest(f"{field}: {issue}", details={"field": field, "issue": issue}, note=note)
    if any(phrase in text for phrase in IN_USE_PHRASES):
        return errors.InvalidRequest(
            "It is still in use: an entity view or a calculated field refers to it. Delete that first.",
            note=note,
        )
    return errors.InvalidRequest(MESSAGES[errors.InvalidRequest], note=note)


@contextmanager
def keys_in(field: str) -> Iterator[None]:
    """Name the part of the caller's request that holds the key, or value, which ThingsBoard refused."""
    try:
        yield
    except errors.InvalidRequest as error:
        details = error.details or {}
        if details.get("field") in {"key", "value"}:
            issue = f"a {details['field']} {details['issue']}"
            error.message, error.details = f"{field}: {issue}", {"field": field, "issue": issue}
        raise
