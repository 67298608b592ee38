"""What a key is and may do."""

from typing import Any

from pydantic import BaseModel

from app.schemas.common import Int64, Success


class Limits(BaseModel):
    """Where the caller stands in its rate limit, this request included."""

    limit: Int64
    remaining: Int64
    reset_seconds: Int64
    window_seconds: Int64


class WhoAmI(Success):
    """The key that made this request; the key itself is never shown."""

    name: str
    id: str
    scopes: list[str]
    restrictions: dict[str, Any] | None
    limits: Limits
    expires_at: str | None
