"""Takes the caller's word for how long it waits: `X-Request-Timeout`, in seconds."""

import asyncio
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.deadline import DEADLINE, HEADER, Deadline
from app.errors import UnprocessableRequest

NAME = HEADER.lower().encode()
DECIMAL = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")
#: More counts as this. No single call to ThingsBoard is given longer, whatever is configured.
MOST_SECONDS = 300.0


class RequestTimeout:
    """Make the deadline of a request, which ends when its answer begins."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn may hand a request the context of the one before it.
        DEADLINE.set(None)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = [value for name, value in scope["headers"] if name == NAME]
        if not given:
            return await self.app(scope, receive, send)
        deadline = Deadline(asyncio.get_running_loop().time() + seconds_of(given))
        DEADLINE.set(deadline)

        async def lifting(message: Message) -> None:
            if message["type"] == "http.response.start":
                deadline.lift()
            await send(message)

        return await self.app(scope, receive, lifting)


def seconds_of(given: list[bytes]) -> float:
    """Return the seconds that the header says, or refuse it."""
    if len(given) > 1:
        raise refusal("sent more than once")
    if not DECIMAL.fullmatch(given[0]):
        raise refusal("must be a number of seconds, such as 2.5")
    seconds = float(given[0])
    if not seconds:
        raise refusal("must be above 0")
    return min(seconds, MOST_SECONDS)


def refusal(issue: str) -> UnprocessableRequest:
    """Say what is wrong with the header."""
    fault = {"in": "header", "field": HEADER, "issue": issue}
    return UnprocessableRequest(
        f"{HEADER}: {issue}", details={"field": HEADER, "issue": issue, "errors": [fault]}
    )
