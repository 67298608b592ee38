"""One room: values, past, light."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query

from examples.smart_home.deps import ServicesDep, UserId
from examples.smart_home.schemas import (
    HistoryAnswer,
    LightAnswer,
    LightCommand,
    NewName,
    PointAnswer,
    RoomAnswer,
    StateAnswer,
)

router = APIRouter(prefix="/rooms", tags=["rooms"])
RoomId = Annotated[UUID, Path()]


@router.get("/{room_id}")
async def get_room(room_id: RoomId, user_id: UserId, services: ServicesDep) -> RoomAnswer:
    """Read a room."""
    return RoomAnswer.of(await services.rooms.get(user_id, room_id))


@router.patch("/{room_id}")
async def rename_room(room_id: RoomId, body: NewName, user_id: UserId, services: ServicesDep) -> RoomAnswer:
    """Give a room another name."""
    return RoomAnswer.of(await services.rooms.rename(user_id, room_id, body.name))


@router.delete("/{room_id}", status_code=204)
async def delete_room(room_id: RoomId, user_id: UserId, services: ServicesDep) -> None:
    """Delete a room. Its device may be claimed again; the next user sees nothing of what it measured here."""
    await services.rooms.delete(user_id, room_id)


@router.get("/{room_id}/latest")
async def read_state(room_id: RoomId, user_id: UserId, services: ServicesDep) -> StateAnswer:
    """Read the newest values of a room, and whether its device is online."""
    return StateAnswer.of(await services.rooms.state(user_id, room_id))


@router.get("/{room_id}/history")
async def read_history(
    room_id: RoomId,
    user_id: UserId,
    services: ServicesDep,
    key: Annotated[str, Query(min_length=1, max_length=255)],
    hours: Annotated[int, Query(ge=1, le=24 * 31)] = 24,
    buckets: Annotated[int, Query(ge=1, le=500, description="How many averages")] = 120,
    values: Literal["average", "raw"] = "average",
) -> HistoryAnswer:
    """Read the last hours of a key: averages of equal times, or (`values=raw`) the newest 2,000 points."""
    found = await services.rooms.history(
        user_id, room_id, key, hours=hours, buckets=buckets if values == "average" else None
    )
    return HistoryAnswer(**found)


@router.post("/{room_id}/light")
async def switch_light(
    room_id: RoomId, body: LightCommand, user_id: UserId, services: ServicesDep
) -> LightAnswer:
    """Switch the light and wait until the device's own telemetry confirms it."""
    answer = await services.rooms.switch_light(user_id, room_id, on=body.state == "on")
    observed = answer.get("observed")
    return LightAnswer(
        room_id=room_id,
        state=body.state,
        verified=answer.get("verified") is True,
        observed=PointAnswer(**observed) if observed else None,
    )
