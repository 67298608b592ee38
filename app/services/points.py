"""Points on their way to ThingsBoard, and the bodies that carry them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, NamedTuple

import orjson

from app.services.values import Warnings

#: Below ThingsBoard's 16 MiB for a body.
CHUNK_BYTES = 15 * 1024 * 1024
#: Time stamps encoded at once: enough to be quick, few enough to hold little.
SLICE_ITEMS = 1_000

#: A time stamp, None for ThingsBoard's own, and its values by key.
Item = tuple[int | None, dict[str, Any]]


@dataclass(slots=True)
class Points:
    """Values by time stamp and key, and those without a time stamp, which get ThingsBoard's."""

    timed: dict[int, dict[str, Any]] = field(default_factory=dict)
    untimed: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    def keys(self) -> tuple[str, ...]:
        """Return the keys in the order of their first value."""
        keys: dict[str, Any] = {}
        for values in self.timed.values():
            keys |= values
        return tuple(keys | self.untimed)

    def add(self, ts: int, values: dict[str, Any], warnings: Warnings) -> None:
        """Add values that came later; they win over earlier ones of the same key and time."""
        known = self.timed.get(ts)
        if known is None:
            self.timed[ts] = values
            self.count += len(values)
        else:
            self.count += overlay(known, values, warnings)

    def merge(self, later: "Points", warnings: Warnings) -> None:
        """Add points that came later."""
        for ts, values in later.timed.items():
            self.add(ts, values, warnings)
        self.count += overlay(self.untimed, later.untimed, warnings)


def overlay(known: dict[str, Any], values: dict[str, Any], warnings: Warnings) -> int:
    """Write values of one time stamp over known ones; return how many keys are new."""
    for key in known.keys() & values.keys():
        warn_of_repetition(key, warnings)
    before = len(known)
    known |= values
    return len(known) - before


def warn_of_repetition(key: str, warnings: Warnings) -> None:
    """Say that ThingsBoard keeps one value a key and time."""
    warnings.add(key, "has several values for one time stamp; the last one is stored")


class Chunk(NamedTuple):
    """One body for ThingsBoard."""

    body: bytes
    points: int
    is_idempotent: bool


def iter_chunks(points: Points, limit: int = CHUNK_BYTES, *, skip: int = 0) -> Iterator[Chunk]:
    """Encode points into bodies of at most `limit` bytes, unless one value alone is longer.

    Args:
        skip: leave out so many points, those of the bodies before.
    """
    pieces: list[bytes] = []
    size = count = 0
    is_idempotent = True
    items = iter_items(points, skip)
    while some := list(islice(items, SLICE_ITEMS)):
        for piece, piece_count, is_timed in _encode(some, limit):
            if pieces and size + len(piece) > limit:
                yield Chunk(_join(pieces), count, is_idempotent)
                pieces, size, count, is_idempotent = [], 0, 0, True
            pieces.append(piece)
            size += len(piece) + 2
            count += piece_count
            is_idempotent = is_idempotent and is_timed
    if pieces:
        yield Chunk(_join(pieces), count, is_idempotent)


def iter_items(points: Points, skip: int = 0) -> Iterator[Item]:
    """Return times with their values, those without a time last, after the first `skip` values."""
    untimed: list[Item] = [(None, points.untimed)] if points.untimed else []
    items: Iterator[Item] = chain(points.timed.items(), untimed)
    for ts, values in items if skip else ():
        if skip < len(values):
            return chain([(ts, dict(islice(values.items(), skip, None)))], items)
        skip -= len(values)
        if not skip:
            break
    return items


def _join(pieces: list[bytes]) -> bytes:
    return b"[" + b",".join(pieces) + b"]"


def _encode(items: Sequence[Item], limit: int) -> Iterator[tuple[bytes, int, bool]]:
    piece = orjson.dumps([values if ts is None else {"ts": ts, "values": values} for ts, values in items])[
        1:-1
    ]
    count = sum([len(values) for _, values in items])
    if len(piece) <= limit or count == 1:
        yield piece, count, items[-1][0] is not None
        return
    if len(items) == 1:
        ts, values = items[0]
        pairs = list(values.items())
        items = [(ts, dict(pairs[: count // 2])), (ts, dict(pairs[count // 2 :]))]
    middle = len(items) // 2
    yield from _encode(items[:middle], limit)
    yield from _encode(items[middle:], limit)
