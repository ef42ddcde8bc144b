"""Figures of loads over time: a late start, a stall or a drift is seen before it is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from seatrial.report.parts import (
    NS_PER_MS,
    Figure,
    Values,
    colour,
    finish,
    highlight,
    legend,
    log_ticks,
)
from seatrial.report.view import point_title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.model.summary import Course, RunSummary

NS_PER_S = 1_000_000_000
HEIGHT = 170


def load_courses(summary: RunSummary) -> list[Figure]:
    """Rate and p99 over time, a figure each for every point; every trial is a line."""
    groups: dict[str, list[Course]] = {}
    for course in summary.courses:
        groups.setdefault(course.point.key, []).append(course)
    figures: list[Figure] = []
    for number, group in enumerate(groups.values(), start=1):
        where, values = point_title(group[0].point), _values(group)
        figures.append(
            Figure(
                name=f"load-course-rate-{number}",
                bench=group[0].bench,
                title=f"Rate over time, {where}",
                caption="Correct replies a second in each interval of the measure phase; every "
                "trial is a line.",
                spec=_lines(summary, values, field="rate", title="1/s", is_log=False),
            )
        )
        known = [value for value in values if value["p99"] is not None]
        if known:
            figures.append(
                Figure(
                    name=f"load-course-p99-{number}",
                    bench=group[0].bench,
                    title=f"p99 over time, {where}",
                    caption="99th percentile of the times of the replies that came in each "
                    "interval, from due to done; of fewer than a hundred it is the largest. A line "
                    "that climbs or jumps has no one percentile.",
                    spec=_lines(summary, known, field="p99", title="ms (logarithmic)", is_log=True),
                )
            )
    return figures


def _values(group: Sequence[Course]) -> Values:
    return [
        {
            "driver": course.driver,
            "trial": course.trial_id,
            "x": point.since_start_ns / NS_PER_S,
            "rate": point.replies_rps,
            "p99": None if point.response_ns_p99 is None else point.response_ns_p99 / NS_PER_MS,
        }
        for course in group
        for point in course.points
    ]


def _lines(
    summary: RunSummary, values: Values, *, field: str, title: str, is_log: bool
) -> dict[str, object]:
    scale, axis = alt.Scale(zero=True), alt.Axis(format="~s")
    if is_log:
        scale = alt.Scale(type="log", nice=False, padding=8)
        axis = alt.Axis(values=log_ticks(value[field] for value in values), format="~g")
    chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(strokeWidth=1)
        .encode(
            x=alt.X("x:Q", title="s from the begin of the measure phase"),
            y=alt.Y(f"{field}:Q", title=title, scale=scale, axis=axis),
            detail="trial:N",
            color=colour(summary, values),
            opacity=highlight(),
            tooltip=[
                alt.Tooltip("driver:N"),
                alt.Tooltip("trial:N"),
                alt.Tooltip("x:Q", title="s", format=".3~g"),
                alt.Tooltip(f"{field}:Q", title=title, format=".3~g"),
            ],
        )
        .add_params(legend())
    )
    return finish(chart, height=HEIGHT)
