"""All versioned routes: one line a resource."""

from fastapi import APIRouter

from app.api.v1 import assets, devices, relations, whoami

ROUTERS: tuple[APIRouter, ...] = (
    devices.router,
    assets.router,
    relations.router,
    whoami.router,
)
