"""From what callers write to ThingsBoard ids: a UUID, or `name:` and the exact name."""

import re

from app import key_names
from app.errors import NotFound, UnprocessableRequest
from app.thingsboard.client import ThingsBoardClient

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
NAME_PREFIX = "name:"
#: Of devices and assets, in UTF-16 units.
LONGEST_NAME = 255


def find_uuid(reference: str) -> str | None:
    """Return the UUID in lower case, or None when the reference is a name or nothing."""
    lowered = reference.lower()
    return lowered if UUID.fullmatch(lowered) else None


def check_reference(reference: str) -> str:
    """Return a reference that may be a UUID or a name, or raise ValueError."""
    if find_uuid(reference) is not None:
        return reference
    name = reference.removeprefix(NAME_PREFIX)
    if not name or name == reference:
        raise ValueError("must be a UUID, or name: and the exact name")
    if "\0" in name:
        raise ValueError("must not hold a NUL character")
    if key_names.is_longer(name, LONGEST_NAME):
        raise ValueError(f"holds a name of more than {LONGEST_NAME} characters")
    return reference


async def resolve(upstream: ThingsBoardClient, entity_type: str, reference: str, field: str = "id") -> str:
    """Return the UUID of an entity that the caller's key may see: every id of a request passes here.

    For a key without restrictions a UUID is not looked up. A name is, each time, and never remembered.

    Raises:
        NotFound: no entity has this name, or the key may not see the entity.
        UnprocessableRequest: the reference is neither.
    """
    try:
        uuid = find_uuid(check_reference(reference))
    except ValueError as error:
        raise UnprocessableRequest(
            f"{field}: {error}", details={"field": field, "issue": str(error)}
        ) from None
    if uuid is not None:
        await upstream.check(entity_type, uuid)
        return uuid
    found = find_uuid(await upstream.entities(entity_type).id_by_name(reference.removeprefix(NAME_PREFIX)))
    if found is None:
        raise NotFound
    return found
