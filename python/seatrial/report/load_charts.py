"""Figures of one load: its percentiles far into the tail, and what it did over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt

from seatrial.loadtest.curve import course_of, percentile_curves
from seatrial.model.estimate import Estimate
from seatrial.report.load_text import HEADINGS, OWN_LAG_ALONE, shown_times
from seatrial.report.parts import NS_PER_MS, Figure, Spec, Values, finish, log_ticks
from seatrial.units import format_duration, format_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.loadtest.curve import CoursePoint
    from seatrial.loadtest.result import LoadTestResult

NS_PER_S: Final = 1_000_000_000
#: {line: its colour and dashes}; the hues of `palette`, and no two lines by colour alone.
LINES: Final[dict[str, tuple[str, list[int]]]] = {
    "response time": ("#2a7fc9", [1, 0]),
    "service time": ("#0a9a75", [8, 3]),
    "wire and server": ("#8f78d8", [2, 2]),
    "waited for a place": ("#c98a00", [8, 3, 2, 3]),
    "sent after due": ("#dd5f1c", [4, 3]),
    "of that, pacing lag": ("#c46a9a", [2, 3]),
    OWN_LAG_ALONE: ("#c46a9a", [2, 3]),
    "wake-up": ("#7d8590", [1, 3]),
    "due": ("#7d8590", [6, 3]),
    "correct": ("#2a7fc9", [1, 0]),
    "failed": ("#dd5f1c", [2, 2]),
    "p99": ("#dd5f1c", [1, 0]),
    "p50": ("#2a7fc9", [6, 3]),
}
#: Names of one in so many on the axis of percentiles.
RARITIES: Final = {
    10 / 9: "p10",
    2: "p50",
    10: "p90",
    100: "p99",
    1_000: "p99.9",
    10_000: "p99.99",
    100_000: "p99.999",
    1_000_000: "p99.9999",
    10_000_000: "p99.99999",
}
#: Fewer values of a kind draw no curve.
COUNT_MIN: Final = 10
#: The fastest tenth would stretch the axis over decades that nobody asks for.
RARITY_MIN: Final = 10 / 9
TALL: Final = 300
LOW: Final = 180


def load_figures(result: LoadTestResult) -> tuple[Figure, ...]:
    """Every figure for which the load has numbers.

    Raises:
        StoreError: a stored histogram is damaged.
    """
    figures: list[Figure] = []
    curves = _curves(result)
    if curves:
        figures.append(_percentiles(result, curves))
    course = course_of(result)
    if len(course) > 1:
        figures.append(_rates(result, course))
        if any(point.p99_ns is not None for point in course):
            figures.append(_tails(result, course))
    return tuple(figures)


def _curves(result: LoadTestResult) -> Values:
    """Points of each kind that a clock can tell from nothing: a logarithm has no zero."""
    has_send_lag = any(time.kind == "send_lag" for time in shown_times(result))
    headings = HEADINGS if has_send_lag else {**HEADINGS, "pacing_lag": OWN_LAG_ALONE}
    return [
        {
            "line": headings[curve.kind],
            "rarity": rarity,
            "y": value_ns / NS_PER_MS,
            "told": f"{headings[curve.kind]}: {format_duration(value_ns)}",
            "share": f"{1 - 1 / rarity:.6%}",
        }
        for curve in percentile_curves(result)
        if curve.kind in HEADINGS and max(curve.rarities) >= COUNT_MIN
        for rarity, value_ns in zip(curve.rarities, curve.values_ns, strict=True)
        if value_ns > 0 and rarity >= RARITY_MIN
    ]


def _intervals(result: LoadTestResult) -> Values:
    return [
        {
            "line": HEADINGS[result.headline.kind],
            "rarity": 1 / (1 - one.share),
            "y": one.value.point / NS_PER_MS,
            "low": max(one.value.low, 1.0) / NS_PER_MS,
            "high": one.value.high / NS_PER_MS,
            "told": f"{one.name} {format_duration(one.value.point)} "
            f"[{format_duration(one.value.low)}, {format_duration(one.value.high)}]",
        }
        for one in result.headline.quantiles
        if isinstance(one.value, Estimate) and one.value.point > 0
    ]


def _percentiles(result: LoadTestResult, curves: Values) -> Figure:
    largest = max(float(str(value["rarity"])) for value in curves)
    named = {rarity: name for rarity, name in RARITIES.items() if rarity <= largest}
    labels = " : ".join(
        f"datum.value <= {rarity * 1.01} ? '{name}'" for rarity, name in named.items()
    )
    intervals = _intervals(result)
    ends = [value[end] for value in intervals for end in ("low", "high")]
    x = alt.X(
        "rarity:Q",
        title="percentile (logarithmic in the tail)",
        scale=alt.Scale(type="log", nice=False, domainMin=RARITY_MIN, domainMax=largest),
        axis=alt.Axis(values=list(named), labelExpr=f"{labels} : ''", labelOverlap=True),
    )
    y = alt.Y(
        "y:Q",
        title="ms (logarithmic)",
        scale=alt.Scale(type="log", nice=False, padding=8),
        axis=alt.Axis(values=log_ticks([*(value["y"] for value in curves), *ends]), format="~g"),
    )
    lines = (
        alt.Chart(alt.InlineData(values=curves))
        .mark_line(strokeWidth=2)
        .encode(
            x=x,
            y=y,
            color=_colour(curves),
            strokeDash=_dash(curves),
            tooltip=[
                alt.Tooltip("told:N", title="time"),
                alt.Tooltip("share:N", title="not above"),
            ],
        )
    )
    layers: list[alt.Chart] = [lines]
    if intervals:
        base = alt.Chart(alt.InlineData(values=intervals))
        tooltip = [alt.Tooltip("told:N", title="95 % interval")]
        bars = base.mark_rule(strokeWidth=2, color=LINES["response time"][0]).encode(
            x=x, y=alt.Y("low:Q"), y2="high:Q", tooltip=tooltip
        )
        points = base.mark_point(
            size=60, filled=True, opacity=1, color=LINES["response time"][0]
        ).encode(x=x, y=y, tooltip=tooltip)
        layers += [bars, points]
    return Figure(
        name="load-percentiles",
        bench="times",
        title="Percentiles",
        caption="What one request in two, ten, a hundred... exceeds. Bars: 95 % intervals of the "
        f"{HEADINGS[result.headline.kind]}; without one, the line is of this sample alone.",
        spec=finish(alt.layer(*layers), height=TALL),
        is_wide=True,
    )


def _rates(result: LoadTestResult, course: Sequence[CoursePoint]) -> Figure:
    shown = {"correct": "ok_rps", "failed": "failed_rps"}
    if result.offered_rps is not None:
        shown = {"due": "due_rps"} | shown
    if not any(point.failed_rps for point in course):
        del shown["failed"]
    values: Values = [
        {
            "line": line,
            "x": _middle_s(point),
            "y": getattr(point, field),
            "told": f"{line}: {format_rate(getattr(point, field))}",
        }
        for line, field in shown.items()
        for point in course
    ]
    what = "Requests due, correct replies" if "due" in shown else "Correct replies"
    return Figure(
        name="load-rates",
        bench="course",
        title="Offered against achieved, over time" if "due" in shown else "Replies over time",
        caption=f"{what}{' and failures' if 'failed' in shown else ''} a second. Where the lines "
        "part the service did not keep up. Grey is not measured: warm-up, cool-down, last replies.",
        spec=_over_time(result, values, title="1/s", scale=alt.Scale(zero=True), ticks=None),
        is_wide=True,
    )


def _tails(result: LoadTestResult, course: Sequence[CoursePoint]) -> Figure:
    values: Values = [
        {
            "line": line,
            "x": _middle_s(point),
            "y": value_ns / NS_PER_MS,
            "told": f"{line}: {format_duration(value_ns)}",
        }
        for line, field in {"p99": "p99_ns", "p50": "p50_ns"}.items()
        for point in course
        if (value_ns := getattr(point, field))
    ]
    scale = alt.Scale(type="log", nice=False, padding=8)
    ticks = log_ticks(value["y"] for value in values)
    together = " Of stretches put together it is their largest p99 and middle p50."
    is_joined = len(course) < len(result.series)
    return Figure(
        name="load-times",
        bench="course",
        title=f"{HEADINGS[result.headline.kind].capitalize()} over time",
        caption="p50 and p99 of the replies that came in each stretch; of fewer than a hundred, "
        f"the p99 is the largest.{together if is_joined else ''} A climb has no one percentile.",
        spec=_over_time(result, values, title="ms (logarithmic)", scale=scale, ticks=ticks),
        is_wide=True,
    )


def _over_time(
    result: LoadTestResult,
    values: Values,
    *,
    title: str,
    scale: alt.Scale,
    ticks: list[float] | None,
) -> Spec:
    axis = alt.Axis(format="~s") if ticks is None else alt.Axis(values=ticks, format="~g")
    known = [float(str(value["x"])) for value in values]
    first, last = min(known), max(known)
    measured_s = result.measure_length_ns / NS_PER_S
    outside = [
        {"from": low, "to": high}
        for low, high in ((first, min(0.0, last)), (max(measured_s, first), last))
        if high > low
    ]
    x = alt.X(
        "x:Q",
        title="s from the begin of the measured time",
        scale=alt.Scale(nice=False, domainMin=first, domainMax=last),
    )
    lines = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(strokeWidth=1.5)
        .encode(
            x=x,
            y=alt.Y("y:Q", title=title, scale=scale, axis=axis),
            color=_colour(values),
            strokeDash=_dash(values),
            tooltip=[
                alt.Tooltip("x:Q", title="s", format=".3~g"),
                alt.Tooltip("told:N", title="value"),
            ],
        )
    )
    if not outside:
        return finish(lines, height=LOW)
    shade = (
        alt.Chart(alt.InlineData(values=outside))
        .mark_rect(color="#7d8590", opacity=0.14)
        .encode(x=alt.X("from:Q"), x2="to:Q")
    )
    return finish(alt.layer(shade, lines), height=LOW)


def _middle_s(point: CoursePoint) -> float:
    return (point.since_measuring_ns + point.length_ns / 2) / NS_PER_S


def _lines_of(values: Values) -> dict[str, tuple[str, list[int]]]:
    found = {value["line"] for value in values}
    return {name: ink for name, ink in LINES.items() if name in found}


def _colour(values: Values) -> alt.Color:
    inks: Mapping[str, tuple[str, list[int]]] = _lines_of(values)
    scale = alt.Scale(domain=list(inks), range=[colour for colour, _ in inks.values()])
    return alt.Color("line:N", scale=scale, legend=_legend())


def _dash(values: Values) -> alt.StrokeDash:
    inks = _lines_of(values)
    scale = alt.Scale(domain=list(inks), range=[dash for _, dash in inks.values()])
    return alt.StrokeDash("line:N", scale=scale, legend=_legend())


def _legend() -> alt.Legend:
    return alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeWidth=2)
