"""Assets: what they have beyond the routes of `entity_routes.py`."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from app.api.entities import ASSET
from app.api.entity_routes import add_entity_routes, sorting
from app.api.envelope import paged
from app.api.etags import revalidated
from app.api.route import requires, versioned_router
from app.deps import ExactType, PageNumber, PageSize, TextSearch, UpstreamDep
from app.schemas.assets import AssetAnswer, AssetList
from app.schemas.entities import AssetSortField, SortOrder

router = versioned_router("assets")


@router.get(
    "/assets",
    operation_id="list_assets",
    summary="List assets",
    responses=revalidated(AssetList),
    openapi_extra=requires("assets:read"),
)
async def list_assets(
    upstream: UpstreamDep,
    page: PageNumber = 0,
    page_size: PageSize = 100,
    text_search: TextSearch = None,
    asset_type: ExactType = None,
    sort_by: Annotated[AssetSortField | None, Query()] = None,
    sort_order: Annotated[SortOrder | None, Query(description="ASC unless given.")] = None,
) -> Response:
    """Return one page of the assets that the gateway's account may see."""
    listed = await upstream.assets.list_page(
        {
            "page": page,
            "pageSize": page_size,
            "textSearch": text_search,
            "type": asset_type,
            **sorting(sort_by, sort_order),
        }
    )
    return paged(listed, number=page, size=page_size)


add_entity_routes(router, ASSET, AssetAnswer)
