"""Did the machine change while we measured: drift over blocks, and the first round's handicap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seatrial.stats.dependence import student_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A sentinel that ends this far from where it began disqualifies comparisons across blocks.
DRIFT_LIMIT_RATIO = 0.10
#: Below this many blocks a trend cannot be told from noise.
DRIFT_BLOCKS_MIN_COUNT = 4
#: A first round this much slower than the rest is called cold.
COLD_LIMIT_RATIO = 1.25
#: Mann-Whitney: with fewer values in the rest even the most extreme first value is possible.
P_MAX = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Trend of the sentinel from the first to the last block."""

    change_ratio: float
    """Fitted change over the whole run: 0.1 is 10 % slower at the end."""
    low_ratio: float
    high_ratio: float
    range_ratio: float
    """Largest over smallest block median, minus 1: catches a bump that is no trend."""
    blocks: int

    @property
    def is_drifting(self) -> bool:
        """Whether the trend is certain and large, or the range is beyond double the limit."""
        is_trend = self.low_ratio > 0 or self.high_ratio < 0
        trends = is_trend and abs(self.change_ratio) > DRIFT_LIMIT_RATIO
        return trends or self.range_ratio > 2 * DRIFT_LIMIT_RATIO


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdFirstRound:
    """The first round against all later ones."""

    ratio: float
    """Median of the first round over the median of the rest."""
    p_value: float
    """Chance of such an extreme first round if all rounds were alike (one-sided)."""
    n_first: int
    n_rest: int

    @property
    def is_cold(self) -> bool:
        """Whether the first round is clearly and considerably slower."""
        return self.p_value <= P_MAX and self.ratio > COLD_LIMIT_RATIO


def sentinel_drift(block_medians: Sequence[float], *, confidence: float = 0.95) -> Drift | None:
    """Log-linear trend of one positive number a block; None below four blocks."""
    values = np.asarray(block_medians, dtype=np.float64)
    count = int(values.size)
    if count < DRIFT_BLOCKS_MIN_COUNT or values.min() <= 0:
        return None
    x = np.linspace(-0.5, 0.5, count)
    y = np.log(values)
    spread = float(np.sum(x**2))
    slope = float(np.sum(x * (y - y.mean()))) / spread
    residuals = y - y.mean() - slope * x
    error = math.sqrt(float(np.sum(residuals**2)) / (count - 2) / spread)
    half = student_quantile(confidence, degrees=count - 2) * error
    return Drift(
        change_ratio=math.expm1(slope),
        low_ratio=math.expm1(slope - half),
        high_ratio=math.expm1(slope + half),
        range_ratio=float(values.max() / values.min()) - 1,
        blocks=count,
    )


def cold_first_round(first: Sequence[float], rest: Sequence[float]) -> ColdFirstRound | None:
    """First rounds (of every block) against the later ones, by a Mann-Whitney test.

    None when a side is empty or when so few values could never reach the test's limit.
    """
    n_first, n_rest = len(first), len(rest)
    if not n_first or not n_rest or 1 / math.comb(n_first + n_rest, n_first) > P_MAX:
        return None
    bottom = float(np.median(rest))
    if bottom <= 0:
        return None
    from scipy import stats  # takes longer to import than everything else of a report

    result = stats.mannwhitneyu(first, rest, alternative="greater")
    return ColdFirstRound(
        ratio=float(np.median(first)) / bottom,
        p_value=float(result.pvalue),
        n_first=n_first,
        n_rest=n_rest,
    )
