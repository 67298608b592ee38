"""Health and the root page."""

from typing import Literal

from pydantic import BaseModel

from app.schemas.common import Milliseconds, Success


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
    """The state of one thing the gateway depends on."""

    status: Literal["up", "down"]
    error_code: str | None = None


class Readiness(BaseModel):
    """`failed` only with `strict=1`."""

    status: Literal["success", "failed"]
    timestamp: Milliseconds
    service: str
    version: str
    checks: dict[str, Check]
