"""Devices: what they have beyond the routes of `entity_routes.py`."""

from typing import Annotated

from fastapi import Depends, Query
from starlette.responses import Response

from app.api.entities import DEVICE, Entity, entity_in_path
from app.api.entity_routes import add_entity_routes, sorting
from app.api.envelope import paged, success
from app.api.etags import revalidated
from app.api.route import requires, versioned_router
from app.deps import ExactType, PageNumber, PageSize, TextSearch, UpstreamDep
from app.schemas.devices import CredentialsAnswer, DeviceAnswer, DeviceList
from app.schemas.entities import DeviceSortField, SortOrder
from app.security_events import note

router = versioned_router("devices")


@router.get(
    "/devices",
    operation_id="list_devices",
    summary="List devices",
    responses=revalidated(DeviceList),
    openapi_extra=requires("devices:read"),
)
async def list_devices(
    upstream: UpstreamDep,
    page: PageNumber = 0,
    page_size: PageSize = 100,
    text_search: TextSearch = None,
    device_type: ExactType = None,
    active: Annotated[bool | None, Query(description="Only devices that are, or are not, active.")] = None,
    sort_by: Annotated[DeviceSortField | None, Query()] = None,
    sort_order: Annotated[SortOrder | None, Query(description="ASC unless given.")] = None,
) -> Response:
    """Return one page of the devices that the gateway's account may see, as ThingsBoard's device infos."""
    listed = await upstream.devices.list_page(
        {
            "page": page,
            "pageSize": page_size,
            "textSearch": text_search,
            "type": device_type,
            "active": active,
            **sorting(sort_by, sort_order),
        }
    )
    return paged(listed, number=page, size=page_size)


add_entity_routes(router, DEVICE, DeviceAnswer)


@router.get(
    f"{DEVICE.path}/credentials",
    operation_id="get_device_credentials",
    summary="Get a device's credentials",
    responses={200: {"model": CredentialsAnswer}},
    openapi_extra=requires("devices:credentials"),
)
async def get_device_credentials(
    upstream: UpstreamDep, device: Annotated[Entity, Depends(entity_in_path(DEVICE))]
) -> Response:
    """Return the secret a device logs in with. Each read is logged as a security event."""
    credentials = await upstream.devices.credentials(device.id)
    note("credentials_read", device_id=device.id)
    return success({"data": credentials})
