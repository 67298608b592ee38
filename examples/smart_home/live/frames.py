"""The frames between this product and the gateway's WebSocket."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

Frame = dict[str, Any]


def subscribe(number: int, devices: Sequence[UUID]) -> str:
    """Return the frame that asks for what these devices send."""
    return _text({"type": "subscribe", "id": number, "device_ids": list(map(str, devices))})


def unsubscribe(number: int, devices: Sequence[UUID]) -> str:
    """Return the frame that ends it."""
    return _text({"type": "unsubscribe", "id": number, "device_ids": list(map(str, devices))})


def parse(text: str | bytes) -> Frame:
    """Return what the gateway sent.

    Raises:
        ValueError: it is no frame.
    """
    frame = orjson.loads(text)
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise TypeError("not a frame")
    return frame


def _text(frame: Frame) -> str:
    return orjson.dumps(frame).decode()
