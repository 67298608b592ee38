"""Devices: list, read, make, change, delete, and their credentials."""

from typing import Annotated

import structlog
from fastapi import Depends, Query, Request
from starlette.responses import Response

from app.api.entities import DEVICE, Entity, entity_in_path
from app.api.envelope import paged, paged_locally, success
from app.api.route import PREFIX, requires, versioned_router
from app.context import context_of
from app.deps import CallerDep, PageNumber, PageSize, UpstreamDep
from app.schemas.common import Deleted, TypeList
from app.schemas.devices import (
    SORT_FIELDS,
    CredentialsAnswer,
    DeviceAnswer,
    DeviceCreate,
    DeviceList,
    DevicePatch,
    SortField,
    SortOrder,
)
from app.services import editing

router = versioned_router("devices")
security_log = structlog.get_logger("security")

DeviceInPath = Annotated[Entity, Depends(entity_in_path(DEVICE))]


@router.get(
    "/devices",
    operation_id="list_devices",
    summary="List devices",
    responses={200: {"model": DeviceList}},
    openapi_extra=requires("devices:read"),
)
async def list_devices(
    upstream: UpstreamDep,
    page: PageNumber = 0,
    page_size: PageSize = 100,
    text_search: Annotated[
        str | None, Query(min_length=1, max_length=255, description="Text in name, label or type.")
    ] = None,
    device_type: Annotated[str | None, Query(min_length=1, max_length=255, description="Exact type.")] = None,
    active: Annotated[bool | None, Query(description="Only devices that are, or are not, active.")] = None,
    sort_by: Annotated[SortField | None, Query()] = None,
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
            "sortProperty": SORT_FIELDS[sort_by] if sort_by else None,
            "sortOrder": (sort_order or "ASC") if sort_by else None,
        }
    )
    return paged(listed, number=page, size=page_size)


@router.post(
    "/devices",
    operation_id="create_device",
    summary="Create a device",
    status_code=201,
    responses={201: {"model": DeviceAnswer}},
    openapi_extra=requires("devices:write"),
)
async def create_device(upstream: UpstreamDep, device: DeviceCreate) -> Response:
    """Make a device and return it. A name that is taken is a 409."""
    made = await upstream.devices.save(device.model_dump(by_alias=True, exclude_none=True))
    location = f"{PREFIX}/devices/{made['id']['id']}"
    return success({"data": made}, status_code=201, headers={"Location": location})


@router.get(
    DEVICE.path,
    operation_id="get_device",
    summary="Get one device",
    responses={200: {"model": DeviceAnswer}},
    openapi_extra=requires("devices:read"),
)
async def get_device(upstream: UpstreamDep, device: DeviceInPath) -> Response:
    """Return one device, addressed by its id or by `name:` and its exact name."""
    return success({"data": await upstream.devices.get(device.id)})


@router.patch(
    DEVICE.path,
    operation_id="update_device",
    summary="Change a device",
    responses={200: {"model": DeviceAnswer}},
    openapi_extra=requires("devices:write"),
)
async def update_device(upstream: UpstreamDep, device: DeviceInPath, changes: DevicePatch) -> Response:
    """Change the given fields. A change by somebody else meanwhile is a 409: read again and repeat."""
    fields = changes.model_dump(by_alias=True, exclude_unset=True)
    return success({"data": await editing.patch(upstream.devices, device.id, fields)})


@router.delete(
    DEVICE.path,
    operation_id="delete_device",
    summary="Delete a device",
    responses={200: {"model": Deleted}},
    openapi_extra=requires("devices:write"),
)
async def delete_device(upstream: UpstreamDep, device: DeviceInPath) -> Response:
    """Delete a device with its telemetry, attributes and relations. It cannot be undone."""
    await upstream.devices.delete(device.id)
    return success({**device.identified, "message": "Device deleted."})


@router.get(
    f"{DEVICE.path}/credentials",
    operation_id="get_device_credentials",
    summary="Get a device's credentials",
    responses={200: {"model": CredentialsAnswer}},
    openapi_extra=requires("devices:credentials"),
)
async def get_device_credentials(
    request: Request, upstream: UpstreamDep, caller: CallerDep, device: DeviceInPath
) -> Response:
    """Return the secret a device logs in with. Each read is logged as a security event."""
    credentials = await upstream.devices.credentials(device.id)
    context = context_of(request.scope)
    security_log.warning(
        "credentials_read",
        key_id=caller.id,
        device_id=device.id,
        client=context.client_address,
        request_id=context.request_id,
    )
    return success({"data": credentials})


@router.get(
    "/device-types",
    operation_id="list_device_types",
    summary="List device types",
    responses={200: {"model": TypeList}},
    openapi_extra=requires("devices:read"),
)
async def list_device_types(
    upstream: UpstreamDep, page: PageNumber = 0, page_size: PageSize = 100
) -> Response:
    """Return the types that devices have."""
    return paged_locally(await upstream.devices.types(), number=page, size=page_size)
