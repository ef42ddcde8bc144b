"""What figures need: thinned distributions and trends along an axis. Bounded in size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.analysis.cells import (
    COUNT_AXIS,
    fit_totals,
    group_totals,
    held_point,
    location,
    location_statistic,
    trend_line,
)
from seatrial.model.estimate import Estimate
from seatrial.model.plan import Point
from seatrial.model.summary import Distribution, Trend, TrendPoint
from seatrial.stats.shape import quantile_curve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.analysis.evidence import Series
    from seatrial.model.scalar import Scalar

#: Distributions are kept of these; of others the table says enough.
DISTRIBUTION_METRICS = frozenset(
    {"start_first_byte_ns", "response_time_ns", "service_time_ns", "syscall_ns", "page_fault_ns"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendKey:
    """What the marks of one trend share."""

    driver: str
    metric: str
    axis: str
    held_key: str
    """Bench and the values of the other axes."""


def build_distributions(series: Iterable[Series]) -> tuple[Distribution, ...]:
    """Thinned empirical distributions of the metrics that figures draw."""
    found: list[Distribution] = []
    for one in series:
        if one.metric not in DISTRIBUTION_METRICS or one.is_one_a_trial:
            continue
        curve = quantile_curve(one.pooled)
        found.append(
            Distribution(
                bench=one.bench,
                point=one.point,
                driver=one.driver,
                metric=one.metric,
                quantiles=curve.quantiles,
                values=curve.values,
                n=int(one.pooled.size),
            )
        )
    return tuple(found)


def build_trends(series: Iterable[Series], *, confidence: float) -> tuple[Trend, ...]:
    """How each metric follows each numeric axis that has at least two values, others held."""
    members = list(series)
    lines = {
        key: trend_line(fit_totals(group, confidence=confidence))
        for key, group in group_totals(members).items()
    }
    groups: dict[TrendKey, list[Series]] = {}
    for one in members:
        for axis in _numeric_axes(one.point.values):
            held = {name: value for name, value in one.point.values.items() if name != axis}
            key = TrendKey(
                driver=one.driver,
                metric=one.metric,
                axis=axis,
                held_key=Point(bench=one.bench, values=held).key,
            )
            groups.setdefault(key, []).append(one)
    trends: list[Trend] = []
    for key, group in groups.items():
        first, axis = group[0], key.axis
        marks = _marks(group, axis, confidence=confidence)
        if len(marks) < 2:  # noqa: PLR2004 - one mark is no trend
            continue
        line_key = (held_point(first), first.driver, first.metric)
        trends.append(
            Trend(
                bench=first.bench,
                driver=first.driver,
                metric=first.metric,
                statistic=location_statistic(first),
                axis=axis,
                held={name: v for name, v in first.point.values.items() if name != axis},
                points=marks,
                line=lines.get(line_key) if axis == COUNT_AXIS else None,
            )
        )
    return tuple(trends)


def _numeric_axes(values: Mapping[str, Scalar]) -> tuple[str, ...]:
    return tuple(
        name
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )


def _marks(group: list[Series], axis: str, *, confidence: float) -> tuple[TrendPoint, ...]:
    marks: list[TrendPoint] = []
    for one in sorted(group, key=lambda one: float(one.point.values[axis])):
        estimate = location(one, confidence=confidence)
        if isinstance(estimate, Estimate):
            marks.append(TrendPoint(x=float(one.point.values[axis]), estimate=estimate))
    return tuple(marks)
