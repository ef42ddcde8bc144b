"""A distribution in few points: what a figure needs of a sample of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: More points than a figure has pixels to show apart.
CURVE_POINTS_MAX = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileCurve:
    """Matching quantiles and values, both ascending."""

    quantiles: tuple[float, ...]
    values: tuple[float, ...]


def quantile_curve(
    values: Sequence[float] | NDArray[np.float64], *, points_max: int = CURVE_POINTS_MAX
) -> QuantileCurve:
    """The empirical distribution function, thinned so that both ends stay exact.

    Plotting positions are ``i / (n + 1)``, so neither 0 nor 1 is ever claimed. Half of the points
    are spread evenly, half are spread evenly in the logarithm of the upper tail.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = int(ordered.size)
    if n == 0:
        return QuantileCurve(quantiles=(), values=())
    if n <= points_max:
        kept = np.arange(n)
    else:
        half = points_max // 2
        even = np.linspace(0, n - 1, half)
        tail = n - np.geomspace(n, 1, points_max - half)
        kept = np.unique(np.round(np.concatenate([even, tail])).astype(np.int64).clip(0, n - 1))
    return QuantileCurve(
        quantiles=tuple(float((i + 1) / (n + 1)) for i in kept),
        values=tuple(float(value) for value in ordered[kept]),
    )
