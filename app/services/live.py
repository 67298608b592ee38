"""Who hears what: from the names that callers use to the channels that they hear."""

from collections.abc import Iterable, Sequence

from app.context import Caller
from app.errors import NotAllowed, NotFound
from app.services.addressing import resolve
from app.services.fan_out import run_bounded
from app.thingsboard.client import ThingsBoardClient

ATTRIBUTES = "attributes:read"
RESOLVED_AT_ONCE = 16


def check_attributes(caller: Caller, *, wanted: bool) -> None:
    """Refuse attributes to a key that may not read them."""
    if wanted and ATTRIBUTES not in caller.scopes:
        raise NotAllowed(
            f"This API key lacks the scope {ATTRIBUTES}: ask for a key that has it.",
            details={"missing_scopes": [ATTRIBUTES], "required_scopes": [ATTRIBUTES, "telemetry:read"]},
        )


async def find_devices(upstream: ThingsBoardClient, references: Sequence[str]) -> dict[str, str]:
    """Return the UUID of each device, by the reference as it was sent.

    Raises:
        NotFound: naming the first one that is not there, or not for this key.
    """

    async def find(reference: str) -> str:
        try:
            return await resolve(upstream, "DEVICE", reference, "device_ids")
        except NotFound as error:
            raise not_found(reference, error) from None

    asked = list(dict.fromkeys(references))
    return dict(zip(asked, await run_bounded(asked, find, at_once=RESOLVED_AT_ONCE), strict=True))


def not_found(reference: str, error: NotFound) -> NotFound:
    """Say which device it was, in the caller's own words."""
    return NotFound(
        details={"field": "device_ids", "device_id": reference, "issue": "not found"}, note=error.note
    )


def ordered(ids: Iterable[str]) -> tuple[str, ...]:
    """Return ids in one order: those who name the same devices share a channel."""
    return tuple(sorted(set(ids)))
