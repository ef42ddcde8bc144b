"""What may be said about repeats of a piece of work: a status, marks, and an order. Pure rules.

The words are those of a well-known comparison of gVisor, Kata and Docker that left them undefined;
here each follows from numbers (METHODOLOGY 6.3).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from seatrial.model.estimate import Estimate
from seatrial.model.metric import Direction
from seatrial.model.summary import Relation, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.model.estimate import NotAvailable

#: Highest coefficient of variation of what is called stable, and of what may be.
STABLE_RATIO_MAX: Final = 0.05
UNSURE_RATIO_MAX: Final = 0.15
#: Fewer repeats cannot be called stable, however well they agree.
REPEATS_MIN_COUNT: Final = 3
#: Least share of a tool's bytes that the device must have seen; direct I/O goes nowhere else.
DEVICE_RATIO_MIN: Final = 0.5
DIRECT_DEVICE_RATIO_MIN: Final = 0.9
#: Faster than this times what the host itself gets from its device is no device.
CEILING_FACTOR: Final = 2.0
#: A sandbox that beats the host by more than this is to be explained, not believed.
EXCEEDS_RATIO: Final = 0.25
#: An order is called clear from this effect on.
CLEAR_RATIO: Final = 0.10
#: Distance from the median in scaled median absolute deviations (Iglewicz and Hoaglin 1993), the
#: least relative distance that counts, and how many values it takes.
DEVIATIONS_MAX: Final = 3.5
DEVIATION_SCALE: Final = 1.4826
OUTLIER_RATIO_MIN: Final = 0.10
OUTLIER_VALUES_MIN: Final = 5


def status_of(
    values: Sequence[float],
    *,
    failed_count: int = 0,
    unsupported_count: int = 0,
    skipped_count: int = 0,
) -> Status:
    """Judges the repeats of one number.

    Args:
        values: Of the repeats that gave one.
        failed_count: Repeats that failed in another way than a missing operation.
        unsupported_count: Repeats that failed for one.
        skipped_count: Repeats that were not tried because something they need is missing.

    Returns:
        *unsupported* and *failed* only when no repeat gave a number; some failures among
        successes are *unstable*.
    """
    if not values:
        if failed_count:
            return Status.FAILED
        if unsupported_count:
            return Status.UNSUPPORTED
        return Status.SKIPPED if skipped_count else Status.NOT_RUN
    variation = variation_ratio(values)
    if failed_count or unsupported_count or (variation or 0) > UNSURE_RATIO_MAX:
        return Status.UNSTABLE
    if len(values) < REPEATS_MIN_COUNT or variation is None or variation > STABLE_RATIO_MAX:
        return Status.UNSURE
    return Status.STABLE


def variation_ratio(values: Sequence[float]) -> float | None:
    """Coefficient of variation: sample standard deviation over mean; None without one."""
    if len(values) < 2:  # noqa: PLR2004 - one value has no spread
        return None
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if mean == 0:
        return 0.0 if float(np.ptp(sample)) == 0 else math.inf
    return float(sample.std(ddof=1)) / abs(mean)


def is_cached(
    *,
    device_ratio: float | None,
    is_direct: bool,
    value: float | None = None,
    ceiling: float | None = None,
) -> bool:
    """Tells whether a rate of file access is one of memory.

    Args:
        device_ratio: Bytes that the host's device moved over those that the tool says; None: not
            known.
        is_direct: Whether the tool asked to pass the caches by.
        value: The rate.
        ceiling: What the host itself gets, its bytes having reached the device; None: not known.
    """
    least = DIRECT_DEVICE_RATIO_MIN if is_direct else DEVICE_RATIO_MIN
    if device_ratio is not None and device_ratio < least:
        return True
    return value is not None and ceiling is not None and value > CEILING_FACTOR * ceiling


def exceeds_host(
    measured: Estimate | NotAvailable, host: Estimate | NotAvailable, *, direction: Direction
) -> bool:
    """Tells whether a sandbox is better than the host by more than it can be.

    Both must have intervals, which do not meet, and the points must differ by more than a quarter.
    """
    if not isinstance(measured, Estimate) or not isinstance(host, Estimate):
        return False
    if direction is Direction.HIGHER:
        return measured.low > host.high and measured.point > host.point * (1 + EXCEEDS_RATIO)
    if direction is Direction.LOWER:
        return measured.high < host.low and measured.point * (1 + EXCEEDS_RATIO) < host.point
    return False


def count_deviants(values: Sequence[float]) -> int:
    """Counts values that stand apart from the others by the median-absolute-deviation rule.

    With fewer than five there is no telling; values within a tenth of the median never count, since
    with repeats that agree the deviation is close to 0 and everything would.
    """
    if len(values) < OUTLIER_VALUES_MIN:
        return 0
    sample = np.asarray(values, dtype=np.float64)
    median = float(np.median(sample))
    distances = np.abs(sample - median)
    limit = max(
        DEVIATIONS_MAX * DEVIATION_SCALE * float(np.median(distances)),
        OUTLIER_RATIO_MIN * abs(median),
    )
    return int((distances > limit).sum())


def relation(ratio: Estimate | NotAvailable) -> Relation:
    """Compares a number with the one after it, by the interval of their ratio.

    The difference is *clear* (``>``, ``<``) from a tenth on, only *seen* (``>=``, ``<=``) below it,
    and unknown (``?=?``) while the interval holds 1 or there is none.
    """
    if not isinstance(ratio, Estimate) or ratio.low <= 1 <= ratio.high:
        return Relation.UNRESOLVED
    if ratio.point > 1:
        return Relation.MORE if ratio.point - 1 >= CLEAR_RATIO else Relation.BARELY_MORE
    return Relation.LESS if 1 - ratio.point >= CLEAR_RATIO else Relation.BARELY_LESS
