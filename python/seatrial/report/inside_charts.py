"""Figures of work inside of sandboxes: costs one by one, rates of files and networks as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import altair as alt

from seatrial.model.estimate import Estimate
from seatrial.model.metric import Direction
from seatrial.model.summary import Statistic
from seatrial.report.layout import COLUMNS
from seatrial.report.parts import (
    AXIS_UNITS,
    Figure,
    Values,
    colour,
    driver_names,
    finish,
    fitting_unit,
    highlight,
    legend,
    log_ticks,
    shape,
)
from seatrial.report.view import format_estimate, format_number, known_value, mark_of, point_title

if TYPE_CHECKING:
    from seatrial.model.plan import Point
    from seatrial.model.summary import Cell, RunSummary, Score

INSIDE: Final = "inside"
LOCATIONS: Final = frozenset({Statistic.P50, Statistic.MEAN})
#: Tests whose rates stand side by side; of the others each number has an axis of its own.
BARS: Final = ("dd", "fio", "network")
#: Numbers that explain another one and need no figure.
WITHOUT_FIGURE: Final = frozenset(
    {
        "hello_user_ns",
        "hello_system_ns",
        "hello_client_cpu_ns",
        "guest_used_bytes",
        "guest_total_bytes",
    }
)
#: How fio was run, by the axis `variant`.
VARIANTS: Final = {
    "seed": "Direct I/O by amount: every thread moves the whole of one shared file, as in the "
    "comparison that this follows. ",
    "direct": "Direct I/O by time, each thread in a part of the file of its own. ",
    "cached": "By time through the page caches, each thread in a part of the file of its own. ",
}
BAR_HEIGHT: Final = 13
TICKS_COUNT: Final = 8
BYTES_PER_S: Final = "bytes/s"


def inside_figures(summary: RunSummary) -> list[Figure]:
    """All figures of the bench, in the order of its tables."""
    benches = [bench for bench in summary.benches if bench.name == INSIDE]
    barred = {
        cell.metric
        for cell in summary.cells
        if cell.bench == INSIDE and cell.point.values.get("test") in BARS
    }
    costs = [
        _cost(summary, metric)
        for bench in benches
        for metric in bench.metrics
        if metric not in barred | WITHOUT_FIGURE
    ]
    bars = [
        _bars(summary, point)
        for bench in benches
        for point in bench.points
        if point.values.get("test") in BARS
    ]
    return [figure for figure in (*costs, *bars) if figure is not None]


def _bars(summary: RunSummary, point: Point) -> Figure | None:
    """The rates of one test, a group of bars a number and a bar a runtime; marks beside them."""
    headings = {
        column.metric: column.heading
        for column in COLUMNS[INSIDE]
        if column.metric in summary.metrics and summary.metrics[column.metric].unit == BYTES_PER_S
    }
    found: dict[tuple[str, str], Cell] = {
        (cell.metric, cell.driver): cell
        for cell in summary.cells
        if cell.point.key == point.key and cell.metric in headings and cell.statistic in LOCATIONS
    }
    values: Values = [
        _bar(summary, cell, headings[metric])
        for metric in headings
        for driver in driver_names(summary)
        if (cell := found.get((metric, driver))) is not None
        and known_value(cell, _score(summary, cell)) is not None
    ]
    if not values:
        return None
    rows = list(dict.fromkeys(str(value["row"]) for value in values))
    base = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y("row:N", sort=rows, title=None, axis=alt.Axis(ticks=False, labelLimit=160)),
        yOffset=alt.YOffset("driver:N", sort=driver_names(summary)),
        color=colour(summary, values),
        opacity=highlight(),
        tooltip=[
            alt.Tooltip("driver:N"),
            alt.Tooltip("row:N", title="number"),
            alt.Tooltip("text:N", title="rate"),
            alt.Tooltip("status:N"),
        ],
    )
    _, label = AXIS_UNITS[BYTES_PER_S]
    axis = alt.Axis(tickCount=TICKS_COUNT)
    x = alt.X("x:Q", title=label, scale=alt.Scale(zero=True), axis=axis)
    chart = alt.layer(
        base.mark_bar(size=BAR_HEIGHT - 3).encode(x=x).add_params(legend()),
        base.mark_rule(strokeWidth=1.5, color="#8b949e").encode(
            x=alt.X("low:Q", title=""), x2="high:Q", color=alt.value("#8b949e")
        ),
        base.mark_text(align="left", dx=5, fontWeight="bold").encode(
            x=alt.X("end:Q", title=""), text="marks:N"
        ),
    )
    title = point_title(point)
    name = "-".join(str(point.values[axis]) for axis in sorted(point.values))
    return Figure(
        name=f"inside-{name}",
        bench=INSIDE,
        title=title,
        caption=VARIANTS.get(str(point.values.get("variant")), "")
        + "Median of all repeats with its interval, where there is one. More is better, but for "
        "(C): those bytes came from or stayed in memory.",
        spec=finish(chart, height=BAR_HEIGHT * len(values) + 10 * len(rows)),
        is_wide=True,
    )


def _bar(summary: RunSummary, cell: Cell, heading: str) -> dict[str, object]:
    divisor, _ = AXIS_UNITS[BYTES_PER_S]
    estimate, score = cell.estimate, _score(summary, cell)
    point = known_value(cell, score) or 0.0
    is_known = isinstance(estimate, Estimate)
    low, high = (estimate.low, estimate.high) if isinstance(estimate, Estimate) else (point, point)
    return {
        "row": heading,
        "driver": cell.driver,
        "x": point / divisor,
        "low": low / divisor,
        "high": high / divisor,
        "end": max(point, high) / divisor,
        "marks": " ".join(mark_of(code).glyph.strip() for code in cell.marks),
        "text": format_estimate(estimate, BYTES_PER_S)
        if is_known
        else f"{format_number(point, BYTES_PER_S)}, no interval",
        "status": "" if score is None else score.status.value,
    }


def _score(summary: RunSummary, cell: Cell) -> Score | None:
    return summary.score(point=cell.point, driver=cell.driver, metric=cell.metric)


def _cost(summary: RunSummary, metric: str) -> Figure | None:
    declared = summary.metrics[metric]
    what = "median over all repeats"
    known: dict[str, Estimate] = {}
    for cell in summary.cells:
        is_wanted = cell.metric == metric and cell.statistic in {Statistic.P50, Statistic.MEAN}
        if not is_wanted or not isinstance(cell.estimate, Estimate):
            continue
        if cell.statistic is Statistic.MEAN:
            what = "mean over all trials"
        known[cell.driver] = cell.estimate
    if not known:
        return None
    ends = [end for one in known.values() for end in (one.low, one.point, one.high)]
    divisor, label = fitting_unit(declared.unit, ends)
    values: Values = [
        {
            "driver": driver,
            "x": one.point / divisor,
            "low": one.low / divisor,
            "high": one.high / divisor,
            "text": format_estimate(one, declared.unit),
        }
        for driver, one in known.items()
    ]
    scale = alt.Scale(type="log", nice=False, padding=16)
    base = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y("driver:N", sort=driver_names(summary), title=None),
        color=colour(summary, values, has_legend=False),
        tooltip=[alt.Tooltip("driver:N"), alt.Tooltip("text:N", title=metric)],
    )
    ticks = log_ticks(value[end] for value in values for end in ("low", "high"))
    x = alt.X(
        "x:Q",
        scale=scale,
        title=f"{label} (logarithmic)",
        axis=alt.Axis(values=ticks, format="~g"),
    )
    chart = alt.layer(
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale, title=""), x2="high:Q"),
        base.mark_point(filled=True, size=60).encode(
            x=x, shape=shape(summary, values, has_legend=False)
        ),
    )
    title = metric.removesuffix("_ns").removesuffix("_bytes_per_s").replace("_", " ")
    better = "More is better." if declared.direction is Direction.HIGHER else "Less is better."
    return Figure(
        name=f"inside-{metric.replace('_', '-')}",
        bench="inside",
        title=title.capitalize(),
        caption=f"{declared.meaning}: {what} with its interval. {better}",
        spec=finish(chart, height=20 * len(values) + 12),
    )
