"""What the caller's key is and may do."""

from fastapi import Request
from starlette.responses import Response

from app.api.envelope import success
from app.api.route import versioned_router
from app.context import context_of
from app.deps import CallerDep
from app.schemas.whoami import WhoAmI

router = versioned_router("keys")


@router.get(
    "/whoami",
    operation_id="get_whoami",
    summary="Tell what this API key may do",
    responses={200: {"model": WhoAmI}},
)
async def get_whoami(request: Request, caller: CallerDep) -> Response:
    """Return the key's name, scopes, restrictions and what is left of its rate limit. Any key may ask."""
    return success(
        {
            "name": caller.name,
            "id": caller.id,
            "scopes": sorted(caller.scopes),
            "restrictions": None,
            "limits": context_of(request.scope).rate_limit,
            "expires_at": None,
        }
    )
