"""Calls that ThingsBoard answers when a device does: places and connections of their own, and one attempt.

Such a call may last 25 s. In the queue of all other calls some of them would hold every place there is, and a
command that waited there, or was sent twice, would switch something at a moment that nobody chose.
"""

import asyncio

from app.context import TURN
from app.deadline import in_time, out_of_time, time_left
from app.errors import Overloaded, UpstreamGarbled, UpstreamReset, UpstreamTimeout
from app.thingsboard.connection import timed
from app.thingsboard.fair_queue import FairQueue
from app.thingsboard.tokens import UNAUTHORISED, Credential
from app.thingsboard.transport import Answer, Transport

#: How much longer than ThingsBoard we wait: it ends every wait by itself.
MARGIN_SECONDS = 10.0
#: A place becomes free when a device answers or its time is up; nobody knows when.
RETRY_AFTER_SECONDS = 5.0
#: What callers have to know about a call that broke.
MAYBE_DELIVERED = "the connection to ThingsBoard failed: the command may have been delivered, or may still be"


class WaitingCalls:
    """Shared by all callers of one upstream, in one event loop.

    A call leaves at once or is refused: it never waits for a place. It is sent once. What was not sent, and
    what ThingsBoard's rate limit refused, is not repeated either: the caller decides. Only a token that
    ThingsBoard no longer takes is replaced, because it decides on that before anything else.

    Args:
        places: calls at once; one key alone gets at most seven eighths of them.
    """

    def __init__(self, transport: Transport, credential: Credential, *, places: int) -> None:
        self._transport, self._credential = transport, credential
        self._places = FairQueue(places)

    @property
    def in_flight(self) -> int:
        """Return how many calls wait for their device now."""
        return self._places.in_flight

    async def post(self, path: str, body: bytes, *, wait_seconds: float) -> Answer:
        """Send once and return whatever ThingsBoard answers.

        Args:
            body: JSON.
            wait_seconds: how long ThingsBoard was asked to wait for the device.

        Raises:
            Overloaded: no place is free, or this key holds its share of them; nothing was sent.
            UpstreamUnreachable: nothing was sent.
            UpstreamReset, UpstreamTimeout, UpstreamGarbled: it may have been carried out; `details` say so.
        """
        return await timed(self._authorised(path, body, wait_seconds))

    async def _authorised(self, path: str, body: bytes, wait_seconds: float) -> Answer:
        header = await in_time(self._credential.header())
        answer = await self._once(path, body, header, wait_seconds)
        if answer.status == UNAUTHORISED and await in_time(self._credential.renew(header)):
            header = await in_time(self._credential.header())
            answer = await self._once(path, body, header, wait_seconds)
        return answer

    async def _once(self, path: str, body: bytes, header: str, wait_seconds: float) -> Answer:
        if time_left() <= 0:
            raise out_of_time()
        clock = asyncio.get_running_loop().time
        turn = self._places.take(TURN.get(), clock())
        if turn is None:
            raise Overloaded(
                "Too many commands wait for their devices. Nothing was sent: try again shortly.",
                note="rpc_places_taken",
                retry_after=RETRY_AFTER_SECONDS,
            )
        try:
            return await in_time(
                self._transport.send(
                    "POST",
                    path,
                    headers={"X-Authorization": header, "Content-Type": "application/json"},
                    body=body,
                    timeout_seconds=wait_seconds + MARGIN_SECONDS,
                )
            )
        except (UpstreamReset, UpstreamTimeout, UpstreamGarbled) as error:
            error.details = {**(error.details or {}), "issue": MAYBE_DELIVERED}
            raise
        finally:
            # Never as a refusal: the pace of the other calls is none of this queue's.
            self._places.end(turn, clock(), is_refused=False)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
