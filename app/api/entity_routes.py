"""The routes that devices and assets have alike: make, read, change, delete, types in use."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.responses import Response

from app.api.entities import Entity, Kind, entity_in_path
from app.api.envelope import paged_locally, success, tagged
from app.api.etags import revalidated
from app.api.route import PREFIX, requires
from app.deps import PageNumber, PageSize, UpstreamDep
from app.schemas.common import Deleted, TypeList
from app.schemas.entities import SORT_FIELDS, EntityCreate, EntityPatch
from app.services import editing


def sorting(sort_by: str | None, sort_order: str | None) -> dict[str, str]:
    """Return ThingsBoard's parameters for an order; an order alone is one of creation."""
    if sort_by is None and sort_order is None:
        return {}
    return {"sortProperty": SORT_FIELDS[sort_by or "created_time"], "sortOrder": sort_order or "ASC"}


def add_entity_routes(router: APIRouter, kind: Kind, answer: type[BaseModel]) -> None:
    """Add them for one kind; `answer` documents a single entity."""
    _add_creation(router, kind, answer)
    _add_single(router, kind, answer)
    _add_types(router, kind)


def _add_creation(router: APIRouter, kind: Kind, answer: type[BaseModel]) -> None:
    @router.post(
        f"/{kind.plural}",
        operation_id=f"create_{kind.word}",
        summary=f"Create {kind.article} {kind.word}",
        status_code=201,
        responses={201: {"model": answer}},
        openapi_extra=requires(f"{kind.plural}:write"),
    )
    async def create(upstream: UpstreamDep, entity: EntityCreate) -> Response:
        """Make it and return it as stored. A name that is taken is a 409."""
        calls = upstream.entities(kind.entity_type)
        made = await calls.save(entity.model_dump(by_alias=True, exclude_none=True))
        location = f"{PREFIX}/{kind.plural}/{made['id']['id']}"
        return success({"data": made}, status_code=201, headers={"Location": location})


def _add_single(router: APIRouter, kind: Kind, answer: type[BaseModel]) -> None:
    find = entity_in_path(kind)

    @router.get(
        kind.path,
        operation_id=f"get_{kind.word}",
        summary=f"Get one {kind.word}",
        responses=revalidated(answer),
        openapi_extra=requires(f"{kind.plural}:read"),
    )
    async def get(upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)]) -> Response:
        """Return it as ThingsBoard holds it, addressed by its id or by `name:` and its exact name."""
        return tagged({"data": await upstream.entities(entity.type).get(entity.id)})

    @router.patch(
        kind.path,
        operation_id=f"update_{kind.word}",
        summary=f"Change {kind.article} {kind.word}",
        responses={200: {"model": answer}},
        openapi_extra=requires(f"{kind.plural}:write"),
    )
    async def update(
        upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)], changes: EntityPatch
    ) -> Response:
        """Change the given fields. A change by somebody else meanwhile is a 409: read again and repeat."""
        fields = changes.model_dump(by_alias=True, exclude_unset=True)
        return success({"data": await editing.patch(upstream.entities(entity.type), entity.id, fields)})

    @router.delete(
        kind.path,
        operation_id=f"delete_{kind.word}",
        summary=f"Delete {kind.article} {kind.word}",
        responses={200: {"model": Deleted}},
        openapi_extra=requires(f"{kind.plural}:write"),
    )
    async def delete(upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)]) -> Response:
        """Delete it with its telemetry, attributes and relations. It cannot be undone."""
        await upstream.entities(entity.type).delete(entity.id)
        return success({**entity.identified, "message": f"{kind.word.capitalize()} deleted."})


def _add_types(router: APIRouter, kind: Kind) -> None:
    @router.get(
        f"/{kind.word}-types",
        operation_id=f"list_{kind.word}_types",
        summary=f"List {kind.word} types",
        responses=revalidated(TypeList),
        openapi_extra=requires(f"{kind.plural}:read"),
    )
    async def list_types(upstream: UpstreamDep, page: PageNumber = 0, page_size: PageSize = 100) -> Response:
        """Return the types that are in use."""
        types = await upstream.entities(kind.entity_type).types()
        return paged_locally(types, number=page, size=page_size)
