"""Homes, and the rooms in them."""

from uuid import UUID

from fastapi import APIRouter

from examples.smart_home.deps import ServicesDep, UserId
from examples.smart_home.schemas import HomeAnswer, NewName, NewRoom, RoomAnswer, StateAnswer

router = APIRouter(prefix="/homes", tags=["homes"])


@router.get("")
async def list_homes(user_id: UserId, services: ServicesDep) -> list[HomeAnswer]:
    """List your homes."""
    return [HomeAnswer.of(home) for home in await services.homes.all(user_id)]


@router.post("", status_code=201)
async def add_home(body: NewName, user_id: UserId, services: ServicesDep) -> HomeAnswer:
    """Make a home."""
    return HomeAnswer.of(await services.homes.add(user_id, body.name))


@router.get("/{home_id}")
async def get_home(home_id: UUID, user_id: UserId, services: ServicesDep) -> HomeAnswer:
    """Read a home."""
    return HomeAnswer.of(await services.homes.get(user_id, home_id))


@router.patch("/{home_id}")
async def rename_home(home_id: UUID, body: NewName, user_id: UserId, services: ServicesDep) -> HomeAnswer:
    """Give a home another name."""
    return HomeAnswer.of(await services.homes.rename(user_id, home_id, body.name))


@router.delete("/{home_id}", status_code=204)
async def delete_home(home_id: UUID, user_id: UserId, services: ServicesDep) -> None:
    """Delete a home with its rooms. Their devices may be claimed again."""
    await services.homes.delete(user_id, home_id)


@router.get("/{home_id}/rooms")
async def list_rooms(home_id: UUID, user_id: UserId, services: ServicesDep) -> list[RoomAnswer]:
    """List the rooms of a home."""
    return [RoomAnswer.of(room) for room in await services.rooms.all(user_id, home_id)]


@router.post("/{home_id}/rooms", status_code=201)
async def add_room(home_id: UUID, body: NewRoom, user_id: UserId, services: ServicesDep) -> RoomAnswer:
    """Claim a device and put it into a new room. A device is in one room at a time."""
    room = await services.rooms.add(user_id, home_id, body.name, body.device, body.claim_code)
    return RoomAnswer.of(room)


@router.get("/{home_id}/latest")
async def read_states(home_id: UUID, user_id: UserId, services: ServicesDep) -> list[StateAnswer]:
    """Read the newest values of all rooms, and which devices are online."""
    return [StateAnswer.of(state) for state in await services.rooms.states(user_id, home_id)]
