"""Figures as Vega-Lite specifications, from the summary's own points and curves.

A specification carries no theme: the page gives it the colours of its paper, and an exported file
gets the light ones. Everything drawn was computed by the analysis; scales are all that is decided
here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair as alt

from seatrial.model.estimate import Estimate
from seatrial.model.metric import Direction
from seatrial.model.summary import FLOOR, Statistic
from seatrial.report.layout import GLANCE
from seatrial.report.palette import inks_of
from seatrial.report.view import format_estimate, format_factor, point_title, verdict_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from seatrial.model.summary import Cell, Distribution, RunSummary, Trend

NS_PER_MS = 1_000_000
BYTES_PER_MIB = 1 << 20
#: Vega-Lite specifications are JSON objects of any depth.
Spec = dict[str, Any]
Values = list[dict[str, object]]

#: From how many powers of ten on an axis names fewer numbers.
WIDE_DECADES = 2.2
VAST_DECADES = 4
#: Units of axes; the table has the units that fit each number.
AXIS_UNITS = {
    "ns": (NS_PER_MS, "ms"),
    "bytes": (BYTES_PER_MIB, "MiB"),
    "rps": (1, "1/s"),
    "1/s": (1, "1/s"),
    "bytes/s": (BYTES_PER_MIB, "MiB/s"),
    "bytes_per_s": (BYTES_PER_MIB, "MiB/s"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a report."""

    name: str
    """Fit for a file name and an element id."""
    bench: str
    """Which section it belongs to; empty for the run as a whole."""
    title: str
    caption: str
    spec: Spec
    is_wide: bool = False


def build_figures(summary: RunSummary) -> tuple[Figure, ...]:
    """Every figure for which the run has numbers."""
    figures = [
        glance(summary),
        *start_distributions(summary),
        trend_figure(
            summary,
            metric="start_makespan_ns",
            axis="concurrency",
            name="start-makespan",
            title="Makespan of a batch",
            caption="From the release of a batch to the last first byte in it, against how many "
            "start at once. Bars are intervals; both axes are logarithmic.",
        ),
        trend_figure(
            summary,
            metric="memory_pss_total_bytes",
            axis="count",
            name="density-memory",
            title="Memory against count",
            caption="PSS of all sandboxes together. The line is the fit: its slope is what one "
            "more costs, its start what all share.",
        ),
        *response_distributions(summary),
        trend_figure(
            summary,
            metric="achieved_rps",
            axis="connections",
            name="load-capacity",
            title="Peak rate, closed loop",
            caption="Correct replies a second with every connection kept busy.",
        ),
        *inside_costs(summary),
    ]
    return tuple(figure for figure in figures if figure is not None)


def glance(summary: RunSummary) -> Figure | None:
    """All ratios to the baseline with their intervals."""
    values: Values = []
    for column in GLANCE:
        for cell in summary.cells:
            is_wanted = cell.metric == column.metric and cell.statistic in column.statistics
            if not (is_wanted and column.fits(cell.point) and isinstance(cell.ratio, Estimate)):
                continue
            metric = summary.metrics[cell.metric]
            values.append(
                {
                    "what": column.heading,
                    "point": point_title(cell.point),
                    "row": _glance_row(column.heading, cell),
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
    if not values:
        return None
    rows = list(dict.fromkeys(str(value["row"]) for value in values))
    base = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y("row:N", sort=rows, title=None, axis=alt.Axis(labelLimit=340, ticks=False)),
        yOffset=alt.YOffset("driver:N", sort=_names(summary)),
        color=_colour(summary, values),
        tooltip=[
            alt.Tooltip("driver:N"),
            alt.Tooltip("row:N", title="number"),
            alt.Tooltip("value:N"),
            alt.Tooltip("ratio:Q", title=f"times {summary.baseline}", format=".3~g"),
            alt.Tooltip("interval:N"),
            alt.Tooltip("verdict:N"),
        ],
        opacity=_highlight(),
    )
    scale = alt.Scale(type="log", nice=False, padding=12)
    ticks = log_ticks(value[end] for value in values for end in ("low", "high"))
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
        .encode(x=x, shape=_shape(summary, values))
        .add_params(_legend()),
    )
    height = sum(8 + 13 * _count(values, "row", row) for row in rows)
    return Figure(
        name="glance",
        bench="",
        title=f"Everything against {summary.baseline}, at a glance",
        caption=f"Ratio of each headline number to that of {summary.baseline} with its "
        f"{summary.confidence:.0%} interval; the dashed line is no difference. For rates more is "
        "better, for everything else less. Select a driver in the legend to follow it.",
        spec=_finish(chart, height=height),
        is_wide=True,
    )


