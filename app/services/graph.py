"""The relation graph around an entity: at most three ThingsBoard calls, whatever its size."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.errors import UpstreamGarbled
from app.services.addressing import NAME_PREFIX
from app.services.relations import SHOWN_TYPES, resolve_any, shown_name
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.relations import Direction

GraphDirection = Literal["FROM", "TO", "BOTH"]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Edge:
    """One relation; `start` and `end` are (type, id)."""

    start: Key
    end: Key
    relation_type: str


@dataclass(slots=True)
class Walk:
    """What one direction found, read from ThingsBoard's flat list."""

    edges: list[Edge] = field(default_factory=list)
    names: dict[Key, str | None] = field(default_factory=dict)


async def build(
    upstream: ThingsBoardClient,
    root_type: str,
    reference: str,
    *,
    direction: GraphDirection,
    max_depth: int,
    types: Sequence[str],
    node_limit: int,
) -> dict[str, Any]:
    """Return root, nodes, edges, depth and truncated. BOTH is what lies above and what lies below the root.

    Raises:
        NotFound: the root is missing or another's.
    """
    root_id = await resolve_any(upstream, root_type, reference, "root_id")
    directions: tuple[Direction, ...] = ("FROM", "TO") if direction == "BOTH" else (direction,)
    root_name, walks = await asyncio.gather(
        _name_of(upstream, root_type, root_id, reference),
        asyncio.gather(*(_walk(upstream, root_type, root_id, each, max_depth) for each in directions)),
    )
    root = (root_type, root_id)
    graph = _Builder(root, root_name, node_limit)
    for each, walk in zip(directions, walks, strict=True):
        graph.add(walk, each, frozenset(types), max_depth)
    return graph.shape()


async def _name_of(upstream: ThingsBoardClient, root_type: str, root_id: str, reference: str) -> str | None:
    if reference.startswith(NAME_PREFIX):
        return reference.removeprefix(NAME_PREFIX)
    # A walk never tells the root's name (recordings relations.json).
    root = await upstream.get_entity(root_type, root_id)
    # Customers have a title in the place of a name.
    return root.get("title") or root.get("name")


async def _walk(
    upstream: ThingsBoardClient, root_type: str, root_id: str, direction: Direction, levels: int
) -> Walk:
    """Walk without a type filter: ThingsBoard's would cut the result into pieces."""
    return read_walk(await upstream.relations.walk(root_type, root_id, direction, levels=levels), direction)


def read_walk(relations: Iterable[dict[str, Any]], direction: Direction) -> Walk:
    """Read relations between entities of the shown types."""
    walk = Walk()
    try:
        for relation in relations:
            start, end = _key(relation["from"]), _key(relation["to"])
            if start[0] not in SHOWN_TYPES or end[0] not in SHOWN_TYPES:
                continue
            walk.edges.append(Edge(start, end, relation["type"]))
            found, name = (end, "toName") if direction == "FROM" else (start, "fromName")
            walk.names[found] = shown_name(relation.get(name))
    except (KeyError, TypeError):
        raise UpstreamGarbled(note="not_a_relation") from None
    return walk


def _key(reference: dict[str, str]) -> Key:
    return reference["entityType"], reference["id"]


class _Builder:
    """Collects nodes breadth first, so that a limit cuts the farthest."""

    def __init__(self, root: Key, name: str | None, node_limit: int) -> None:
        self.root, self.node_limit = root, node_limit
        self.names: dict[Key, str | None] = {root: name}
        self.depths: dict[Key, int] = {root: 0}
        # A dict, for its order: the same edge may come from both walks.
        self.edges: dict[Edge, None] = {}
        self.truncated = False

    def add(self, walk: Walk, direction: Direction, types: frozenset[str], max_depth: int) -> None:
        """Add what one walk reached over edges of these types (all when there are none)."""
        steps: defaultdict[Key, list[tuple[Key, Edge]]] = defaultdict(list)
        for edge in walk.edges:
            if not types or edge.relation_type in types:
                near, far = (edge.start, edge.end) if direction == "FROM" else (edge.end, edge.start)
                steps[near].append((far, edge))
        depths = {self.root: 0}
        queue = deque([self.root])
        while queue:
            near = queue.popleft()
            if depths[near] == max_depth:
                continue
            for far, edge in steps[near]:
                if far not in depths:
                    if not self._admit(far, depths[near] + 1, walk.names.get(far)):
                        continue
                    depths[far] = depths[near] + 1
                    queue.append(far)
                self.edges[edge] = None

    def _admit(self, node: Key, depth: int, name: str | None) -> bool:
        if node not in self.depths:
            if len(self.depths) >= self.node_limit:
                self.truncated = True
                return False
            self.depths[node] = depth
        self.depths[node] = min(self.depths[node], depth)
        self.names.setdefault(node, name)
        return True

    def shape(self) -> dict[str, Any]:
        """Return the answer's members."""
        root_type, root_id = self.root
        return {
            "root": {"id": root_id, "type": root_type, "name": self.names[self.root]},
            "nodes": [
                {"id": node[1], "type": node[0], "name": self.names[node], "depth": depth}
                for node, depth in self.depths.items()
            ],
            "edges": [
                {"from": edge.start[1], "to": edge.end[1], "relation_type": edge.relation_type}
                for edge in self.edges
            ],
            "depth": max(self.depths.values()),
            "truncated": self.truncated,
        }
