"""A router by path segments, and the call that a route is given.

Starlette's router tries its routes one after the other; with a hundred of them that costs more than the
whole answer, and benchmarks stand on this server.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

import orjson

from tb_simulator.answers import Answer, ApiError, bad_request, server_error

if TYPE_CHECKING:
    from tb_simulator.auth import Principal
    from tb_simulator.world import World

SYS_ADMIN, TENANT_ADMIN, CUSTOMER_USER = "SYS_ADMIN", "TENANT_ADMIN", "CUSTOMER_USER"
ANYONE = frozenset({SYS_ADMIN, TENANT_ADMIN, CUSTOMER_USER})
TENANT = frozenset({TENANT_ADMIN})
MEMBERS = frozenset({TENANT_ADMIN, CUSTOMER_USER})
OPEN: frozenset[str] = frozenset()

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


@dataclass(slots=True)
class Call:
    """One HTTP call: what was asked, by whom, in which world. Lives as long as the call."""

    world: "World"
    method: str
    path: str
    params: dict[str, str]
    query_string: bytes
    body: bytes
    host: str
    caller: "Principal | None"
    receive: Receive | None = None
    _query: dict[str, list[str]] | None = field(default=None)

    async def hung_up(self) -> None:
        """Return once the caller has closed the connection."""
        if self.receive is None:
            await asyncio.get_running_loop().create_future()
        elif (await self.receive())["type"] != "http.disconnect":
            await self.hung_up()

    @property
    def user(self) -> "Principal":
        """The authenticated caller; only open routes have none."""
        if self.caller is None:
            raise ApiError(401, "Authentication failed", 10)
        return self.caller

    @property
    def query(self) -> dict[str, list[str]]:
        """The query parameters, each with all its values."""
        if self._query is None:
            text = self.query_string.decode("latin-1")
            if "%00" in text:
                # PostgreSQL cannot take it.
                raise server_error("could not execute statement")
            self._query = parse_qs(text, keep_blank_values=True) if text else {}
        return self._query

    def arg(self, name: str) -> str | None:
        """Return the first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else None

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean query parameter."""
        value = self.arg(name)
        return default if value is None else value.lower() == "true"

    def number(self, name: str, default: int | None = None, *, kind: str = "Long") -> int | None:
        """Return a numeric query parameter.

        Raises:
            ApiError: 400 in Spring's words (telemetry.json, "history startTs not a number").
        """
        value = self.arg(name)
        if value is None or value == "":
            return default
        try:
            return int(value)
        except ValueError:
            raise bad_request(
                f"Method parameter '{name}': Failed to convert value of type 'java.lang.String' to required "
                f"type 'java.lang.{kind}'; For input string: \"{value}\"",
            ) from None

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            ApiError: the 500 that malformed JSON is to ThingsBoard's entity routes (devices.json).
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise server_error(jackson_message(self.body)) from None

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object, or raise the 500 of Jackson."""
        value = self.json()
        if not isinstance(value, dict):
            raise server_error("JSON parse error: Cannot deserialize value from non-object")
        return value


def jackson_message(body: bytes) -> str:
    """Return Jackson's complaint about malformed JSON, exact for the recorded case."""
    text = body.decode("utf-8", "replace").strip()
    if not text:
        return "Required request body is missing"
    if text.startswith("{") and len(text) > 1 and text[1] not in '"} \n\t':
        what = "was expecting double-quote to start field name"
        return f"JSON parse error: Unexpected character ('{text[1]}' (code {ord(text[1])})): {what}"
    return "JSON parse error: Unexpected end-of-input"


Handler = Callable[[Call], Answer | Awaitable[Answer]]


class Route(NamedTuple):
    """A method and path template with its handler and the authorities it serves."""

    method: str
    path: str
    handler: Handler
    who: frozenset[str]
    limited: bool


class Routes:
    """The routes of one module, collected by decorators."""

    def __init__(self) -> None:
        self.table: list[Route] = []

    def add(
        self, method: str, *paths: str, who: frozenset[str] = MEMBERS, limited: bool = True
    ) -> Callable[[Handler], Handler]:
        """Register a handler; ``who`` are the authorities served, ``limited`` counts against the tenant."""

        def register(handler: Handler) -> Handler:
            self.table.extend(Route(method, path, handler, who, limited) for path in paths)
            return handler

        return register

    def get(self, *paths: str, who: frozenset[str] = MEMBERS) -> Callable[[Handler], Handler]:
        """Register a GET handler."""
        return self.add("GET", *paths, who=who)

    def post(self, *paths: str, who: frozenset[str] = MEMBERS) -> Callable[[Handler], Handler]:
        """Register a POST handler."""
        return self.add("POST", *paths, who=who)

    def delete(self, *paths: str, who: frozenset[str] = MEMBERS) -> Callable[[Handler], Handler]:
        """Register a DELETE handler."""
        return self.add("DELETE", *paths, who=who)


class _Leaf(NamedTuple):
    route: Route
    names: tuple[str, ...]
    template: tuple[str | None, ...]


class _Node:
    __slots__ = ("children", "leaves", "wildcard")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.wildcard: _Node | None = None
        self.leaves: dict[str, _Leaf] = {}


_MASKED = {"id", "token", "rpcId", "customerId", "deviceId", "userId"}


class Match(NamedTuple):
    """What the router found: no route means 404, or 405 when ``path_known``."""

    route: Route | None
    params: dict[str, str]
    label: str
    path_known: bool


class Router:
    """Finds the route of a path; literal segments win over parameters."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            self._insert(route)

    def _insert(self, route: Route) -> None:
        node, names, template = self._root, [], []
        for segment in route.path.strip("/").split("/"):
            if segment.startswith("{"):
                name = segment[1:-1]
                names.append(name)
                template.append("{id}" if name in _MASKED else None)
                node.wildcard = node.wildcard or _Node()
                node = node.wildcard
            else:
                template.append(segment)
                node = node.children.setdefault(segment, _Node())
        node.leaves[route.method] = _Leaf(route, tuple(names), tuple(template))

    def match(self, method: str, path: str) -> Match:
        """Return the route for a call, its parameters, and its label with ids replaced by ``{id}``."""
        segments = path.strip("/").split("/")
        values: list[str] = []
        node = self._walk(self._root, segments, 0, values)
        leaf = node.leaves.get(method) if node else None
        if leaf is None:
            return Match(None, {}, f"{method} {UUID_TEXT.sub('{id}', path)}", node is not None)
        shown = [t if t is not None else s for t, s in zip(leaf.template, segments, strict=True)]
        params = dict(zip(leaf.names, values, strict=True))
        return Match(leaf.route, params, f"{method} /{'/'.join(shown)}", True)

    def _walk(self, node: _Node, segments: list[str], at: int, values: list[str]) -> _Node | None:
        if at == len(segments):
            return node if node.leaves else None
        child = node.children.get(segments[at])
        found = self._walk(child, segments, at + 1, values) if child else None
        if found is None and node.wildcard and segments[at]:
            values.append(segments[at])
            found = self._walk(node.wildcard, segments, at + 1, values)
            if found is None:
                values.pop()
        return found
