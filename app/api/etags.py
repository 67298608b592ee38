"""Weak entity tags: an answer that the caller has already is a 304 without a body.

A 304 saves the transfer and the caller's work, not ThingsBoard's: the tag is made of what was read now.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

NOT_MODIFIED = 304
#: Hexadecimal digits. A device chooses its values: shorter or weaker sums could be made to collide.
TAG_LENGTH = 32
#: A browser may keep the answer if it asks each time whether it still holds; nobody in between may.
CACHE_CONTROL = "private, no-cache"


def tag_of(content: bytes | memoryview) -> str:
    """Return the opaque part of an entity tag, in its quotes."""
    return f'"{hashlib.sha256(content).hexdigest()[:TAG_LENGTH]}"'


def holds(if_none_match: bytes, tag: str) -> bool:
    """Tell whether `If-None-Match` (RFC 9110, 13.1.2) names the tag, in the weak comparison."""
    # A tag cannot hold a quote, so that the quoted one is found only where it stands in the list; whether
    # `W/` stands in front of it makes no difference.
    return if_none_match.strip() == b"*" or tag.encode() in if_none_match


class TaggedAnswer(Response):
    """A JSON answer with its tag, or a 304 when the request names this tag."""

    def __init__(self, body: bytes, tag: str, headers: Mapping[str, str]) -> None:
        self.tag = tag
        self.kept = {"ETag": f"W/{tag}", "Cache-Control": CACHE_CONTROL, **headers}
        super().__init__(body, media_type="application/json", headers=self.kept)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request of this scope."""
        for name, value in scope["headers"]:
            if name == b"if-none-match" and holds(value, self.tag):
                return await Response(status_code=NOT_MODIFIED, headers=self.kept)(scope, receive, send)
        return await super().__call__(scope, receive, send)


def revalidated(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Declare the answers of a route that answers with a tag, as `responses`."""
    return {200: {"model": model}, NOT_MODIFIED: {}}
