"""The lines of the results: what was compared, what was aimed at, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from seatrial.stats.quantile import order_statistic_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.model.estimate import Estimate

CONFIDENCE = 0.95


def today() -> str:
    """Returns the date of a measurement that is made now."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the results."""

    id: str
    name: str
    ours: str = ""
    theirs: str = ""
    ratio: str = ""
    target: str = ""
    verdict: str = ""
    foreign: str = ""
    """Processors that others kept busy in the worst run that counts."""
    date: str = field(default_factory=today)

    def cells(self) -> tuple[str, ...]:
        """Returns what the table shows, in the order of `COLUMNS`."""
        return (
            self.id,
            self.name,
            self.ours,
            self.theirs,
            self.ratio,
            self.target,
            self.verdict,
            self.foreign,
            self.date,
        )


COLUMNS = ("id", "what", "ours", "theirs", "ratio", "target", "verdict", "foreign CPU", "date")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What must be reached, and what would be better still; `is_upper` when smaller is better."""

    must: float
    stretch: float | None = None
    is_upper: bool = False
    unit: str = ""

    def text(self) -> str:
        """Returns the target as a reader writes it."""
        sign = "<=" if self.is_upper else ">="
        text = f"{sign} {self.must:g}{self.unit}"
        return text if self.stretch is None else f"{text} (stretch {self.stretch:g}{self.unit})"

    def verdict(self, low: float, high: float) -> str:
        """Returns what a 95 % interval says: met, not met, or uncertain when it holds the target.

        The bounds are in the target's unit.
        """
        best, worst = (low, high) if self.is_upper else (high, low)
        if self.stretch is not None and self._reaches(worst, self.stretch):
            return "met, stretch too"
        if self._reaches(worst, self.must):
            return "met"
        return "uncertain" if self._reaches(best, self.must) else "not met"

    def _reaches(self, value: float, bound: float) -> bool:
        return value <= bound if self.is_upper else value >= bound


def interval_text(estimate: Estimate) -> str:
    """Returns a ratio with its interval."""
    return f"{estimate.point:.3g} [{estimate.low:.3g} .. {estimate.high:.3g}]"


def median_bounds(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns a 95 % interval of the median by order statistics; None for fewer than six values."""
    ranks = order_statistic_ranks(len(values), 0.5, confidence=CONFIDENCE)
    if ranks is None:
        return None
    ordered = sorted(values)
    return ordered[ranks.low - 1], ordered[ranks.high - 1]
