"""Metrics for Prometheus: no key, but only for loopback and the networks of `METRICS_ALLOWED_NETWORKS`."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.addresses import parse_address
from app.api.route import GatewayRoute
from app.context import context_of
from app.deps import SettingsDep
from app.errors import NotAllowed
from app.metrics.exposition import render
from app.settings import IPNetwork

router = APIRouter(route_class=GatewayRoute, include_in_schema=False)

PATHS = frozenset({"/metrics"})
#: What proxies add. Behind one that is not trusted everybody would come from its address, often loopback.
FORWARDED = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip"})


@router.get("/metrics")
async def get_metrics(request: Request, settings: SettingsDep) -> Response:
    """Answer with the metrics of all workers."""
    if not is_allowed(request, settings.metrics_allowed_networks):
        # The path is no secret, and an operator has to see what is wrong.
        raise NotAllowed("Metrics are served to METRICS_ALLOWED_NETWORKS and to loopback only.")
    sampler = request.app.state.sampler
    sampler.sample()
    content, media_type = await asyncio.to_thread(render, sampler.registry, request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": media_type})


def is_allowed(request: Request, networks: tuple[IPNetwork, ...]) -> bool:
    """Tell whether this caller may read metrics."""
    peer = request.client.host if request.client else ""
    found = context_of(request.scope).client_address
    if found == peer and any(name in FORWARDED for name, _ in request.scope["headers"]):
        return False
    address = parse_address(found)
    return address is not None and (address.is_loopback or any(address in network for network in networks))
