"""Figures of load on many servers, and of many clients on one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from seatrial.model.estimate import Estimate
from seatrial.model.plan import Point
from seatrial.model.summary import Statistic
from seatrial.report.parts import (
    NS_PER_MS,
    Figure,
    Values,
    colour,
    finish,
    highlight,
    legend,
    log_ticks,
    shape,
)
from seatrial.report.view import format_estimate, point_title

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seatrial.model.summary import Cell, RunSummary

#: Few trials give wide intervals, which would leave nothing to see of the points.
FRAME_FACTOR = 1.7
LATENCY = {Statistic.P50: "p50", Statistic.P99: "p99"}
CALLS = {Statistic.MEAN: "calls"}


def fleet_curves(summary: RunSummary) -> list[Figure]:
    """Latency against load, a figure for each way of having so many servers."""
    wanted = _cells(summary, "fleet", "response_time_ns", LATENCY)
    return [
        _latency(summary, where, cells, name=f"fleet-latency-{number}")
        for number, (where, cells) in enumerate(_groups(wanted, axis="rate_rps").items(), start=1)
        if len({cell.point.key for cell in cells}) > 1
    ]


def rpc_rates(summary: RunSummary) -> list[Figure]:
    """Calls a second against the number of clients, a figure for each mode and thread count."""
    wanted = _cells(summary, "rpc", "rpc_rps", CALLS)
    return [
        _calls(summary, where, cells, name=f"rpc-calls-{number}")
        for number, (where, cells) in enumerate(_groups(wanted, axis="clients").items(), start=1)
        if len({cell.point.key for cell in cells}) > 1
    ]


def _cells(
    summary: RunSummary, bench: str, metric: str, statistics: Iterable[Statistic]
) -> list[Cell]:
    chosen = set(statistics)
    return [
        cell
        for cell in summary.cells
        if (cell.bench, cell.metric) == (bench, metric)
        and cell.statistic in chosen
        and isinstance(cell.estimate, Estimate)
    ]


def _groups(cells: Iterable[Cell], *, axis: str) -> dict[str, list[Cell]]:
    """Cells that differ in one axis, the driver and the statistic only."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        held = {name: value for name, value in cell.point.values.items() if name != axis}
        groups.setdefault(point_title(Point(bench=cell.bench, values=held)), []).append(cell)
    return groups


def _marks(
    cells: Iterable[Cell], *, axis: str, names: dict[Statistic, str], divisor: float
) -> Values:
    return [
        {
            "driver": cell.driver,
            "what": names[cell.statistic],
            "x": float(cell.point.values[axis]),
            "y": cell.estimate.point / divisor,
            "low": cell.estimate.low / divisor,
            "high": cell.estimate.high / divisor,
            "text": format_estimate(cell.estimate, cell.estimate.unit),
        }
        for cell in cells
        if isinstance(cell.estimate, Estimate)
    ]


def _latency(summary: RunSummary, where: str, cells: list[Cell], *, name: str) -> Figure:
    values = _marks(cells, axis="rate_rps", names=LATENCY, divisor=NS_PER_MS)
    steps = sorted({float(value["x"]) for value in values if isinstance(value["x"], float)})
    ends = _frame(values)
    scale = alt.Scale(type="log", nice=False, domain=ends, clamp=True)
    base = _base(summary, values, title="offered by load agents, 1/s", steps=steps)
    y = alt.Y(
        "y:Q",
        title="ms (logarithmic)",
        scale=scale,
        axis=alt.Axis(values=log_ticks(ends), format="~g"),
    )
    dashes = alt.StrokeDash(
        "what:N",
        scale=alt.Scale(domain=list(LATENCY.values()), range=[[1, 0], [5, 3]]),
        # Below, since the drivers' own legend takes the width above.
        legend=alt.Legend(title=None, orient="bottom"),
    )
    chart = alt.layer(
        base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dashes),
        base.mark_rule(strokeWidth=1).encode(y=alt.Y("low:Q", scale=scale, title=""), y2="high:Q"),
        base.mark_point(filled=True, size=50)
        .encode(y=y, shape=shape(summary, values))
        .add_params(legend()),
    )
    return Figure(
        name=name,
        bench="fleet",
        title=f"Latency against load, {where}",
        caption="Response time that the latency agents saw, median and 99th percentile (dashed), "
        "with intervals, which may go on beyond the frame; both axes are logarithmic. Where a line "
        "turns up the servers are full.",
        spec=finish(chart, height=280),
    )


def _calls(summary: RunSummary, where: str, cells: list[Cell], *, name: str) -> Figure:
    values = _marks(cells, axis="clients", names=CALLS, divisor=1)
    steps = sorted({float(value["x"]) for value in values if isinstance(value["x"], float)})
    base = _base(summary, values, title="clients", steps=steps)
    scale = alt.Scale(nice=False, domain=[0, _frame(values)[1]], clamp=True)
    y = alt.Y("y:Q", title="1/s", scale=scale)
    chart = alt.layer(
        base.mark_line(strokeWidth=2).encode(y=y),
        base.mark_rule(strokeWidth=1).encode(y=alt.Y("low:Q", scale=scale, title=""), y2="high:Q"),
        base.mark_point(filled=True, size=50)
        .encode(y=y, shape=shape(summary, values))
        .add_params(legend()),
    )
    return Figure(
        name=name,
        bench="rpc",
        title=f"Calls a second, {where}",
        caption="Correct replies a second of all clients together, with intervals, which may go on "
        "beyond the frame. A line that "
        "stays flat says that the server, or the machine, was full before.",
        spec=finish(chart, height=280),
    )


def _frame(values: Values) -> list[float]:
    """Ends of an axis: all points with room around them, whatever their intervals do."""
    points = [value["y"] for value in values if isinstance(value["y"], float)]
    return [min(points) / FRAME_FACTOR, max(points) * FRAME_FACTOR]


def _base(summary: RunSummary, values: Values, *, title: str, steps: list[float]) -> alt.Chart:
    chart: alt.Chart = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X(
            "x:Q",
            title=title,
            scale=alt.Scale(type="log", nice=False, padding=14),
            axis=alt.Axis(values=steps, format="~s", grid=False),
        ),
        color=colour(summary, values),
        opacity=highlight(),
        tooltip=[
            alt.Tooltip("driver:N"),
            alt.Tooltip("x:Q", title=title),
            alt.Tooltip("what:N", title="number"),
            alt.Tooltip("text:N", title="value"),
        ],
    )
    return chart
