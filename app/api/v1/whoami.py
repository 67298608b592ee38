"""What the caller's key is and may do."""

from typing import Any

from fastapi import Request
from starlette.responses import Response

from app.api.envelope import success
from app.api.route import versioned_router
from app.context import Restrictions, context_of
from app.deps import CallerDep
from app.schemas.whoami import WhoAmI
from app.times import iso_of

router = versioned_router("keys")


@router.get(
    "/whoami",
    operation_id="get_whoami",
    summary="Tell what this API key may do",
    responses={200: {"model": WhoAmI}},
)
async def get_whoami(request: Request, caller: CallerDep) -> Response:
    """Return the key's name, scopes, restrictions and what is left of its rate limit. Any key may ask."""
    limits = context_of(request.scope).rate_limit or {}
    return success(
        {
            "name": caller.name,
            "id": caller.id,
            "upstream": caller.upstream,
            "scopes": sorted(caller.scopes),
            "restrictions": render_restrictions(caller.restrictions),
            "limits": {**limits, "max_streams": caller.max_streams},
            "expires_at": None if caller.expires_at is None else iso_of(caller.expires_at),
        }
    )


def render_restrictions(restrictions: Restrictions | None) -> dict[str, Any] | None:
    """Return the restrictions as JSON, sets in a stable order."""
    if restrictions is None:
        return None
    return {
        "devices": None if restrictions.devices is None else sorted(restrictions.devices),
        "device_types": None if restrictions.device_types is None else sorted(restrictions.device_types),
        "customer": restrictions.customer,
        "asset": restrictions.asset,
    }
