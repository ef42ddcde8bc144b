"""Ratio of two means whose values were not taken side by side, and how sure a difference is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.dependence import student_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

#: One value has no spread.
VALUES_MIN_COUNT = 2
#: Keeps the bounds of a hopelessly wide interval finite.
LOG_HALF_WIDTH_MAX = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRatio:
    """Ratio of two means, with the standard error of its logarithm."""

    point: float
    error: float
    degrees: int
    """Welch and Satterthwaite's degrees of freedom, rounded down."""


def mean_ratio_interval(
    measured: Sequence[float], reference: Sequence[float], *, confidence: float
) -> Estimate | NotAvailable:
    """Ratio of the means of two independent samples of positive values.

    The interval is on the logarithm: the relative standard errors of both means add in squares
    (delta method), times Student's t with Welch and Satterthwaite's degrees of freedom.
    """
    count = min(len(measured), len(reference))
    if count < VALUES_MIN_COUNT:
        return NotAvailable(
            reason=f"n/a (need >= {VALUES_MIN_COUNT} values on both sides)",
            n=count,
            n_needed=VALUES_MIN_COUNT,
        )
    found = _log_ratio(measured, reference)
    if found is None:
        return NotAvailable(reason="n/a (a mean is not positive)", n=count)
    half = student_quantile(confidence, degrees=found.degrees) * found.error
    factor = math.exp(min(half, LOG_HALF_WIDTH_MAX))
    return Estimate(
        point=found.point,
        low=found.point / factor,
        high=found.point * factor,
        confidence=confidence,
        n=count,
        method="ratio of means, delta method, Welch's t",
        unit="ratio",
    )


def p_value_of_means(measured: Sequence[float], reference: Sequence[float]) -> float | None:
    """Chance of means at least as far apart if both were one (Welch); None without a spread.

    On the logarithm of their ratio where both are positive, else on their difference.
    """
    if min(len(measured), len(reference)) < VALUES_MIN_COUNT:
        return None
    found = _log_ratio(measured, reference)
    if found is not None:
        distance, error, degrees = abs(math.log(found.point)), found.error, found.degrees
    else:
        sides = [np.asarray(side, dtype=np.float64) for side in (measured, reference)]
        parts = [float(side.var(ddof=1)) / side.size for side in sides]
        distance, error = abs(float(sides[0].mean() - sides[1].mean())), math.sqrt(sum(parts))
        degrees = max(1, math.floor(_welch_degrees(parts, [side.size for side in sides])))
    if error == 0:
        return 1.0 if distance == 0 else 0.0
    return float(2 * special.stdtr(degrees, -distance / error))


def _log_ratio(measured: Sequence[float], reference: Sequence[float]) -> LogRatio | None:
    sides = [np.asarray(side, dtype=np.float64) for side in (measured, reference)]
    means = [float(side.mean()) for side in sides]
    if min(means) <= 0:
        return None
    parts = [
        float(side.var(ddof=1)) / side.size / mean**2
        for side, mean in zip(sides, means, strict=True)
    ]
    degrees = _welch_degrees(parts, [side.size for side in sides])
    return LogRatio(
        point=means[0] / means[1],
        error=math.sqrt(sum(parts)),
        degrees=max(1, math.floor(degrees)),
    )


def _welch_degrees(parts: Sequence[float], sizes: Sequence[int]) -> float:
    bottom = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
    return sum(parts) ** 2 / bottom if bottom > 0 else float(min(sizes) - 1)


def p_value_of_ratio(ratio: Estimate, *, degrees: int) -> float:
    """Chance of a ratio at least as far from 1, on the logarithm, if both sides were alike.

    From the interval itself: half its logarithmic width is Student's quantile times the error.
    """
    half = math.log(ratio.high / ratio.low) / 2
    if half == 0:
        return 1.0 if ratio.point == 1 else 0.0
    error = half / student_quantile(ratio.confidence, degrees=degrees)
    t = abs(math.log(ratio.point)) / error
    return float(2 * special.stdtr(degrees, -t))


def p_value_of_shares(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Chance of counts at least as unlikely, given their sums, if both shares were one (Fisher).

    Each side is how many of how many.
    """
    from scipy import stats  # takes longer to import than everything else of a report

    table = np.array([[count, total - count] for count, total in (before, after)])
    return float(stats.fisher_exact(table).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values (1979), in the order given.

    Calling those different that are at most alpha keeps the chance of a single false one among all
    at most alpha, whatever depends on what.
    """
    count = len(p_values)
    adjusted = [0.0] * count
    highest = 0.0
    for rank, position in enumerate(sorted(range(count), key=lambda n: p_values[n])):
        highest = max(highest, min(1.0, (count - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted
