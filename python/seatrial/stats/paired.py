"""Ratio of two quantities of which each block gives one value: throughputs, memory, slopes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.stats.dependence import student_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

#: One pair has no spread.
PAIRS_MIN_COUNT = 2


def paired_ratio_interval(
    measured: Sequence[float], baseline: Sequence[float], *, confidence: float = 0.95
) -> Estimate | NotAvailable:
    """Geometric mean of the blocks' ratios, with Student's interval of its logarithm.

    Pairing takes out what a block's minutes did to both. A ratio of the two means instead could
    stand on the other side of 1 than most of the blocks do.

    Args:
        measured: One value a block.
        baseline: The baseline's value in the same block, in the same order.
        confidence: Probability that the interval covers the true ratio.

    Raises:
        ValueError: The two hold different numbers of blocks.
    """
    if len(measured) != len(baseline):
        raise ValueError(f"{len(measured)} blocks against {len(baseline)}; expected pairs")
    count = len(measured)
    if count < PAIRS_MIN_COUNT:
        reason = f"n/a (need >= {PAIRS_MIN_COUNT} blocks)"
        return NotAvailable(reason=reason, n=count, n_needed=PAIRS_MIN_COUNT)
    ours = np.asarray(measured, dtype=np.float64)
    theirs = np.asarray(baseline, dtype=np.float64)
    if min(ours.min(), theirs.min()) <= 0:
        return NotAvailable(reason="n/a (a value is not positive)", n=count, n_needed=None)
    logarithms = np.log(ours / theirs)
    centre = float(logarithms.mean())
    error = float(logarithms.std(ddof=1)) / math.sqrt(count)
    half = student_quantile(confidence, degrees=count - 1) * error
    return Estimate(
        point=math.exp(centre),
        low=math.exp(centre - half),
        high=math.exp(centre + half),
        confidence=confidence,
        n=count,
        method=f"geometric mean of {count} paired ratios, Student t",
        unit="ratio",
    )
