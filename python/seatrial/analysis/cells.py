"""The numbers of the comparison table: one estimate a cell, its ratio, its verdict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seatrial.analysis.amplification import amplification_cells, paired_ratio
from seatrial.model.estimate import NotAvailable
from seatrial.model.metric import Direction, metric
from seatrial.model.plan import Point
from seatrial.model.summary import FLOOR, Cell, Statistic, TrendLine, Verdict
from seatrial.stats.dependent import blocks_quantile_interval
from seatrial.stats.line import Line, fit_line
from seatrial.stats.mean import blocks_max_interval, blocks_mean_interval, mean_interval
from seatrial.stats.outlier import count_outliers
from seatrial.stats.proportion import proportion_interval
from seatrial.stats.quantile import block_quantile_interval
from seatrial.stats.ratio import verdict
from seatrial.stats.unpaired import mean_ratio_interval
from seatrial.units import format_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from seatrial.analysis.evidence import Floats, Series, SeriesKey
    from seatrial.model.estimate import Estimate

QUANTILES = (
    (Statistic.P50, 0.5),
    (Statistic.P90, 0.9),
    (Statistic.P95, 0.95),
    (Statistic.P99, 0.99),
    (Statistic.P999, 0.999),
)
#: Times of requests, in the order in which they were due: each waits for those before it.
REQUEST_TIMES = frozenset({"response_time_ns", "service_time_ns", "send_lag_ns", "wire_time_ns"})
#: Metrics whose values are 1 for a success and 0 for a failure end so.
PROPORTION_SUFFIX = "success_ratio"
#: Metrics that grow with the number of sandboxes: their slope is the cost of one more.
TOTAL_SUFFIX = "_total_bytes"
#: Least and largest value of metrics that are shares: no interval says anything beyond them.
SHARE_BOUNDS = {
    "start_success_ratio": (0.0, 1.0),
    "failed_ratio": (0.0, 1.0),
    "idle_cpu_ratio": (0.0, math.inf),
    "image_resident_ratio": (0.0, 1.0),
    "background_cpu_ratio": (0.0, math.inf),
    "answered_ratio": (0.0, math.inf),
    "target_spread_ratio": (0.0, math.inf),
}
#: The same by unit: nothing happens a negative number of times. Times and bytes can be differences.
UNIT_BOUNDS = {"count": (0.0, math.inf), "1/s": (0.0, math.inf)}
#: Metrics of other tools that are means of one value a round, by their definition.
FOREIGN_MEAN_SUFFIX = "_mean"
#: The bench whose samples get a mean and a maximum as well: papers on starts give them.
STORM_BENCH = "start"
#: The axis that the slope is over.
COUNT_AXIS = "count"


def build_cells(
    series: Mapping[SeriesKey, Series], *, baseline: str, confidence: float, seed: int
) -> tuple[Cell, ...]:
    """Every cell at every point, then the slopes over counts."""
    baselines = {
        (key.point_key, key.metric): one for key, one in series.items() if key.driver == baseline
    }
    cells: list[Cell] = []
    for key, one in series.items():
        reference = baselines.get((key.point_key, key.metric))
        cells += _cells_of(one, reference, confidence=confidence, seed=seed)
    amplified = amplification_cells(series.values(), confidence=confidence, seed=seed)
    slopes = _slope_cells(series.values(), baseline=baseline, confidence=confidence)
    return (*cells, *amplified, *slopes)


def location_statistic(series: Series) -> Statistic:
    """Which statistic stands for the series: what trends, ratios and verdicts are about."""
    if series.metric.endswith(PROPORTION_SUFFIX):
        return Statistic.PROPORTION
    if is_foreign_mean(series.metric):
        return Statistic.MEAN
    return Statistic.MEAN if series.is_one_a_trial else Statistic.P50


def is_foreign_mean(name: str) -> bool:
    """Whether a metric is the mean of one value a round, as another tool defines it."""
    return metric(name).is_foreign and name.endswith(FOREIGN_MEAN_SUFFIX)


def location(
    series: Series, *, confidence: float, statistic: Statistic | None = None
) -> Estimate | NotAvailable:
    """Estimate of the series' location statistic, or of the one that is asked for."""
    statistic = statistic or location_statistic(series)
    unit = metric(series.metric).unit
    pooled = series.pooled
    if statistic is Statistic.PROPORTION:
        return proportion_interval(int(pooled.sum()), pooled.size, confidence=confidence)
    if statistic is Statistic.MEAN and pooled.size == 1:
        # It is told although it has no interval: another tool's cannot be repeated, and who ran one
        # block knows that it is one.
        point = float(pooled[0])
        return NotAvailable(reason=f"{format_value(point, unit)}, one reading", n=1, point=point)
    if statistic is Statistic.MEAN:
        bounds = SHARE_BOUNDS.get(series.metric, UNIT_BOUNDS.get(unit, (-math.inf, math.inf)))
        return mean_interval(list(pooled), confidence=confidence, unit=unit, bounds=bounds)
    return quantile(series, 0.5, confidence=confidence)


