"""Health for load balancers and people; the root page. Exempt from keys and limits."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.envelope import success
from app.api.route import GatewayRoute
from app.deps import SettingsDep
from app.keys.store import APIKeys
from app.problems import answer_for
from app.schemas.health import Health, Readiness, Root
from app.settings import Settings
from app.upstream_settings import DEFAULT_UPSTREAM
from app.upstreams import Upstream

router = APIRouter(route_class=GatewayRoute, tags=["health"])


@router.get("/", operation_id="get_root", summary="Name the service", responses={200: {"model": Root}})
async def get_root(settings: SettingsDep) -> Response:
    """Say what this is and where its documentation is."""
    return success(
        {
            "service": settings.project_name,
            "version": settings.version,
            "documentation": "/docs",
            "openapi": "/openapi.json",
            "api": "/api/v1/tb",
        }
    )


LIVENESS = {"/health": "get_health", "/health/live": "get_liveness", "/api/v1/health": "get_health_v1"}
PATHS = frozenset(LIVENESS) | {"/", "/health/ready"}


async def get_liveness(settings: SettingsDep) -> Response:
    """Say that the process answers."""
    return success({"service": settings.project_name, "version": settings.version})


for _path, _operation in LIVENESS.items():
    router.add_api_route(
        _path,
        get_liveness,
        operation_id=_operation,
        summary="Tell whether the process answers",
        responses={200: {"model": Health}},
    )
    # Load balancers like to ask without a body.
    router.add_api_route(_path, get_liveness, methods=["HEAD"], include_in_schema=False)


@router.get(
    "/health/ready",
    operation_id="get_readiness",
    summary="Tell whether requests can be served",
    responses={200: {"model": Readiness}, 503: {"model": Readiness}},
)
async def get_readiness(
    request: Request,
    settings: SettingsDep,
    strict: Annotated[bool, Query(description="Answer 503 when ThingsBoard or Redis is away, too.")] = False,
) -> Response:
    """Answer 200 with the state of ThingsBoard and Redis: their outage must not drain every replica.

    503 from the moment on that the gateway is asked to stop.
    """
    if request.app.state.draining.is_announced:
        # At once: load balancers have little patience, and ThingsBoard may be slow.
        return readiness(settings, {"process": {"status": "draining"}}, is_ready=False)
    upstreams, redis = request.app.state.upstreams, request.app.state.redis
    *thingsboards, counters = await asyncio.gather(
        *map(check_thingsboard, upstreams.values()), check_redis(redis)
    )
    checks: dict[str, Any] = {"configuration": {"status": "up"}, "process": {"status": "up"}}
    checks |= zip(map(name_of, upstreams), thingsboards, strict=True)
    if redis is not None:
        checks["redis"] = counters
    is_whole = all(check["status"] == "up" for check in checks.values())
    # Told, but never a 503: the last good keys serve, and no other replica has better ones.
    checks["api_keys"] = check_keys(request.app.state.keys)
    return readiness(settings, checks, is_ready=is_whole or not strict)


def readiness(settings: Settings, checks: dict[str, Any], *, is_ready: bool) -> Response:
    """Return the answer."""
    return success(
        {"service": settings.project_name, "version": settings.version, "checks": checks},
        status_code=200 if is_ready else 503,
        status="success" if is_ready else "failed",
    )


def name_of(upstream: str) -> str:
    """Return the name of an upstream's check: `thingsboard`, or `thingsboard:<name>` of another one."""
    return "thingsboard" if upstream == DEFAULT_UPSTREAM else f"thingsboard:{upstream}"


async def check_thingsboard(upstream: Upstream) -> dict[str, Any]:
    """Make one authorised call."""
    error = await upstream.check()
    return {"status": "up"} if error is None else {"status": "down", "error_code": answer_for(error)[1]}


def check_keys(keys: APIKeys) -> dict[str, Any]:
    """Say whether the keys in use are those of the file."""
    return {"status": "stale" if keys.fault else "up", "keys": len(keys), "since": keys.since}


async def check_redis(redis: Any) -> dict[str, Any]:
    """Ask Redis whether it answers; `redis` is None where none is configured."""
    if redis is None:
        return {"status": "up"}
    return {"status": "up" if await redis.check() else "down"}
