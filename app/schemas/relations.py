"""Relations and the graph they make."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.schemas.common import EntityId, Int64, Pagination, Success

GraphEntityType = Literal["DEVICE", "ASSET", "ENTITY_VIEW", "CUSTOMER"]
RelationType = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]


class RelationEnd(BaseModel):
    """One end of a relation."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(
        max_length=300, description="UUID; for devices and assets also `name:` and the exact name."
    )
    entity_type: GraphEntityType


class RelationBody(BaseModel):
    """A directed, typed relation."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    from_: RelationEnd = Field(alias="from")
    to: RelationEnd
    type: RelationType


class Relation(BaseModel):
    """ThingsBoard's relation, unchanged."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    from_: EntityId = Field(alias="from")
    to: EntityId
    type: str
    from_name: str | None = Field(default=None, alias="fromName")
    to_name: str | None = Field(default=None, alias="toName")


class RelationList(Success):
    """Relations of one entity."""

    data: list[Relation]
    pagination: Pagination


class RelationAnswer(Success):
    """A relation, ends given as ids."""

    data: RelationBody


class GraphNode(BaseModel):
    """An entity and how many steps it is away from the root."""

    id: str
    type: str
    name: str | None
    depth: Int64


class GraphEdge(BaseModel):
    """A relation between two nodes."""

    model_config = ConfigDict(populate_by_name=True)

    from_: str = Field(alias="from")
    to: str
    relation_type: str


class GraphRoot(BaseModel):
    """Where the walk began."""

    id: str
    type: str
    name: str | None


class Graph(Success):
    """What is reachable from the root."""

    root: GraphRoot
    nodes: list[GraphNode]
    edges: list[GraphEdge]
    depth: Int64 = Field(description="Largest depth of a node.")
    truncated: bool = Field(description="Whether `hard_node_limit` cut the graph.")
