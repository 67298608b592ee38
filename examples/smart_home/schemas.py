"""What browsers and apps send and get."""

import re
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from examples.smart_home.models import LONGEST_EMAIL, LONGEST_NAME, Home, Room, User
from examples.smart_home.services.rooms import RoomState

#: Enough to catch typing errors; only a letter to it could prove an address.
EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f.]+(\.[^@\s\x00-\x1f.]+)+")
SHORTEST_PASSWORD, LONGEST_PASSWORD = 10, 128


def _is_email(value: str) -> str:
    if not EMAIL.fullmatch(value):
        raise ValueError("must look like name@example.com")
    return value.lower()


def _is_printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not hold control characters")
    return value


Email = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=LONGEST_EMAIL), AfterValidator(_is_email)
]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_NAME),
    AfterValidator(_is_printable),
]
Label = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
    AfterValidator(_is_printable),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Opening(_Request):
    email: Email
    refresh_in: Literal["body", "cookie"] = Field(
        default="body",
        description="Where the refresh token goes: `cookie` for pages, whose scripts then never see it.",
    )


class Registration(_Opening):
    """A new account."""

    name: Name
    password: str = Field(min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD)


class Login(_Opening):
    """A log-in."""

    password: str = Field(max_length=LONGEST_PASSWORD)


class RefreshRequest(_Request):
    """A refresh token that did not come as a cookie."""

    refresh_token: str | None = Field(default=None, max_length=200)


class UserAnswer(BaseModel):
    """An account."""

    id: UUID
    email: str
    name: str

    @classmethod
    def of(cls, user: User) -> "UserAnswer":
        """Return what is told of an account."""
        return cls(id=user.id, email=user.email, name=user.name)


class SessionAnswer(BaseModel):
    """The tokens of an open session. `expires_in` is in seconds."""

    user: UserAnswer
    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a scheme
    expires_in: int
    refresh_token: str | None = Field(default=None, description="null when it went into the cookie.")


class NewName(_Request):
    """A name for a home or a room."""

    name: Name


class NewRoom(_Request):
    """A room and the device that is claimed for it."""

    name: Name
    device: Label = Field(description="Name of the device, from its label.")
    claim_code: Annotated[Label, Field(description="Its code, from its label. Case and dashes do not count.")]


class HomeAnswer(BaseModel):
    """A home."""

    id: UUID
    name: str

    @classmethod
    def of(cls, home: Home) -> "HomeAnswer":
        """Return what is told of a home."""
        return cls(id=home.id, name=home.name)


class RoomAnswer(BaseModel):
    """A room."""

    id: UUID
    home_id: UUID
    name: str

    @classmethod
    def of(cls, room: Room) -> "RoomAnswer":
        """Return what is told of a room: nothing of its device."""
        return cls(id=room.id, home_id=room.home_id, name=room.name)


class PointAnswer(BaseModel):
    """One value at one time, in ms since the epoch."""

    ts: int
    value: Any


class StateAnswer(BaseModel):
    """What a room shows. `online` is null while that is not known."""

    room_id: UUID
    online: bool | None
    values: dict[str, PointAnswer | None]

    @classmethod
    def of(cls, state: RoomState) -> "StateAnswer":
        """Return what is told of a room's state."""
        values = {key: point and PointAnswer(**point) for key, point in state.values.items()}
        return cls(room_id=state.room_id, online=state.online, values=values)


class HistoryPoint(PointAnswer):
    """A point, or the average of the time from `ts` to `end_ts`."""

    end_ts: int | None = None


class HistoryAnswer(BaseModel):
    """The past of one key, oldest first."""

    key: str
    start_ts: int
    end_ts: int
    points: list[HistoryPoint]
    truncated: bool = Field(description="There are older points, left out because there are too many.")


class LightCommand(_Request):
    """What the light shall be."""

    state: Literal["on", "off"]


class LightAnswer(BaseModel):
    """What the device did: `verified` when its own telemetry says the same after the command."""

    room_id: UUID
    state: Literal["on", "off"]
    verified: bool
    observed: PointAnswer | None
