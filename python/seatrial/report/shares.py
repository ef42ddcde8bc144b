"""Figures of what a start is made of: the phases on its way, and whose CPU time it takes.

Runtimes differ a hundredfold, so each bar is its own whole and the whole stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import altair as alt

from seatrial.model.summary import FLOOR, Statistic
from seatrial.report.palette import STEPS
from seatrial.report.parts import Figure, Values, finish
from seatrial.report.runtimes import emulated_note
from seatrial.report.view import format_number, point_title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.model.plan import Point
    from seatrial.model.summary import RunSummary

START: Final = "start"
BAR_HEIGHT: Final = 24
TICKS: Final = ("start_cpu_user_ns", "start_cpu_system_ns")
STATISTICS: Final = {Statistic.P50: "medians", Statistic.MEAN: "means"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A whole and its parts, by the metrics that say them."""

    name: str
    title: str
    caption: str
    parts: Mapping[str, str]
    """{metric: what its part is called}, in the order of the legend."""
    statistics: tuple[Statistic, ...]
    is_cumulative: bool
    """Whether each metric is an instant since the begin, and a part what lies between two."""


PHASES: Final = Parts(
    name="phases",
    title="Where the time of a start goes",
    caption="From the release to the first answer to a ping; each part ends with what it is "
    "called. Parts lie between {statistic} of instants, in the order in which they come.",
    parts={
        "start_launch_lag_ns": "launcher",
        "start_created_ns": "command executed",
        "start_pod_ns": "pod",
        "start_container_created_ns": "container created",
        "start_first_instruction_ns": "first instruction",
        "start_first_byte_ns": "first byte",
        "start_container_started_ns": "container started",
        "start_ready_ns": "ready",
        "start_first_reply_ns": "first reply",
    },
    statistics=(Statistic.P50, Statistic.MEAN),
    is_cumulative=True,
)
CPU: Final = Parts(
    name="cpu-parts",
    title="Whose CPU time a start takes",
    caption="Means for one start. The sandbox's own books hold its runtime, split as the kernel's "
    "ticks split them; daemon and tool are beside it.",
    parts={
        "start_cpu_ns": "not split",
        "start_cpu_user_ns": "user",
        "start_cpu_system_ns": "system",
        "start_daemon_cpu_ns": "daemon",
        "start_tool_cpu_ns": "Seatrial",
    },
    statistics=(Statistic.MEAN, Statistic.P50),
    is_cumulative=False,
)


def share_figures(summary: RunSummary) -> list[Figure]:
    """Phases and CPU time at the fewest and the most starts at once, beside the fewest others."""
    points = [point for bench in summary.benches if bench.name == START for point in bench.points]
    if not points:
        return []
    alone = [point for point in points if _background(point) == min(map(_background, points))]
    ends = [min(alone, key=_concurrency), max(alone, key=_concurrency)]
    chosen = list({point.key: point for point in ends}.values())
    figures = [
        _figure(summary, parts, point, name=f"{START}-{parts.name}-{number}")
        for parts in (PHASES, CPU)
        for number, point in enumerate(chosen, start=1)
    ]
    return [figure for figure in figures if figure is not None]


def _background(point: Point) -> float:
    return float(point.values.get("background", 0))


def _concurrency(point: Point) -> float:
    return float(point.values.get("concurrency", 0))


def _figure(summary: RunSummary, parts: Parts, point: Point, *, name: str) -> Figure | None:
    known = _known(summary, parts, point)
    if known is None:
        return None
    statistic, found = known
    values = [value for driver, own in found.items() for value in _segments(parts, driver, own)]
    words = [word for word in parts.parts.values() if any(one["part"] == word for one in values)]
    drivers = list(found)
    colours = [STEPS[n * (len(STEPS) - 1) // max(len(words) - 1, 1)] for n in range(len(words))]
    y = alt.Y("driver:N", sort=drivers, title=None, axis=alt.Axis(ticks=False, labelLimit=140))
    bars = (
        alt.Chart(alt.InlineData(values=values))
        .mark_bar(height=BAR_HEIGHT - 8)
        .encode(
            y=y,
            x=alt.X(
                "from:Q",
                title="share",
                scale=alt.Scale(domain=[0, 1.3], nice=False),
                axis=alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1]),
            ),
            x2="to:Q",
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=words, range=colours),
                legend=alt.Legend(title=None, orient="top"),
            ),
            tooltip=[alt.Tooltip("driver:N"), alt.Tooltip("part:N"), alt.Tooltip("text:N")],
        )
    )
    wholes: Values = [
        {"driver": driver, "whole": format_number(_whole(parts, own), "ns")}
        for driver, own in found.items()
    ]
    labels = (
        alt.Chart(alt.InlineData(values=wholes))
        .mark_text(align="left", dx=5, fontSize=12)
        .encode(y=y, x=alt.datum(1), text="whole:N")
    )
    caption = f"{parts.caption.format(statistic=STATISTICS[statistic])} {emulated_note(summary)}"
    return Figure(
        name=name,
        bench=START,
        title=f"{parts.title}, {point_title(point)}",
        caption=caption.strip(),
        spec=finish(alt.layer(bars, labels), height=BAR_HEIGHT * len(drivers) + 10),
    )


def _known(
    summary: RunSummary, parts: Parts, point: Point
) -> tuple[Statistic, dict[str, dict[str, float]]] | None:
    """The numbers by driver and metric, in the statistic that most of them have."""
    best: tuple[Statistic, dict[str, dict[str, float]]] | None = None
    for statistic in parts.statistics:
        found: dict[str, dict[str, float]] = {}
        for cell in summary.cells:
            is_wanted = cell.metric in parts.parts and cell.statistic is statistic
            is_wanted &= cell.point.key == point.key and cell.driver != FLOOR
            if is_wanted and cell.estimate.point is not None:
                found.setdefault(cell.driver, {})[cell.metric] = cell.estimate.point
        whole = {driver: _split(own) for driver, own in found.items() if len(own) > 1}
        if whole and (best is None or len(whole) > len(best[1])):
            best = statistic, whole
    return best


def _split(own: Mapping[str, float]) -> dict[str, float]:
    """Exact CPU time by the shares of the ticks, where these saw anything; else in one piece."""
    exact = own.get("start_cpu_ns")
    ticks = {name: own[name] for name in TICKS if name in own}
    total = sum(ticks.values())
    if exact is None:
        return dict(own)
    rest = {name: value for name, value in own.items() if name not in {*TICKS, "start_cpu_ns"}}
    if total <= 0:
        return {"start_cpu_ns": exact, **rest}
    return {**{name: exact * value / total for name, value in ticks.items()}, **rest}


def _whole(parts: Parts, own: Mapping[str, float]) -> float:
    return max(own.values()) if parts.is_cumulative else sum(max(one, 0) for one in own.values())


def _segments(parts: Parts, driver: str, own: Mapping[str, float]) -> Values:
    """Parts as shares of the whole, one after the other; less than nothing is nothing."""
    whole = _whole(parts, own) or 1
    ordered: Sequence[str] = (
        sorted(own, key=lambda metric: own[metric])
        if parts.is_cumulative
        else [metric for metric in parts.parts if metric in own]
    )
    values: Values = []
    begin = 0.0
    for metric in ordered:
        end = own[metric] if parts.is_cumulative else begin + max(own[metric], 0)
        values.append(
            {
                "driver": driver,
                "part": parts.parts[metric],
                "from": begin / whole,
                "to": end / whole,
                "text": format_number(end - begin, "ns"),
            }
        )
        begin = end
    return values
