"""All versioned routes: one line a resource."""

from fastapi import APIRouter

from app.api.v1 import devices

ROUTERS: tuple[APIRouter, ...] = (devices.router,)
