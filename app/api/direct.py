"""The direct way into a route, for what most requests are: well-formed, and without a JSON model as body.

FastAPI walks its routers twice and reads the signatures of a route and its dependencies anew for each
request: 0.2 ms of CPU for a list call. Here both are read once, at start. Whatever is not plain success (no
such path, another method, a value that does not validate) goes FastAPI's way, so that there is one source
of such answers. docs/adr/0007-cost-of-a-call.md has the numbers.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any
from urllib.parse import parse_qsl

from fastapi._compat import ModelField, field_annotation_is_sequence
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel
from starlette.convertors import StringConvertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from app.api.deprecations import announce
from app.api.route import GatewayRoute, check_query, check_scopes

#: Defaults that callers can share, because nobody can change them.
IMMUTABLE = (str, int, float, bool, type(None))


class _NotDirect(Exception):
    """This signature, or this request, is FastAPI's."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A scalar of the query or the path."""

    name: str
    alias: str
    field: ModelField
    is_required: bool
    default: Any

    def read(self, given: dict[str, str]) -> Any:
        """Return the validated value or the default."""
        raw = given.get(self.alias)
        if raw is None:
            if self.is_required:
                raise _NotDirect
            return self.default
        value, errors = self.field.validate(raw)
        if errors:
            raise _NotDirect
        return value


@dataclass(frozen=True, slots=True)
class _Call:
    """A dependency, or at last the endpoint, and where its arguments come from."""

    call: Callable[..., Awaitable[Any]]
    query: tuple[_Parameter, ...]
    path: tuple[_Parameter, ...]
    #: Argument name and number of the call whose result it takes.
    results: tuple[tuple[str, int], ...]
    request_name: str | None


class DirectRoute:
    """One route with its signature read.

    Raises:
        _NotDirect: the signature asks for something that only FastAPI provides.
    """

    def __init__(self, route: GatewayRoute) -> None:
        if route.body_field is not None:
            raise _NotDirect
        self.route = route
        self._calls: list[_Call] = []
        self._add(route.dependant, {})

    def _add(self, dependant: Dependant, known: dict[Any, int]) -> int:
        """Append what `dependant` needs, then itself; return its number."""
        call = dependant.call
        is_plain = (
            dependant.use_cache
            and dependant.concurrency is None
            and not (dependant.header_params or dependant.cookie_params or dependant.body_params)
            and not (dependant.response_param_name or dependant.background_tasks_param_name)
            and not (dependant.security_scopes_param_name or dependant.http_connection_param_name)
        )
        if call is None or not is_plain or not iscoroutinefunction(call):
            raise _NotDirect
        if call in known:
            return known[call]
        results = [(each.name, self._add(each, known)) for each in dependant.dependencies]
        self._calls.append(
            _Call(
                call,
                tuple(map(_parameter, dependant.query_params)),
                tuple(map(_parameter, dependant.path_params)),
                tuple((name, number) for name, number in results if name is not None),
                dependant.request_param_name,
            )
        )
        known[call] = len(self._calls) - 1
        return known[call]

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer the request. False: nothing has been done, and FastAPI must answer."""
        if self.route.deprecations:
            announce(scope, self.route.deprecations, Request(scope).query_params)
        check_scopes(scope, self.route.scopes)
        query: dict[str, str] = {}
        if scope["query_string"]:
            pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            check_query(pairs, self.route.query_names)
            query = dict(pairs)
        try:
            arguments = self._read(query, scope["path_params"])
        except _NotDirect:
            return False
        response = await self._run(arguments, Request(scope, receive, send))
        await response(scope, receive, send)
        return True

    def _read(self, query: dict[str, str], path: dict[str, str]) -> list[dict[str, Any]]:
        """Validate everything before anything is called."""
        arguments = []
        for call in self._calls:
            values = {parameter.name: parameter.read(query) for parameter in call.query}
            for parameter in call.path:
                values[parameter.name] = parameter.read(path)
            arguments.append(values)
        return arguments

    async def _run(self, arguments: list[dict[str, Any]], request: Request) -> Response:
        results: list[Any] = []
        for call, values in zip(self._calls, arguments, strict=True):
            if call.request_name is not None:
                values[call.request_name] = request
            for name, number in call.results:
                values[name] = results[number]
            results.append(await call.call(**values))
        response: Response = results[-1]
        return response


def _parameter(field: ModelField) -> _Parameter:
    annotation = field.field_info.annotation
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    is_scalar = not is_model and not field_annotation_is_sequence(annotation)
    is_required = field.field_info.is_required()
    default = None if is_required else field.get_default()
    if (
        not is_scalar
        or not isinstance(default, IMMUTABLE)
        or field.validation_alias not in {None, field.alias}
    ):
        raise _NotDirect
    return _Parameter(field.name, field.alias, field, is_required, default)


class RouteIndex:
    """Finds the direct route of a request: by its whole path, or among those with as many segments."""

    def __init__(self) -> None:
        # None: the path is known, but its route is FastAPI's.
        self._exact: dict[tuple[str, str], DirectRoute | None] = {}
        self._patterns: dict[tuple[str, int], list[tuple[GatewayRoute, DirectRoute | None]]] = {}

    def fill(self, routes: Iterable[BaseRoute]) -> None:
        """Read the routes in their order, which decides where two could match."""
        for route in routes:
            if not isinstance(route, GatewayRoute):
                continue
            if not all(isinstance(each, StringConvertor) for each in route.param_convertors.values()):
                raise TypeError(f"{route.path}: only plain path parameters are indexed")
            direct = _direct_or_none(route)
            for method in route.methods or ():
                if route.param_convertors:
                    self._patterns.setdefault((method, route.path.count("/")), []).append((route, direct))
                elif self._match(method, route.path) is None:
                    self._exact.setdefault((method, route.path), direct)

    def find(self, scope: Scope) -> DirectRoute | None:
        """Return who answers, with its path parameters in the scope; None: FastAPI finds out."""
        method, path = scope["method"], scope["path"]
        parameters: dict[str, str] = {}
        if (method, path) in self._exact:
            direct = self._exact[method, path]
        else:
            direct, parameters = self._match(method, path) or (None, parameters)
        if direct is not None:
            scope["path_params"], scope["route"] = parameters, direct.route
        return direct

    def template_of(self, scope: Scope) -> str | None:
        """Return the template of the route that this request would reach, or None."""
        method, path = scope.get("method", ""), scope["path"]
        if (method, path) in self._exact:
            return str(path)
        for route, _ in self._patterns.get((method, path.count("/")), ()):
            if route.path_regex.match(path) is not None:
                return route.path_format
        return None

    def _match(self, method: str, path: str) -> tuple[DirectRoute | None, dict[str, str]] | None:
        for route, direct in self._patterns.get((method, path.count("/")), ()):
            match = route.path_regex.match(path)
            if match is not None:
                return direct, match.groupdict()
        return None


def _direct_or_none(route: GatewayRoute) -> DirectRoute | None:
    try:
        return DirectRoute(route)
    except _NotDirect:
        return None
