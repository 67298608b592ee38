"""The states of a stored RPC as server-sent events: few, small, and over when the last state is reached."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import StreamingResponse

from app.context import Caller
from app.errors import GatewayError
from app.keys.store import APIKeys
from app.problems import answer_for
from app.services.rpc import event_of
from app.times import now_ms

#: Between comments that keep proxies from closing a quiet stream.
HEARTBEAT_SECONDS = 15.0
#: nginx would collect the events before it passes them on.
HEADERS = {"X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """An answer of server-sent events."""

    media_type = "text/event-stream"


async def state_events(
    records: AsyncGenerator[dict[str, Any], None], keys: APIKeys, caller: Caller
) -> AsyncGenerator[bytes, None]:
    """Yield an event for each record, comments in between, and a word on why it ends early.

    It ends early when the key of the caller no longer counts, and when ThingsBoard cannot be asked.
    """
    async with aclosing(records):
        generation, changed = keys.generation, asyncio.create_task(keys.wait_for_change(keys.generation))
        coming = asyncio.ensure_future(anext(records, None))
        try:
            while True:
                await asyncio.wait(
                    [coming, changed], timeout=_patience(caller), return_when=asyncio.FIRST_COMPLETED
                )
                if not keys.is_live(caller):
                    yield _event("closing", {"reason": "this API key is no longer valid"})
                    return
                if changed.done():
                    generation = changed.result()
                    changed = asyncio.create_task(keys.wait_for_change(generation))
                if not coming.done():
                    yield KEEPALIVE_COMMENT
                    continue
                record = coming.result()
                if record is None:
                    return
                yield _event(*event_of(record))
                coming = asyncio.ensure_future(anext(records, None))
        except GatewayError as error:
            status, code = answer_for(error)
            yield _event("error", {"status": status, "error_code": code, "message": error.message})
        finally:
            changed.cancel()
            coming.cancel()
            await asyncio.gather(changed, coming, return_exceptions=True)


def _patience(caller: Caller) -> float:
    """Return the seconds until the next comment, or until the key expires if that is sooner."""
    if caller.expires_at is None:
        return HEARTBEAT_SECONDS
    return max(0.0, min(HEARTBEAT_SECONDS, (caller.expires_at - now_ms()) / 1_000))


def _event(name: str, data: dict[str, Any]) -> bytes:
    return format_sse_event(event=name, data_str=orjson.dumps(data).decode())
