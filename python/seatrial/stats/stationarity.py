"""Did the service stay the same while it was measured?

Values are replaced by their ranks in the whole sample, so that a heavy tail decides nothing, and
two questions are asked of the ranks over time: is there a trend (Spearman's correlation with time,
the same question as Mann and Kendall's) and is there a break (the largest deviation of the
cumulated ranks from a straight line, whose law is Kolmogorov's; Csorgo and Horvath 1997). A third
one asks for a trend in the share of values above the p99. The scale of all three is the long-run
variance of what remains when a straight line is taken out (`seatrial.stats.dependent`): a queue
that wanders for a while raises no alarm, which tests for independent values would. "A while" is at
most a twentieth of the run; what wanders longer than that was not measured for long enough.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from seatrial.stats.counts import Counts, Floats
from seatrial.stats.dependent import LongRun, long_run
from seatrial.stats.independence import holm

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Chance of a false alarm of all three tests together.
ALPHA = 0.05
#: A change that is certain but smaller than this is no reason to measure again.
CHANGE_MIN_RATIO = 0.05
#: A memory longer than this share of the run is a change: the run was too short to average it.
MEMORY_SHARE_MAX = 0.05
#: Windows that the table of medians is made of.
WINDOWS_COUNT = 10
#: Fewer stretches show no course of time.
STRETCHES_MIN_COUNT = 20
#: A series of single values is looked at in so many stretches.
STRETCHES_MAX_COUNT = 500
#: The tail is what lies above this quantile; with fewer values above it there is no tail test.
TAIL_QUANTILE = 0.99
TAIL_MIN_COUNT = 100
#: A window needs so many values for its own p99 to be worth a look.
WINDOW_TAIL_MIN_COUNT = 500
#: MSER: a warm-up longer than this share of the series is not found but guessed.
WARM_UP_SHARE_MAX = 0.5
#: MSER-5: means of so many stretches.
WARM_UP_BATCH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Stationarity:
    """The course of a measurement over time, and whether it is more than chance."""

    n: int
    p_level: float
    """Of a trend in the ranks; all three after Holm's correction."""
    p_break: float
    """Of a break in the ranks."""
    p_tail: float | None
    """Of a trend in the share above the p99; None when the tail is too small to tell."""
    medians: tuple[float, ...]
    """Median of each window, in the order of time."""
    tails: tuple[float, ...]
    """p99 of each window; empty when windows are too small for it."""
    warm_up_share: float | None
    """Share of the series at its beginning that MSER-5 would cut; None: more than half, which
    means that no steady state was reached."""

    @property
    def change_ratio(self) -> float:
        """How far the windows range: largest over smallest median (or p99, if that is more)."""
        return max(_range(self.medians), _range(self.tails))

    @property
    def p_value(self) -> float:
        """The smallest of the three."""
        return min(self.p_level, self.p_break, 1.0 if self.p_tail is None else self.p_tail)

    @property
    def is_stationary(self) -> bool:
        """Whether no change is both certain and large enough to matter."""
        return self.p_value >= ALPHA or self.change_ratio <= CHANGE_MIN_RATIO


def check_stationarity(values: Sequence[float] | Floats) -> Stationarity | None:
    """Tests values in the order of their intended instants; None for fewer than 20."""
    series = np.asarray(values, dtype=np.float64)
    if series.size < STRETCHES_MIN_COUNT:
        return None
    stretches = np.array_split(series, min(STRETCHES_MAX_COUNT, series.size))
    return check_stationarity_of_intervals([Counts.of_values(one) for one in stretches])


