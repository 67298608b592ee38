"""What became of each request, and what was wrong."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """One request: what it was, when, and how it failed, if it did. Seconds since the load began."""

    operation: str
    began: float
    ended: float
    failure: str | None = None


@dataclass(frozen=True)
class Event:
    """Something that was broken, from then on until it was whole again and had settled."""

    name: str
    began: float
    ended: float

    def touches(self, outcome: Outcome) -> bool:
        """Tell whether a request was under way while this happened."""
        return outcome.began <= self.ended and outcome.ended >= self.began


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

    def during(self, event: Event) -> list[Outcome]:
        """Return the requests that an event touches."""
        return [outcome for outcome in self.outcomes if event.touches(outcome)]

    def failed_outside(self, events: Sequence[Event]) -> list[Outcome]:
        """Return the failures that no event explains."""
        return [outcome for outcome in self.failed if not any(event.touches(outcome) for event in events)]

    def kinds(self, outcomes: Iterable[Outcome]) -> dict[str, Counter[str]]:
        """Count failures by their kind, and by operation within each."""
        counted: dict[str, Counter[str]] = {}
        for outcome in outcomes:
            if outcome.failure:
                counted.setdefault(outcome.failure, Counter())[outcome.operation] += 1
        return counted
