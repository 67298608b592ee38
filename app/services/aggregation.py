"""Aggregates by ThingsBoard, put into our buckets: calendar-exact, and null where there is no number."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import UpstreamError, UpstreamGarbled
from app.services.allowance import Allowance
from app.services.fan_out import run_bounded
from app.services.pacing import is_too_slow
from app.thingsboard.client import ThingsBoardClient
from app.thingsboard.connection import Query
from app.thingsboard.telemetry import Series

#: ThingsBoard refuses more intervals in one call.
INTERVALS_A_CALL = 700
#: It takes a month for 30 days when it counts them, so fewer months fit.
MONTHS_A_CALL = 689
CALLS_AT_ONCE = 8
#: Units that ThingsBoard knows itself; days and hours are sent as runs of equal length.
THINGSBOARD_UNITS = {"week": "WEEK_ISO", "month": "MONTH"}
#: ThingsBoard answers 0, not nothing, where these find no number.
ZERO_FOR_NOTHING = frozenset({"AVG", "SUM"})
ALWAYS_NUMBERS = ZERO_FOR_NOTHING | {"COUNT"}
#: How often a run that is too slow is halved: each try may cost ThingsBoard's 30 s.
HALVINGS = 2

Bucket = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Function:
    """What is asked for in each bucket: `agg` over `interval` (ms, a unit, or None for one bucket)."""

    agg: str
    interval: int | str | None
    time_zone: str

    @property
    def thingsboard_unit(self) -> str | None:
        """Return ThingsBoard's name of the interval, or None where its buckets may be other than ours."""
        # Java reads some names without a region otherwise: its EST is New York, clock changes included.
        is_read_alike = "/" in self.time_zone or self.time_zone in {"UTC", "GMT"}
        return THINGSBOARD_UNITS.get(str(self.interval)) if is_read_alike else None

    @property
    def looks(self) -> int:
        """Return how often a run of buckets may have to be read: all but MIN may be doubtful at first."""
        return 1 if self.agg == "MIN" else 2


@dataclass(frozen=True, slots=True)
class Aggregates:
    """The values of each key by bucket, and the keys whose values are no numbers with how many buckets."""

    values: dict[str, dict[Bucket, Any]]
    not_numeric: dict[str, int]


async def aggregate(
    upstream: ThingsBoardClient,
    entity: tuple[str, str],
    keys: Sequence[str],
    function: Function,
    buckets: Sequence[Bucket],
    allowance: Allowance,
) -> Aggregates:
    """Return the aggregates of adjacent buckets, oldest first. The entity has been checked before.

    What it costs is taken off the allowance, which has to cover `looks` at each of the `runs_of` the buckets.
    Beyond that go only the halves of what ThingsBoard was too slow for.

    An average or sum of values that are not numbers is None. COUNT and MAX are ThingsBoard's, which mistakes
    them where a bucket holds values of several types: `exact_aggregates.py` is for callers who mind.
    """
    found = Aggregates({key: {} for key in keys}, {})
    if not keys or not buckets:
        return found
    reader = _Reader(upstream, entity, function, found, allowance)
    await run_bounded(runs_of(buckets, function), lambda run: reader.read(keys, run), at_once=CALLS_AT_ONCE)
    return found


def runs_of(buckets: Sequence[Bucket], function: Function) -> list[list[Bucket]]:
    """Cut adjacent buckets into runs that ThingsBoard can answer in one call each."""
    if function.thingsboard_unit:
        size = MONTHS_A_CALL if function.interval == "month" else INTERVALS_A_CALL
        return [list(buckets[index : index + size]) for index in range(0, len(buckets), size)]
    runs: list[list[Bucket]] = []
    for bucket in buckets:
        run = runs[-1] if runs else []
        length = run[0][1] - run[0][0] if run else 0
        is_full = len(run) == INTERVALS_A_CALL
        # A shorter bucket may end a run, where ThingsBoard clips it; nothing follows a shorter one.
        if run and not is_full and run[-1][1] - run[-1][0] == length >= bucket[1] - bucket[0]:
            run.append(bucket)
        else:
            runs.append([bucket])
    return runs


class _Reader:
    """Reads the runs of one query."""

    def __init__(
        self,
        upstream: ThingsBoardClient,
        entity: tuple[str, str],
        function: Function,
        found: Aggregates,
        allowance: Allowance,
    ) -> None:
        self._upstream, self._entity, self._function = upstream, entity, function
        self._found, self._allowance = found, allowance

    async def read(self, keys: Sequence[str], run: Sequence[Bucket], halvings: int = HALVINGS) -> None:
        """Read a run; in halves when ThingsBoard is too slow for the whole."""
        try:
            await self._read(keys, run)
        except UpstreamError as error:
            if halvings == 0 or len(run) == 1 or not is_too_slow(error):
                raise
            middle = len(run) // 2
            await self.read(keys, run[:middle], halvings - 1)
            await self.read(keys, run[middle:], halvings - 1)

    async def _read(self, keys: Sequence[str], run: Sequence[Bucket]) -> None:
        agg = self._function.agg
        answer = await self._ask(keys, run, agg)
        placed = {key: place(answer.get(key, []), run) for key in keys}
        if agg in ALWAYS_NUMBERS and not all(
            is_number(value) for of in placed.values() for value in of.values()
        ):
            raise UpstreamGarbled(note="aggregate_not_a_number")
        doubtful = [
            key for key in keys if agg in ZERO_FOR_NOTHING and any(map(is_zero, placed[key].values()))
        ]
        smallest = await self._ask(doubtful, run, "MIN") if doubtful else {}
        for key in doubtful:
            self._unmask(key, placed[key], place(smallest.get(key, []), run))
        for key in keys:
            self._found.values[key] |= placed[key]

    def _unmask(self, key: str, values: dict[Bucket, Any], smallest: dict[Bucket, Any]) -> None:
        """Turn each zero that stands for no number into None: only a number has a smallest number."""
        for bucket, value in values.items():
            if is_zero(value) and not is_number(smallest.get(bucket)):
                values[bucket] = None
                self._found.not_numeric[key] = self._found.not_numeric.get(key, 0) + 1

    async def _ask(self, keys: Sequence[str], run: Sequence[Bucket], agg: str) -> Series:
        unit = self._function.thingsboard_unit
        first_start, first_end = run[0]
        query: Query = {
            "startTs": first_start,
            "endTs": run[-1][1],
            "agg": agg,
            "orderBy": "ASC",
            "interval": None if unit else first_end - first_start,
            "intervalType": unit,
            "timeZone": self._function.time_zone if unit else None,
        }
        self._allowance.spend(keys)
        return await self._upstream.telemetry.history(*self._entity, keys, query=query)


def place(points: Sequence[Any], run: Sequence[Bucket]) -> dict[Bucket, Any]:
    """Put ThingsBoard's points, whose times are the middles of its buckets, into ours."""
    starts = [start for start, _ in run]
    placed = {}
    for point in points:
        try:
            middle, value = point["ts"], point["value"]
            index = bisect_right(starts, middle) - 1
        except (KeyError, TypeError):
            raise UpstreamGarbled(note="not_a_point") from None
        if index < 0 or middle > run[index][1]:
            raise UpstreamGarbled(note="bucket_outside_range")
        placed[run[index]] = value
    return placed


def is_number(value: Any) -> bool:
    """Tell whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_zero(value: Any) -> bool:
    """Tell whether a value is the number zero."""
    return is_number(value) and value == 0
