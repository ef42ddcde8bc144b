"""Quantiles with exact order-statistic intervals.

The interval between two order statistics covers a quantile with a probability that the binomial
law gives exactly, whatever the distribution (David and Nagaraja, Order Statistics, 7.1). Each
tail is bounded by half of the allowed error, so the interval can be read from either side. Where
the sample is too small for such a pair to exist, there is no estimate at all: not a zero, not the
maximum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.counts import Counts
from seatrial.stats.dependence import EffectiveSize, effective_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Below this, a loss of information is noise of its own estimate and is not mentioned.
NOTABLE_DESIGN_EFFECT = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """A pair of order statistics, counted from 1, and the probability between them."""

    low: int
    high: int
    coverage: float


def needed_count(q: float, *, confidence: float) -> int:
    """Fewest independent values for which both ends of the interval exist."""
    _check_unit_interval("q", q)
    _check_unit_interval("confidence", confidence)
    tail = (1 - confidence) / 2
    return max(
        1, math.ceil(math.log(tail) / math.log(q)), math.ceil(math.log(tail) / math.log(1 - q))
    )


@lru_cache(maxsize=4096)
def order_statistic_ranks(n: int, q: float, *, confidence: float) -> Ranks | None:
    """The narrowest pair of ranks with at most half of the error in each tail; None if none.

    ``P(X[low] <= quantile)`` is ``P(Binomial(n, q) >= low)`` and ``P(quantile < X[high])`` is
    ``P(Binomial(n, q) < high)``.
    """
    _check_unit_interval("q", q)
    _check_unit_interval("confidence", confidence)
    if n < 1:
        return None
    tail = (1 - confidence) / 2
    low = _first_above(n, q, share=tail, is_strict=True)
    high = _first_above(n, q, share=1 - tail, is_strict=False) + 1
    if low < 1 or high > n:
        return None
    coverage = _at_most(high - 1, n, q) - _at_most(low - 1, n, q)
    return Ranks(low=low, high=high, coverage=coverage)


def _at_most(k: int, n: int, q: float) -> float:
    """``P(Binomial(n, q) <= k)``, exact also for a billion trials (incomplete beta)."""
    if k < 0:
        return 0.0
    return 1.0 if k >= n else float(special.betainc(n - k, k + 1, 1 - q))


def _first_above(n: int, q: float, *, share: float, is_strict: bool) -> int:
    """Smallest k whose cumulated probability is above ``share`` (or at it, if not strict)."""

    def is_there(k: int) -> bool:
        cumulated = _at_most(k, n, q)
        return cumulated > share if is_strict else cumulated >= share

    # All but a vanishing part of the law lies within ten standard deviations of its mean.
    reach = math.ceil(10 * math.sqrt(n * q * (1 - q))) + 50
    low, high = max(-1, math.floor(n * q) - reach), min(n, math.ceil(n * q) + reach)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_there(middle) else (middle, high)
    return high


def quantile_interval(
    values: Sequence[float] | NDArray[np.float64],
    q: float,
    *,
    confidence: float = 0.95,
    unit: str = "",
    effective: float | None = None,
) -> Estimate | NotAvailable:
    """Quantile of a sample with its order-statistic interval.

    Args:
        values: The sample, in any order, in ``unit``.
        q: Which quantile, between 0 and 1.
        confidence: Probability that the interval covers the true quantile.
        unit: Unit of the values, kept in the estimate.
        effective: Independent values that the sample is worth; None takes all as independent.

    Returns:
        The estimate, or why there is none and how many values would be needed.
    """
    ordered = np.asarray(values, dtype=np.float64)
    _check_finite(ordered)
    return counts_quantile_interval(
        Counts.of_values(ordered), q, confidence=confidence, unit=unit, effective=effective
    )


def counts_quantile_interval(
    counts: Counts,
    q: float,
    *,
    confidence: float = 0.95,
    unit: str = "",
    effective: float | None = None,
) -> Estimate | NotAvailable:
    """Quantile of a sample given as a histogram; see `quantile_interval`."""
    n = counts.total
    needed = needed_count(q, confidence=confidence)
    if n < needed:
        return NotAvailable(reason=f"n/a (need >= {needed})", n=n, n_needed=needed)
    # Dependence widens an interval up to the whole range of the sample, which the method then
    # tells; it does not take the number away.
    worth = n if effective is None else max(needed, min(n, math.floor(effective)))
    ranks = order_statistic_ranks(worth, q, confidence=confidence)
    if ranks is None:
        raise AssertionError(f"no ranks for q {q} of {worth} values, which were enough")
    low, high = _ranks_in_sample(ranks, worth=worth, n=n)
    method = f"order statistics {low} and {high} of {n}"
    if worth < n / NOTABLE_DESIGN_EFFECT:
        method += f", worth {worth} independent values"
    return Estimate(
        point=counts.quantile(q),
        low=counts.at_rank(low),
        high=counts.at_rank(high),
        confidence=confidence,
        n=n,
        method=method,
        unit=unit,
    )


def block_quantile_interval(
    blocks: Sequence[Sequence[float] | NDArray[np.float64]],
    q: float,
    *,
    confidence: float = 0.95,
    unit: str = "",
) -> Estimate | NotAvailable:
    """Quantile of a sample that was taken in blocks, corrected for dependence.

    The ranks come from the number of independent values that the sample is worth
    (`seatrial.stats.dependence.effective_size` of the indicators ``value <= quantile``), but never
    from fewer than an interval takes: then it is as wide as the sample allows. With fewer than
    five blocks a strong difference between blocks is covered less often than asked:
    about 0.85 for 0.95 with three blocks; one block cannot show it at all.
    """
    arrays = [np.asarray(block, dtype=np.float64) for block in blocks]
    pooled = np.concatenate(arrays) if arrays else np.empty(0)
    size = quantile_effective_size(arrays, q, confidence=confidence) if pooled.size else None
    return quantile_interval(
        pooled,
        q,
        confidence=confidence,
        unit=unit,
        effective=None if size is None else size.effective,
    )


def quantile_effective_size(
    blocks: Sequence[NDArray[np.float64]], q: float, *, confidence: float = 0.95
) -> EffectiveSize:
    """Worth of a sample taken in blocks for estimating its quantile ``q``."""
    filled = [block for block in blocks if block.size]
    threshold = np.quantile(np.concatenate(filled), q)
    indicators = [(block <= threshold).astype(np.float64) for block in filled]
    return effective_size(indicators, confidence=confidence)


def _ranks_in_sample(ranks: Ranks, *, worth: int, n: int) -> tuple[int, int]:
    """Ranks among ``worth`` values as ranks among ``n``, rounded outwards."""
    if worth == n:
        return ranks.low, ranks.high
    scale = (n + 1) / (worth + 1)
    return max(1, math.floor(ranks.low * scale)), min(n, math.ceil(ranks.high * scale))


def _check_unit_interval(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; expected a number between 0 and 1")


def _check_finite(values: NDArray[np.float64]) -> None:
    if not np.isfinite(values).all():
        raise ValueError("the sample holds values that are not finite; censor them before")
