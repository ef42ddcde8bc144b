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
    labels = list(OutlierLabel)
    return tuple(labels[place] for place in _places(sample))


def count_outliers(values: Sequence[float] | NDArray[np.float64]) -> OutlierCounts:
    """Values beyond each of Tukey's fences."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        return OutlierCounts(low_severe=0, low_mild=0, high_mild=0, high_severe=0)
    places = np.bincount(_places(sample), minlength=len(OutlierLabel))
    low_severe, low_mild, _, high_mild, high_severe = (int(count) for count in places)
    return OutlierCounts(
        low_severe=low_severe, low_mild=low_mild, high_mild=high_mild, high_severe=high_severe
    )


def _places(sample: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each value the position of its label in OutlierLabel."""
    first, third = np.quantile(sample, [0.25, 0.75])
    width = third - first
    beyond = (
        (sample >= first - OUTER_FENCE * width).astype(np.int64)
        + (sample >= first - INNER_FENCE * width)
        + (sample > third + INNER_FENCE * width)
        + (sample > third + OUTER_FENCE * width)
    )
    places: NDArray[np.int64] = beyond
    return places
