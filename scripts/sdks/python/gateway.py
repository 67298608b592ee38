"""What generated code lacks: typed errors, patience with rate limits, pages as one sequence, live events."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar
from urllib.parse import quote

import httpx

from .api.alarms import AlarmsApi, AsyncAlarmsApi
from .api.assets import AssetsApi, AsyncAssetsApi
from .api.attributes import AsyncAttributesApi, AttributesApi
from .api.devices import AsyncDevicesApi, DevicesApi
from .api.health import AsyncHealthApi, HealthApi
from .api.keys import AsyncKeysApi, KeysApi
from .api.relations import AsyncRelationsApi, RelationsApi
from .api.rpc import AsyncRpcApi, RpcApi
from .api.telemetry import AsyncTelemetryApi, TelemetryApi
from .client import AuthenticatedClient
from .models.live_event_body import LiveEventBody
from .models.pagination import Pagination
from .models.rpc_event import RpcEvent

Item_co = TypeVar("Item_co", covariant=True)
Body = TypeVar("Body")

#: Before a broken stream is opened again, in seconds; doubled each time that it breaks at once.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
EVENTS = frozenset({"telemetry", "attribute", "status", "gap", "gone", "state"})
#: The gateway says something every 15 s on a stream that has no events.
SILENCE_SECONDS = 45.0


class GatewayError(Exception):
    """The gateway refused a call or could not answer it; an `error` event of a stream, too."""

    def __init__(self, status: int, body: dict[str, Any], retry_after: float | None = None) -> None:
        #: HTTP status.
        self.status = status
        #: What went wrong, for programs: `RESOURCE_NOT_FOUND`, `CONFLICT`, ... Empty when a proxy answered.
        self.code = str(body.get("error_code") or "")
        #: What went wrong, for people.
        self.message = str(body.get("message") or "no answer of the gateway itself")
        #: Which field and why, whose limit, what became of a command.
        self.details: dict[str, Any] = body.get("details") or {}
        #: Tell it to the operator.
        self.request_id: str | None = body.get("request_id")
        #: Seconds after which the same call may succeed; None when waiting does not help.
        self.retry_after = retry_after
        super().__init__(f"{status} {self.code}: {self.message}")

    @classmethod
    def of(cls, answer: httpx.Response) -> Self:
        """Return the error that an answer tells of; its body has been read."""
        try:
            body = answer.json()
        except ValueError:
            body = None
        wait = answer.headers.get("Retry-After", "")
        return cls(
            answer.status_code,
            body if isinstance(body, dict) else {},
            float(wait) if wait.isascii() and wait.isdigit() else None,
        )


class _Patience(httpx.Auth):
    """Repeats what a rate limit refused, which has done nothing, and raises what has failed.

    It is an `Auth` because httpx lets that, and nothing else, look at an answer and send the request again.
    """

    def __init__(self, max_wait: float) -> None:
        self._max_wait = max_wait

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        left = self._max_wait
        while (answer := (yield request)).is_error:
            answer.read()
            error, left = self._weigh(answer, left)
            if error is not None:
                raise error
            time.sleep(float(answer.headers["Retry-After"]))

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        left = self._max_wait
        while (answer := (yield request)).is_error:
            await answer.aread()
            error, left = self._weigh(answer, left)
            if error is not None:
                raise error
            await asyncio.sleep(float(answer.headers["Retry-After"]))

    @staticmethod
    def _weigh(answer: httpx.Response, left: float) -> tuple[GatewayError | None, float]:
        """Return the error to raise, or None to wait, and the seconds that may be waited afterwards."""
        error = GatewayError.of(answer)
        # A body that is a stream has been read, and cannot be sent again.
        can_repeat = isinstance(answer.request.stream, httpx.ByteStream)
        wait = error.retry_after
        if error.status != httpx.codes.TOO_MANY_REQUESTS or wait is None or wait > left or not can_repeat:
            return error, left
        return None, left - wait


@dataclass(frozen=True)
class Event(Generic[Body]):
    """One event of a stream: `telemetry`, `attribute`, `status`, `gap`, `gone`, or a command's `state`."""

    type: str
    #: What to give as `last_event_id` to go on behind this event.
    id: str | None
    data: Body


