"""All versioned routes: one line a resource."""

from fastapi import APIRouter

from app.api.v1 import (
    alarms,
    assets,
    attributes,
    bulk,
    devices,
    live,
    many_devices,
    relations,
    rpc,
    telemetry,
    uploads,
    whoami,
)

ROUTERS: tuple[APIRouter, ...] = (
    devices.router,
    assets.router,
    telemetry.router,
    live.router,
    many_devices.router,
    alarms.router,
    relations.router,
    whoami.router,
    uploads.router,
    bulk.router,
    attributes.router,
    rpc.router,
    rpc.live_router,
)