def start_distributions(summary: RunSummary) -> list[Figure]:
    """Latency of the first byte, one figure a concurrency."""
    return [
        _ecdf(summary, group, name=f"start-latency-{number}")
        for number, group in enumerate(_by_point(summary, "start_first_byte_ns"), start=1)
    ]


def response_distributions(summary: RunSummary) -> list[Figure]:
    """Response time of open loops and service time of closed ones, over a log quantile axis."""
    groups = [
        *_by_point(summary, "response_time_ns"),
        *(
            group
            for group in _by_point(summary, "service_time_ns")
            if group[0].point.values.get("mode") == "closed"
        ),
    ]
    return [
        _log_quantiles(summary, group, name=f"load-latency-{number}")
        for number, group in enumerate(groups, start=1)
    ]


def trend_figure(
    summary: RunSummary, *, metric: str, axis: str, name: str, title: str, caption: str
) -> Figure | None:
    """A metric along an axis, with intervals, and the fitted line where there is one."""
    trends = [one for one in summary.trends if one.metric == metric and one.axis == axis]
    if not trends:
        return None
    unit = summary.metrics[metric].unit
    divisor, label = AXIS_UNITS.get(unit, (1, unit))
    has_line = any(trend.line for trend in trends)
    marks: Values = [mark for trend in trends for mark in _marks(trend, unit, divisor)]
    is_linear = has_line or unit not in {"ns", "bytes"}
    scale = alt.Scale(zero=True) if is_linear else alt.Scale(type="log", nice=False, padding=8)
    ends_of_marks = [mark[end] for mark in marks for end in ("low", "high")]
    y_axis = alt.Axis() if is_linear else alt.Axis(values=log_ticks(ends_of_marks), format="~g")
    xs = sorted({float(mark["x"]) for mark in marks if isinstance(mark["x"], float)})
    x = alt.X(
        "x:Q",
        title=axis,
        scale=alt.Scale(nice=False, padding=14, type="linear" if has_line else "log"),
        axis=alt.Axis(values=xs, format="~g", grid=False),
    )
    base = alt.Chart(alt.InlineData(values=marks)).encode(
        x=x,
        color=_colour(summary, marks),
        opacity=_highlight(),
        tooltip=[
            alt.Tooltip("driver:N"),
            alt.Tooltip("x:Q", title=axis),
            alt.Tooltip("text:N", title=label),
        ],
    )
    y = alt.Y("y:Q", title=label, scale=scale, axis=y_axis)
    layers = [
        base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", scale=scale, title=""), y2="high"),
        base.mark_point(filled=True, size=60)
        .encode(y=y, shape=_shape(summary, marks))
        .add_params(_legend()),
    ]
    if has_line:
        ends: Values = [end for trend in trends for end in _line_ends(trend, divisor)]
        layers.insert(0, _line(summary, ends, marks, x, scale))
    else:
        layers.insert(0, base.mark_line(strokeWidth=1.5).encode(y=y))
    return Figure(
        name=name,
        bench=trends[0].bench,
        title=title,
        caption=caption,
        spec=_finish(alt.layer(*layers), height=280),
    )


def inside_costs(summary: RunSummary) -> list[Figure]:
    """Costs of basic operations, one figure each."""
    figures = [
        _inside_cost(summary, metric)
        for bench in summary.benches
        if bench.name == "inside"
        for metric in bench.metrics
    ]
    return [figure for figure in figures if figure is not None]


def _glance_row(heading: str, cell: Cell) -> str:
    values = {name: value for name, value in cell.point.values.items() if name != "mode"}
    if not values or cell.statistic is Statistic.SLOPE:
        return heading
    if "rate_rps" in values:
        return f"{heading}, {values['rate_rps']:g}/s"
    return f"{heading}, {', '.join(f'{name} {value}' for name, value in values.items())}"


def _by_point(summary: RunSummary, metric: str) -> list[list[Distribution]]:
    groups: dict[str, list[Distribution]] = {}
    for one in summary.distributions:
        if one.metric == metric:
            groups.setdefault(one.point.key, []).append(one)
    return list(groups.values())


