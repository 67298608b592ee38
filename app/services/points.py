"""Points on their way to ThingsBoard, and the bodies that carry them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import orjson

from app.services.values import Warnings

#: Below ThingsBoard's 16 MiB for a body.
CHUNK_BYTES = 15 * 1024 * 1024
#: Time stamps encoded at once: enough to be quick, few enough to hold little.
SLICE_ITEMS = 1_000


@dataclass(slots=True)
class Points:
    """Values by time stamp and key, and those without a time stamp, which get ThingsBoard's."""

    timed: dict[int, dict[str, Any]] = field(default_factory=dict)
    untimed: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    def keys(self) -> dict[str, None]:
        """Return the keys in the order of their first value."""
        keys: dict[str, None] = {}
        for values in (*self.timed.values(), self.untimed):
            keys |= dict.fromkeys(values)
        return keys

    def merge(self, later: "Points", warnings: Warnings) -> None:
        """Add points that came later; they win over earlier ones of the same key and time."""
        for ts, values in later.timed.items():
            known = self.timed.setdefault(ts, values)
            self.count += len(values) if known is values else overlay(known, values, warnings)
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


def iter_chunks(points: Points, limit: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Encode points into bodies of at most `limit` bytes, unless one value alone is longer."""
    pieces: list[bytes] = []
    size = count = 0
    is_idempotent = True
    for piece, piece_count, is_timed in _iter_pieces(points, limit):
        if pieces and size + len(piece) > limit:
            yield Chunk(_join(pieces), count, is_idempotent)
            pieces, size, count, is_idempotent = [], 0, 0, True
        pieces.append(piece)
        size += len(piece) + 2
        count += piece_count
        is_idempotent = is_idempotent and is_timed
    if pieces:
        yield Chunk(_join(pieces), count, is_idempotent)


def _join(pieces: list[bytes]) -> bytes:
    return b"[" + b",".join(pieces) + b"]"


def _iter_pieces(points: Points, limit: int) -> Iterator[tuple[bytes, int, bool]]:
    timed = iter(points.timed.items())
    while items := list(islice(timed, SLICE_ITEMS)):
        yield from _encode(items, limit)
    if points.untimed:
        yield from _encode([(None, points.untimed)], limit)


def _encode(
    items: Sequence[tuple[int | None, dict[str, Any]]], limit: int
) -> Iterator[tuple[bytes, int, bool]]:
    is_timed = items[0][0] is not None
    piece = orjson.dumps([{"ts": ts, "values": values} if is_timed else values for ts, values in items])[1:-1]
    count = sum(len(values) for _, values in items)
    if len(piece) <= limit or count == 1:
        yield piece, count, is_timed
        return
    if len(items) == 1:
        ts, values = items[0]
        pairs = list(values.items())
        items = [(ts, dict(pairs[: count // 2])), (ts, dict(pairs[count // 2 :]))]
    middle = len(items) // 2
    yield from _encode(items[:middle], limit)
    yield from _encode(items[middle:], limit)
