"""The one object that all stages of a request share."""

from dataclasses import dataclass, field

from starlette.types import Scope

KEY = "gateway.context"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who holds the API key of this request."""

    id: str
    name: str
    scopes: frozenset[str]


@dataclass(slots=True)
class RequestContext:
    """Made by the first stage, filled by the later ones, gone with the request."""

    request_id: str
    client_address: str = ""
    caller: Caller | None = None
    #: Headers that later stages want on whatever answer leaves, errors included.
    response_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    error_code: str | None = None
    error_note: str | None = None
    rate_limit: dict[str, int] | None = None


def context_of(scope: Scope) -> RequestContext:
    """Return the context that the request-id stage put into this scope."""
    context: RequestContext = scope[KEY]
    return context
