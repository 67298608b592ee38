"""The success envelope around every JSON answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from app.api.etags import TaggedAnswer, tag_of
from app.thingsboard.pages import Page
from app.times import now_ms

BEFORE_TIMESTAMP = b'{"status":"success","timestamp":'


def success(
    payload: Mapping[str, Any],
    *,
    status_code: int = 200,
    status: str = "success",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer `{"status","timestamp", ...payload}`."""
    body = orjson.dumps({"status": status, "timestamp": now_ms(), **payload})
    return Response(
        body,
        status_code=status_code,
        media_type="application/json",
        headers=dict(headers) if headers else None,
    )


def tagged(payload: Mapping[str, Any], *, age: float | None = None) -> Response:
    """Answer as `success` does, with an entity tag over the payload; the time stamp is no part of it.

    Args:
        age: seconds since ThingsBoard was asked, if that was not for this request.
    """
    body = orjson.dumps({"status": "success", "timestamp": now_ms(), **payload})
    after_timestamp = body.index(b",", len(BEFORE_TIMESTAMP))
    return TaggedAnswer(body, tag_of(memoryview(body)[after_timestamp:]), aged(age))


def aged(age: float | None) -> dict[str, str]:
    """Return the header that tells an answer's age (RFC 9111, 5.1), if it has one."""
    return {} if age is None else {"Age": str(int(age))}


def paged(page: Page, *, number: int, size: int) -> Response:
    """Answer a page of ThingsBoard objects, unchanged; who shares the page shares its text and its tag."""
    if page.text is None or page.text[:2] != (number, size):
        whole = orjson.dumps({"data": page.items, "pagination": _pagination(page, number, size)})
        after_timestamp = b"," + memoryview(whole)[1:]
        page.text = number, size, after_timestamp, tag_of(after_timestamp)
    *_, after_timestamp, tag = page.text
    return TaggedAnswer(b"%b%d%b" % (BEFORE_TIMESTAMP, now_ms(), after_timestamp), tag, {})


def paged_locally(items: Sequence[dict[str, Any]], *, number: int, size: int) -> Response:
    """Cut a page out of a list that ThingsBoard gives whole."""
    pages = -(-len(items) // size)
    cut = list(items[number * size : (number + 1) * size])
    return paged(Page(cut, pages, len(items), number + 1 < pages), number=number, size=size)


def _pagination(page: Page, number: int, size: int) -> dict[str, Any]:
    return {
        "page": number,
        "page_size": size,
        "total_pages": page.total_pages,
        "total_elements": page.total_elements,
        "has_next": page.has_next,
    }
