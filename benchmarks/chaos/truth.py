"""What was sent and acknowledged, and whether what is read back agrees with it.

The value of a point follows from its device, key and time, so that a wrong one shows wherever it is read.
"""

import itertools
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

FIRST_MS = 1_750_000_000_000
STEP_MS = 1_000
DEVICES = 20
#: Written by one writer each, one point after the other: streams promise order only then.
STREAMED = 4
SERIAL, SINGLE, BULK, ARCHIVE, DELIVERED = "serial", "single", "bulk", "archive", "delivered"
ARCHIVE_POINTS = 200_000
#: `LATEST_CACHE_SECONDS` of the replicas, and a second for a read under way that others join (docs/adr/0006).
CACHE_SECONDS = 1
STALE_SECONDS = CACHE_SECONDS + 1.0


class Reading(NamedTuple):
    """A point as somebody read it."""

    ts: int
    value: Any


@dataclass
class Track:
    """The points of one key of one device, by time: when each was first sent, and when acknowledged."""

    sent: dict[int, float] = field(default_factory=dict)
    acknowledged: dict[int, float] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)

    def acknowledged_before(self, moment: float) -> set[int]:
        """Return the times of what had been acknowledged by then."""
        return {ts for ts, at in self.acknowledged.items() if at < moment}


class Ledger:
    """All points of the load. Moments are of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.tracks: dict[tuple[int, str], Track] = defaultdict(Track)

    @property
    def acknowledged(self) -> int:
        """How many points have been acknowledged."""
        return sum(len(track.acknowledged) for track in self.tracks.values())

    @property
    def in_doubt(self) -> int:
        """How many points were sent and not acknowledged."""
        return sum(len(track.sent) - len(track.acknowledged) for track in self.tracks.values())

    def send(self, device: int, key: str, count: int, moment: float) -> list[int]:
        """Return the times of the next points, which are sent now."""
        track = self.tracks[device, key]
        first = FIRST_MS + len(track.sent) * STEP_MS
        times = [first + number * STEP_MS for number in range(count)]
        track.sent.update(dict.fromkeys(times, moment))
        return times

    def acknowledge(self, device: int, key: str, times: Iterable[int], moment: float) -> None:
        """Note that somebody was told that these are stored."""
        self.tracks[device, key].acknowledged.update(dict.fromkeys(times, moment))

    def faults_of_series(self, device: int, key: str, readings: Sequence[Reading], began: float) -> list[str]:
        """Return what is wrong with all points of a key, read by a request that began then."""
        track, times = self.tracks[device, key], [reading.ts for reading in readings]
        faults = [f"{key}: {reading} was never sent" for reading in readings if reading.ts not in track.sent]
        faults += [
            f"{key}: {reading} has another value"
            for reading in readings
            if not is_right(device, key, reading)
        ]
        if any(later <= earlier for earlier, later in itertools.pairwise(times)):
            faults.append(f"{key}: not in the order of time")
        missing = track.acknowledged_before(began) - set(times)
        faults += [f"{key}: {ts} was acknowledged and is missing" for ts in sorted(missing)]
        return faults

    def faults_of_latest(self, device: int, key: str, reading: Reading | None, began: float) -> list[str]:
        """Return what is wrong with the newest point of a key."""
        track = self.tracks[device, key]
        newest = max(track.acknowledged_before(began - STALE_SECONDS), default=0)
        if reading is None:
            return [f"{key}: nothing, after {newest} was acknowledged"] if newest else []
        if reading.ts not in track.sent:
            return [f"{key}: {reading} was never sent"]
        if not is_right(device, key, reading):
            return [f"{key}: {reading} has another value"]
        return [f"{key}: {reading.ts} is older than {newest}"] if reading.ts < newest else []

    def faults_of_stream(
        self, device: int, heard: Sequence[Reading], announced: int, *, until: int
    ) -> list[str]:
        """Return what is wrong with what a stream delivered of a device.

        Args:
            announced: up to this time a `gap` said that points may be missing.
            until: the last point that the reader waited for.
        """
        track = self.tracks[device, SERIAL]
        if not heard:
            return ["nothing was heard"]
        faults = [
            f"{reading} has another value" for reading in heard if not is_right(device, SERIAL, reading)
        ]
        for earlier, later in itertools.pairwise(heard):
            if later.ts < earlier.ts:
                faults.append(f"{later.ts} came after {earlier.ts}")
            if later.ts == earlier.ts and later.ts not in track.repeated:
                faults.append(f"{later.ts} came twice")
        wanted = {ts for ts in track.acknowledged if max(heard[0].ts, announced) < ts <= until}
        missing = wanted - {reading.ts for reading in heard}
        return faults + [f"{ts} was neither delivered nor announced as missing" for ts in sorted(missing)]


def value_of(device: int, key: str, ts: int) -> float:
    """Return the only right value of a point."""
    return zlib.crc32(f"{device}/{key}/{ts}".encode()) % 1_000_000 / 1_000


def is_right(device: int, key: str, reading: Reading) -> bool:
    """Tell whether a point has its value, as a number."""
    right = value_of(device, key, reading.ts)
    return (
        isinstance(reading.value, int | float)
        and not isinstance(reading.value, bool)
        and reading.value == right
    )
