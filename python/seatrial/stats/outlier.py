"""Outliers are named, never dropped (Tukey 1977)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Tukey's inner and outer fences, in interquartile ranges beyond the quartiles.
INNER_FENCE = 1.5
OUTER_FENCE = 3.0


class OutlierLabel(StrEnum):
    """Where a value lies against the fences."""

    LOW_SEVERE = "low-severe"
    LOW_MILD = "low-mild"
    INSIDE = "inside"
    HIGH_MILD = "high-mild"
    HIGH_SEVERE = "high-severe"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierCounts:
    """How many values lie beyond each fence."""

    low_severe: int
    low_mild: int
    high_mild: int
    high_severe: int

    @property
    def total(self) -> int:
        """All values beyond an inner fence."""
        return self.low_severe + self.low_mild + self.high_mild + self.high_severe


def outlier_labels(values: Sequence[float] | NDArray[np.float64]) -> tuple[OutlierLabel, ...]:
    """One label a value, in the order of the values."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        return ()
    first, third = np.quantile(sample, [0.25, 0.75])
    width = third - first
    edges = [
        first - OUTER_FENCE * width,
        first - INNER_FENCE * width,
        third + INNER_FENCE * width,
        third + OUTER_FENCE * width,
    ]
    labels = list(OutlierLabel)
    below = (sample < edges[0]).astype(int) * -1 + (sample < edges[1]).astype(int) * -1
    above = (sample > edges[2]).astype(int) + (sample > edges[3]).astype(int)
    return tuple(labels[2 + low + high] for low, high in zip(below, above, strict=True))


def count_outliers(values: Sequence[float] | NDArray[np.float64]) -> OutlierCounts:
    """Values beyond each of Tukey's fences."""
    labels = outlier_labels(values)
    return OutlierCounts(
        low_severe=labels.count(OutlierLabel.LOW_SEVERE),
        low_mild=labels.count(OutlierLabel.LOW_MILD),
        high_mild=labels.count(OutlierLabel.HIGH_MILD),
        high_severe=labels.count(OutlierLabel.HIGH_SEVERE),
    )
