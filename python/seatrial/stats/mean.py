"""Means: of a few independent values, one a trial, and of many in blocks; and the largest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.dependence import effective_size, student_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: One value has no spread.
VALUES_MIN_COUNT = 2
#: Keeps the bounds of a hopelessly wide interval finite.
LOG_HALF_WIDTH_MAX = 50.0


def blocks_mean_interval(
    blocks: Sequence[NDArray[np.float64]], *, confidence: float = 0.95, unit: str = ""
) -> Estimate | NotAvailable:
    """Mean of values that were taken in blocks, by what they are worth (METHODOLOGY 7.2).

    Student's interval with the effective size for the size; on the logarithm of the mean where all
    values are positive.
    """
    filled = [np.asarray(block, dtype=np.float64) for block in blocks if len(block)]
    n = sum(block.size for block in filled)
    if n < VALUES_MIN_COUNT:
        reason = f"n/a (need >= {VALUES_MIN_COUNT})"
        return NotAvailable(reason=reason, n=n, n_needed=VALUES_MIN_COUNT)
    sample = np.concatenate(filled)
    worth = max(effective_size(filled, confidence=confidence).effective, VALUES_MIN_COUNT)
    point = float(sample.mean())
    error = float(sample.std(ddof=1)) / math.sqrt(worth)
    half = student_quantile(confidence, degrees=worth - 1) * error
    low, high = point - half, point + half
    if sample.min() > 0:
        factor = math.exp(min(half / point, LOG_HALF_WIDTH_MAX))
        low, high = point / factor, point * factor
    return Estimate(
        point=point,
        low=low,
        high=high,
        confidence=confidence,
        n=n,
        method=f"mean, Student t with an effective size of {worth:.0f} of {n}",
        unit=unit,
    )


def blocks_max_interval(
    blocks: Sequence[NDArray[np.float64]], *, confidence: float = 0.95, unit: str = ""
) -> Estimate | NotAvailable:
    """The largest value seen, with the range of the blocks' largest ones.

    No sample bounds the largest value that there can be, so this is a description and no
    confidence interval: its low end tells how far one block's largest is from another's.
    """
    tops = [float(np.max(block)) for block in blocks if len(block)]
    n = sum(len(block) for block in blocks)
    if not tops:
        return NotAvailable(reason="n/a (need >= 1)", n=0, n_needed=1)
    return Estimate(
        point=max(tops),
        low=min(tops),
        high=max(tops),
        confidence=confidence,
        n=n,
        method=f"largest of {n}; range of the largest of {len(tops)} blocks, no interval",
        unit=unit,
    )


def mean_interval(
    values: Sequence[float],
    *,
    confidence: float = 0.95,
    unit: str = "",
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate | NotAvailable:
    """Mean with Student's interval, for one value a trial.

    A median of so few values has no order-statistic interval (it takes six), and the values are
    themselves means or sums over a trial, for which the normal law is a fair approximation. When
    all values are positive the interval is made on the logarithm of the mean (delta method), so
    that a rate or a size never gets a negative bound. ``bounds`` are the least and the largest
    value that there can be: an interval says nothing beyond them.
    """
    sample = np.asarray(values, dtype=np.float64)
    n = int(sample.size)
    if n < VALUES_MIN_COUNT:
        reason = f"n/a (need >= {VALUES_MIN_COUNT} trials)"
        return NotAvailable(reason=reason, n=n, n_needed=VALUES_MIN_COUNT)
    point = float(sample.mean())
    half = student_quantile(confidence, degrees=n - 1) * float(sample.std(ddof=1)) / math.sqrt(n)
    low, high = point - half, point + half
    if sample.min() > 0:
        factor = math.exp(min(half / point, LOG_HALF_WIDTH_MAX))
        low, high = point / factor, point * factor
    return Estimate(
        point=point,
        low=max(low, bounds[0]),
        high=min(high, bounds[1]),
        confidence=confidence,
        n=n,
        method=f"mean of {n} trials, Student t",
        unit=unit,
    )
