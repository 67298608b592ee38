"""One call to ThingsBoard: authorised, bounded, retried where that is safe, and its failures named."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import orjson

from app.context import CURRENT, PATIENCE, RESENT, TURN
from app.deadline import DEADLINE, out_of_time, time_left
from app.errors import (
    GatewayError,
    LoginRefused,
    NotAllowed,
    NotFound,
    UpstreamError,
    UpstreamGarbled,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from app.thingsboard.breaker import Breaker
from app.thingsboard.errors import error_for
from app.thingsboard.fair_queue import FairQueue, Turn
from app.thingsboard.pages import Page, pass_page
from app.thingsboard.retry import ATTEMPTS, RetryBudget, delay_before
from app.thingsboard.shared_reads import Call, Read, SharedReads
from app.thingsboard.tokens import UNAUTHORISED, Credential
from app.thingsboard.transport import Answer, Transport

#: ThingsBoard's rate limit. It decides on that before it does anything, so nothing was carried out.
BUSY = 429

T = TypeVar("T")
Query = Mapping[str, str | int | bool | Sequence[str] | None]


class Connection:
    """Shared by all callers of one upstream. Cancelling a call cancels its request to ThingsBoard.

    Args:
        queue: decides whose call is next; connections of one ThingsBoard tenant may share it.
        timeout_seconds: the longest wait for one answer.
        queue_seconds: the longest wait for its turn of a call that says nothing else (`PATIENCE`).
    """

    def __init__(
        self,
        transport: Transport,
        credential: Credential,
        *,
        queue: FairQueue,
        timeout_seconds: float,
        queue_seconds: float,
    ) -> None:
        self.transport, self.credential, self.queue = transport, credential, queue
        self._timeout_seconds, self._queue_seconds = timeout_seconds, queue_seconds
        self.breaker, self._budget = Breaker(), RetryBudget()
        #: Attempts beyond the first.
        self.retries = 0
        self.reads = SharedReads(self._authorised, self._late)
        self.pages = SharedReads(self._read_page, self._late)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        body: bytes | None = None,
        is_idempotent: bool = False,
        is_one_object: bool = True,
    ) -> Answer:
        """Make one call that may change something, and return its 2xx answer.

        When it returns, no read that began before can be joined any more: callers read their own writes.

        Args:
            json: a body to encode; `body` takes one that is encoded already.
            is_idempotent: whether it may be repeated after it may have been carried out.
            is_one_object: a 403 then becomes NotFound: another's object looks like a missing one.

        Raises:
            GatewayError: one of the classes of `app.errors`, without upstream text.
        """
        content = body if json is None else orjson.dumps(json)
        asked = Call(method, _target(path, query), content, is_idempotent)
        # At its start too, although nobody has been told of it yet: what is read after that is not older.
        self.end_reads()
        try:
            answer = await timed(self._in_time(asked))
        finally:
            self.end_reads()
        return checked(answer, is_one_object=is_one_object)

    async def get_json(
        self, path: str, *, query: Query | None = None, is_one_object: bool = True, is_shared: bool = True
    ) -> Any:
        """GET and decode a JSON answer; identical reads at the same time share a call.

        Args:
            is_shared: False asks ThingsBoard now, whatever is under way.
        """
        read = "GET", _target(path, query), None
        if is_shared:
            answer = await self._shared(self.reads, read)
        else:
            answer = await timed(self._in_time(Call(*read, is_idempotent=True)))
        return decode(checked(answer, is_one_object=is_one_object))

    async def get_page(self, path: str, *, query: Query | None = None) -> Page:
        """GET a page, its objects as the JSON they came as; readers at the same time share the page."""
        return await self._shared(self.pages, ("GET", _target(path, query), None))

    async def post_json(self, path: str, json: Any, *, is_one_object: bool = True) -> Any:
        """POST a query, which changes nothing: it is shared and repeated as a GET is. Decode its answer."""
        answer = await self._shared(self.reads, ("POST", path, orjson.dumps(json)))
        return decode(checked(answer, is_one_object=is_one_object))

    def end_reads(self) -> None:
        """Let no later reader join a read that began before: something may have changed."""
        self.reads.end()
        self.pages.end()

    async def _read_page(self, call: Call) -> Page:
        answer = await self._authorised(call)
        return pass_page(json_text(checked(answer, is_one_object=False)))

    async def _shared(self, reads: SharedReads[T], read: Read) -> T:
        if DEADLINE.get() is not None and not reads.is_under_way(read):
            self._check_time()
        return await timed(reads.get(read))

    async def _in_time(self, call: Call) -> Answer:
        """Make a call of this caller's own, within its deadline."""
        deadline = DEADLINE.get()
        if deadline is None:
            return await self._authorised(call)
        self._check_time()
        return await deadline.wait(self._authorised(call), partial(self._late, call))

    def _check_time(self) -> None:
        """Send nothing that its caller would not wait for."""
        left = time_left()
        if left <= 0:
            raise out_of_time()
        now = asyncio.get_running_loop().time()
        self.queue.check_time(TURN.get(), now + left, now)

    def _late(self, call: Call) -> GatewayError:
        """Say what used up the caller's time: our queue, or ThingsBoard."""
        if call.is_waiting:
            return self.queue.give_up(TURN.get(), asyncio.get_running_loop().time())
        return out_of_time()

    async def _authorised(self, call: Call) -> Answer:
        header = await self.credential.header()
        answer = await self._retried(call, header)
        if answer.status == UNAUTHORISED and await self.credential.renew(header):
            # ThingsBoard decides on the token before anything else, so nothing was carried out.
            answer = await self._retried(call, await self.credential.header())
            if answer.status == UNAUTHORISED:
                self.credential.renewed_in_vain()
        return answer

    async def _retried(self, call: Call, header: str) -> Answer:
        self._budget.earn()
        RESENT.set(0)
        patience = PATIENCE.get()
        seconds = self._queue_seconds if patience is None else patience
        until = asyncio.get_running_loop().time() + seconds
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._admitted(call, header, until)
            except UpstreamError as error:
                nothing_sent = isinstance(error, UpstreamUnreachable)
                is_repeatable = call.is_idempotent and isinstance(error, UpstreamReset | UpstreamGarbled)
                worth_it = nothing_sent or is_repeatable
                if attempt == ATTEMPTS or not worth_it or not self._budget.spend():
                    raise
            self.retries += 1
            RESENT.set(attempt)
            await asyncio.sleep(delay_before(attempt))
        raise AssertionError("unreachable")

    async def _admitted(self, call: Call, header: str, until: float) -> Answer:
        """Send when it is this caller's turn, again and again while ThingsBoard's rate limit refuses."""
        headers = {"X-Authorization": header}
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        key, queue = TURN.get(), self.queue
        turn = queue.take(key, asyncio.get_running_loop().time())
        is_return = False
        while True:
            if turn is None:
                call.is_waiting = True
                turn = await queue.wait(key, until, is_return=is_return)
                call.is_waiting = False
            answer = await self._once(queue, turn, call, headers)
            if answer.status != BUSY:
                return answer
            turn, is_return = None, True

    async def _once(self, queue: FairQueue, turn: Turn, call: Call, headers: Mapping[str, str]) -> Answer:
        is_refused: bool | None = None
        try:
            answer = await self._watched(call, headers)
            is_refused = answer.status == BUSY
            return answer
        finally:
            # The queue that the turn is from: this connection may have been given another one meanwhile.
            queue.end(turn, asyncio.get_running_loop().time(), is_refused=is_refused)

    async def _watched(self, call: Call, headers: Mapping[str, str]) -> Answer:
        """Send, and tell the breaker what came of it.

        That a caller left, or had too little time, says nothing about ThingsBoard.
        """
        began = self.breaker.before()
        try:
            answer = await self.transport.send(
                call.method,
                call.target,
                headers=headers,
                body=call.body,
                timeout_seconds=self._timeout_seconds,
            )
        except UpstreamTimeout:
            self.breaker.timed_out(began)
            raise
        self.breaker.answered()
        return answer


