"""The browsers' WebSocket."""

import asyncio
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from examples.smart_home.deps import Services, ServicesDep
from examples.smart_home.errors import NotAuthenticated, Overloaded
from examples.smart_home.live.queue import EventQueue
from examples.smart_home.tokens import Access

router = APIRouter()

FIRST_FRAME_SECONDS = 5
#: Close codes of ours; 4000 to 4999 are free for applications.
NOT_LOGGED_IN, SESSION_OVER, TOO_MANY = 4401, 4403, 4429


@router.websocket("/live")
async def live(websocket: WebSocket, services: ServicesDep) -> None:
    """Send what happens in the user's rooms until the access token ends.

    The first frame is ``{"token": ...}``, for a token in a URL would stand in logs.
    """
    if not _is_our_page(websocket):
        await websocket.close()
        return
    await websocket.accept()
    try:
        access = await _authenticate(websocket, services)
        async with services.hub.listen(access.user_id) as events:
            await _serve(websocket, events, access.expires_at, services)
    except NotAuthenticated as error:
        await websocket.close(NOT_LOGGED_IN, error.message)
    except Overloaded as error:
        await websocket.close(TOO_MANY, error.message)
    except WebSocketDisconnect:
        return


def _is_our_page(websocket: WebSocket) -> bool:
    """Tell whether the page that asks is ours; programs that are no browsers send no origin."""
    origin = websocket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == websocket.headers.get("host")


async def _authenticate(websocket: WebSocket, services: Services) -> Access:
    try:
        async with asyncio.timeout(FIRST_FRAME_SECONDS):
            frame = orjson.loads(await websocket.receive_text())
        token = frame["token"]
    except (TimeoutError, ValueError, KeyError, TypeError):
        raise NotAuthenticated from None
    return services.tokens.read(str(token))


async def _serve(websocket: WebSocket, events: EventQueue, expires_at: int, services: Services) -> None:
    async def send() -> None:
        while True:
            await websocket.send_text(orjson.dumps(await events.get()).decode())

    async def listen() -> None:
        # A page has nothing more to say; this is how its leaving is seen.
        while True:
            await websocket.receive_text()

    tasks = [asyncio.create_task(send()), asyncio.create_task(listen())]
    try:
        seconds = services.tokens.seconds_until(expires_at)
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if not done:
        await websocket.close(SESSION_OVER, "The token is over.")
        return
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
            raise result
