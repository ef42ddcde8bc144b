"""Straight lines through measurements: what each further sandbox costs, and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.dependence import student_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Two points always lie on a line; the third is the first that can contradict it.
POINTS_MIN_COUNT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A fitted line ``y = fixed + slope * x``."""

    slope: Estimate
    """Increment of ``y`` for one more ``x``."""
    fixed: Estimate
    """What is there at ``x = 0``: the part that all share."""
    residual_standard_deviation: float
    determination_ratio: float
    """R squared: share of the variance of ``y`` that the line explains."""


def fit_line(
    xs: Sequence[float], ys: Sequence[float], *, confidence: float = 0.95, unit: str = ""
) -> Line | NotAvailable:
    """Least-squares line with Student intervals for the increment and for the fixed part.

    Args:
        xs: Counts; at least two of them must differ.
        ys: Measurements, as many as ``xs``, in ``unit``.
        confidence: Probability that each interval covers.
        unit: Unit of ``ys``.

    Raises:
        ValueError: The two sequences differ in length.
    """
    x, y = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    if x.size != y.size:
        raise ValueError(f"{x.size} x values and {y.size} y values; expected as many of each")
    n = int(x.size)
    if n < POINTS_MIN_COUNT or np.ptp(x) == 0:
        reason = f"n/a (need >= {POINTS_MIN_COUNT} points at two counts)"
        return NotAvailable(reason=reason, n=n, n_needed=POINTS_MIN_COUNT)
    x_mean, y_mean = x.mean(), y.mean()
    spread = float(np.sum((x - x_mean) ** 2))
    slope = float(np.sum((x - x_mean) * (y - y_mean))) / spread
    fixed = float(y_mean - slope * x_mean)
    residuals = y - fixed - slope * x
    variance = float(np.sum(residuals**2)) / (n - 2)
    total = float(np.sum((y - y_mean) ** 2))
    half = student_quantile(confidence, degrees=n - 2) * np.sqrt(variance)
    slope_half = float(half / np.sqrt(spread))
    fixed_half = float(half * np.sqrt(1 / n + x_mean**2 / spread))

    def estimate(point: float, half_width: float) -> Estimate:
        return Estimate(
            point=point,
            low=point - half_width,
            high=point + half_width,
            confidence=confidence,
            n=n,
            method="least squares, Student t",
            unit=unit,
        )

    return Line(
        slope=estimate(slope, slope_half),
        fixed=estimate(fixed, fixed_half),
        residual_standard_deviation=float(np.sqrt(variance)),
        determination_ratio=1.0 if total == 0 else 1 - float(np.sum(residuals**2)) / total,
    )
