"""A sample as ascending values and how often each occurred: what a histogram is to statistics.

Everything here works on a billion samples as on a thousand: nothing is ever expanded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Distinct values in ascending order with their numbers of occurrences, all at least 1."""

    values: Floats
    counts: Ints
    cumulated: Ints = field(init=False, repr=False)
    """How many samples are at most each value."""

    def __post_init__(self) -> None:
        """Refuse what is not a sorted sample: every answer would be wrong."""
        if self.values.shape != self.counts.shape or self.values.ndim != 1:
            raise ValueError(
                f"{self.values.shape} values with {self.counts.shape} counts; expected one each"
            )
        if not np.isfinite(self.values).all() or (np.diff(self.values) <= 0).any():
            raise ValueError("values must be finite, ascending and distinct; use of_pairs")
        if (self.counts < 1).any():
            raise ValueError("a count is below 1; use of_pairs, which drops zeros")
        object.__setattr__(self, "cumulated", np.cumsum(self.counts, dtype=np.int64))

    @classmethod
    def of_pairs(cls, values: Sequence[float] | Floats, counts: Sequence[int] | Ints) -> Counts:
        """Sample of values and their counts, in any order; equal values are added up.

        Raises:
            ValueError: A count is negative, a value is not finite, or the lengths differ.
        """
        numbers = np.asarray(values, dtype=np.float64)
        weights = np.asarray(counts, dtype=np.int64)
        if numbers.shape != weights.shape:
            raise ValueError(f"{numbers.size} values with {weights.size} counts")
        if (weights < 0).any():
            raise ValueError(f"a count is {int(weights.min())}; expected at least 0")
        numbers, weights = numbers[weights > 0], weights[weights > 0]
        if numbers.size > 1 and (np.diff(numbers) <= 0).any():
            order = np.argsort(numbers, kind="stable")
            numbers, weights = numbers[order], weights[order]
            starts = np.flatnonzero(np.concatenate(([True], np.diff(numbers) > 0)))
            numbers, weights = numbers[starts], np.add.reduceat(weights, starts)
        return cls(numbers, weights)

    @classmethod
    def of_values(cls, values: Sequence[float] | Floats) -> Counts:
        """Sample of single values, in any order."""
        numbers, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
        return cls(numbers, counts.astype(np.int64))

    @classmethod
    def pool(cls, samples: Iterable[Counts]) -> Counts:
        """All samples as one: counts are added, nothing is averaged."""
        kept = [sample for sample in samples if sample.total]
        if not kept:
            return cls.of_values(np.empty(0))
        if len(kept) == 1:
            return kept[0]
        return cls.of_pairs(
            np.concatenate([sample.values for sample in kept]),
            np.concatenate([sample.counts for sample in kept]),
        )

    @property
    def total(self) -> int:
        """How many samples there are."""
        return int(self.cumulated[-1]) if self.cumulated.size else 0

    def at_rank(self, rank: int) -> float:
        """The sample at a rank of the sorted sample; the smallest has rank 1."""
        if not 1 <= rank <= self.total:
            raise ValueError(f"rank {rank} of {self.total} samples; ranks begin at 1")
        return float(self.values[np.searchsorted(self.cumulated, rank, side="left")])

    def quantile(self, q: float) -> float:
        """Quantile with linear interpolation between neighbours, as `numpy.quantile` has it."""
        position = (self.total - 1) * q
        below = int(position)
        low = self.at_rank(below + 1)
        share = position - below
        return low if share == 0 else low + share * (self.at_rank(below + 2) - low)

    def at_most_count(self, value: float) -> int:
        """How many samples are at most ``value``."""
        index = int(np.searchsorted(self.values, value, side="right"))
        return int(self.cumulated[index - 1]) if index else 0

    def below_count(self, value: float) -> int:
        """How many samples are less than ``value``."""
        index = int(np.searchsorted(self.values, value, side="left"))
        return int(self.cumulated[index - 1]) if index else 0
