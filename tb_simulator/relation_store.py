"""Relations between entities, and the walks over them."""

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

Node = tuple[str, str]
"""``(entity type, id)``."""


class RelationKey(NamedTuple):
    """What identifies a relation."""

    source: Node
    target: Node
    type: str
    group: str


class Relation(NamedTuple):
    """A relation with its version and free information."""

    key: RelationKey
    version: int
    info: Any

    def end(self, direction: str) -> Node:
        """Return the node a walk in this direction arrives at."""
        return self.key.target if direction == "FROM" else self.key.source


class RelationStore:
    """All relations, indexed by both ends."""

    def __init__(self) -> None:
        self._from: dict[Node, dict[RelationKey, Relation]] = {}
        self._to: dict[Node, dict[RelationKey, Relation]] = {}
        self._versions = itertools.count(1)

    def save(self, key: RelationKey, info: Any = None) -> Relation:
        """Store a relation; saving it again gives it a new version (relations.json, "create again")."""
        relation = Relation(key, next(self._versions), info)
        self._from.setdefault(key.source, {})[key] = relation
        self._to.setdefault(key.target, {})[key] = relation
        return relation

    def find(self, key: RelationKey) -> Relation | None:
        """Return a relation or None."""
        return self._from.get(key.source, {}).get(key)

    def delete(self, key: RelationKey) -> bool:
        """Delete a relation; say whether there was one."""
        self._to.get(key.target, {}).pop(key, None)
        return self._from.get(key.source, {}).pop(key, None) is not None

    def leaving(self, node: Node, direction: str, group: str = "COMMON") -> list[Relation]:
        """Return the relations that a walk in this direction follows from a node."""
        index = self._from if direction == "FROM" else self._to
        return [relation for key, relation in index.get(node, {}).items() if key.group == group]

    def forget(self, kind: str, identifier: str) -> None:
        """Delete the relations of a deleted entity."""
        node = (kind, identifier)
        for key in [*self._from.get(node, {}), *self._to.get(node, {})]:
            self.delete(key)

    def walk(
        self, root: Node, direction: str, *, levels: int = 0, group: str = "COMMON", last_only: bool = False
    ) -> list[Relation]:
        """Return all relations within ``levels`` steps, each once, cycles included; 0 is no limit."""
        seen, found = {root}, []
        queue: deque[tuple[Node, int]] = deque([(root, 1)])
        while queue:
            node, level = queue.popleft()
            for relation in self.leaving(node, direction, group):
                end = relation.end(direction)
                go_on = end not in seen and (levels <= 0 or level < levels)
                if go_on:
                    seen.add(end)
                    queue.append((end, level + 1))
                if not last_only or not go_on or not self.leaving(end, direction, group):
                    found.append(relation)
        return found


def matching(relations: Iterable[Relation], filters: list[dict[str, Any]], direction: str) -> list[Relation]:
    """Keep what fits any filter; the walk itself is not cut (relations.json, "query with filters")."""
    if not filters:
        return list(relations)

    def fits(relation: Relation, one: dict[str, Any]) -> bool:
        wanted, kinds = one.get("relationType"), one.get("entityTypes") or []
        return wanted in {None, "", relation.key.type} and (not kinds or relation.end(direction)[0] in kinds)

    return [relation for relation in relations if any(fits(relation, one) for one in filters)]
