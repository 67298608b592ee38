"""Attributes of devices and assets: read, write, delete."""

from typing import Annotated

from fastapi import Depends, Path, Query
from pydantic import BaseModel
from starlette.responses import Response

from app.api.entities import ASSET, DEVICE, Entity, Kind, entity_in_path
from app.api.envelope import success, tagged
from app.api.etags import revalidated
from app.api.route import requires, versioned_router
from app.api.v1.uploads import JsonBody
from app.deps import UpstreamDep
from app.schemas.attributes import (
    ATTRIBUTES_SCHEMA,
    AssetAttributes,
    AssetAttributesByScope,
    AssetAttributesDeleted,
    AssetAttributesUploaded,
    DeviceAttributes,
    DeviceAttributesByScope,
    DeviceAttributesDeleted,
    DeviceAttributesUploaded,
    ScopeName,
    WritableScopeName,
)
from app.schemas.uploads import body_of
from app.services import attributes
from app.thingsboard.attributes import AttributeScope

router = versioned_router("attributes")

#: The scopes as paths name them.
SCOPE_NAMES: dict[str, AttributeScope] = {
    "server": "SERVER_SCOPE",
    "shared": "SHARED_SCOPE",
    "client": "CLIENT_SCOPE",
}


ScopeInPath = Annotated[
    ScopeName, Path(description="Whose attributes: the server's, shared ones, the client's own.")
]
WritableScope = Annotated[
    WritableScopeName, Path(description="Client attributes are the device's own to write.")
]


def _add_reads(kind: Kind, one_scope: type[BaseModel], all_scopes: type[BaseModel]) -> None:
    find = entity_in_path(kind)

    @router.get(
        f"{kind.path}/attributes",
        operation_id=kind.operation("get_all_{}attributes"),
        summary=f"Get all attributes of one {kind.word}",
        responses=revalidated(all_scopes),
        openapi_extra=requires("attributes:read"),
    )
    async def get_all_attributes(upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)]) -> Response:
        """Return the attributes of all three scopes."""
        found = await attributes.read_all(upstream, entity.type, entity.id)
        return tagged({**entity.identified, "data": found})

    @router.get(
        f"{kind.path}/attributes/{{scope}}",
        operation_id=kind.operation("get_{}attributes"),
        summary=f"Get attributes of one {kind.word}",
        responses=revalidated(one_scope),
        openapi_extra=requires("attributes:read"),
    )
    async def get_attributes(
        upstream: UpstreamDep,
        entity: Annotated[Entity, Depends(find)],
        scope: ScopeInPath,
        keys: Annotated[
            str | None, Query(min_length=1, description="Keys, separated by commas; all unless given.")
        ] = None,
    ) -> Response:
        """Return attributes of one scope. Keys that the entity does not have are left out."""
        name = SCOPE_NAMES[scope]
        found = await attributes.read_some(upstream, entity.type, entity.id, name, keys)
        return tagged({**entity.identified, "scope": name, "data": found})


def _add_upload(kind: Kind, answer: type[BaseModel]) -> None:
    find = entity_in_path(kind)

    @router.post(
        f"{kind.path}/attributes/{{scope}}",
        operation_id=kind.operation("upload_{}attributes"),
        summary=f"Write attributes of one {kind.word}",
        status_code=201,
        responses={201: {"model": answer}},
        openapi_extra={**requires("attributes:write"), **body_of(ATTRIBUTES_SCHEMA)},
    )
    async def upload_attributes(
        upstream: UpstreamDep, entity: Annotated[Entity, Depends(find)], scope: WritableScope, body: JsonBody
    ) -> Response:
        """Write attributes, `{"serial":"SN-1","limit":30.5}`; others of the scope stay as they are.

        `warnings` names every key of which ThingsBoard stores something else than was sent.
        """
        name = SCOPE_NAMES[scope]
        written = await attributes.write(upstream, entity.type, entity.id, name, body)
        return success(
            {
                **entity.identified,
                "scope": name,
                "attributes_uploaded": written.keys,
                "count": len(written.keys),
                "message": f"Stored {len(written.keys)} attributes.",
                "warnings": written.warnings,
            },
            status_code=201,
        )


def _add_delete(kind: Kind, answer: type[BaseModel]) -> None:
    find = entity_in_path(kind)

    @router.delete(
        f"{kind.path}/attributes/{{scope}}",
        operation_id=kind.operation("delete_{}attributes"),
        summary=f"Delete attributes of one {kind.word}",
        responses={200: {"model": answer}},
        openapi_extra=requires("attributes:write"),
    )
    async def delete_attributes(
        upstream: UpstreamDep,
        entity: Annotated[Entity, Depends(find)],
        scope: ScopeInPath,
        keys: Annotated[str, Query(min_length=1, description="Keys, separated by commas.")],
    ) -> Response:
        """Delete attributes of one scope. Unknown keys are no error."""
        name = SCOPE_NAMES[scope]
        deleted = await attributes.delete(upstream, entity.type, entity.id, name, keys)
        return success(
            {
                **entity.identified,
                "scope": name,
                "attributes_deleted": deleted,
                "count": len(deleted),
                "message": "Attributes deleted.",
            }
        )


_add_reads(DEVICE, DeviceAttributes, DeviceAttributesByScope)
_add_upload(DEVICE, DeviceAttributesUploaded)
_add_delete(DEVICE, DeviceAttributesDeleted)
_add_reads(ASSET, AssetAttributes, AssetAttributesByScope)
_add_upload(ASSET, AssetAttributesUploaded)
_add_delete(ASSET, AssetAttributesDeleted)
