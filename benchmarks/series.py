"""A benchmark is a set of rounds; in each, A and B run in turn, so both see the same minutes."""

from __future__ import annotations

from dataclasses import dataclass
from operator import ge, le
from typing import TYPE_CHECKING

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.ratio import median_ratio_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a ratio should be; ``is_upper`` when smaller is better."""

    ratio: float
    is_upper: bool

    def text(self) -> str:
        """Returns the target as a reader writes it."""
        return f"{'<=' if self.is_upper else '>='} {self.ratio:g}"

    def verdict(self, estimate: Estimate) -> str:
        """Returns met, missed, or within reach when the interval holds the target."""
        better = le if self.is_upper else ge
        if better(estimate.point, self.ratio):
            return "met"
        if estimate.low <= self.ratio <= estimate.high:
            return "missed, within the interval"
        return "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the results."""

    name: str
    value: str
    interval: str = ""
    target: str = ""
    verdict: str = ""


def interleave(
    ours: Callable[[], Sequence[float]],
    theirs: Callable[[], Sequence[float]],
    *,
    rounds: int,
) -> tuple[list[list[float]], list[list[float]]]:
    """Runs A B, then B A, and so on; returns the values of each by round."""
    measured: list[list[float]] = []
    baseline: list[list[float]] = []
    for number in range(rounds):
        first_is_ours = number % 2 == 0
        for is_ours in (first_is_ours, not first_is_ours):
            if is_ours:
                measured.append(list(ours()))
            else:
                baseline.append(list(theirs()))
    return measured, baseline


def ratio_row(
    name: str,
    measured: Sequence[Sequence[float]],
    baseline: Sequence[Sequence[float]],
    *,
    target: Target,
) -> Row:
    """Returns the ratio of medians, ours over the yardstick, against its target."""
    estimate = median_ratio_interval(measured, baseline, confidence=CONFIDENCE)
    if isinstance(estimate, NotAvailable):
        return Row(name=name, value=estimate.reason, target=target.text(), verdict="not measured")
    return Row(
        name=name,
        value=f"{estimate.point:.3f}",
        interval=f"{estimate.low:.3f} .. {estimate.high:.3f}",
        target=target.text(),
        verdict=target.verdict(estimate),
    )