@dataclass
class _Stream(Generic[Body]):
    """Where a stream stands: what arrives becomes events, what breaks becomes a pause."""

    path: str
    query: dict[str, str]
    read: Callable[[dict[str, Any]], Body]
    last_id: str | None
    #: Ends after the event of which this is true.
    is_last: Callable[[Event[Body]], bool]
    is_over: bool = False
    was_open: bool = False
    _rest: bytes = b""
    _pause: float = FIRST_PAUSE

    def request(self) -> dict[str, Any]:
        """Return the request that opens it, or opens it again where it broke."""
        self._rest = b""
        headers = {"Accept": "text/event-stream"}
        if self.last_id is not None:
            headers["Last-Event-ID"] = self.last_id
        timeout = httpx.Timeout(SILENCE_SECONDS)
        call = {"method": "GET", "url": self.path, "params": self.query}
        return {**call, "headers": headers, "timeout": timeout}

    def feed(self, chunk: bytes) -> Iterator[Event[Body]]:
        """Yield the events that are whole now."""
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        for block in blocks:
            lines = (line.partition(": ") for line in block.decode().split("\n"))
            fields = {name: value for name, _, value in lines if name}
            # An id alone marks a place of which there is nothing to tell.
            self.last_id = fields.get("id", self.last_id)
            if "data" not in fields:
                continue
            self._pause = FIRST_PAUSE
            kind = fields.get("event")
            if kind == "error":
                data = json.loads(fields["data"])
                raise GatewayError(int(data.get("status", 500)), data)
            # `closing` and `dropped` (this reader was too slow) end a connection, and the next one goes on;
            # what a later gateway tells besides is not for this version.
            if kind in EVENTS:
                event = Event(kind, fields.get("id"), self.read(json.loads(fields["data"])))
                self.is_over = self.is_last(event)
                yield event

    def pause(self, broken: Exception | None) -> float:
        """Return the seconds to wait before it is opened again; raise what waiting does not mend."""
        is_refused = isinstance(broken, GatewayError) and broken.status < httpx.codes.INTERNAL_SERVER_ERROR
        if broken is not None and (is_refused or not self.was_open):
            raise broken
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause


def _live(
    device_ids: Sequence[str], keys: Sequence[str], last_event_id: str | None, **options: bool
) -> _Stream[LiveEventBody]:
    query = {name: str(value).lower() for name, value in options.items()}
    query["device_ids"] = ",".join(device_ids)
    if keys:
        query["keys"] = ",".join(keys)
    left = len(device_ids)

    def is_last(event: Event[LiveEventBody]) -> bool:
        nonlocal left
        left -= event.type == "gone"
        return left == 0

    return _Stream("/api/v1/tb/telemetry/stream", query, LiveEventBody.from_dict, last_event_id, is_last)


def _states(rpc_id: str) -> _Stream[RpcEvent]:
    path = f"/api/v1/tb/rpc/{quote(rpc_id, safe='')}/events"
    return _Stream(path, {}, _rpc_event, None, lambda event: event.data.is_final)


def _rpc_event(data: dict[str, Any]) -> RpcEvent:
    if "status" not in data:  # `event: gone`
        raise GatewayError(404, {"error_code": "RESOURCE_NOT_FOUND", "message": "The command was deleted."})
    return RpcEvent.from_dict(data)


