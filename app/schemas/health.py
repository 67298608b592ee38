"""Health and the root page."""

from typing import Literal

from pydantic import BaseModel, Field

from app.schemas.common import Int64, Milliseconds, Success


class Root(Success):
    """What this service is."""

    service: str
    version: str
    documentation: str
    openapi: str
    api: str


class Health(Success):
    """The process answers."""

    service: str
    version: str


class Check(BaseModel):
    """The state of one thing the gateway depends on; keys are `stale` while their file is broken.

    The process is `draining` once it was asked to stop.
    """

    status: Literal["up", "down", "stale", "draining"]
    error_code: str | None = None
    keys: Int64 | None = Field(default=None, description="How many API keys are in use.")
    since: Milliseconds | None = Field(
        default=None, description="When the API keys in use were loaded, or their file was found broken."
    )


class Readiness(BaseModel):
    """`failed` only with `strict=1`, or while the gateway is stopping."""

    status: Literal["success", "failed"]
    timestamp: Milliseconds
    service: str
    version: str
    checks: dict[str, Check]
