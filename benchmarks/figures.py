"""Numbers from measurements: percentiles, results against budgets, and how they are told."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

#: Shares of the latency curve.
SHARES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the budget table. `measured` is None when the feature does not exist."""

    line: str
    budget: str
    measured: float | None
    unit: str
    holds: bool | None
    #: Measured over the limit for "at most", limit over measured for "at least": 1 is the budget itself.
    share: float | None = None

    @classmethod
    def at_most(cls, line: str, limit: float, measured: float, unit: str) -> Self:
        """Judge a value that should be small."""
        share = measured / limit if limit else None
        return cls(line, f"<= {limit:g}", measured, unit, measured <= limit, share)

    @classmethod
    def at_least(cls, line: str, limit: float, measured: float, unit: str) -> Self:
        """Judge a value that should be large."""
        share = limit / measured if measured else None
        return cls(line, f">= {limit:g}", measured, unit, measured >= limit, share)

    @classmethod
    def not_built(cls, line: str, budget: str, unit: str) -> Self:
        """Stand in for a feature that does not exist."""
        return cls(line, budget, None, unit, None)

    def as_json(self) -> dict[str, Any]:
        """Return the members that `results.json` promises."""
        members = asdict(self)
        del members["share"]
        if self.measured is not None:
            members["measured"] = rounded(self.measured)
        return members

    @property
    def verdict(self) -> str:
        """Return the sign for a reader."""
        if self.holds is None:
            return "⏳"
        return "✅" if self.holds else "❌"

    @property
    def shown(self) -> str:
        """Return the measured value with its unit, or why there is none."""
        if self.measured is None:
            return "not built" if self.holds is None else "could not be measured"
        return f"{rounded(self.measured):,} {self.unit}".strip()


def rounded(value: float) -> float:
    """Return a value with three significant digits: the measurements carry no more."""
    rough = float(f"{value:.3g}")
    return int(rough) if rough.is_integer() else rough


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    if not 0 <= share <= 1:
        raise ValueError("the share is between 0 and 1")
    ordered = sorted(values)
    rank = max(1, -int(-share * len(ordered) // 1))
    return ordered[min(rank, len(ordered)) - 1]


def percentiles(values: Sequence[float]) -> dict[float, float]:
    """Return the latency curve."""
    return {share: percentile(values, share) for share in SHARES}


def best_percentiles(rounds: Sequence[Sequence[float]]) -> dict[float, float]:
    """Return the curve of the least disturbed round, share by share: what disturbs only ever adds."""
    curves = [percentiles(values) for values in rounds]
    return {share: min(curve[share] for curve in curves) for share in SHARES}
