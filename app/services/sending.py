"""Sending points to ThingsBoard: in bodies that it takes, at the pace that it can keep."""

import asyncio
from collections.abc import Iterator
from functools import partial

from app.errors import GatewayError, PayloadTooLarge
from app.services.pacing import Pacer
from app.services.points import CHUNK_BYTES, Chunk, Points, iter_chunks, iter_items
from app.thingsboard.client import ThingsBoardClient

#: From here on encoding is done in a thread, so that other callers are served meanwhile.
MANY_POINTS = 10_000


class Sender:
    """Sends points to ThingsBoard, in bodies that it takes. Made for one upload, of any number of entities.

    Args:
        pacer: waits when ThingsBoard refuses or is slow; without one that is an error.
    """

    def __init__(
        self, upstream: ThingsBoardClient, *, ttl_seconds: int | None = None, pacer: Pacer | None = None
    ) -> None:
        self._upstream, self._ttl_seconds, self._pacer = upstream, ttl_seconds, pacer
        #: A proxy in front of ThingsBoard may take less than it does (nginx: 1 MiB).
        self._largest_body = CHUNK_BYTES

    async def store(self, entity_type: str, entity_id: str, points: Points) -> int:
        """Send points of one entity and return how many ThingsBoard acknowledged: all of them.

        Raises:
            GatewayError: with `stored_points` in its details when some were acknowledged before.
        """
        stored = 0
        chunks = iter_chunks(points, self._largest_body)
        while chunk := await _next(chunks, points.count):
            try:
                await self._save(entity_type, entity_id, chunk)
            except PayloadTooLarge as error:
                if chunk.points == 1:
                    refusal = _too_large_value(points, stored)
                    _add_stored(refusal, stored)
                    raise refusal from error
                self._largest_body = min(self._largest_body, len(chunk.body) // 2)
                chunks = iter_chunks(points, self._largest_body, skip=stored)
            except GatewayError as error:
                _add_stored(error, stored)
                raise
            else:
                stored += chunk.points
        return stored

    async def _save(self, entity_type: str, entity_id: str, chunk: Chunk) -> None:
        save = partial(
            self._upstream.telemetry.save,
            entity_type,
            entity_id,
            chunk.body,
            points=chunk.points,
            is_idempotent=chunk.is_idempotent,
            ttl_seconds=self._ttl_seconds,
        )
        if self._pacer is None:
            await save()
        else:
            await self._pacer.run(save, is_repeatable=chunk.is_idempotent)


def _add_stored(error: GatewayError, stored: int) -> None:
    if stored:
        error.details = {**(error.details or {}), "stored_points": stored}


def _too_large_value(points: Points, stored: int) -> PayloadTooLarge:
    ts, values = next(iter_items(points, stored))
    key = next(iter(values))
    issue = "one value is larger than ThingsBoard, or a proxy in front of it, takes"
    return PayloadTooLarge(f"{key}: {issue}.", details={"field": key, "ts": ts, "issue": issue})


async def _next(chunks: Iterator[Chunk], points: int) -> Chunk | None:
    return next(chunks, None) if points < MANY_POINTS else await asyncio.to_thread(next, chunks, None)