def quantile(series: Series, q: float, *, confidence: float) -> Estimate | NotAvailable:
    """Quantile of the series, by what its values are worth (METHODOLOGY 7.2 and 7.7)."""
    blocks, unit = list(series.blocks.values()), metric(series.metric).unit
    if series.metric in REQUEST_TIMES:
        return blocks_quantile_interval(blocks, q, confidence=confidence, unit=unit)
    return block_quantile_interval(blocks, q, confidence=confidence, unit=unit)


def fit_totals(series: Sequence[Series], *, confidence: float) -> Line | NotAvailable:
    """Line of a total over the count, through the single values of all trials."""
    pairs = [
        (float(one.point.values[COUNT_AXIS]), float(value))
        for one in series
        for value in one.pooled
    ]
    unit = metric(series[0].metric).unit
    xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
    return fit_line(xs, ys, confidence=confidence, unit=unit)


def trend_line(line: Line | NotAvailable) -> TrendLine | None:
    """The line as the summary keeps it."""
    if not isinstance(line, Line):
        return None
    return TrendLine(
        slope=line.slope, fixed=line.fixed, determination_ratio=line.determination_ratio
    )


def group_totals(series: Iterable[Series]) -> dict[tuple[Point, str, str], list[Series]]:
    """Series of totals by what they share (bench and other axes), driver and metric.

    Those at one count alone are included.
    """
    groups: dict[tuple[Point, str, str], list[Series]] = {}
    for one in series:
        if one.metric.endswith(TOTAL_SUFFIX) and COUNT_AXIS in one.point.values:
            groups.setdefault((held_point(one), one.driver, one.metric), []).append(one)
    return groups


def held_point(series: Series) -> Point:
    """The point of a series without its count: what a line over counts stands at."""
    values = {name: v for name, v in series.point.values.items() if name != COUNT_AXIS}
    return Point(bench=series.bench, values=values)


def _cells_of(
    series: Series, reference: Series | None, *, confidence: float, seed: int
) -> list[Cell]:
    ratio, judged = _compare(series, reference, confidence=confidence, seed=seed)
    chosen = location_statistic(series)
    outliers = count_outliers(series.pooled)

    def cell(statistic: Statistic, estimate: Estimate | NotAvailable) -> Cell:
        is_location = statistic is chosen
        return Cell(
            bench=series.bench,
            point=series.point,
            driver=series.driver,
            metric=series.metric,
            statistic=statistic,
            estimate=estimate,
            ratio=ratio if is_location else None,
            verdict=judged if is_location else Verdict.NOT_JUDGED,
            n=int(series.pooled.size),
            blocks_count=len(series.blocks),
            outliers_count=outliers.low_severe + outliers.high_severe,
        )

    if chosen is not Statistic.P50:
        return [cell(chosen, location(series, confidence=confidence))]
    cells = [cell(name, quantile(series, q, confidence=confidence)) for name, q in QUANTILES]
    if series.bench == STORM_BENCH:
        blocks, unit = list(series.blocks.values()), metric(series.metric).unit
        mean = blocks_mean_interval(blocks, confidence=confidence, unit=unit)
        top = blocks_max_interval(blocks, confidence=confidence, unit=unit)
        cells += [cell(Statistic.MEAN, mean), cell(Statistic.MAX, top)]
    return cells


