"""The last stage: the direct way into a route where there is one; everything else goes FastAPI's way."""

from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import NotFound


class Answering(Protocol):
    """A route that may answer by itself."""

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer the request. False: nothing has been done, and FastAPI must answer."""


class Dispatch:
    """Ask the index of direct routes first.

    Args:
        find: returns who answers the request of this scope, or None.
        web_sockets: the paths of the WebSockets there are.
    """

    def __init__(
        self, app: ASGIApp, *, find: Callable[[Scope], Answering | None], web_sockets: tuple[str, ...]
    ) -> None:
        self.app, self.find, self.web_sockets = app, find, web_sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope.get("root_path"):
            direct = self.find(scope)
            if direct is not None and await direct.answer(scope, receive, send):
                return
        if scope["type"] == "websocket" and scope["path"] not in self.web_sockets:
            # The framework would refuse it without a word.
            raise NotFound
        await self.app(scope, receive, send)
