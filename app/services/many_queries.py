"""One query for many devices."""

from collections.abc import Sequence
from typing import Any

from app.errors import GatewayError
from app.services import point_queries
from app.services.fan_out import run_each
from app.services.latest import resolve_all
from app.services.point_queries import Question
from app.thingsboard.client import ThingsBoardClient


async def answer_many(
    upstream: ThingsBoardClient, references: Sequence[str], question: Question, *, at_once: int
) -> dict[str, tuple[str | None, dict[str, Any] | GatewayError]]:
    """Return the answer for each device as it was named. One that fails leaves the others alone.

    Raises:
        InvalidRequest: the question makes no sense for any device.
    """
    point_queries.check(question)
    pinned = point_queries.pinned(question)
    found = await resolve_all(upstream, references, at_once=at_once)
    ids = list(dict.fromkeys(uuid for uuid in found.values() if isinstance(uuid, str)))

    async def ask(uuid: str) -> dict[str, Any]:
        answer = await point_queries.answer(upstream, ("DEVICE", uuid), pinned, devices=len(ids))
        return {"device_id": uuid, **answer}

    answers = await run_each(ids, ask, at_once=at_once)
    return {
        reference: (uuid, answers[uuid]) if isinstance(uuid, str) else (None, uuid)
        for reference, uuid in found.items()
    }
