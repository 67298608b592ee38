"""Our route class: what is checked on every matched route before its code runs."""

from collections.abc import Callable, Coroutine, Iterable
from functools import cached_property
from typing import Any

from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute, APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from app.api.deprecations import FIELD, Headers, announce
from app.context import context_of
from app.errors import InvalidRequest, NotAllowed, UnprocessableRequest, UnsupportedMediaType
from app.security_events import note

PREFIX = "/api/v1/tb"
SCOPES_FIELD = "x-required-scopes"
#: Of all bodies but uploads. A million unknown fields in 16 MiB would stop everybody else for 15 s.
MOST_MEMBERS = 20_000


def requires(*scopes: str) -> dict[str, Any]:
    """Declare the scopes of a route, as `openapi_extra`: the document shows what the check enforces."""
    return {SCOPES_FIELD: list(scopes)}


class GatewayRoute(APIRoute):
    """Check the caller's scopes and the names in the query on the matched route, never on the raw path."""

    @cached_property
    def scopes(self) -> frozenset[str]:
        """What a key must be allowed to do."""
        return frozenset((self.openapi_extra or {}).get(SCOPES_FIELD, ()))

    @cached_property
    def query_names(self) -> frozenset[str]:
        """The query parameters that this route knows."""
        return frozenset(
            parameter.alias
            for parameter in get_flat_params(self.dependant)
            if isinstance(parameter.field_info, Query)
        )

    @cached_property
    def deprecations(self) -> dict[str | None, Headers]:
        """What answers carry because of deprecated parameters, or (None) of the operation itself."""
        declared = (self.openapi_extra or {}).get(FIELD, ())
        return {
            each.parameter: each.headers(f"/docs#/{self.tags[0]}/{self.operation_id}") for each in declared
        }

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler in the checks."""
        handler = super().get_route_handler()
        takes_json = self.body_field is not None

        async def checked(request: Request) -> Response:
            if self.deprecations:
                announce(request.scope, self.deprecations, request.query_params)
            check_scopes(request.scope, self.scopes)
            check_query(request.query_params.multi_items(), self.query_names)
            if takes_json:
                check_content_type(request)
                check_members(await request.body())
            return await handler(request)

        return checked


def versioned_router(tag: str) -> APIRouter:
    """Return a router for one resource, below the versioned prefix."""
    # A missing content type counts as JSON: a key in a header cannot be sent by a foreign form.
    return APIRouter(prefix=PREFIX, route_class=GatewayRoute, tags=[tag], strict_content_type=False)


def check_scopes(scope: Scope, scopes: frozenset[str]) -> None:
    """Refuse a key that lacks one of the scopes, and name it."""
    caller = context_of(scope).caller
    granted = caller.scopes if caller is not None else frozenset()
    if not scopes <= granted:
        missing = sorted(scopes - granted)
        note("scope_denied", missing_scopes=missing)
        raise NotAllowed(
            f"This API key lacks the scope {missing[0]}: ask for a key that has it.",
            details={"missing_scopes": missing, "required_scopes": sorted(scopes)},
        )


def check_query(pairs: Iterable[tuple[str, str]], allowed: frozenset[str]) -> None:
    """Refuse unknown and repeated parameters by name: a typo must not become a default."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name not in allowed:
            issue = f"unknown query parameter; known are {', '.join(sorted(allowed)) or 'none'}"
            # `?=1` has a parameter without a name; an answer that names nothing helps nobody.
            raise _bad_query(name or "query", issue if name else f"a parameter without a name: {issue}")
        if name in seen:
            raise _bad_query(name, "given more than once")
        seen.add(name)


def check_content_type(request: Request) -> None:
    """Refuse bodies that are not JSON; a missing content type counts as JSON."""
    given = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if given != "application/json" and not given.endswith("+json"):
        raise UnsupportedMediaType(
            "This operation reads application/json.",
            details={"field": "Content-Type", "issue": "must be application/json"},
        )


def check_members(body: bytes) -> None:
    """Refuse a JSON body of very many values before it is read; those in texts with commas count as well."""
    if len(body) > MOST_MEMBERS and body.count(b",") >= MOST_MEMBERS:
        issue = f"holds more than {MOST_MEMBERS} values"
        raise InvalidRequest(f"body: {issue}", details={"field": "body", "issue": issue})


def _bad_query(name: str, issue: str) -> UnprocessableRequest:
    field = name[:100]
    return UnprocessableRequest(
        f"{field}: {issue}",
        details={"field": field, "issue": issue, "errors": [{"in": "query", "field": field, "issue": issue}]},
    )