def _ecdf(summary: RunSummary, group: Sequence[Distribution], *, name: str) -> Figure:
    values: Values = [
        {
            "driver": one.driver,
            "x": value / NS_PER_MS,
            "q": q,
            "share": f"{q:.1%}",
            "order": number,
        }
        for one in group
        for number, (q, value) in enumerate(zip(one.quantiles, one.values, strict=True))
    ]
    chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X(
                "x:Q",
                title="ms (logarithmic)",
                scale=alt.Scale(type="log", nice=False, padding=8),
                axis=alt.Axis(values=log_ticks(value["x"] for value in values), format="~g"),
            ),
            y=alt.Y(
                "q:Q",
                title="share of starts",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 0.9, 1]),
            ),
            order="order:Q",
            color=_colour(summary, values),
            strokeDash=_dash(summary, values),
            opacity=_highlight(),
            tooltip=[
                alt.Tooltip("driver:N"),
                alt.Tooltip("x:Q", title="ms", format=".3~g"),
                alt.Tooltip("share:N", title="starts up to here"),
            ],
        )
        .add_params(_legend())
    )
    where = point_title(group[0].point)
    return Figure(
        name=name,
        bench=group[0].bench,
        title=f"Start latency, {where}",
        caption="Share of starts whose first byte had come by then; a steep line is a steady "
        "runtime. The dashed line is the launcher's floor.",
        spec=_finish(chart, height=280),
    )


def _log_quantiles(summary: RunSummary, group: Sequence[Distribution], *, name: str) -> Figure:
    values: Values = [
        {"driver": one.driver, "rarity": 1 / (1 - q), "y": value / NS_PER_MS, "share": f"{q:.4%}"}
        for one in group
        for q, value in zip(one.quantiles, one.values, strict=True)
    ]
    labels = (
        "datum.value <= 1 ? '0' : datum.value <= 2 ? 'p50' : datum.value <= 10 ? 'p90' : "
        "datum.value <= 100 ? 'p99' : datum.value <= 1000 ? 'p99.9' : 'p99.99'"
    )
    chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X(
                "rarity:Q",
                title="quantile (logarithmic in the tail)",
                scale=alt.Scale(type="log", nice=False, domainMin=1),
                axis=alt.Axis(values=[1, 2, 10, 100, 1000, 10000], labelExpr=labels),
            ),
            y=alt.Y(
                "y:Q",
                title="ms (logarithmic)",
                scale=alt.Scale(type="log", nice=False, padding=8),
                axis=alt.Axis(values=log_ticks(value["y"] for value in values), format="~g"),
            ),
            color=_colour(summary, values),
            opacity=_highlight(),
            tooltip=[
                alt.Tooltip("driver:N"),
                alt.Tooltip("share:N", title="quantile"),
                alt.Tooltip("y:Q", title="ms", format=".3~g"),
            ],
        )
        .add_params(_legend())
    )
    is_response = group[0].metric == "response_time_ns"
    what = "Response time" if is_response else "Service time"
    meaning = (
        "From the instant a request was due to its last byte, waiting included."
        if is_response
        else "From sending a request to its last byte, with every connection kept busy."
    )
    return Figure(
        name=name,
        bench=group[0].bench,
        title=f"{what}, {point_title(group[0].point)}",
        caption=f"{meaning} The far right is single requests: read it as a picture; the table has "
        "the quantiles that the sample supports.",
        spec=_finish(chart, height=280),
    )


def _marks(trend: Trend, unit: str, divisor: int) -> Values:
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


def _line_ends(trend: Trend, divisor: int) -> Values:
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
            color=_colour(summary, marks),
            opacity=_highlight(),
        )
    )
    return line


