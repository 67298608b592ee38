"""Latest values that were read a moment ago. Off unless `LATEST_CACHE_SECONDS` says how old they may be.

It belongs to one credential, as the calls that it serves do. A write through this process ends what is kept
of the entity; a device's own points, other processes and other programs do not (ADR 0006).
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_ENTITIES = 10_000
MOST_BYTES = 16 << 20
#: Answers of one entity, for different keys.
MOST_ANSWERS = 16
LARGEST_ANSWER = 1 << 20

Entity = tuple[str, str]
Keys = tuple[str, ...] | None


class Kept(NamedTuple):
    """An answer as JSON text, and its age in seconds."""

    content: bytes
    age: float


@dataclass(slots=True, eq=False)
class Answers:
    """What is kept of one entity, with the moment at which each read began."""

    by_keys: dict[Keys, tuple[float, bytes]] = field(default_factory=dict)
    size: int = 0


class LatestCache:
    """For one event loop. Bounded in entities and bytes; what was used least recently goes first."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.clock = seconds, clock
        self._entities: OrderedDict[Entity, Answers] = OrderedDict()
        self.size = 0
        #: Looked for and found; looked for and not, or too old.
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._entities)

    def find(self, entity: Entity, keys: Sequence[str] | None) -> Kept | None:
        """Return what is kept and not too old."""
        kept = self._find(entity, keys)
        if kept is None:
            self.misses += 1
            return None
        self.hits += 1
        return kept

    def _find(self, entity: Entity, keys: Sequence[str] | None) -> Kept | None:
        answers = self._entities.get(entity)
        found = answers and answers.by_keys.get(_of(keys))
        if not found:
            return None
        began, content = found
        age = self.clock() - began
        if age >= self.seconds:
            return None
        self._entities.move_to_end(entity)
        return Kept(content, age)

    def begin(self, entity: Entity) -> tuple[Answers, float]:
        """Return where the answer of a read that begins now is to be kept: nowhere, once `end` was called."""
        answers = self._entities.get(entity)
        if answers is None:
            answers = self._entities[entity] = Answers()
            if len(self._entities) > MOST_ENTITIES:
                self._drop_oldest()
        return answers, self.clock()

    def keep(
        self, begun: tuple[Answers, float], entity: Entity, keys: Sequence[str] | None, content: bytes
    ) -> None:
        """Keep what was read, unless the entity was written to since the read began."""
        answers, began = begun
        if self._entities.get(entity) is not answers or len(content) > LARGEST_ANSWER:
            return
        named = _of(keys)
        if len(answers.by_keys) >= MOST_ANSWERS and named not in answers.by_keys:
            self._resize(answers, -answers.size)
            answers.by_keys.clear()
        before, replaced = answers.by_keys.get(named, (0.0, b""))
        if replaced == content and self.clock() - before < self.seconds:
            # Two that shared one call: it began with the first of them.
            began = min(began, before)
        answers.by_keys[named] = began, content
        self._resize(answers, len(content) - len(replaced))
        while self.size > MOST_BYTES:
            self._drop_oldest()

    def end(self, entity: Entity) -> None:
        """Forget an entity that is being, or has been, written to; reads under way are not kept either."""
        answers = self._entities.pop(entity, None)
        if answers is not None:
            self.size -= answers.size

    def _resize(self, answers: Answers, by: int) -> None:
        answers.size += by
        self.size += by

    def _drop_oldest(self) -> None:
        _, answers = self._entities.popitem(last=False)
        self.size -= answers.size


def _of(keys: Sequence[str] | None) -> Keys:
    return None if keys is None else tuple(keys)
