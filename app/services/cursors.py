"""Where the next page of a query begins, as opaque text that fits only the query it came from."""

import binascii
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import orjson

from app.errors import InvalidRequest
from app.times import EARLIEST, LATEST

VERSION = 1
Order = Literal["ASC", "DESC"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """The fixed range and order of a query, and how far it has been answered.

    `positions` has a moment for each key that still has points: the first one to read when ascending, the end
    (exclusive) of what is left when descending. An aggregate has one position, `boundary`, for all its keys.
    """

    digest: str
    start: int
    end: int
    order: Order
    positions: dict[str, int] | None = None
    boundary: int | None = None

    def encode(self) -> str:
        """Return it as text for an answer."""
        fields = {
            "v": VERSION,
            "q": self.digest,
            "r": [self.start, self.end],
            "o": self.order,
            "p": self.positions,
            "b": self.boundary,
        }
        return urlsafe_b64encode(orjson.dumps(fields)).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Read a cursor that a caller sent back.

        Raises:
            InvalidRequest: it is none of ours.
        """
        try:
            fields = orjson.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (binascii.Error, ValueError):
            raise bad_cursor("is not a cursor of this gateway") from None
        if not _is_whole(fields):
            raise bad_cursor("is not a cursor of this gateway")
        start, end = fields["r"]
        return cls(fields["q"], start, end, fields["o"], fields["p"], fields["b"])


def _is_whole(fields: Any) -> TypeGuard[dict[str, Any]]:
    if (
        not isinstance(fields, dict)
        or set(fields) != {"v", "q", "r", "o", "p", "b"}
        or fields["v"] != VERSION
    ):
        return False
    span, positions, boundary = fields["r"], fields["p"], fields["b"]
    if not isinstance(span, list) or len(span) != 2 or not all(map(_is_time, span)):  # noqa: PLR2004 - a pair
        return False
    if (
        not isinstance(fields["q"], str)
        or fields["o"] not in ("ASC", "DESC")
        or (positions is None) == (boundary is None)
    ):
        return False
    if positions is not None and not isinstance(positions, dict):
        return False
    moments = [boundary] if positions is None else positions.values()
    return all(_is_time(moment) and span[0] <= moment <= span[1] for moment in moments)


def _is_time(value: Any) -> bool:
    return type(value) is int and EARLIEST <= value <= LATEST


def digest_of(*parts: Any) -> str:
    """Return a short fingerprint of what a cursor belongs to."""
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:16]


def bad_cursor(issue: str) -> InvalidRequest:
    """Say what is wrong with a cursor."""
    return InvalidRequest(f"cursor: {issue}", details={"field": "cursor", "issue": issue})
