"""Did the machine change while we measured: drift over blocks, and the first round's handicap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seatrial.stats.dependence import student_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: A sentinel that ends this far from where it began disqualifies comparisons across blocks.
DRIFT_LIMIT_RATIO = 0.10
#: Below this many blocks a trend cannot be told from noise.
TREND_BLOCKS_MIN_COUNT = 4
#: Two blocks have a range; one has nothing to differ from.
RANGE_BLOCKS_MIN_COUNT = 2
#: A range within this many standard errors of the two extreme medians may be chance: the largest
#: and the smallest of ten alike medians are three of their standard errors apart already.
RANGE_ERRORS_MIN_COUNT = 3.0
#: A first round this much slower than the rest is called cold.
COLD_LIMIT_RATIO = 1.25
#: Mann-Whitney: with fewer values in the rest even the most extreme first value is possible.
P_MAX = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Trend and range of the sentinel from the first to the last block."""

    change_ratio: float
    """Fitted change over the whole run: 0.1 is 10 % slower at the end."""
    low_ratio: float | None
    """The change's interval; None below four blocks, which show no trend."""
    high_ratio: float | None
    range_ratio: float
    """Largest over smallest block median, minus 1: catches a bump that is no trend."""
    chance_range_ratio: float
    """A range that the scatter of single starts could make."""
    blocks: int

    @property
    def is_drifting(self) -> bool:
        """Whether the trend is certain and large, or the range is beyond double the limit."""
        limit = max(2 * DRIFT_LIMIT_RATIO, self.chance_range_ratio)
        if self.low_ratio is None or self.high_ratio is None:
            return self.range_ratio > limit
        is_trend = self.low_ratio > 0 or self.high_ratio < 0
        trends = is_trend and abs(self.change_ratio) > DRIFT_LIMIT_RATIO
        return trends or self.range_ratio > limit


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


def block_drift(blocks: Sequence[Sequence[float]], *, confidence: float = 0.95) -> Drift | None:
    """Drift of the medians of positive values, all of a block pooled.

    The values' own scatter says how far two medians may differ by chance, so that a few starts a
    block raise no false alarm.
    """
    kept = [np.asarray(block, dtype=np.float64) for block in blocks if len(block)]
    if len(kept) < RANGE_BLOCKS_MIN_COUNT or min(block.min() for block in kept) <= 0:
        return None
    logs = [np.log(block) for block in kept]
    residuals = np.concatenate([log - np.median(log) for log in logs])
    # A median takes a degree of freedom from its block, which matters with five values in it.
    freedom = max(1, residuals.size - len(logs))
    spread = math.sqrt(float(np.sum(residuals**2)) / freedom)
    # The variance of a median of normal values is pi / 2 times that of their mean.
    errors = [spread * math.sqrt(math.pi / 2 / log.size) for log in logs]
    medians = [float(np.median(block)) for block in kept]
    extremes = errors[int(np.argmin(medians))], errors[int(np.argmax(medians))]
    return sentinel_drift(medians, confidence=confidence, range_error=math.hypot(*extremes))


def sentinel_drift(
    block_medians: Sequence[float], *, confidence: float = 0.95, range_error: float = 0.0
) -> Drift | None:
    """Drift of one positive number a block; None below two blocks.

    Args:
        block_medians: The numbers, in the order of the blocks.
        confidence: Level of the trend's interval.
        range_error: Standard error of the logarithm of the range, from the scatter inside blocks.
    """
    values = np.asarray(block_medians, dtype=np.float64)
    count = int(values.size)
    if count < RANGE_BLOCKS_MIN_COUNT or values.min() <= 0:
        return None
    change, low, high = _trend(values, confidence=confidence)
    return Drift(
        change_ratio=change,
        low_ratio=low,
        high_ratio=high,
        range_ratio=float(values.max() / values.min()) - 1,
        chance_range_ratio=math.expm1(RANGE_ERRORS_MIN_COUNT * range_error),
        blocks=count,
    )


def _trend(
    values: NDArray[np.float64], *, confidence: float
) -> tuple[float, float | None, float | None]:
    """Change over all blocks by a log-linear fit, with its interval from four blocks on."""
    count = int(values.size)
    x = np.linspace(-0.5, 0.5, count)
    y = np.log(values)
    spread = float(np.sum(x**2))
    slope = float(np.sum(x * (y - y.mean()))) / spread
    if count < TREND_BLOCKS_MIN_COUNT:
        return math.expm1(slope), None, None
    residuals = y - y.mean() - slope * x
    error = math.sqrt(float(np.sum(residuals**2)) / (count - 2) / spread)
    half = student_quantile(confidence, degrees=count - 2) * error
    return math.expm1(slope), math.expm1(slope - half), math.expm1(slope + half)


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