def _inside_cost(summary: RunSummary, metric: str) -> Figure | None:
    declared = summary.metrics[metric]
    divisor, label = (
        (1, "ns") if declared.unit == "ns" else AXIS_UNITS.get(declared.unit, (1, declared.unit))
    )
    values: Values = []
    for cell in summary.cells:
        is_wanted = cell.metric == metric and cell.statistic in {Statistic.P50, Statistic.MEAN}
        if not is_wanted or not isinstance(cell.estimate, Estimate):
            continue
        values.append(
            {
                "driver": cell.driver,
                "x": cell.estimate.point / divisor,
                "low": cell.estimate.low / divisor,
                "high": cell.estimate.high / divisor,
                "text": format_estimate(cell.estimate, declared.unit),
            }
        )
    if not values:
        return None
    scale = alt.Scale(type="log", nice=False, padding=16)
    base = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y("driver:N", sort=_names(summary), title=None),
        color=_colour(summary, values, has_legend=False),
        tooltip=[alt.Tooltip("driver:N"), alt.Tooltip("text:N", title=metric)],
    )
    ticks = log_ticks(value[end] for value in values for end in ("low", "high"))
    x = alt.X(
        "x:Q",
        scale=scale,
        title=f"{label} (logarithmic)",
        axis=alt.Axis(values=ticks, format="~s"),
    )
    chart = alt.layer(
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale, title=""), x2="high:Q"),
        base.mark_point(filled=True, size=60).encode(
            x=x, shape=_shape(summary, values, has_legend=False)
        ),
    )
    title = metric.removesuffix("_ns").removesuffix("_bytes_per_s").replace("_", " ")
    better = "More is better." if declared.direction is Direction.HIGHER else "Less is better."
    return Figure(
        name=f"inside-{metric.replace('_', '-')}",
        bench="inside",
        title=title.capitalize(),
        caption=f"{declared.meaning}: median over all batches with its interval. {better}",
        spec=_finish(chart, height=20 * len(values) + 12),
    )


def log_ticks(values: Iterable[object]) -> list[float]:
    """Few round numbers that cover the values on a logarithmic axis: 1, 2, 5, 10..."""
    known = [float(value) for value in values if isinstance(value, int | float) and value > 0]
    if not known:
        return []
    low, high = math.log10(min(known)), math.log10(max(known))
    decades = high - low
    steps = (1, 2, 5) if decades < WIDE_DECADES else (1, 3) if decades < VAST_DECADES else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return [tick for tick in ticks if 10**low * 0.8 <= tick <= 10**high * 1.25]


def _names(summary: RunSummary) -> list[str]:
    return [*(driver.name for driver in summary.drivers), FLOOR]


def _present(summary: RunSummary, values: Values) -> list[str]:
    found = {str(value["driver"]) for value in values}
    return [name for name in _names(summary) if name in found]


def _colour(summary: RunSummary, values: Values, *, has_legend: bool = True) -> alt.Color:
    names = _present(summary, values)
    inks = inks_of(tuple(_names(summary)))
    scale = alt.Scale(domain=names, range=[inks[name].colour for name in names])
    if not has_legend:
        return alt.Color("driver:N", scale=scale, legend=None)
    return alt.Color("driver:N", scale=scale, legend=alt.Legend(title=None, orient="top"))


def _shape(summary: RunSummary, values: Values, *, has_legend: bool = True) -> alt.Shape:
    names = _present(summary, values)
    inks = inks_of(tuple(_names(summary)))
    scale = alt.Scale(domain=names, range=[inks[name].shape for name in names])
    if not has_legend:
        return alt.Shape("driver:N", scale=scale, legend=None)
    return alt.Shape("driver:N", scale=scale, legend=alt.Legend(title=None, orient="top"))


def _dash(summary: RunSummary, values: Values) -> alt.StrokeDash:
    names = _present(summary, values)
    inks = inks_of(tuple(_names(summary)))
    dashes = [list(inks[name].dash) or [1, 0] for name in names]
    return alt.StrokeDash(
        "driver:N",
        scale=alt.Scale(domain=names, range=dashes),
        legend=alt.Legend(title=None, orient="top"),
    )


def _legend() -> alt.Parameter:
    return alt.selection_point(name="chosen", fields=["driver"], bind="legend")


def _highlight() -> dict[str, object]:
    return {"condition": {"param": "chosen", "value": 1}, "value": 0.15}


def _count(values: Iterable[dict[str, object]], name: str, wanted: str) -> int:
    return sum(value[name] == wanted for value in values)


def _finish(chart: alt.Chart | alt.LayerChart | alt.FacetChart, *, height: int) -> Spec:
    return _clean(chart.properties(width="container", height=height).to_dict())


def _clean(spec: Spec) -> Spec:
    """The specification without what Altair adds for its own display."""
    return {name: part for name, part in spec.items() if name not in {"config", "usermeta"}}
