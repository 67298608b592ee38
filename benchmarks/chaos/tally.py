"""What became of each request, and what was wrong."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """Something that was broken, from then on until it was whole again and had settled."""

    name: str
    began: float
    ended: float


@dataclass(frozen=True)
class Outcome:
    """One request: what it was, when, and how it failed, if it did. Seconds since the load began."""

    operation: str
    began: float
    ended: float
    failure: str | None = None

    def meets(self, events: Sequence[Event]) -> Event | None:
        """Return the event that happened while it was under way, the last one if there are several."""
        met = [event for event in events if self.began <= event.ended and self.ended >= event.began]
        return met[-1] if met else None


@dataclass
class Tally:
    """All requests of the load."""

    outcomes: list[Outcome] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def accuse(self, operation: str, faults: Iterable[str]) -> None:
        """Note wrong answers."""
        self.wrong += [f"{operation}: {fault}" for fault in faults]

    @property
    def failed(self) -> list[Outcome]:
        """The requests that failed."""
        return [outcome for outcome in self.outcomes if outcome.failure]

    def during(self, event: Event | None, events: Sequence[Event]) -> list[Outcome]:
        """Return the requests that met this one of the events; with None those that met none."""
        return [outcome for outcome in self.outcomes if outcome.meets(events) is event]

    def kinds(self, outcomes: Iterable[Outcome]) -> dict[str, Counter[str]]:
        """Count failures by their kind, and by operation within each."""
        counted: dict[str, Counter[str]] = {}
        for outcome in outcomes:
            if outcome.failure:
                counted.setdefault(outcome.failure, Counter())[outcome.operation] += 1
        return counted
