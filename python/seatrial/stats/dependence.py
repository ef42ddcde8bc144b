"""How much independent information a sample holds.

Samples of one trial follow each other in time, and trials of one block share an hour, so ``n``
values are worth fewer than ``n`` independent ones. Everything here works on plain arrays in the
order of measuring; nothing reads a clock or a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: A shorter series says nothing usable about its own memory: the estimate of a lag-1
#: autocorrelation is biased by about -1/n and has a standard error of about 1/sqrt(n).
SERIES_MIN_COUNT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveSize:
    """What a dependent sample is worth."""

    n: int
    """Values in the sample."""
    effective: float
    """Independent values that would give an interval as wide."""
    lag1_autocorrelation: float | None
    """Mean over the blocks; None when every block is too short or constant."""
    block_share_ratio: float
    """Share of the variance that comes from the difference between blocks, 0..1."""

    @property
    def design_effect(self) -> float:
        """How many times more values are needed than if they were independent."""
        return self.n / self.effective


def autocovariance(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Autocovariance at lags 0..n-1, each divided by n (the usual biased form)."""
    centred = values - values.mean()
    spectrum = np.fft.rfft(centred, 2 * centred.size)
    power = np.fft.irfft(spectrum * np.conj(spectrum), 2 * centred.size)
    covariances: NDArray[np.float64] = power[: centred.size] / centred.size
    return covariances


def lag1_autocorrelation(values: Sequence[float] | NDArray[np.float64]) -> float | None:
    """Correlation of each value with the next; None for fewer than 8 or all equal values."""
    series = np.asarray(values, dtype=np.float64)
    if series.size < SERIES_MIN_COUNT or np.ptp(series) == 0:
        return None
    covariances = autocovariance(series)
    return float(covariances[1] / covariances[0])


def effective_size(blocks: Sequence[NDArray[np.float64]], *, confidence: float) -> EffectiveSize:
    """Worth of a sample that was taken in blocks, for its mean.

    For a quantile pass the indicators ``value <= quantile`` (Woodruff 1952). Two kinds of
    dependence are looked for and the stronger one counts: inside a block, by Geyer's initial
    positive sequence of autocovariances; between blocks, by the variance of the block means. The
    latter comes with few degrees of freedom, so it is widened by Student's t with Satterthwaite's
    degrees of freedom.
    """
    filled = [block for block in blocks if block.size]
    n = sum(block.size for block in filled)
    everything = np.concatenate(filled)
    lag1 = _mean_lag1(filled)
    variance = float(everything.var())
    if variance == 0:
        return EffectiveSize(n=n, effective=n, lag1_autocorrelation=lag1, block_share_ratio=0.0)
    serial_effect = _serial_effect(filled)
    block_effect, share = _block_effect(filled, serial_effect=serial_effect, confidence=confidence)
    effect = max(1.0, serial_effect, block_effect)
    return EffectiveSize(
        n=n, effective=n / effect, lag1_autocorrelation=lag1, block_share_ratio=share
    )


def _mean_lag1(blocks: Sequence[NDArray[np.float64]]) -> float | None:
    known = [value for block in blocks if (value := lag1_autocorrelation(block)) is not None]
    return float(np.mean(known)) if known else None


def _serial_effect(blocks: Sequence[NDArray[np.float64]]) -> float:
    """``1 + 2 * sum of autocorrelations`` up to Geyer's cut, at least 1."""
    long_enough = [block for block in blocks if block.size >= SERIES_MIN_COUNT]
    if not long_enough:
        return 1.0
    lags = min(block.size for block in long_enough) // 2
    covariances = np.mean([autocovariance(block)[:lags] for block in long_enough], axis=0)
    if covariances[0] <= 0:
        return 1.0
    correlations = covariances / covariances[0]
    pairs = correlations[0 : lags - lags % 2 : 2] + correlations[1 : lags - lags % 2 : 2]
    negative = np.flatnonzero(pairs <= 0)
    positive = pairs[: negative[0]] if negative.size else pairs
    return max(1.0, float(2 * positive.sum() - 1))


def _block_effect(
    blocks: Sequence[NDArray[np.float64]], *, serial_effect: float, confidence: float
) -> tuple[float, float]:
    """Design effect of the difference between blocks and that difference's share of variance."""
    count = len(blocks)
    if count < 2:  # noqa: PLR2004 - a variance between blocks needs two
        return 1.0, 0.0
    everything = np.concatenate(list(blocks))
    independent = float(everything.var()) / everything.size
    weights = np.array([block.size for block in blocks]) / everything.size
    means = np.array([block.mean() for block in blocks])
    between = count / (count - 1) * float(np.sum((weights * (means - everything.mean())) ** 2))
    expected = independent * serial_effect
    if between <= expected:
        return 1.0, 0.0
    share = 1 - expected / between
    student = student_quantile(confidence, degrees=(count - 1) / share**2)
    widening = (student / normal_quantile(confidence)) ** 2
    return between / independent * widening, share


def student_quantile(confidence: float, *, degrees: float) -> float:
    """Half-width of a two-sided interval in standard errors, Student's t."""
    return float(special.stdtrit(degrees, (1 + confidence) / 2))


def normal_quantile(confidence: float) -> float:
    """Half-width of a two-sided interval in standard errors, normal law."""
    return float(special.ndtri((1 + confidence) / 2))
