"""What a key is and may do."""

from pydantic import BaseModel, Field

from app.schemas.common import Int64, Success


class Limits(BaseModel):
    """Where the caller stands in its rate limit, this request included."""

    limit: Int64
    remaining: Int64
    reset_seconds: Int64
    window_seconds: Int64
    max_streams: Int64 | None = Field(
        description="Streams this key may have open at once; null where it has no limit of its own."
    )


class KeyRestrictions(BaseModel):
    """What the key is limited to; an object must meet all that is given."""

    devices: list[str] | None = Field(description="Ids of devices.")
    device_types: list[str] | None = Field(description="Exact types of devices.")
    customer: str | None = Field(description="Id of a customer: its devices and assets.")
    asset: str | None = Field(description="Id of an asset: itself and what lies below it.")


class WhoAmI(Success):
    """The key that made this request; the key itself is never shown."""

    name: str
    id: str
    upstream: str = Field(description="Name of the ThingsBoard account that serves this key.")
    scopes: list[str]
    restrictions: KeyRestrictions | None = Field(description="Null: every object of ThingsBoard's login.")
    limits: Limits
    expires_at: str | None = Field(description="When this key stops working, ISO 8601; null: never.")
