"""Do the values of a load depend on each other, and how far apart must two be not to?

Spearman's rank correlation of the series with itself at several lags, so that a heavy tail cannot
hide or fake a dependence. With a million samples a correlation of 0.003 is significant and
harmless, with a hundred one of 0.2 is neither; so a lag counts as dependent only if it is
significant after Holm's correction for the number of lags *and* larger than a floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special, stats

from seatrial.stats.dependent import BATCHES_MAX_COUNT, long_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.stats.counts import Floats

#: Distances at which values are compared, as far as the series is long enough.
LAGS = (1, 2, 5, 10, 25, 50, 100, 200, 500, 1000, 2000, 5000)
#: Weaker correlations do not matter: at 0.05 an interval is at most about 10 % too narrow.
CORRELATION_MIN = 0.05
#: Chance of any false alarm in an independent series, after Holm's correction over the lags.
ALPHA = 0.01
#: Shorter series say nothing about dependence: a correlation of 0.2 has a standard error of 0.1.
SERIES_MIN_COUNT = 100
#: At a lag, this many pairs at least.
PAIRS_MIN_COUNT = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LagCorrelation:
    """The series against itself, shifted."""

    lag: int
    correlation: float
    """Spearman's, -1 to 1."""
    p_value: float
    """Two-sided, after Holm's correction."""

    @property
    def is_dependent(self) -> bool:
        """Whether the correlation is both certain and large enough to matter."""
        return self.p_value < ALPHA and abs(self.correlation) > CORRELATION_MIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Independence:
    """What a series in the order of time says about its own memory."""

    n: int
    lags: tuple[LagCorrelation, ...]
    effective: float
    """Independent values that the series is worth for the mean of its ranks."""
    thinning: int | None
    """Keep every so-many-th value and the rest is independent; 1: all. None: no such distance."""

    @property
    def is_independent(self) -> bool:
        """Whether no lag is dependent."""
        return not any(lag.is_dependent for lag in self.lags)

    @property
    def worst(self) -> LagCorrelation:
        """The lag with the strongest correlation."""
        return max(self.lags, key=lambda lag: abs(lag.correlation))


def check_independence(values: Sequence[float] | Floats) -> Independence | None:
    """Tests values in the order of their intended instants; None for fewer than 100.

    The thinning factor is the first lag of `LAGS` beyond all dependent ones whose thinned series
    passes the same test: it is tested anew, not trusted, and has too few values to see alone what
    the whole series shows at a larger lag.
    """
    series = np.asarray(values, dtype=np.float64)
    if series.size < SERIES_MIN_COUNT:
        return None
    ranks = stats.rankdata(series)
    lags = _correlations(ranks)
    thinning: int | None = 1
    reach = max((lag.lag for lag in lags if lag.is_dependent), default=0)
    if reach:
        thinning = next((lag for lag in LAGS if lag > reach and _passes(series[::lag])), None)
    return Independence(
        n=int(series.size), lags=lags, effective=_effective(ranks), thinning=thinning
    )


def _passes(thinned: Floats) -> bool:
    if thinned.size < SERIES_MIN_COUNT:
        return False
    return not any(lag.is_dependent for lag in _correlations(stats.rankdata(thinned)))


def _correlations(ranks: Floats) -> tuple[LagCorrelation, ...]:
    lags = [lag for lag in LAGS if ranks.size - lag >= PAIRS_MIN_COUNT]
    found = [_correlation(ranks, lag) for lag in lags]
    p_values = holm(
        [
            _p_value(correlation, ranks.size - lag)
            for lag, correlation in zip(lags, found, strict=True)
        ]
    )
    return tuple(
        LagCorrelation(lag=lag, correlation=correlation, p_value=p_value)
        for lag, correlation, p_value in zip(lags, found, p_values, strict=True)
    )


def _correlation(ranks: Floats, lag: int) -> float:
    """Correlation of ranks at a lag; those of the whole series serve, which is exact enough."""
    early, late = ranks[:-lag] - ranks[:-lag].mean(), ranks[lag:] - ranks[lag:].mean()
    scale = float(np.sqrt(np.dot(early, early) * np.dot(late, late)))
    return float(np.dot(early, late)) / scale if scale else 0.0


def _p_value(correlation: float, pairs: int) -> float:
    """Two-sided, by Student's t with ``pairs - 2`` degrees of freedom."""
    if abs(correlation) >= 1:
        return 0.0
    statistic = abs(correlation) * np.sqrt((pairs - 2) / (1 - correlation**2))
    return float(2 * special.stdtr(pairs - 2, -statistic))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: any false alarm among all has at most the level's chance."""
    count = len(p_values)
    corrected = [0.0] * count
    largest = 0.0
    for step, index in enumerate(sorted(range(count), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (count - step) * p_values[index]))
        corrected[index] = largest
    return corrected


def _effective(ranks: Floats) -> float:
    """Worth of the series for the mean of its ranks."""
    size = -(-ranks.size // BATCHES_MAX_COUNT)
    whole = ranks.size // size
    sums = ranks[: whole * size].reshape(whole, size).sum(axis=1)
    variance = float(ranks.var()) * size
    if variance == 0:
        return float(ranks.size)
    return float(ranks.size / max(1.0, long_run(sums).variance / variance))