class Gateway:
    """The gateway, for one key. Threads may share it; it holds connections until it is closed.

    Args:
        base_url: Where the gateway is, such as `https://gateway.example.com`.
        api_key: Sent with every request.
        timeout: Seconds without any byte until a call is given up; commands wait up to 25 s for their device.
        max_wait: Seconds that a call may wait in all when a rate limit refuses it; 0 raises at once.
        verify: As httpx takes it: False, or an `ssl.SSLContext` that knows a certificate of yours.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: float = 60.0,
        max_wait: float = 60.0,
        verify: bool | ssl.SSLContext = True,
    ) -> None:
        self._client = _client(base_url, api_key, timeout, max_wait, verify)
        self.alarms = AlarmsApi(self._client)
        self.assets = AssetsApi(self._client)
        self.attributes = AttributesApi(self._client)
        self.devices = DevicesApi(self._client)
        self.health = HealthApi(self._client)
        self.keys = KeysApi(self._client)
        self.relations = RelationsApi(self._client)
        self.rpc = RpcApi(self._client)
        self.telemetry = TelemetryApi(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.get_httpx_client().close()

    def stream(
        self,
        *device_ids: str,
        keys: Sequence[str] = (),
        attributes: bool = False,
        first_values: bool = True,
        last_event_id: str | None = None,
    ) -> Generator[Event[LiveEventBody], None, None]:
        """Yield what happens to up to 100 devices until all are gone; what breaks goes on where it broke.

        Args:
            device_ids: UUIDs, or `name:` and exact names.
            keys: Of telemetry; all unless given.
            attributes: Tell of attributes, too.
            first_values: Begin with what is the case now.
            last_event_id: `id` of an event: begin behind it.

        Raises:
            GatewayError: The gateway refused; once it has been open, a stream waits for what fails. A 404 may
                come after a break when one of several devices is gone: `details["device_id"]`.
        """
        yield from self._listen(
            _live(device_ids, keys, last_event_id, attributes=attributes, first_values=first_values)
        )

    def stream_rpc(self, rpc_id: str) -> Generator[Event[RpcEvent], None, None]:
        """Yield the states of a stored command until the last one."""
        yield from self._listen(_states(rpc_id))

    def _listen(self, stream: _Stream[Body]) -> Iterator[Event[Body]]:
        while not stream.is_over:
            broken: Exception | None = None
            try:
                with self._client.get_httpx_client().stream(**stream.request()) as answer:
                    stream.was_open = True
                    for chunk in answer.iter_bytes():
                        yield from stream.feed(chunk)
            except (httpx.TransportError, GatewayError) as error:
                broken = error
            if not stream.is_over:
                time.sleep(stream.pause(broken))


class AsyncGateway:
    """`Gateway` for asyncio: the same methods, to be awaited; it belongs to one event loop."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: float = 60.0,
        max_wait: float = 60.0,
        verify: bool | ssl.SSLContext = True,
    ) -> None:
        self._client = _client(base_url, api_key, timeout, max_wait, verify)
        self.alarms = AsyncAlarmsApi(self._client)
        self.assets = AsyncAssetsApi(self._client)
        self.attributes = AsyncAttributesApi(self._client)
        self.devices = AsyncDevicesApi(self._client)
        self.health = AsyncHealthApi(self._client)
        self.keys = AsyncKeysApi(self._client)
        self.relations = AsyncRelationsApi(self._client)
        self.rpc = AsyncRpcApi(self._client)
        self.telemetry = AsyncTelemetryApi(self._client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.get_async_httpx_client().aclose()

    async def stream(
        self,
        *device_ids: str,
        keys: Sequence[str] = (),
        attributes: bool = False,
        first_values: bool = True,
        last_event_id: str | None = None,
    ) -> AsyncGenerator[Event[LiveEventBody], None]:
        """Yield what happens to devices, as `Gateway.stream` does."""
        stream = _live(device_ids, keys, last_event_id, attributes=attributes, first_values=first_values)
        async for event in self._listen(stream):
            yield event

    async def stream_rpc(self, rpc_id: str) -> AsyncGenerator[Event[RpcEvent], None]:
        """Yield the states of a stored command until the last one."""
        async for event in self._listen(_states(rpc_id)):
            yield event

    async def _listen(self, stream: _Stream[Body]) -> AsyncGenerator[Event[Body], None]:
        while not stream.is_over:
            broken: Exception | None = None
            try:
                async with self._client.get_async_httpx_client().stream(**stream.request()) as answer:
                    stream.was_open = True
                    async for chunk in answer.aiter_bytes():
                        for event in stream.feed(chunk):
                            yield event
            except (httpx.TransportError, GatewayError) as error:
                broken = error
            if not stream.is_over:
                await asyncio.sleep(stream.pause(broken))


def _client(
    base_url: str, api_key: str, timeout: float, max_wait: float, verify: bool | ssl.SSLContext
) -> AuthenticatedClient:
    return AuthenticatedClient(
        base_url.rstrip("/"),
        token=api_key,
        prefix="",
        auth_header_name="X-API-Key",
        timeout=httpx.Timeout(timeout),
        verify_ssl=verify,
        httpx_args={"auth": _Patience(max_wait)},
    )


class _Page(Protocol[Item_co]):
    """What every list answers."""

    @property
    def data(self) -> Sequence[Item_co]: ...

    @property
    def pagination(self) -> Pagination: ...


def iterate(list_page: Callable[..., _Page[Item_co]], *owner: str, **query: Any) -> Iterator[Item_co]:
    """Yield what is on all pages of a list: `iterate(gateway.devices.list, page_size=500, active=True)`.

    What is created or deleted meanwhile may be missed or come twice.
    """
    page = 0
    while True:
        answer = list_page(*owner, page=page, **query)
        yield from answer.data
        if not answer.pagination.has_next:
            return
        page += 1


async def iterate_async(
    list_page: Callable[..., Awaitable[_Page[Item_co]]], *owner: str, **query: Any
) -> AsyncIterator[Item_co]:
    """Yield what is on all pages of a list, as `iterate` does."""
    page = 0
    while True:
        answer = await list_page(*owner, page=page, **query)
        for item in answer.data:
            yield item
        if not answer.pagination.has_next:
            return
        page += 1
