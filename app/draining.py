"""How a connection tells the application that the server is stopping: lifespan's own end comes too late."""

from typing import Any

#: Where the lifespan's state, which each connection is handed, has what is to be called.
DRAIN = "gateway.drain"


def drain(state: dict[str, Any]) -> None:
    """Tell the application, if its lifespan has begun."""
    begin = state.get(DRAIN)
    if begin is not None:
        begin()
