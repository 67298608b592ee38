"""What the key file may say about a key. An unknown field is refused: a restriction must never be ignored."""

import ipaddress
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from app.quotas import parse_limits
from app.settings import IPNetwork, exact_origins
from app.upstream_settings import DEFAULT_UPSTREAM

#: What a key may be allowed to do; each route declares the ones it needs.
SCOPES = frozenset(
    {
        "alarms:read",
        "alarms:write",
        "assets:read",
        "assets:write",
        "attributes:read",
        "attributes:write",
        "devices:credentials",
        "devices:read",
        "devices:write",
        "relations:read",
        "relations:write",
        "rpc:send",
        "telemetry:delete",
        "telemetry:read",
        "telemetry:write",
    }
)
ALL = "*"


def parse_moment(value: Any) -> datetime:
    """Read a TOML date-time or ISO 8601 text; both need an offset, or an hour would be a matter of place."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("must be a date and time with an offset, such as 2027-01-31T00:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1 to 9999") from None


def _network(value: Any) -> IPNetwork:
    try:
        return ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("must be an address or a network, such as 192.0.2.7 or 10.0.0.0/8") from None


def _uuid(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError("must be a UUID") from None


def _rate_limit(value: str) -> str:
    parse_limits(value)
    return value


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    # Browsers send scheme and host in lower case.
    return exact_origins(tuple(origin.lower() for origin in value))


Moment = Annotated[datetime, BeforeValidator(parse_moment)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", to_lower=True)]
ObjectId = Annotated[str, AfterValidator(_uuid)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=255)]
#: An empty list could be read as all or as none: leaving the field out says all, and nothing says none.
some = Field(min_length=1)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Secret(_Table):
    """One secret of a key: while a key is rotated, it has two."""

    sha256: Digest
    created: Moment | None = None
    expires_at: Moment | None = None


class KeyEntry(_Table):
    """One `[[keys]]` table. Each restriction that is given narrows what the key may do."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
    sha256: Digest | None = None
    secrets: Annotated[tuple[Secret, ...], some] | None = None
    created: Moment | None = None
    scopes: Annotated[tuple[str, ...], some]
    devices: Annotated[tuple[ObjectId, ...], some] | None = None
    device_types: Annotated[tuple[Text, ...], some] | None = None
    customer: ObjectId | None = None
    asset: ObjectId | None = None
    rate_limit: Annotated[str, AfterValidator(_rate_limit)] | None = None
    max_streams: Annotated[StrictInt, Field(ge=0)] | None = None
    upstream: Text = DEFAULT_UPSTREAM
    not_before: Moment | None = None
    expires_at: Moment | None = None
    allowed_ips: Annotated[tuple[Annotated[IPNetwork, BeforeValidator(_network)], ...], some] | None = None
    allowed_origins: Annotated[tuple[str, ...], some, AfterValidator(_origins)] | None = None
    disabled: StrictBool = False
    description: str = ""

    @field_validator("scopes")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - SCOPES - {ALL})
        if unknown:
            raise ValueError(
                f"unknown scope {', '.join(unknown)}; known are {', '.join(sorted(SCOPES))} and *"
            )
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.sha256 is None) == (self.secrets is None):
            raise ValueError("needs either sha256 or secrets")
        if self.not_before and self.expires_at and self.not_before >= self.expires_at:
            raise ValueError("expires_at must be after not_before")
        return self

    @property
    def all_secrets(self) -> tuple[Secret, ...]:
        """The secrets in one form, however the file writes them."""
        if self.sha256 is not None:
            return (Secret(sha256=self.sha256, created=self.created),)
        return self.secrets or ()

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of all secrets, live or not."""
        return (
            (self.sha256,) if self.sha256 is not None else tuple(each.sha256 for each in self.secrets or ())
        )

    def live_secrets(self, now: datetime) -> list[Secret]:
        """Return the secrets that have not ended by themselves."""
        return [each for each in self.all_secrets if each.expires_at is None or each.expires_at > now]
