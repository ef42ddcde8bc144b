"""Figures as Vega-Lite specifications, from the summary's own points and curves.

Everything drawn was computed by the analysis; scales are all that is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from seatrial.model.estimate import Estimate
from seatrial.model.plan import Point
from seatrial.model.summary import Statistic
from seatrial.report.axis_chart import HEIGHT, SMALL_HEIGHT
from seatrial.report.axis_curves import axis_figures, axis_words
from seatrial.report.courses import load_courses
from seatrial.report.curves import response_distributions, start_distributions
from seatrial.report.fleet_curves import fleet_curves, rpc_rates
from seatrial.report.inside_charts import inside_figures
from seatrial.report.layout import GLANCE
from seatrial.report.parts import (
    AXIS_UNITS,
    Figure,
    Values,
    colour,
    driver_names,
    finish,
    highlight,
    legend,
    log_ticks,
    shape,
)
from seatrial.report.references import (
    reference_layers,
    reference_words,
    references_beside,
)
from seatrial.report.shares import share_figures
from seatrial.report.view import format_estimate, format_factor, point_title, verdict_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from seatrial.model.summary import Cell, RunSummary, Trend

#: A few blocks give intervals over ten decades, which would leave nothing to see of the points.
FRAME_FACTOR = 3


def build_figures(summary: RunSummary) -> tuple[Figure, ...]:
    """Every figure for which the run has numbers."""
    figures = [
        glance(summary),
        *axis_figures(summary),
        *share_figures(summary),
        *start_distributions(summary),
        *trend_figures(
            summary,
            metric="memory_pss_total_bytes",
            axis="count",
            name="density-memory",
            title="Memory against count",
            caption="PSS of all sandboxes together. The line is the fit: its slope is what one "
            "more costs, its start what all share.",
        ),
        *response_distributions(summary),
        *load_courses(summary),
        *trend_figures(
            summary,
            metric="achieved_rps",
            axis="connections",
            name="load-capacity",
            title="Peak rate, closed loop",
            caption="Correct replies a second with every connection kept busy.",
        ),
        *fleet_curves(summary),
        *rpc_rates(summary),
        *inside_figures(summary),
    ]
    return tuple(figure for figure in figures if figure is not None)


def glance(summary: RunSummary) -> Figure | None:
    """All ratios to the baseline with their intervals."""
    values = _glance_values(summary)
    if not values:
        return None
    rows = list(dict.fromkeys(str(value["row"]) for value in values))
    base = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y("row:N", sort=rows, title=None, axis=alt.Axis(labelLimit=340, ticks=False)),
        yOffset=alt.YOffset("driver:N", sort=driver_names(summary)),
        color=colour(summary, values),
        tooltip=[
            alt.Tooltip("driver:N"),
            alt.Tooltip("row:N", title="number"),
            alt.Tooltip("value:N"),
            alt.Tooltip("ratio:Q", title=f"times {summary.baseline}", format=".3~g"),
            alt.Tooltip("interval:N"),
            alt.Tooltip("verdict:N"),
        ],
        opacity=highlight(),
    )
    low, high = _frame(values)
    scale = alt.Scale(type="log", nice=False, domain=[low, high], clamp=True)
    ticks = log_ticks([low, high])
    x = alt.X(
        "ratio:Q",
        scale=scale,
        title=f"times {summary.baseline} (logarithmic)",
        axis=alt.Axis(values=ticks, format="~g"),
    )
    one = (
        alt.Chart(alt.InlineData(values=[{"one": 1}]))
        .mark_rule(strokeDash=[4, 3], strokeWidth=1.5, color="#8b949e")
        .encode(x=alt.X("one:Q", scale=scale, title=""))
    )
    chart = alt.layer(
        one,
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale, title=""), x2="high:Q"),
        base.mark_point(filled=True, size=64)
        .encode(x=x, shape=shape(summary, values))
        .add_params(legend()),
    )
    height = sum(8 + 13 * [value["row"] for value in values].count(row) for row in rows)
    return Figure(
        name="glance",
        bench="",
        title=f"Everything against {summary.baseline}, at a glance",
        caption=f"Ratio of each headline number to that of {summary.baseline} with its "
        f"{summary.confidence:.0%} interval; the dashed line is no difference. For rates more is "
        "better, for everything else less. Intervals that touch the frame go on beyond it. Select "
        "a driver in the legend to follow it.",
        spec=finish(chart, height=height),
        is_wide=True,
    )


def trend_figures(
    summary: RunSummary,
    *,
    metric: str,
    axis: str,
    name: str,
    title: str,
    caption: str,
    bench: str | None = None,
) -> list[Figure]:
    """A figure for each combination of the other axes, such as limits of memory."""
    groups: dict[str, list[Trend]] = {}
    for one in summary.trends:
        if one.metric == metric and one.axis == axis and bench in {None, one.bench}:
            held = axis_words(Point(bench=one.bench, values=one.held))
            groups.setdefault(held, []).append(one)
    if len(groups) == 1:
        groups = {"": next(iter(groups.values()))}
    return [
        trend_figure(
            summary,
            trends,
            name=f"{name}-{number}" if words else name,
            title=f"{title}, {words}" if words else title,
            caption=caption,
            is_small=len(groups) > 2,  # noqa: PLR2004 - two stand side by side at full size
        )
        for number, (words, trends) in enumerate(groups.items(), start=1)
    ]


def trend_figure(
    summary: RunSummary,
    trends: Sequence[Trend],
    *,
    name: str,
    title: str,
    caption: str,
    is_small: bool = False,
) -> Figure:
    """A metric along an axis, with intervals, and the fitted line where there is one."""
    metric, axis = trends[0].metric, trends[0].axis
    unit = summary.metrics[metric].unit
    divisor, label = AXIS_UNITS.get(unit, (1, unit))
    has_line = any(trend.line for trend in trends)
    references = references_beside(summary, trends, metric=metric, axis=axis)
    marks: Values = [mark for trend in trends for mark in _marks(trend, unit, divisor)]
    beside = [mark for one in references for mark in one.points]
    heights = [
        *(mark[end] for mark in marks for end in ("low", "high")),
        *(mark.point / divisor for mark in beside),
    ]
    scale, y = _y_axis(label, heights, is_linear=has_line or unit not in {"ns", "bytes"})
    x = _x_axis(
        axis, [*(mark["x"] for mark in marks), *(mark.x for mark in beside)], has_line=has_line
    )
    base = alt.Chart(alt.InlineData(values=marks)).encode(
        x=x,
        color=colour(summary, marks),
        opacity=highlight(),
        tooltip=[
            alt.Tooltip("driver:N"),
            alt.Tooltip("x:Q", title=axis),
            alt.Tooltip("text:N", title=label),
        ],
    )
    layers = [
        base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", scale=scale, title=""), y2="high"),
        base.mark_point(filled=True, size=60)
        .encode(y=y, shape=shape(summary, marks))
        .add_params(legend()),
    ]
    if has_line:
        ends: Values = [end for trend in trends for end in _line_ends(trend, divisor)]
        layers.insert(0, _line(summary, ends, marks, x, scale))
    else:
        layers.insert(0, base.mark_line(strokeWidth=1.5).encode(y=y))
    layers += reference_layers(references, x=x, scale=scale, divisor=divisor)
    return Figure(
        name=name,
        bench=trends[0].bench,
        title=title,
        caption=caption + reference_words(references),
        spec=finish(alt.layer(*layers), height=SMALL_HEIGHT if is_small else HEIGHT),
        is_small=is_small,
    )


def _y_axis(label: str, heights: Iterable[object], *, is_linear: bool) -> tuple[alt.Scale, alt.Y]:
    """The vertical axis and its scale: from zero, or logarithmic with few ticks."""
    scale = alt.Scale(zero=True) if is_linear else alt.Scale(type="log", nice=False, padding=8)
    ticks = alt.Axis() if is_linear else alt.Axis(values=log_ticks(heights), format="~g")
    return scale, alt.Y("y:Q", title=label, scale=scale, axis=ticks)


def _x_axis(axis: str, places: Iterable[object], *, has_line: bool) -> alt.X:
    """The axis with a tick at each mark; from zero and linear under a fitted line."""
    return alt.X(
        "x:Q",
        title=axis,
        scale=alt.Scale(nice=False, padding=14, type="linear" if has_line else "log"),
        axis=alt.Axis(
            values=sorted({place for place in places if isinstance(place, float)}),
            format="~g",
            grid=False,
            labelOverlap=True,
        ),
    )


def _glance_values(summary: RunSummary) -> Values:
    """Every headline ratio that has an interval."""
    values: Values = []
    for column in GLANCE:
        for cell in summary.cells:
            is_wanted = cell.metric == column.metric and cell.statistic in column.statistics
            is_wanted &= column.heading.startswith(f"{cell.bench}:")
            if not (is_wanted and column.fits(cell.point) and isinstance(cell.ratio, Estimate)):
                continue
            metric, heading = summary.metrics[cell.metric], column.title(cell.statistic)
            values.append(
                {
                    "what": heading,
                    "point": point_title(cell.point),
                    "row": _glance_row(heading, cell),
                    "driver": cell.driver,
                    "ratio": cell.ratio.point,
                    "low": cell.ratio.low,
                    "high": cell.ratio.high,
                    "verdict": verdict_word(cell.verdict, metric),
                    "interval": f"{format_factor(cell.ratio.low)} to "
                    f"{format_factor(cell.ratio.high)}",
                    "value": format_estimate(cell.estimate, metric.unit),
                }
            )
    return values


def _frame(values: Values) -> tuple[float, float]:
    """Ends of the ratio axis: all points with room around them, whatever their intervals do."""
    points = [value["ratio"] for value in values if isinstance(value["ratio"], float)]
    return min(1.0, *points) / FRAME_FACTOR, max(1.0, *points) * FRAME_FACTOR


def _glance_row(heading: str, cell: Cell) -> str:
    if cell.bench in {"fleet", "rpc"}:
        words = point_title(cell.point).replace("constant:", "").replace("in 1 sandbox", "in 1")
        return f"{heading}, {words}"
    values = {name: value for name, value in cell.point.values.items() if name != "mode"}
    if not values:
        return heading
    if cell.statistic is Statistic.SLOPE:
        return f"{heading}, {axis_words(cell.point)}"
    if "rate_rps" in values:
        return f"{heading}, {values['rate_rps']:g}/s"
    return f"{heading}, {', '.join(f'{name} {value}' for name, value in values.items())}"


def _marks(trend: Trend, unit: str, divisor: float) -> Values:
    return [
        {
            "driver": trend.driver,
            "x": mark.x,
            "y": mark.estimate.point / divisor,
            "low": mark.estimate.low / divisor,
            "high": mark.estimate.high / divisor,
            "text": format_estimate(mark.estimate, unit),
        }
        for mark in trend.points
    ]


def _line_ends(trend: Trend, divisor: float) -> Values:
    if trend.line is None:
        return []
    slope, fixed = trend.line.slope.point, trend.line.fixed.point
    return [
        {"driver": trend.driver, "x": x, "y": (fixed + slope * x) / divisor}
        for x in (0.0, trend.points[-1].x)
    ]


def _line(
    summary: RunSummary, ends: Values, marks: Values, x: alt.X, scale: alt.Scale
) -> alt.Chart:
    line: alt.Chart = (
        alt.Chart(alt.InlineData(values=ends))
        .mark_line(strokeWidth=1.5)
        .encode(
            x=x,
            y=alt.Y("y:Q", scale=scale, title=""),
            color=colour(summary, marks),
            opacity=highlight(),
        )
    )
    return line
