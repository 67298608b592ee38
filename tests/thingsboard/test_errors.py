"""What each answer of ThingsBoard means: the error, what it tells the caller, and its note for the log."""

import orjson
import pytest

from app import errors
from app.thingsboard.errors import error_for, keys_in
from app.thingsboard.transport import Answer

REFUSED = "ThingsBoard refused the request without saying why: check names and values."
IN_USE = "It is still in use: an entity view or a calculated field refers to it. Delete that first."
MARKUP = "looks like markup, which ThingsBoard refuses"


def answer(status: int, message: object = "") -> Answer:
    """Return an answer as ThingsBoard writes its errors."""
    return Answer(status, "application/json", orjson.dumps({"status": status, "message": message}))


@pytest.mark.parametrize(
    ("status", "cls", "note"),
    [
        (302, errors.UpstreamGarbled, "upstream_302"),
        (403, errors.NotAllowed, "upstream_403"),
        (404, errors.NotFound, "upstream_404"),
        (408, errors.UpstreamTimeout, "upstream_408"),
        (409, errors.Conflict, "upstream_409"),
        (413, errors.PayloadTooLarge, "upstream_413"),
        (418, errors.UpstreamGarbled, "upstream_418"),
        (429, errors.UpstreamBusy, "upstream_429"),
        (499, errors.UpstreamGarbled, "upstream_499"),
        (500, errors.UpstreamFailed, "upstream_500"),
        (503, errors.UpstreamFailed, "upstream_503"),
        (504, errors.UpstreamTimeout, "upstream_504"),
    ],
)
def test_a_status_is_an_error_and_a_note(status: int, cls: type[errors.GatewayError], note: str) -> None:
    error = error_for(answer(status))
    assert (type(error), error.note) == (cls, note)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "The gateway's ThingsBoard account is not allowed to do that."),
        (404, errors.NotFound.default_message),
        (413, "The data is larger than ThingsBoard takes in one request: send it in parts."),
        (500, errors.UpstreamFailed.default_message),
    ],
)
def test_a_message_says_whose_refusal_it_is(status: int, message: str) -> None:
    assert error_for(answer(status)).message == message


@pytest.mark.parametrize(
    ("text", "message", "details"),
    [
        (
            "Device with such name already exists!",
            "It exists already.",
            {"field": "name", "issue": "is taken"},
        ),
        ("Alarm was already acknowledged!", "It is in that state already.", None),
        ("Alarm was already cleared!", "It is in that state already.", None),
    ],
)
def test_a_conflict_is_one_though_thingsboard_says_400(
    text: str, message: str, details: dict[str, str] | None
) -> None:
    error = error_for(answer(400, text))
    assert (type(error), error.message, error.details) == (errors.Conflict, message, details)
    # Words alone are none: what else they stand in is not known.
    assert type(error_for(answer(500, text))) is errors.UpstreamFailed


def test_thingsboards_own_limit_on_a_query_is_a_timeout() -> None:
    error = error_for(answer(500, "Request timeout"))
    assert (type(error), error.note) == (errors.UpstreamTimeout, "upstream_request_timeout")
    assert type(error_for(answer(400, "Request timeout"))) is errors.InvalidRequest


def test_thingsboards_rate_limit_is_told_apart_from_ours() -> None:
    error = error_for(answer(429))
    assert (error.details, error.retry_after) == ({"limited_by": "thingsboard"}, 1.0)


@pytest.mark.parametrize(
    ("text", "field", "issue"),
    [
        ("Validation error: name is malformed", "name", MARKUP),
        (
            "Validation error: label length must be equal or less than 255",
            "label",
            "is longer than 255 characters",
        ),
        ("Validation error: additionalInfo is malformed", "additional_info", MARKUP),
        ("Validation error: key is malformed", "key", MARKUP),
    ],
)
def test_text_that_was_refused_is_named(text: str, field: str, issue: str) -> None:
    error = error_for(answer(400, text))
    assert (type(error), error.message) == (errors.InvalidRequest, f"{field}: {issue}")
    assert (error.details, error.note) == ({"field": field, "issue": issue}, "upstream_400")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Can't delete device that has entity views!", IN_USE),
        ("Device cannot be deleted: it is referenced", IN_USE),
        ("Something else", REFUSED),
        ("surname is malformed", REFUSED),
    ],
)
def test_other_refusals_are_in_our_own_words(text: str, message: str) -> None:
    error = error_for(answer(400, text))
    assert (type(error), error.message) == (errors.InvalidRequest, message)
    assert (error.details, error.note) == (None, "upstream_400")


@pytest.mark.parametrize(
    "found",
    [
        Answer(400, "text/plain", b"ALREADY exists"),
        Answer(400, "text/plain", b"\xff already exists"),
        Answer(400, "text/plain", b"already exists".rjust(500)),
        answer(400, ["already exists"]),
    ],
    ids=["bare text", "not UTF-8", "as far as it is read", "a list"],
)
def test_what_it_says_is_found_in_whatever_form(found: Answer) -> None:
    assert type(error_for(found)) is errors.Conflict


@pytest.mark.parametrize(
    "found",
    [
        Answer(400, "text/plain", b"already exists".rjust(501)),
        Answer(400, "text/plain", b""),
        Answer(400, "application/json", b"already exists"),
        Answer(400, "application/json", b'{"error": "already exists"}'),
        Answer(400, "application/json", b'["already exists"]'),
    ],
    ids=["far behind", "nothing", "no JSON", "no message", "no object"],
)
def test_what_cannot_be_read_is_a_refusal_without_a_reason(found: Answer) -> None:
    error = error_for(found)
    assert (type(error), error.message) == (errors.InvalidRequest, REFUSED)


@pytest.mark.parametrize("field", ["key", "value"])
def test_a_key_or_a_value_is_named_by_where_the_caller_wrote_it(field: str) -> None:
    refused = error_for(answer(400, f"Validation error: {field} is malformed"))
    with pytest.raises(errors.InvalidRequest) as caught, keys_in("attributes"):
        raise refused
    issue = f"a {field} {MARKUP}"
    assert caught.value.message == f"attributes: {issue}"
    assert caught.value.details == {"field": "attributes", "issue": issue}


@pytest.mark.parametrize("text", ["Validation error: name is malformed", "Something else"])
def test_other_refusals_of_the_same_call_stay_as_they_are(text: str) -> None:
    refused, same = error_for(answer(400, text)), error_for(answer(400, text))
    with pytest.raises(errors.InvalidRequest) as caught, keys_in("attributes"):
        raise refused
    assert (caught.value.message, caught.value.details) == (same.message, same.details)
