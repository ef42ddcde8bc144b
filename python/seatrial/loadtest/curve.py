"""What figures of a load draw: percentiles of whole histograms, and the load over time."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import statistics
from typing import TYPE_CHECKING, Final

from seatrial.errors import StoreError
from seatrial.loadgen import read_histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.loadgen import Histogram
    from seatrial.loadtest.result import LoadTestResult, SeriesPoint

NS_PER_S: Final = 1_000_000_000
#: Points of a curve in each power of ten of one in so many.
POINTS_PER_DECADE: Final = 24
#: More stretches than this are put together: a figure is not wider than so many points.
STRETCHES_MAX: Final = 300


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PercentileCurve:
    """One kind of time: what one in so many requests exceeds, up to the largest value."""

    kind: str
    # 1 in 1, in 2, in 100...; at most 1 in as many as there are values.
    rarities: tuple[float, ...]
    values_ns: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CoursePoint:
    """One stretch of time, by completion; of several put together the middle p50, largest p99."""

    # From the begin of the measured time; negative in the warm-up.
    since_measuring_ns: int
    length_ns: int
    due_rps: float
    ok_rps: float
    failed_rps: float
    p50_ns: int | None
    p99_ns: int | None


def percentile_curves(result: LoadTestResult) -> tuple[PercentileCurve, ...]:
    """Returns the curves of all kinds of time that the result tells, the headline first.

    Raises:
        StoreError: a stored histogram is damaged.
    """
    curves = []
    for time in result.times:
        # The headline is of the times from due to done, which a closed loop calls service times.
        name = "response" if time is result.headline else time.kind
        if name in result.histograms:
            curves.append(_curve(time.kind, _histogram(result, name)))
    return tuple(curves)


def course_of(result: LoadTestResult) -> tuple[CoursePoint, ...]:
    """Returns the load over time, warm-up and drain included, in at most 300 stretches."""
    size = -(-len(result.series) // STRETCHES_MAX) or 1
    groups = [result.series[at : at + size] for at in range(0, len(result.series), size)]
    return tuple(_point(group, result.measure_start_ns) for group in groups)


def _histogram(result: LoadTestResult, name: str) -> Histogram:
    try:
        data = base64.b64decode(result.histograms[name], validate=True)
    except binascii.Error as error:
        raise StoreError(
            f"the stored histogram {name} is no base64: {error}", hint="the file was changed"
        ) from error
    return read_histogram(data)


def _curve(kind: str, histogram: Histogram) -> PercentileCurve:
    rarities: list[float] = []
    step = 0
    while (rarity := 10 ** (step / POINTS_PER_DECADE)) < histogram.count:
        rarities.append(rarity)
        step += 1
    rarities.append(float(histogram.count))
    values = [histogram.quantile(1 - 1 / rarity) or 0 for rarity in rarities[:-1]]
    return PercentileCurve(
        kind=kind,
        rarities=tuple(rarities),
        values_ns=(*values, histogram.max_ns or 0),
    )


def _point(group: Sequence[SeriesPoint], origin_ns: int) -> CoursePoint:
    start_ns, end_ns = group[0].start_ns, group[-1].end_ns
    length_ns = max(1, end_ns - start_ns)
    middles = [one.p50_ns for one in group if one.p50_ns is not None]
    tails = [one.p99_ns for one in group if one.p99_ns is not None]
    return CoursePoint(
        since_measuring_ns=start_ns - origin_ns,
        length_ns=length_ns,
        due_rps=sum(one.intended_count for one in group) * NS_PER_S / length_ns,
        ok_rps=sum(one.ok_count for one in group) * NS_PER_S / length_ns,
        failed_rps=sum(one.failed_count for one in group) * NS_PER_S / length_ns,
        p50_ns=statistics.median_low(middles) if middles else None,
        p99_ns=max(tails, default=None),
    )