def check_stationarity_of_intervals(intervals: Sequence[Counts]) -> Stationarity | None:
    """Tests histograms of successive stretches of equal length; None for fewer than 20.

    Stretches without a sample are left out: what did not happen has no rank.
    """
    filled = [one for one in intervals if one.total]
    if len(filled) < STRETCHES_MIN_COUNT:
        return None
    pooled = Counts.pool(filled)
    n = pooled.total
    sizes = np.array([one.total for one in filled], dtype=np.float64)
    ranks = _rank_sums(filled, pooled)
    level = ranks - sizes * (n + 1) / 2
    threshold = pooled.quantile(TAIL_QUANTILE)
    above = np.array([one.total - one.at_most_count(threshold) for one in filled], dtype=np.float64)
    has_tail = bool(above.sum() >= TAIL_MIN_COUNT)
    raw = [_p_trend(level), _p_break(level)]
    if has_tail:
        raw.append(_p_trend(above - sizes * above.sum() / n))
    corrected = holm(raw)
    windows = _windows(filled)
    return Stationarity(
        n=n,
        p_level=corrected[0],
        p_break=corrected[1],
        p_tail=corrected[2] if has_tail else None,
        medians=tuple(one.quantile(0.5) for one in windows),
        tails=tuple(one.quantile(TAIL_QUANTILE) for one in windows)
        if min(one.total for one in windows) >= WINDOW_TAIL_MIN_COUNT
        else (),
        warm_up_share=warm_up_share(ranks / sizes),
    )


def warm_up_share(means: Floats) -> float | None:
    """Share of a series of stretches that MSER-5 would cut off its beginning (White 1997).

    The cut minimises the standard error of the mean of what remains, with stretches taken five
    together. It is given as evidence and cuts nothing itself. None: the least error lies beyond
    half of the series, or there are too few stretches.
    """
    count = means.size // WARM_UP_BATCH
    if count < 2 * WARM_UP_BATCH:
        return None
    batches = means[: count * WARM_UP_BATCH].reshape(count, WARM_UP_BATCH).mean(axis=1)
    remaining = np.arange(count, 0, -1)
    sums = np.cumsum(batches[::-1])[::-1]
    squares = np.cumsum(batches[::-1] ** 2)[::-1]
    spread = np.maximum(squares - sums**2 / remaining, 0) / remaining**2
    # The last few batches alone are alike by chance; White looks at no fewer than five.
    cut = int(np.argmin(spread[: count - WARM_UP_BATCH]))
    return cut / count if cut <= WARM_UP_SHARE_MAX * count else None


def _rank_sums(filled: Sequence[Counts], pooled: Counts) -> Floats:
    """Sum of the mid-ranks of each stretch among all samples."""
    middle = pooled.cumulated - (pooled.counts - 1) / 2
    sums = [
        float(np.dot(middle[np.searchsorted(pooled.values, one.values)], one.counts))
        for one in filled
    ]
    return np.array(sums)


def _detrended(scores: Floats) -> tuple[Floats, float, float]:
    """What a straight line leaves, its slope over the whole length, and the spread of time."""
    time = np.linspace(-0.5, 0.5, scores.size)
    spread = float(np.dot(time, time))
    slope = float(np.dot(time, scores)) / spread
    residuals: Floats = scores - scores.mean() - slope * time
    return residuals, slope, spread


def _noise(residuals: Floats) -> LongRun:
    return long_run(residuals, lag_max=int(MEMORY_SHARE_MAX * residuals.size))


def _p_trend(scores: Floats) -> float:
    """Chance of such a slope without any, two-sided."""
    residuals, slope, spread = _detrended(scores)
    noise = _noise(residuals)
    if noise.variance == 0:
        return 1.0 if slope == 0 else 0.0
    statistic = abs(slope) / math.sqrt(noise.variance / spread)
    return float(2 * special.stdtr(max(1.0, noise.degrees), -statistic))


def _p_break(scores: Floats) -> float:
    """Chance of such a deviation of the cumulated scores from a straight line."""
    residuals, _, _ = _detrended(scores)
    noise = _noise(residuals)
    deviations = np.cumsum(scores - scores.mean())
    if noise.variance == 0:
        return 1.0 if not deviations.any() else 0.0
    largest = float(np.max(np.abs(deviations))) / math.sqrt(scores.size * noise.variance)
    return float(special.kolmogorov(largest))


def _windows(filled: Sequence[Counts]) -> list[Counts]:
    bounds = np.linspace(0, len(filled), WINDOWS_COUNT + 1).astype(int)
    return [Counts.pool(filled[low:high]) for low, high in itertools.pairwise(bounds)]


def _range(values: Sequence[float]) -> float:
    if not values or min(values) <= 0:
        return math.inf if values and max(values) > 0 else 0.0
    return max(values) / min(values) - 1
