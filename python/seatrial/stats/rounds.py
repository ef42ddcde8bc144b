"""Batches that were started round after round: their times, and whether the rounds are alike.

A batch's makespan is what its slowest member takes from the first member's begin; a mean over
rounds that follow a trend, or whose first is unlike the rest, is the mean of nothing. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

#: A line through fewer points has no error of its slope.
TREND_ROUNDS_MIN_COUNT = 3
#: Change over all rounds, as a share of the mean, and slope in its standard errors, from which on
#: rounds are called drifting. Both must be reached.
TREND_CHANGE_RATIO_MIN = 0.10
TREND_T_MIN = 2.0
#: A first round within these shares of the median of all is like the others.
FIRST_ROUND_RATIO_LOW = 0.8
FIRST_ROUND_RATIO_HIGH = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What each round gave; only rounds in which every member has a row."""

    numbers: Integers
    """Numbers of the rounds, ascending."""
    makespans_ns: Integers
    """Latest end minus earliest begin."""
    means_ns: Floats
    """Mean of the members' own times, end minus begin."""
    lower_p99_ns: Integers
    """The member's time at rank floor(0.99 * (n - 1)), from 0: no interpolation upwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrend:
    """A straight line through one value a round."""

    change_ratio: float
    """Slope times the number of rounds, over the mean: 0.1 is 10 % more at the end."""
    t: float
    """Slope over its standard error; infinite where the line is exact."""
    kendall_z: float
    """Mann and Kendall's statistic: like ``t``, but of the order of the values alone."""

    @property
    def is_drifting(self) -> bool:
        """Whether the trend is both large and certain."""
        return abs(self.change_ratio) >= TREND_CHANGE_RATIO_MIN and abs(self.t) >= TREND_T_MIN


def rounds_of(rounds: Integers, begins_ns: Integers, ends_ns: Integers, *, members: int) -> Rounds:
    """Returns the times of each round that has all its members.

    Args:
        rounds: Number of each row's round.
        begins_ns: When each row's start began, on any one clock.
        ends_ns: When it was ready, on the same clock.
        members: Rows of a whole round.
    """
    order = np.argsort(rounds, kind="stable")
    numbers, first, counts = np.unique(rounds[order], return_index=True, return_counts=True)
    whole = counts == members
    begins, ends = begins_ns[order], ends_ns[order]
    if not numbers.size or not whole.any():
        nothing = np.empty(0, dtype=np.int64)
        return Rounds(
            numbers=nothing,
            makespans_ns=nothing,
            means_ns=nothing.astype(np.float64),
            lower_p99_ns=nothing,
        )
    makespans = np.maximum.reduceat(ends, first) - np.minimum.reduceat(begins, first)
    kept = np.repeat(whole, counts)
    spans = (ends - begins)[kept].reshape(-1, members)
    rank = math.floor(0.99 * (members - 1))
    return Rounds(
        numbers=numbers[whole],
        makespans_ns=makespans[whole],
        means_ns=spans.mean(axis=1),
        lower_p99_ns=np.partition(spans, rank, axis=1)[:, rank],
    )


def round_trend(values: Sequence[float] | Floats | Integers) -> RoundTrend | None:
    """Returns the trend of one value a round, in order; None below three or without a mean."""
    y = np.asarray(values, dtype=np.float64)
    count = int(y.size)
    mean = float(y.mean()) if count else 0.0
    if count < TREND_ROUNDS_MIN_COUNT or mean <= 0:
        return None
    x = np.arange(count) - (count - 1) / 2
    spread = float(np.sum(x**2))
    slope = float(np.sum(x * (y - mean))) / spread
    residuals = y - mean - slope * x
    error = math.sqrt(float(np.sum(residuals**2)) / (count - 2) / spread)
    exact = math.copysign(math.inf, slope) if slope else 0.0
    return RoundTrend(
        change_ratio=slope * count / mean,
        t=slope / error if error > 0 else exact,
        kendall_z=kendall_z([kendall_parts(y)]),
    )


def kendall_parts(y: Floats) -> tuple[float, float]:
    """Returns Mann and Kendall's S of one series and its variance, corrected for ties."""
    count = int(y.size)
    later = np.triu(np.ones((count, count), dtype=bool), 1)
    score = float(np.sum(np.sign(y[None, :] - y[:, None])[later]))
    _, ties = np.unique(y, return_counts=True)
    variance = (
        count * (count - 1) * (2 * count + 5) - float(np.sum(ties * (ties - 1) * (2 * ties + 5)))
    ) / 18
    return score, variance


def kendall_z(parts: Iterable[tuple[float, float]]) -> float:
    """Returns S in its standard errors, corrected for continuity; of several series, their sums.

    Hirsch, Slack and Smith (1982) add up seasons in the same way.
    """
    pairs = list(parts)
    score, variance = sum(one for one, _ in pairs), sum(one for _, one in pairs)
    if variance <= 0 or score == 0:
        return 0.0
    return (score - math.copysign(1, score)) / math.sqrt(variance)


def first_round_ratio(values: Sequence[float] | Floats | Integers) -> float | None:
    """Returns the first round's value over the median of all; None below three, or of zeros."""
    y = np.asarray(values, dtype=np.float64)
    if y.size < TREND_ROUNDS_MIN_COUNT or float(np.median(y)) <= 0:
        return None
    return float(y[0] / np.median(y))


def is_first_round_outlier(ratio: float | None) -> bool:
    """Whether the first round is unlike the others; a fresh pool may well make it *faster*."""
    return ratio is not None and not FIRST_ROUND_RATIO_LOW <= ratio <= FIRST_ROUND_RATIO_HIGH
