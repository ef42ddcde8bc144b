"""Do the rounds of our own storms change, and is the first unlike the others?

A mean over a trend means nothing. The series is one positive number a round (the makespan), one
series a trial, and trials are an hour apart; ``rounds`` has the rules for a single series, and
METHODOLOGY 7.5 their limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from seatrial.stats.dependence import student_quantile
from seatrial.stats.rounds import (
    TREND_CHANGE_RATIO_MIN,
    TREND_T_MIN,
    is_first_round_outlier,
    kendall_parts,
    kendall_z,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: With fewer rounds in a trial there is neither a trend nor a median to speak of.
ROUNDS_MIN_COUNT: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialsTrend:
    """A straight line through the rounds of one or more trials, with a level for each trial."""

    slope_ns: float
    """Change from one round to the next (ns)."""
    low_ns: float
    high_ns: float
    """Its interval."""
    change_ratio: float
    """Slope times rounds of a trial, over the mean: 0.2 is a fifth slower at the end."""
    t: float
    """Slope over its standard error; infinite where a line leaves nothing over."""
    t_limit: float
    kendall_z: float
    """Mann and Kendall's test for a trend of any shape, as a standard normal deviate."""
    rounds_count: int

    @property
    def is_drifting(self) -> bool:
        """Whether the change is both large and more than chance."""
        is_large = abs(self.change_ratio) >= TREND_CHANGE_RATIO_MIN
        return is_large and abs(self.t) >= self.t_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRounds:
    """The first round of each trial against the median of all rounds of that trial."""

    ratio: float
    """Median over the trials."""
    trials_count: int

    @property
    def is_outlier(self) -> bool:
        """Whether it is unlike the others, in either direction: fresh state can be faster."""
        return is_first_round_outlier(self.ratio)


def trials_trend(
    trials: Sequence[Sequence[float]], *, confidence: float = 0.95
) -> TrialsTrend | None:
    """Trend over the rounds inside trials; differences between trials are no trend.

    Ordinary least squares with a mean of its own for each trial; None when no trial has five
    rounds.
    """
    series = [np.asarray(one, dtype=np.float64) for one in trials if len(one) >= ROUNDS_MIN_COUNT]
    if not series:
        return None
    positions = [np.arange(one.size) - (one.size - 1) / 2 for one in series]
    spread = float(sum(np.sum(x**2) for x in positions))
    pairs = list(zip(positions, series, strict=True))
    slope = float(sum(np.sum(x * (y - y.mean())) for x, y in pairs)) / spread
    rest = float(sum(np.sum((y - y.mean() - slope * x) ** 2) for x, y in pairs))
    count = sum(one.size for one in series)
    freedom = count - len(series) - 1
    error = math.sqrt(rest / freedom / spread)
    student = student_quantile(confidence, degrees=freedom)
    mean = float(np.concatenate(series).mean())
    return TrialsTrend(
        slope_ns=slope,
        low_ns=slope - student * error,
        high_ns=slope + student * error,
        change_ratio=slope * (count / len(series)) / mean if mean else 0.0,
        t=slope / error if error else math.copysign(math.inf, slope) if slope else 0.0,
        t_limit=max(TREND_T_MIN, student_quantile(0.95, degrees=freedom)),
        kendall_z=kendall_z(kendall_parts(one) for one in series),
        rounds_count=count,
    )


def first_rounds(trials: Sequence[Sequence[float]]) -> FirstRounds | None:
    """The first round of each trial over its trial's median; None when no trial has five rounds."""
    ratios = [
        one[0] / float(np.median(one))
        for one in trials
        if len(one) >= ROUNDS_MIN_COUNT and float(np.median(one)) > 0
    ]
    if not ratios:
        return None
    return FirstRounds(ratio=float(np.median(ratios)), trials_count=len(ratios))
