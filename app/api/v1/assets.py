"""Assets: list, read, make, change, delete."""

from typing import Annotated

from fastapi import Depends, Query
from starlette.responses import Response

from app.api.entities import ASSET, Entity, entity_in_path
from app.api.envelope import paged, paged_locally, success
from app.api.route import PREFIX, requires, versioned_router
from app.deps import PageNumber, PageSize, UpstreamDep
from app.schemas.assets import SORT_FIELDS, AssetAnswer, AssetCreate, AssetList, AssetPatch, SortField
from app.schemas.common import Deleted, TypeList
from app.schemas.devices import SortOrder
from app.services import editing

router = versioned_router("assets")

AssetInPath = Annotated[Entity, Depends(entity_in_path(ASSET))]


@router.get(
    "/assets",
    operation_id="list_assets",
    summary="List assets",
    responses={200: {"model": AssetList}},
    openapi_extra=requires("assets:read"),
)
async def list_assets(
    upstream: UpstreamDep,
    page: PageNumber = 0,
    page_size: PageSize = 100,
    text_search: Annotated[
        str | None, Query(min_length=1, max_length=255, description="Text in name, label or type.")
    ] = None,
    asset_type: Annotated[str | None, Query(min_length=1, max_length=255, description="Exact type.")] = None,
    sort_by: Annotated[SortField | None, Query()] = None,
    sort_order: Annotated[SortOrder | None, Query(description="ASC unless given.")] = None,
) -> Response:
    """Return one page of the assets that the gateway's account may see."""
    listed = await upstream.assets.list_page(
        {
            "page": page,
            "pageSize": page_size,
            "textSearch": text_search,
            "type": asset_type,
            "sortProperty": SORT_FIELDS[sort_by] if sort_by else None,
            "sortOrder": (sort_order or "ASC") if sort_by else None,
        }
    )
    return paged(listed, number=page, size=page_size)


@router.post(
    "/assets",
    operation_id="create_asset",
    summary="Create an asset",
    status_code=201,
    responses={201: {"model": AssetAnswer}},
    openapi_extra=requires("assets:write"),
)
async def create_asset(upstream: UpstreamDep, asset: AssetCreate) -> Response:
    """Make an asset and return it. A name that is taken is a 409."""
    made = await upstream.assets.save(asset.model_dump(by_alias=True, exclude_none=True))
    location = f"{PREFIX}/assets/{made['id']['id']}"
    return success({"data": made}, status_code=201, headers={"Location": location})


@router.get(
    ASSET.path,
    operation_id="get_asset",
    summary="Get one asset",
    responses={200: {"model": AssetAnswer}},
    openapi_extra=requires("assets:read"),
)
async def get_asset(upstream: UpstreamDep, asset: AssetInPath) -> Response:
    """Return one asset, addressed by its id or by `name:` and its exact name."""
    return success({"data": await upstream.assets.get(asset.id)})


@router.patch(
    ASSET.path,
    operation_id="update_asset",
    summary="Change an asset",
    responses={200: {"model": AssetAnswer}},
    openapi_extra=requires("assets:write"),
)
async def update_asset(upstream: UpstreamDep, asset: AssetInPath, changes: AssetPatch) -> Response:
    """Change the given fields. A change by somebody else meanwhile is a 409: read again and repeat."""
    fields = changes.model_dump(by_alias=True, exclude_unset=True)
    return success({"data": await editing.patch(upstream.assets, asset.id, fields)})


@router.delete(
    ASSET.path,
    operation_id="delete_asset",
    summary="Delete an asset",
    responses={200: {"model": Deleted}},
    openapi_extra=requires("assets:write"),
)
async def delete_asset(upstream: UpstreamDep, asset: AssetInPath) -> Response:
    """Delete an asset with its telemetry, attributes and relations. It cannot be undone."""
    await upstream.assets.delete(asset.id)
    return success({**asset.identified, "message": "Asset deleted."})


@router.get(
    "/asset-types",
    operation_id="list_asset_types",
    summary="List asset types",
    responses={200: {"model": TypeList}},
    openapi_extra=requires("assets:read"),
)
async def list_asset_types(
    upstream: UpstreamDep, page: PageNumber = 0, page_size: PageSize = 100
) -> Response:
    """Return the types that assets have."""
    return paged_locally(await upstream.assets.types(), number=page, size=page_size)
