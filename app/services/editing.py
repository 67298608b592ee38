"""Creating and changing devices and assets: read, change, write back with the version that was read."""

from typing import Any

from app.errors import InvalidRequest
from app.thingsboard.entities import EntityCalls

#: ThingsBoard finds or makes the profile by type only when the object names no profile.
PROFILE_FIELDS = {"DEVICE": "deviceProfileId", "ASSET": "assetProfileId"}


async def patch(calls: EntityCalls, entity_id: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Apply changes to an object and return it as stored.

    Raises:
        NotFound: there is no such object.
        Conflict: the name is taken, or somebody else changed the object meanwhile.
    """
    if not changes:
        raise InvalidRequest(
            "The body names no field to change.", details={"field": "body", "issue": "empty"}
        )
    for field in ("name", "type"):
        if field in changes and changes[field] is None:
            raise InvalidRequest(
                f"{field}: cannot be null", details={"field": field, "issue": "cannot be null"}
            )
    entity = await calls.get(entity_id)
    if changes.get("type", entity.get("type")) != entity.get("type"):
        entity.pop(PROFILE_FIELDS[calls.entity_type], None)
    return await calls.save({**entity, **changes})