def _compare(
    series: Series, reference: Series | None, *, confidence: float, seed: int
) -> tuple[Estimate | NotAvailable | None, Verdict]:
    if reference is series:
        return None, Verdict.BASELINE
    if reference is None or series.driver == FLOOR or series.metric.endswith(PROPORTION_SUFFIX):
        return None, Verdict.NOT_JUDGED
    if is_foreign_mean(series.metric):
        # Another tool's rounds were not interleaved, so they make no pairs.
        ratio = mean_ratio_interval(
            block_means(series), block_means(reference), confidence=confidence
        )
    else:
        ratio = paired_ratio(series.blocks, reference.blocks, confidence=confidence, seed=seed)
    return ratio, verdict(ratio, direction=metric(series.metric).direction)


def block_means(series: Series) -> list[float]:
    """The mean of each block, the first block first."""
    return [float(values.mean()) for values in series.blocks.values()]


def _slope_cells(series: Iterable[Series], *, baseline: str, confidence: float) -> list[Cell]:
    groups = group_totals(series)
    cells: list[Cell] = []
    for (held, driver, name), members in groups.items():
        if len(members) < 2:  # noqa: PLR2004 - a slope needs two counts
            continue
        line = fit_totals(members, confidence=confidence)
        reference = groups.get((held, baseline, name))
        ratio, judged = _compare_slopes(
            members, reference, is_baseline=driver == baseline, confidence=confidence
        )
        slope = line.slope if isinstance(line, Line) else line
        fixed = line.fixed if isinstance(line, Line) else line
        for statistic, estimate in ((Statistic.SLOPE, slope), (Statistic.FIXED, fixed)):
            is_slope = statistic is Statistic.SLOPE
            cells.append(
                Cell(
                    bench=held.bench,
                    point=held,
                    driver=driver,
                    metric=name,
                    statistic=statistic,
                    estimate=estimate,
                    ratio=ratio if is_slope else None,
                    verdict=judged if is_slope else Verdict.NOT_JUDGED,
                    n=sum(one.pooled.size for one in members),
                    blocks_count=len({block for one in members for block in one.blocks}),
                )
            )
    return cells


def _compare_slopes(
    members: Sequence[Series],
    reference: Sequence[Series] | None,
    *,
    is_baseline: bool,
    confidence: float,
) -> tuple[Estimate | NotAvailable | None, Verdict]:
    """Ratio of increments, one increment a block."""
    if is_baseline:
        return None, Verdict.BASELINE
    if reference is None or len(reference) < 2:  # noqa: PLR2004 - a slope needs two counts
        return None, Verdict.NOT_JUDGED
    ratio = paired_ratio(
        _block_slopes(members), _block_slopes(reference), confidence=confidence, seed=0
    )
    return ratio, verdict(ratio, direction=Direction.LOWER)


def _block_slopes(members: Sequence[Series]) -> dict[int, Floats]:
    """Increment between the smallest and the largest count of each block that has both."""
    ordered = sorted(members, key=lambda one: float(one.point.values[COUNT_AXIS]))
    first, last = ordered[0], ordered[-1]
    span = float(last.point.values[COUNT_AXIS]) - float(first.point.values[COUNT_AXIS])
    return {
        block: np.array([(float(np.median(last.blocks[block])) - float(np.median(values))) / span])
        for block, values in first.blocks.items()
        if block in last.blocks
    }
