"""Relations between entities, and the graph they make."""

from typing import Annotated, Any, Literal

from fastapi import Path, Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from app.api.envelope import paged_locally, success, tagged
from app.api.etags import revalidated
from app.api.route import requires, versioned_router
from app.deps import PageNumber, PageSize, UpstreamDep
from app.errors import UnprocessableRequest
from app.schemas.relations import Graph, GraphEntityType, RelationAnswer, RelationBody, RelationList
from app.services import graph, relations
from app.services.addressing import NAME_PREFIX

router = versioned_router("relations")

Reference = Query(
    min_length=1, max_length=300, description="UUID, or `name:` and the exact name of a device or asset."
)


@router.get(
    "/relations",
    operation_id="list_relations",
    summary="List the relations of one entity",
    responses=revalidated(RelationList),
    openapi_extra=requires("relations:read"),
)
async def list_relations(
    upstream: UpstreamDep,
    entity_id: Annotated[str, Reference],
    entity_type: GraphEntityType,
    direction: Annotated[
        Literal["FROM", "TO"], Query(description="FROM: those that start at it; TO: those that end at it.")
    ] = "FROM",
    page: PageNumber = 0,
    page_size: PageSize = 100,
) -> Response:
    """Return the relations that start or end at an entity, with the names of the other ends."""
    listed = await relations.list_of(upstream, entity_type, entity_id, direction)
    return paged_locally(listed, number=page, size=page_size)


@router.post(
    "/relations",
    operation_id="create_relation",
    summary="Create a relation",
    status_code=201,
    responses={201: {"model": RelationAnswer}},
    openapi_extra=requires("relations:write"),
)
async def create_relation(upstream: UpstreamDep, relation: RelationBody) -> Response:
    """Relate two entities. Creating the same relation again changes nothing."""
    return success({"data": await relations.create(upstream, relation)}, status_code=201)


@router.delete(
    "/relations",
    operation_id="delete_relation",
    summary="Delete a relation",
    responses={200: {"model": RelationAnswer}},
    openapi_extra=requires("relations:write"),
)
async def delete_relation(
    request: Request,
    upstream: UpstreamDep,
    from_id: Annotated[str | None, Reference] = None,
    from_type: GraphEntityType | None = None,
    to_id: Annotated[str | None, Reference] = None,
    to_type: GraphEntityType | None = None,
    type: Annotated[str | None, Query(min_length=1, max_length=255)] = None,  # noqa: A002 - the contract's word
) -> Response:
    """Delete one relation, named in the query; all five parameters are needed.

    The body that creates a relation is taken here as well, in place of the query.
    """
    named = {
        "from": {"id": from_id, "entity_type": from_type},
        "to": {"id": to_id, "entity_type": to_type},
        "type": type,
    }
    relation = parse_relation(named, await request.body() if not request.query_params else b"")
    return success({"data": await relations.delete(upstream, relation)})


def parse_relation(named: dict[str, Any], body: bytes) -> RelationBody:
    """Read the relation from the body when there is one, else from the query."""
    try:
        return RelationBody.model_validate_json(body) if body else RelationBody.model_validate(named)
    except ValidationError as error:
        fault = error.errors()[0]
        path = [str(part) for part in fault["loc"]]
        field, issue = ".".join(path) or "body", fault["msg"]
        if not body:
            # In the query the parts of an end are parameters of their own.
            field, issue = "_".join(path).replace("entity_", ""), "is needed"
        raise UnprocessableRequest(f"{field}: {issue}", details={"field": field, "issue": issue}) from None


@router.get(
    "/graph/{root_id}",
    operation_id="get_graph",
    summary="Get the relation graph around an entity",
    responses=revalidated(Graph),
    openapi_extra=requires("relations:read"),
)
async def get_graph(
    upstream: UpstreamDep,
    root_id: Annotated[
        str,
        Path(
            max_length=300, description=f"UUID, or `{NAME_PREFIX}` and the exact name of a device or asset."
        ),
    ],
    root_type: GraphEntityType = "ASSET",
    max_depth: Annotated[int, Query(ge=1, le=50, description="Steps away from the root.")] = 5,
    direction: Annotated[
        Literal["FROM", "TO", "BOTH"],
        Query(description="FROM: what lies below; TO: what lies above; BOTH: the two together."),
    ] = "FROM",
    types: Annotated[
        str | None,
        Query(max_length=2000, description="Comma list of relation types to follow; all when absent."),
    ] = None,
    hard_node_limit: Annotated[int, Query(ge=1, le=10_000, description="Nodes in the answer at most.")] = 500,
) -> Response:
    """Walk the relations from an entity and return nodes with names and depths, and edges.

    Cycles are walked once. When there are more nodes than `hard_node_limit`, the farthest are left out and
    `truncated` is true.
    """
    chosen = [part.strip() for part in types.split(",") if part.strip()] if types else []
    walked = await graph.build(
        upstream,
        root_type,
        root_id,
        direction=direction,
        max_depth=max_depth,
        types=chosen,
        node_limit=hard_node_limit,
    )
    return tagged(walked)