async def timed(waiting: Awaitable[T]) -> T:
    """Wait for ThingsBoard, and let the request at hand tell for how long."""
    context = CURRENT.get()
    if context is None:
        return await waiting
    context.begin_wait()
    try:
        return await waiting
    finally:
        context.end_wait()


def _target(path: str, query: Query | None) -> str:
    return path if not query else f"{path}?{encode_query(query)}"


def checked(answer: Answer, *, is_one_object: bool) -> Answer:
    """Return a 2xx answer, or raise what another one means."""
    if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's success
        return answer
    if answer.status == UNAUTHORISED:
        raise LoginRefused(note="upstream_401")
    error = error_for(answer)
    if is_one_object and isinstance(error, NotAllowed):
        raise NotFound(note=error.note)
    if not is_one_object and isinstance(error, NotFound):
        # A list is always there: something else than ThingsBoard answers, or at another path.
        raise UpstreamGarbled(note=error.note)
    raise error


def acknowledge(answer: Answer) -> None:
    """Make sure that a write was acknowledged by ThingsBoard itself: 200 and nothing else (recordings).

    A page that a proxy or a portal shows instead would otherwise pass for stored data.
    """
    if answer.status != 200 or answer.body:  # noqa: PLR2004 - HTTP's OK
        raise UpstreamGarbled(note="no_acknowledgement")


def json_text(answer: Answer) -> bytes:
    """Return a body that says it is JSON; a page that a proxy shows instead is no data."""
    if answer.content_type != "application/json":
        raise UpstreamGarbled(note="content_type")
    return answer.body


def decode(answer: Answer) -> Any:
    """Decode a JSON body; anything else under a 2xx is a fault of the upstream, not data."""
    try:
        return orjson.loads(json_text(answer))
    except orjson.JSONDecodeError:
        raise UpstreamGarbled(note="malformed_json") from None


def expect_object(value: Any) -> dict[str, Any]:
    """Return a JSON object, or call anything else garbled."""
    if not isinstance(value, dict):
        raise UpstreamGarbled(note="not_an_object")
    return value


def expect_list(value: Any) -> list[Any]:
    """Return a JSON list, or call anything else garbled."""
    if not isinstance(value, list):
        raise UpstreamGarbled(note="not_a_list")
    return value


def encode_query(query: Query) -> str:
    """Encode a query; None is left out, booleans become ThingsBoard's `true` and `false`, lists repeat."""
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        if value is None:
            continue
        if isinstance(value, bool):
            pairs.append((name, "true" if value else "false"))
        elif isinstance(value, str | int):
            pairs.append((name, str(value)))
        else:
            pairs += [(name, item) for item in value]
    return urlencode(pairs, quote_via=quote)
