"""What will go one day: declared on its route, told in the document and on every answer of the route.

docs/versioning.md has the policy. `Deprecation` is RFC 9745, `Sunset` is RFC 8594.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from typing import Any

from starlette.types import Scope

from app.context import context_of

#: Between `since` and `sunset`, at least.
NOTICE = timedelta(days=180)
FIELD = "x-deprecations"
#: Read by tools that compare documents: what goes after this date breaks no promise.
SUNSET_FIELD = "x-sunset"

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Deprecation:
    """An operation, or one of its query parameters, that is to go.

    Args:
        since: from when callers should not begin to use it.
        sunset: when it may be gone.
        instead: a sentence for callers that says what to use.
        parameter: name of the query parameter; None: the whole operation.
    """

    since: date
    sunset: date
    instead: str
    parameter: str | None = None

    def __post_init__(self) -> None:
        if self.sunset - self.since < NOTICE:
            raise ValueError(f"sunset: must be {NOTICE.days} days after since, at least")

    def headers(self, page: str) -> Headers:
        """Return what an answer carries; `page` describes the operation."""
        return [
            (b"deprecation", f"@{_midnight(self.since).timestamp():.0f}".encode()),
            (b"sunset", format_datetime(_midnight(self.sunset), usegmt=True).encode()),
            (b"link", f'<{page}>; rel="deprecation"; type="text/html"'.encode()),
        ]


def deprecates(*deprecations: Deprecation) -> dict[str, Any]:
    """Declare them, as part of a route's `openapi_extra` beside the scopes."""
    return {FIELD: deprecations}


def announce(scope: Scope, headers: Mapping[str | None, Headers], given: Collection[str]) -> None:
    """Put the headers of the first deprecation that concerns this request on whatever answers it.

    Args:
        headers: those of each deprecated parameter; None stands for the operation.
        given: names of the parameters in the query.
    """
    for parameter, told in headers.items():
        if parameter is None or parameter in given:
            found = context_of(scope).response_headers
            # What the direct way into a route hands on to FastAPI comes here twice.
            found += [header for header in told if header not in found]
            return


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
