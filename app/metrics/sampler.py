"""Copies what the process counts into prometheus_client's metrics."""

import asyncio
from collections.abc import Callable
from typing import Literal, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

from app.metrics.reading import Durations, Process, Reading, Values
from app.metrics.readings import DURATIONS, READINGS
from app.metrics.tally import Tally

#: Of a worker that is not the one being scraped, what is told is no older.
EVERY_SECONDS = 1.0

Labels = tuple[str, ...]


class _Copied:
    """One reading and the metric that it becomes."""

    def __init__(self, reading: Reading, registry: CollectorRegistry) -> None:
        self._reading = reading
        self._metric: Counter | Gauge
        if reading.how == "counter":
            self._metric = Counter(reading.name, reading.help, reading.labels, registry=registry)
        else:
            mode: Literal["livesum", "livemax"] = "livesum" if reading.how == "sum" else "livemax"
            self._metric = Gauge(
                reading.name, reading.help, reading.labels, registry=registry, multiprocess_mode=mode
            )
        #: Children by their labels, with the last value of each.
        self._told: dict[Labels, tuple[Counter | Gauge, float]] = {}

    def copy(self, process: Process) -> None:
        seen: set[Labels] = set()
        for labels, value in self._reading.read(process):
            seen.add(labels)
            child, before = self._told.get(labels) or (child_of(self._metric, labels), None)
            if value != before:
                self._tell(child, value, before or 0.0)
                self._told[labels] = child, value
        if isinstance(self._metric, Gauge):
            for labels in self._told.keys() - seen:
                self._tell(self._told.pop(labels)[0], 0.0, 0.0)

    @staticmethod
    def _tell(child: Counter | Gauge, value: float, before: float) -> None:
        if isinstance(child, Gauge):
            child.set(value)
        else:
            # What counts may have been replaced by another that begins anew.
            child.inc(max(0.0, value - before))


class _CopiedDurations:
    """One metric of durations and the histogram that it becomes."""

    def __init__(self, durations: Durations, registry: CollectorRegistry) -> None:
        self._durations, self._registry = durations, registry
        self._metric: Histogram | None = None
        self._told: dict[Labels, tuple[Histogram, list[int], float]] = {}

    def copy(self, process: Process) -> None:
        for labels, tally in self._durations.read(process):
            told = self._told.get(labels)
            child, counts, seconds = told or (self._child(labels, tally), [0] * len(tally.counts), 0.0)
            if tally.counts == counts and told:
                continue
            # The library has no way to add many at once: these are the parts that `observe` adds to.
            for bucket, count, before in zip(child._buckets, tally.counts, counts, strict=True):  # noqa: SLF001
                if count != before:
                    bucket.inc(count - before)
            child._sum.inc(tally.seconds - seconds)  # noqa: SLF001
            self._told[labels] = child, list(tally.counts), tally.seconds

    def _child(self, labels: Labels, tally: Tally) -> Histogram:
        if self._metric is None:
            of = self._durations
            self._metric = Histogram(
                of.name, of.help, of.labels, buckets=tally.bounds, registry=self._registry
            )
        return child_of(self._metric, labels)


class Sampler:
    """Keeps the metrics of one process up to date, in a registry of its own. For one event loop."""

    def __init__(self, process: Process) -> None:
        # The time at which each series began, as a series of its own: nobody asks.
        prometheus_client.disable_created_metrics()
        self.registry, self._process = CollectorRegistry(), process
        self._copied: list[_Copied | _CopiedDurations] = [
            *(_Copied(reading, self.registry) for reading in (*READINGS, *system_readings())),
            *(_CopiedDurations(durations, self.registry) for durations in DURATIONS),
        ]

    def sample(self) -> None:
        """Copy everything now."""
        for copied in self._copied:
            copied.copy(self._process)

    async def run(self) -> None:
        """Copy everything once a second until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(EVERY_SECONDS)


Metric = TypeVar("Metric", bound=MetricWrapperBase)


def child_of(metric: Metric, labels: Labels) -> Metric:
    """Return the series with these labels; a metric without labels is its own."""
    return metric.labels(*labels) if labels else metric


def system_readings() -> list[Reading]:
    """Return what the operating system says of the process: the library tells it of one worker only."""
    collector = ProcessCollector(registry=None)

    def of(name: str) -> Callable[[Process], Values]:
        return lambda _: [
            ((), metric.samples[0].value) for metric in collector.collect() if metric.name == name
        ]

    memory, cpu, files, limit = (
        f"process_{name}" for name in ("resident_memory_bytes", "cpu_seconds", "open_fds", "max_fds")
    )
    return [
        Reading(memory, "Resident memory of the workers.", "sum", (), of(memory)),
        Reading(cpu, "CPU time of the workers.", "counter", (), of(cpu)),
        Reading(files, "Open file descriptors of the workers.", "sum", (), of(files)),
        Reading(limit, "File descriptors that a worker may open.", "max", (), of(limit)),
    ]
